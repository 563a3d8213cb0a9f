//! Memory that a running host gets beyond what it was saved with: guests of some size fit into hosts of one saved state.

use crate::host::Host;
use crate::machine::Machine;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::fs;
use std::time::Duration;

/// Of each host, as it is saved.
pub const HOST_MIB: u32 = 2048;
/// QEMU's limit for all of a host's memory.
pub(crate) const LIMIT_MIB: u32 = 16 * 1024;
/// What Linux takes of x86 memory at a time.
const BLOCK_MIB: u32 = 128;
/// Of this machine, beside what both hosts have.
const SPARE_MIB: u64 = 3 * 1024;

/// Zone `normal`, not `movable`: what is pinned for a VF would first be moved out of that.
const ONLINE: &str = "echo online_kernel >/sys/devices/system/memory/auto_online_blocks";

impl Host {
    /// Gives it so much more, once, until its end. In MiB, rounded up to what Linux takes at a time.
    ///
    /// # Errors
    /// This machine has not enough for both hosts, or QEMU or the host does not take it.
    pub fn add_memory(&self, mib: u32) -> Result<()> {
        let mib = mib.next_multiple_of(BLOCK_MIB);
        ensure!(
            HOST_MIB + mib <= LIMIT_MIB,
            "a host has at most {LIMIT_MIB} MiB, not {}",
            HOST_MIB + mib
        );
        let wanted = 2 * u64::from(HOST_MIB + mib) + SPARE_MIB;
        let here = of_this_machine()?;
        ensure!(
            wanted <= here,
            "two hosts with {} MiB each want {wanted} MiB of this machine, which has {here}",
            HOST_MIB + mib
        );
        let before = self.memory_mib()?;
        self.ok(ONLINE)?;
        let mut qmp = self.qmp()?;
        let size = u64::from(mib) << 20;
        qmp.execute(
            "object-add",
            json!({ "qom-type": "memory-backend-ram", "id": "more", "size": size }),
        )?;
        qmp.execute(
            "device_add",
            json!({ "driver": "pc-dimm", "id": "dimm", "memdev": "more" }),
        )?;
        // The kernel's own tables of it are in what it had.
        let least = before + u64::from(mib);
        crate::process::until(
            &format!("{mib} MiB more of {}", self.name()),
            Duration::from_secs(60),
            || Ok((self.memory_mib()? >= least).then_some(())),
        )
    }

    fn memory_mib(&self) -> Result<u64> {
        total_mib(&self.read_file("/proc/meminfo")?)
    }
}

/// What the machine has on which the hosts are emulated, in MiB.
///
/// # Errors
/// The kernel does not tell.
pub fn of_this_machine() -> Result<u64> {
    total_mib(&fs::read_to_string("/proc/meminfo")?)
}

fn total_mib(meminfo: &str) -> Result<u64> {
    let kib = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let kib: u64 = kib.context("/proc/meminfo without MemTotal")?.trim().parse()?;
    Ok(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::total_mib;

    #[test]
    fn memory_is_read_as_the_kernel_tells_it() {
        let read = total_mib("MemTotal:        2018428 kB\nMemFree:         1660000 kB\n");
        assert_eq!(read.expect("a figure"), 1971);
        assert!(total_mib("MemFree: 1 kB\n").is_err());
    }
}
