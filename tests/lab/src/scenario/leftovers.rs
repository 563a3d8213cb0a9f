//! Everything that hybond makes on a host, as the host itself shows it, to hold one moment against another.

use crate::{Host, Machine};
use anyhow::{Context, Result};
use hybond_wire::control::PoolStatus;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// One answer for each kind of thing, with a line that begins with `@` before each.
///
/// A process's open files are looked at by the host, not by hybond: of hybondd, of QEMU, of anything.
const LOOK: &str = r#"
echo @links; ip -j -d link show
echo @filters; bridge fdb show | grep -w permanent || true
echo @drivers
for vf in /sys/bus/pci/devices/*/physfn; do
    vf=${vf%/physfn}
    driver=$(readlink "$vf/driver" || true)
    echo "VF ${vf##*/} has driver ${driver##*/}, driver_override $(cat "$vf/driver_override")"
done
echo @open
find /proc/[0-9]*/fd \( -lname '/dev/vfio/*' -o -lname /dev/iommu -o -lname '/dev/tap*' -o -lname '*bpf-map*' \
    -o -lname '*bpf-prog*' \) -printf '%p %l\n' 2>/dev/null | while read -r path what; do
    pid=${path#/proc/}; pid=${pid%%/*}
    echo "process $(cat "/proc/$pid/comm") has $what open"
done | sort | uniq
echo @files
find /run/hybond/qmp /var/lib/hybond/domains /var/lib/hybond/named /dev/vfio /dev -maxdepth 1 \
    \( -path '/run/hybond/qmp/*' -o -path '/var/lib/hybond/*/*' -o -path '/dev/vfio/[0-9]*' -o -name 'tap[0-9]*' \) 2>/dev/null
echo @limits
for pid in $(pidof hybondd); do
    awk '/^Max locked memory/ {print "hybondd may lock " $4 " bytes of memory"}' "/proc/$pid/limits"
done
echo @pools
hybondctl --json pool
"#;

/// Where a host keeps what it had at one moment.
const KEPT: &str = "/var/lib/lab/inventory";

/// What a host has at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Macvtaps and VLAN sub-interfaces, what the PFs say of their VFs, addresses in their filters, VFs' drivers, open
    /// descriptors, files, limits: a sentence each.
    things: BTreeSet<String>,
    /// Leases.
    leases: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Link {
    ifname: String,
    link: Option<String>,
    linkinfo: Option<LinkInfo>,
    #[serde(default)]
    vfinfo_list: Vec<BTreeMap<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct LinkInfo {
    info_kind: Option<String>,
}

#[derive(Deserialize)]
struct Pools {
    pools: Vec<PoolStatus>,
}

impl Inventory {
    /// Looks.
    ///
    /// # Errors
    /// The host does not answer as it should.
    pub fn of(host: &Host) -> Result<Self> {
        let text = host.ok(LOOK)?;
        Self::parse(&text).with_context(|| format!("what is on {}", host.name()))
    }

    /// Looks, and has the host keep what it has, for [`Inventory::kept`].
    ///
    /// # Errors
    /// The host does not answer as it should.
    pub fn keep(host: &Host) -> Result<Self> {
        let text = host.ok(LOOK)?;
        host.write_file(KEPT, text.as_bytes(), "600")?;
        Self::parse(&text).with_context(|| format!("what is on {}", host.name()))
    }

    /// What the host had then.
    ///
    /// # Errors
    /// It has kept nothing.
    pub fn kept(host: &Host) -> Result<Self> {
        Self::parse(&host.read_file(KEPT)?).with_context(|| format!("what was on {}", host.name()))
    }

    fn parse(text: &str) -> Result<Self> {
        let sections: BTreeMap<&str, &str> = text
            .split("\n@")
            .filter_map(|section| section.trim_start_matches('@').split_once('\n'))
            .collect();
        let section = |name: &str| sections.get(name).copied().unwrap_or_default();
        let mut things = BTreeSet::new();
        let links: Vec<Link> = serde_json::from_str(section("links")).context("ip's answer")?;
        for link in links {
            let kind = link.linkinfo.and_then(|info| info.info_kind);
            let on = link.link.unwrap_or_else(|| "nothing".into());
            if let Some(kind @ ("macvtap" | "macvlan" | "vlan" | "tun")) = kind.as_deref() {
                things.insert(format!("{kind} {} on {on}", link.ifname));
            }
            for vf in link.vfinfo_list {
                let number = vf.get("vf").cloned().unwrap_or_default();
                for (what, value) in vf.iter().filter(|(what, _)| *what != "vf") {
                    things.insert(format!("VF {number} of {}: {what} is {value}", link.ifname));
                }
            }
        }
        // Ours, and not those that the kernel makes with each link.
        let filters = section("filters")
            .lines()
            .filter(|line| is_unicast(line) && line.contains(" self"));
        things.extend(filters.map(|line| format!("filter: {line}")));
        for name in ["drivers", "open", "files", "limits"] {
            things.extend(section(name).lines().map(str::to_owned));
        }
        let pools: Pools = serde_json::from_str(section("pools")).context("hybondctl's answer")?;
        let vfs = pools.pools.into_iter().flat_map(|pool| pool.vfs);
        let leases = vfs.filter_map(|vf| {
            let lease = vf.lease?;
            Some(format!("VF {} is leased to {}, pair {}", vf.vf, lease.name, lease.mac))
        });
        Ok(Self {
            things,
            leases: leases.collect(),
        })
    }

    /// What is there now and was not before, and every lease.
    #[must_use]
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        self.things
            .difference(&before.things)
            .chain(&self.leases)
            .cloned()
            .collect()
    }
}

/// Whether a line of `bridge fdb` begins with a unicast address.
fn is_unicast(line: &str) -> bool {
    let octet = line.get(..2).and_then(|octet| u8::from_str_radix(octet, 16).ok());
    octet.is_some_and(|octet| octet & 1 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &str = r#"@links
[{"ifname":"lo"},{"ifname":"enp1s0","linkinfo":{},"vfinfo_list":[{"vf":0,"address":"00:00:00:00:00:00","trust":false}]}]
@filters
33:33:00:00:00:01 dev enp1s0 self permanent
@drivers
VF 0000:01:10.0 has driver , driver_override (null)
@open
@files
@limits
hybondd may lock 8388608 bytes of memory
@pools
{"pools":[]}
"#;
    const USED: &str = r#"@links
[{"ifname":"lo"},{"ifname":"enp1s0","linkinfo":{},"vfinfo_list":[{"vf":0,"address":"52:54:00:aa:00:01","trust":false}]},
{"ifname":"hb525400aa0001","link":"enp1s0","linkinfo":{"info_kind":"macvtap"}}]
@filters
33:33:00:00:00:01 dev enp1s0 self permanent
52:54:00:aa:00:01 dev enp1s0 self permanent
@drivers
VF 0000:01:10.0 has driver vfio-pci, driver_override vfio-pci
@open
process qemu-system-x86 has /dev/vfio/8 open
@files
/run/hybond/qmp/a2a2a2a2-0000-4000-8000-000000000002.qmp
@limits
hybondd may lock 8388608 bytes of memory
@pools
{"pools":[{"name":"lan","vfs":[{"vf":"0000:01:10.0","pf":"enp1s0","numa_node":null,"lease":
{"domain":"a2a2a2a2-0000-4000-8000-000000000002","name":"web","mac":"52:54:00:aa:00:01"}}]}]}
"#;

    #[test]
    fn each_thing_that_a_guest_has_left_is_listed() {
        let [bare, used] = [BARE, USED].map(|text| Inventory::parse(text).expect("understood"));
        let left = used.beyond(&bare).join("\n");
        for text in [
            "macvtap hb525400aa0001 on enp1s0",
            "VF 0 of enp1s0: address is \"52:54:00:aa:00:01\"",
            "filter: 52:54:00:aa:00:01 dev enp1s0",
            "VF 0000:01:10.0 has driver vfio-pci",
            "qemu-system-x86 has /dev/vfio/8 open",
            "/run/hybond/qmp/",
            "VF 0000:01:10.0 is leased to web",
        ] {
            assert!(left.contains(text), "{text} is not in\n{left}");
        }
        assert_eq!(left.lines().count(), 7, "{left}");
        assert_eq!(bare.beyond(&bare), Vec::<String>::new());
    }
}
