//! The ways to migrate a guest whose traffic goes over a VF, and the one without a VF, each as its users go it.

use super::{Parts, now_ms};
use anyhow::{Context, Result, bail, ensure};
use hybond_lab::probe::Span;
use hybond_lab::scenario::{HybridGuest, MIGRATE, switches, timeline};
use hybond_lab::{Domain, Host, Machine};
use std::time::{Duration, Instant};

const BOOT: Duration = Duration::from_secs(400);
const MIGRATION: Duration = Duration::from_secs(400);
/// From a guest that runs to one whose traffic goes over its VF.
const SETTLE: Duration = Duration::from_secs(180);
/// In MiB, as QEMU gets it where the domain's XML says nothing of it.
pub const MEMORY: u32 = 512;
/// What a host needs beyond its own, in MiB: one guest of each way is there.
pub const MORE: u32 = MEMORY * Way::ALL.len() as u32;
/// libvirt's network of the VFs of each host's second PF, for the ways that leave the VF to libvirt. hybond has the first.
const NETWORK: &str = "bench-vfs";
/// Two NICs of the domain have one address: the script tells them apart by this name.
const ALIAS: &str = "ua-bench-vf";
/// The VF's device, as `virsh attach-device` and `detach-device` take it.
const DEVICE: &str = "/root/bench-vf.xml";

/// A way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// No VF at all: the floor.
    Virtio,
    /// hybond.
    Hybond,
    /// libvirt's `<teaming>`: QEMU's failover, and net_failover in the guest.
    Teaming,
    /// `virsh detach-device`, `virsh migrate`, `virsh attach-device`, and a bond with miimon in the guest.
    Script,
}

/// What a way says of one migration that cannot be seen from outside.
#[derive(Debug, Default)]
pub struct Told {
    /// From the beginning until the guest has let go of its VF.
    pub drain: Option<Duration>,
    /// The failover and the failback, where there are any.
    pub switches: Option<[Span; 2]>,
    /// Of the script: when it began to detach the VF, when that had left, and when it began to attach one.
    script: Option<[f64; 3]>,
}

