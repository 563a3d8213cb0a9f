//! What a host has at one moment: of libvirt, of hybond and of the kernel, each asked by itself.

use crate::Machine;
use anyhow::{Context, Result};
use hybond_core::ids::{DomainId, Mac};
use hybond_wire::control::{DomainStatus, PoolStatus};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// One answer for each kind of thing, with a line that begins with `@` before each.
const LOOK: &str = r#"
echo @domains; virsh -q list --name
echo @status; hybondctl --json status
echo @pools; hybondctl --json pool
echo @links; ip -j link show
echo @sockets; find /run/hybond/qmp -type s -printf '%f\n'
echo @records; find /var/lib/hybond/domains -type f -printf '%f\n'
echo @nodes; find /dev -maxdepth 1 -name 'tap*' -printf '%f\n'
"#;

/// A host at one moment.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Names of the domains that run, as libvirt says.
    pub domains: BTreeSet<String>,
    /// Domains, as hybond says.
    pub status: Vec<DomainStatus>,
    /// Pools, as hybond says.
    pub pools: Vec<PoolStatus>,
    /// Network devices: the one below each, where it has one.
    pub links: BTreeMap<String, Option<String>>,
    /// Files of hybond's: names of monitors' sockets and of records.
    pub files: BTreeSet<String>,
    /// Nodes of macvtaps that have none any more.
    pub stray_nodes: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Status {
    domains: Vec<DomainStatus>,
}

#[derive(Deserialize)]
struct Pools {
    pools: Vec<PoolStatus>,
}

#[derive(Deserialize)]
struct Link {
    ifindex: u32,
    ifname: String,
    link: Option<String>,
}

/// A VF that is held, as the pool tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub vf: String,
    /// Its PF.
    pub pf: String,
    /// By this domain.
    pub domain: DomainId,
    /// For this pair of it.
    pub mac: Mac,
}

impl View {
    /// Looks.
    ///
    /// # Errors
    /// The host does not answer as it should.
    pub fn of(host: &impl Machine) -> Result<Self> {
        let text = host.ok(LOOK)?;
        Self::parse(&text).with_context(|| format!("what is on {}: {text}", host.name()))
    }

    fn parse(text: &str) -> Result<Self> {
        let sections: BTreeMap<&str, &str> = text
            .split("\n@")
            .filter_map(|section| section.trim_start_matches('@').split_once('\n'))
            .collect();
        let section = |name: &str| sections.get(name).copied().unwrap_or_default();
        let lines = |name: &str| {
            section(name)
                .lines()
                .map(|line| line.trim().to_owned())
                .filter(|l| !l.is_empty())
        };
        let status: Status = serde_json::from_str(section("status")).context("hybondctl status")?;
        let pools: Pools = serde_json::from_str(section("pools")).context("hybondctl pool")?;
        let links: Vec<Link> = serde_json::from_str(section("links")).context("ip link")?;
        let of_links: BTreeSet<String> = links.iter().map(|link| format!("tap{}", link.ifindex)).collect();
        Ok(Self {
            domains: lines("domains").collect(),
            status: status.domains,
            pools: pools.pools,
            links: links.into_iter().map(|link| (link.ifname, link.link)).collect(),
            files: lines("sockets").chain(lines("records")).collect(),
            stray_nodes: lines("nodes").filter(|node| !of_links.contains(node)).collect(),
        })
    }

    /// Every VF that is held, whatever number of pools names it.
    #[must_use]
    pub fn held(&self) -> Vec<Held> {
        let mut held: Vec<Held> = Vec::new();
        for vf in self.pools.iter().flat_map(|pool| &pool.vfs) {
            let Some(lease) = &vf.lease else { continue };
            let lease = Held {
                vf: vf.vf.to_string(),
                pf: vf.pf.to_string(),
                domain: lease.domain,
                mac: lease.mac,
            };
            if !held.contains(&lease) {
                held.push(lease);
            }
        }
        held
    }

    /// VFs that nobody holds.
    #[must_use]
    pub fn free(&self) -> usize {
        let vfs = self.pools.iter().flat_map(|pool| &pool.vfs);
        vfs.filter(|vf| vf.lease.is_none())
            .map(|vf| &vf.vf)
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// VFs that there are.
    #[must_use]
    pub fn vfs(&self) -> usize {
        let vfs = self.pools.iter().flat_map(|pool| &pool.vfs);
        vfs.map(|vf| &vf.vf).collect::<BTreeSet<_>>().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_read() {
        let text = r#"@domains
soak01

@status
{"domains":[{"id":"a2a2a2a2-0000-4000-8000-000000000002","name":"soak01","stage":"running","agent":true,"pairs":[]}]}
@pools
{"pools":[{"name":"lan","vfs":[
 {"vf":"pf0.0","pf":"pf0","numa_node":null,"lease":{"domain":"a2a2a2a2-0000-4000-8000-000000000002","name":"soak01","mac":"52:54:00:aa:00:01"}},
 {"vf":"pf0.1","pf":"pf0","numa_node":null,"lease":null}]}]}
@links
[{"ifindex":7,"ifname":"pf0"},{"ifindex":9,"link":"pf0","ifname":"hb525400aa0001"}]
@sockets
a2a2a2a2-0000-4000-8000-000000000002.qmp
@records
@nodes
tap9
tap12
"#;
        let view = View::parse(text).expect("read");
        assert!(view.domains.contains("soak01") && view.status[0].stage == "running");
        assert_eq!((view.free(), view.vfs(), view.held().len()), (1, 2, 1));
        assert_eq!(view.links["hb525400aa0001"].as_deref(), Some("pf0"));
        assert!(view.stray_nodes.iter().eq(["tap12"]), "{:?}", view.stray_nodes);
        assert!(
            View::parse("@domains\n").is_err(),
            "a host that does not answer has nothing"
        );
    }
}
