//! Which of a guest's NICs works, by its interrupts.

use crate::{Guest, Host};
use anyhow::Result;

/// Interrupts since the guest's start, or between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupts {
    /// Of the VF's queues.
    pub primary: u64,
    /// Of the virtio NIC's queues.
    pub standby: u64,
}

impl Interrupts {
    /// Reads the guest's counters.
    ///
    /// # Errors
    /// The guest does not answer.
    pub fn of(guest: &Guest, host: &Host) -> Result<Self> {
        Ok(Self::parse(&guest.ok(host, "cat /proc/interrupts")?))
    }

    /// igbvf calls its interrupts `<nic>-rx-0` and `<nic>-tx-0`, virtio-net's are `virtio<n>-input.0` and `-output.0`.
    fn parse(text: &str) -> Self {
        let sum = |names: [&str; 2]| {
            let lines = text.lines().filter(|line| {
                let name = line.split_whitespace().next_back().unwrap_or_default();
                names.iter().any(|part| name.contains(part))
            });
            // Columns of the CPUs, up to the name of the interrupt controller.
            let counts = lines.flat_map(|line| {
                line.split_whitespace()
                    .skip(1)
                    .map_while(|word| word.parse::<u64>().ok())
            });
            counts.sum()
        };
        Self {
            primary: sum(["-rx-", "-tx-"]),
            standby: sum(["-input.", "-output."]),
        }
    }

    /// What was added since an earlier moment. A VF that was plugged since begins at nothing.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            primary: self.primary.saturating_sub(before.primary),
            standby: self.standby.saturating_sub(before.standby),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queues_of_each_nic_are_summed_over_all_cpus() {
        let text = "           CPU0       CPU1\n  1:          9          0   IO-APIC   1-edge      i8042\n \
                    25:        700          3   PCI-MSIX-0000:01:00.0   0-edge      virtio1-input.0\n \
                    26:         20          0   PCI-MSIX-0000:01:00.0   1-edge      virtio1-output.0\n \
                    30:        400          1   PCI-MSIX-0000:02:00.0   0-edge      eth1-tx-0\n \
                    31:        500          0   PCI-MSIX-0000:02:00.0   1-edge      eth1-rx-0\n";
        let seen = Interrupts::parse(text);
        assert_eq!((seen.primary, seen.standby), (901, 723));
    }
}