impl Way {
    /// All, the floor first.
    pub const ALL: [Self; 4] = [Self::Virtio, Self::Hybond, Self::Teaming, Self::Script];

    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Virtio => "virtio only",
            Self::Hybond => "hybond",
            Self::Teaming => "libvirt teaming",
            Self::Script => "script, miimon 100",
        }
    }

    /// Name of its guest's domain.
    #[must_use]
    pub fn domain(self) -> &'static str {
        match self {
            Self::Virtio => "bench-virtio",
            Self::Hybond => "bench-hybond",
            Self::Teaming => "bench-teaming",
            Self::Script => "bench-script",
        }
    }

    /// A guest that is migrated in this way, for a host that it starts on.
    #[must_use]
    pub fn guest(self, host: &Host) -> HybridGuest {
        let number = match self {
            Self::Virtio => 1,
            Self::Hybond => 2,
            Self::Teaming => 3,
            Self::Script => 4,
        };
        let mut guest = HybridGuest::new(self.domain(), host);
        guest.domain = guest.domain.numbered(number);
        guest.domain.memory = MEMORY;
        guest.domain.huge_pages = false;
        self.on(host, &mut guest.domain);
        guest
    }

    /// Puts its virtio NIC on the PF whose VF it gets there.
    fn on(self, host: &Host, domain: &mut Domain) {
        let pf = match self {
            Self::Virtio | Self::Hybond => host.pfs().first(),
            Self::Teaming | Self::Script => host.pfs().get(1),
        };
        for (_, nic) in &mut domain.nics {
            *nic = pf.cloned().unwrap_or_default();
        }
    }

    /// Whether there is a VF to come back to.
    #[must_use]
    pub fn has_vf(self) -> bool {
        self != Self::Virtio
    }

    /// Starts the guest, and waits until its traffic goes over its VF, if it is to have one.
    ///
    /// # Errors
    /// libvirt refuses, or it takes too long.
    pub fn start(self, guest: &HybridGuest, host: &Host, hosts: &[Host]) -> Result<()> {
        guest.guest.forget_console(host)?;
        if self == Self::Hybond {
            guest.start(host)?;
            return Ok(());
        }
        let file = xml_file(guest);
        host.write_file(&file, self.xml(guest, host).as_bytes(), "644")?;
        host.ok(&format!("virsh define {file} && virsh start {}", guest.name()))?;
        guest.guest.wait_ready(host, BOOT)?;
        if self == Self::Script {
            let device = device(guest, &format!("<alias name='{ALIAS}'/>"));
            // On either host, as the script attaches it at the destination.
            for host in hosts {
                host.write_file(DEVICE, device.as_bytes(), "644")?;
            }
            guest.guest.ok(host, &bond(guest))?;
            host.ok(&attach(guest))?;
        }
        self.wait_active(guest, host)
    }

    /// Has it stand still between its goes: another way's guest is measured.
    ///
    /// # Errors
    /// libvirt refuses.
    pub fn rest(self, guest: &HybridGuest, host: &Host) -> Result<()> {
        host.ok(&format!("virsh suspend {}", guest.name()))?;
        Ok(())
    }

    /// Has it go on, and waits until its traffic goes over its VF.
    ///
    /// # Errors
    /// libvirt refuses, or it takes too long.
    pub fn wake(self, guest: &HybridGuest, host: &Host) -> Result<()> {
        host.ok(&format!("virsh resume {}", guest.name()))?;
        if self == Self::Hybond {
            guest.wait_primary(host)?;
        }
        self.wait_active(guest, host)
    }

    /// Waits until the guest's traffic goes over its VF; at once where it is to have none.
    ///
    /// # Errors
    /// It takes too long.
    pub fn wait_active(self, guest: &HybridGuest, host: &Host) -> Result<()> {
        // Asked of the guest itself, which looks every 20 ms: the same for all.
        let active = match self {
            Self::Virtio => return Ok(()),
            Self::Hybond => "cat /sys/class/net/*/bonding/active_slave 2>/dev/null | grep -qv -e nsby -e '^$'".to_owned(),
            // net_failover sends by its primary for as long as that is up and has carrier.
            Self::Teaming => "for n in /sys/class/net/*; do [ -e $n/master ] || continue; \
                case $(readlink $n/device/driver) in *igbvf) [ \"$(cat $n/carrier 2>/dev/null)\" = 1 ] && exit 0;; esac; done; exit 1"
                .to_owned(),
            Self::Script => "grep -qv -e '^eth0$' -e '^$' /sys/class/net/bond0/bonding/active_slave".to_owned(),
        };
        // The guest's shell ends a command after a minute.
        let wait = format!("i=0; until ( {active} ); do i=$((i+1)); [ $i -lt 1000 ] || exit 1; sleep 0.02; done");
        let begun = Instant::now();
        while begun.elapsed() < SETTLE {
            if guest.guest.run_within(host, &format!("( {wait} )"), SETTLE)?.success() {
                return Ok(());
            }
        }
        bail!("{}: the VF of {} carries nothing", self.name(), guest.name())
    }

    /// Migrates it.
    ///
    /// # Errors
    /// A command fails.
    pub fn migrate(self, guest: &HybridGuest, from: &Host, to: &Host) -> Result<Told> {
        let mut told = Told::default();
        let begun = now_ms()?;
        let mut gone = begun;
        if self == Self::Hybond {
            let output = guest.migrate(from, to)?;
            ensure!(output.success(), "{}: {}", guest.migrate, output.stderr.trim());
            return Ok(told);
        }
        if self == Self::Script {
            // It returns before the guest has let go.
            from.ok(&format!("virsh detach-device {} {DEVICE} --live", guest.name()))?;
            let has_left = format!(
                "xml=$(virsh dumpxml {}) && ! echo \"$xml\" | grep -q {ALIAS}",
                guest.name()
            );
            from.until("the VF's leave", &has_left, SETTLE)?;
            gone = now_ms()?;
            told.drain = Some(Duration::from_secs_f64((gone - begun).max(0.0) / 1e3));
        }
        // The PF has another name there, and nobody but the one who migrates to say so.
        let there = xml_file(guest);
        from.write_file(&there, self.xml(guest, to).as_bytes(), "644")?;
        let command = format!(
            "{MIGRATE} {} qemu+tls://{}/system --xml {there}",
            guest.name(),
            to.name()
        );
        let output = from.run_within(&command, MIGRATION)?;
        ensure!(output.success(), "{command}: {}", output.stderr.trim());
        if self == Self::Script {
            told.script = Some([begun, gone, now_ms()?]);
            to.ok(&attach(guest))?;
        }
        Ok(told)
    }

    /// What is known after the migration only.
    ///
    /// # Errors
    /// hybondd does not tell.
    pub fn told(self, guest: &HybridGuest, from: &Host, to: &Host, told: Told, parts: &Parts) -> Result<Told> {
        if self == Self::Hybond {
            return Self::told_by_hybondd(guest, from, to);
        }
        let switches = self.seen(told.script, parts);
        Ok(Told { switches, ..told })
    }

    /// The failover and the failback of a way that has no timeline.
    fn seen(self, script: Option<[f64; 3]>, parts: &Parts) -> Option<[Span; 2]> {
        let ([from, until], [from_back, until_back]) = match (self, script) {
            (Self::Script, Some([begun, gone, attached])) => ([begun, gone], [attached, parts.active]),
            // Nobody tells it closer.
            (Self::Teaming, _) => ([parts.begun, parts.stopped], [parts.resumed, parts.active]),
            _ => return None,
        };
        Some([
            Span::new("failover", from, until),
            Span::new("failback", from_back, until_back),
        ])
    }

    fn told_by_hybondd(guest: &HybridGuest, from: &Host, to: &Host) -> Result<Told> {
        let timeline = timeline(from, to, &guest.domain.uuid)?;
        let phase = |name: &str| timeline.source.phases.iter().find(|phase| phase.name == name);
        let drain = phase("failover").zip(phase("unplug").and_then(|phase| phase.end_ms));
        let drain = drain.map(|(failover, end)| Duration::from_secs_f64((end - failover.start_ms).max(0.0) / 1e3));
        Ok(Told {
            drain,
            switches: Some(switches(&timeline)?),
            script: None,
        })
    }

    /// The domain for a host.
    fn xml(self, guest: &HybridGuest, host: &Host) -> String {
        let mut domain = guest.domain.clone();
        domain.kernel_arguments += match self {
            Self::Virtio => " lab.virtio-only",
            _ => " lab.noagent",
        };
        self.on(host, &mut domain);
        let xml = domain.xml();
        if self != Self::Teaming {
            return xml;
        }
        // One of two: what QEMU's failover keeps from the guest until it knows of the standby.
        let standby = "<model type='virtio'/>\n      <teaming type='persistent'/>\n      <alias name='ua-standby'/>";
        let xml = xml.replacen("<model type='virtio'/>", standby, 1);
        let vf = device(guest, "<teaming type='transient' persistent='ua-standby'/>");
        xml.replacen("</interface>", &format!("</interface>\n{vf}"), 1)
    }
}

/// Counted up with each change of [`prepare`]: hosts at which it has been are saved.
pub const PREPARED: u32 = 3;

/// Makes on a host what the ways need: each side has a PF of its own, as neither libvirt nor hybond knows which VFs the other has
/// given away.
///
/// # Errors
/// libvirt refuses, hybondd does not come up, or the host has not that much memory.
pub fn prepare(host: &Host) -> Result<()> {
    let (first, second) = (host.pfs().first(), host.pfs().get(1));
    let (first, second) = (first.context("no PF")?, second.context("no second PF")?);
    let network = format!(
        "<network><name>{NETWORK}</name><forward mode='hostdev' managed='yes'><pf dev='{second}'/></forward></network>"
    );
    host.write_file("/root/bench-vfs.xml", network.as_bytes(), "644")?;
    host.ok(&format!(
        "virsh net-define /root/bench-vfs.xml && virsh net-start {NETWORK} && virsh net-autostart {NETWORK}"
    ))?;
    host.ok(&format!(
        "sed -i 's/^pf = .*/pf = [\"{first}\"]/' /etc/hybond/hybond.toml && grep -q '\"{first}\"' /etc/hybond/hybond.toml && \
         systemctl restart hybondd"
    ))?;
    host.until("hybondd", "hybondctl host", Duration::from_secs(60))?;
    // Those that the host has set apart are of no use to these guests.
    set_huge_pages(host, 0)
}

/// Sets so many huge pages of a host's memory apart.
///
/// # Errors
/// There is not as much in one piece.
pub fn set_huge_pages(host: &Host, pages: u32) -> Result<()> {
    host.ok(&format!(
        "n=/proc/sys/vm/nr_hugepages; echo 3 >/proc/sys/vm/drop_caches; echo 1 >/proc/sys/vm/compact_memory; \
         echo {pages} >$n; read -r got <$n; [ $got -ge {pages} ] || {{ echo \"$got huge pages\" >&2; exit 1; }}"
    ))?;
    Ok(())
}

fn xml_file(guest: &HybridGuest) -> String {
    format!("/root/{}-bench.xml", guest.name())
}

fn mac(guest: &HybridGuest) -> &str {
    guest.domain.nics.first().map_or("", |(mac, _)| mac.as_str())
}

fn device(guest: &HybridGuest, teaming: &str) -> String {
    format!(
        "<interface type='network'><mac address='{}'/><source network='{NETWORK}'/>{teaming}</interface>",
        mac(guest)
    )
}

fn attach(guest: &HybridGuest) -> String {
    format!("virsh attach-device {} {DEVICE} --live", guest.name())
}

/// The bond that people make, on one line of shell: the virtio NIC first, and whatever NIC of the same address comes later, as
/// udev's rule would put it there.
fn bond(guest: &HybridGuest) -> String {
    let words = guest.domain.kernel_arguments.split_whitespace();
    let addresses: String = words
        .filter_map(|word| word.strip_prefix("lab.ip=").or_else(|| word.strip_prefix("lab.ip6=")))
        .map(|address| format!("ip addr add {address} dev bond0; "))
        .collect();
    let b = "/sys/class/net/bond0/bonding";
    format!(
        "set -e; echo +bond0 >/sys/class/net/bonding_masters; echo active-backup >{b}/mode; echo 100 >{b}/miimon; \
         ip addr flush dev eth0; ip link set eth0 down; echo +eth0 >{b}/slaves; ip link set bond0 up; {addresses}set +e; \
         (while :; do for n in /sys/class/net/*; do d=${{n##*/}}; [ -e $n/master ] || [ ! -e $n/device ] || \
         [ \"$(cat $n/address)\" != {mac} ] || {{ ip link set $d down; echo +$d >{b}/slaves; echo $d >{b}/primary; }}; done; \
         sleep 0.1; done) >/dev/null 2>&1 </dev/null &",
        mac = mac(guest)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_the_guest_are_one_line_and_the_bond_gets_the_guests_addresses() {
        let guest = HybridGuest {
            domain: Domain::new("bench", "pf0"),
            guest: hybond_lab::Guest::new("bench"),
            migrate: MIGRATE,
        };
        let line = bond(&guest);
        assert!(
            !line.contains('\n') && line.contains("ip addr add 10.88.0.50/24 dev bond0; "),
            "{line}"
        );
        assert!(line.contains("!= 52:54:00:aa:00:01"), "{line}");
    }

    #[test]
    fn switches_without_a_timeline_are_between_what_was_seen_of_them() {
        let parts = Parts {
            begun: 0.0,
            stopped: 50.0,
            resumed: 60.0,
            active: 90.0,
            end: 120.0,
        };
        let seen = |way: Way, script| {
            let spans = way.seen(script, &parts)?;
            Some(spans.map(|span| (span.name, span.start_ms, span.end_ms)))
        };
        let (failover, failback) = ("failover".to_owned(), "failback".to_owned());
        assert_eq!(
            seen(Way::Script, Some([1.0, 9.0, 70.0])),
            Some([(failover.clone(), 1.0, 9.0), (failback.clone(), 70.0, 90.0)])
        );
        assert_eq!(
            seen(Way::Teaming, None),
            Some([(failover, 0.0, 50.0), (failback, 60.0, 90.0)])
        );
        assert_eq!(seen(Way::Virtio, None), None);
    }
}
