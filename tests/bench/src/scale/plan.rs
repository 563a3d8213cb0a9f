//! A host with many domains: what is on it, and how it is said to the kernel, to libvirt's test driver and to hybondd.

use anyhow::Result;
use hybond_core::ids::{DomainId, IfName, Mac};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// VFs of one PF: as many as a card's port has, of 64 in most data sheets.
pub const VFS: usize = 64;
/// Where the simulated agents' channels are.
pub const AGENTS: &str = "/run/bench/agent";
/// Devices get indexes from here on: `/dev/tap<index>` is one name for all network namespaces.
const FIRST_INDEX: usize = 1_000_000;

/// The pool of a PF. Each has its own, with a bridge for the taps of its emulated primaries: a tap's end takes the kernel the
/// longer the more ports its bridge has, and a PF's own switch has the ports of its VFs.
fn pool(pf: usize) -> String {
    format!("lan{pf}")
}

/// How large the host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Domains, each with one pair.
    pub domains: usize,
    /// PFs, with [`VFS`] VFs each.
    pub pfs: usize,
}

/// One domain.
#[derive(Debug, Clone)]
pub struct Domain {
    /// libvirt's UUID.
    pub id: DomainId,
    /// Its name.
    pub name: String,
    /// Its pair.
    pub mac: Mac,
    /// The PF that its standby is on.
    pub pf: usize,
    /// The agent's channel.
    pub agent: PathBuf,
}

impl Plan {
    /// The domains, spread over the PFs.
    ///
    /// # Errors
    /// There are more than addresses.
    pub fn domains(&self) -> Result<Vec<Domain>> {
        anyhow::ensure!(self.domains <= self.pfs * VFS, "more domains than VFs: {self:?}");
        (0..self.domains)
            .map(|n| {
                let [.., high, low] = (n as u64).to_be_bytes();
                let mut id = [0xbe; 16];
                (id[14], id[15]) = (high, low);
                Ok(Domain {
                    id: DomainId::from_bytes(id),
                    name: format!("guest{n}"),
                    mac: Mac::from_octets([0x52, 0x54, 0, 0xbb, high, low])?,
                    pf: n % self.pfs,
                    agent: Path::new(AGENTS).join(n.to_string()),
                })
            })
            .collect()
    }

    /// Lines for `ip -batch`: PFs, the standbys of the domains that run, the bridge of the emulated primaries.
    #[must_use]
    pub fn links(&self, domains: &[Domain]) -> String {
        let mut text = String::new();
        for n in 0..self.pfs {
            text += &format!(
                "link add pf{n} type veth peer name wire{n}\nlink set pf{n} up\nlink set wire{n} up\n\
                 link add br{n} type bridge mcast_snooping 0\nlink set br{n} up\n"
            );
        }
        for (n, domain) in domains.iter().enumerate() {
            let (name, mac, index) = (domain.mac.standby_name(), domain.mac, FIRST_INDEX + n);
            // Writing to a string cannot fail.
            let _written = writeln!(
                text,
                "link add link pf{} name {name} index {index} address {mac} type macvtap mode bridge\nlink set {name} up",
                domain.pf
            );
        }
        text
    }

    /// `hybond.toml`.
    #[must_use]
    pub fn config(&self, node: &Path) -> String {
        let mut text = format!("[host]\npeer = \"bench\"\nlibvirt = \"test://{}\"\n", node.display());
        for n in 0..self.pfs {
            text += &format!(
                "\n[[pool]]\nname = \"{}\"\npf = [\"pf{n}\"]\n\
                 emulated = {{ bridge = \"br{n}\", count = {VFS}, model = \"igb\" }}\n",
                pool(n)
            );
        }
        text
    }
}

/// A host of libvirt's test driver on which all domains run. Without `hybonds` none of them is hybond's.
#[must_use]
pub fn node(domains: &[Domain], hybonds: bool) -> String {
    let mut text = String::from("<node>\n");
    for domain in domains {
        let Domain {
            id,
            name,
            mac,
            pf,
            agent,
        } = domain;
        let standby: IfName = mac.standby_name();
        let metadata = format!(
            "<metadata><hybond:domain xmlns:hybond='urn:hybond:domain:1'><hybond:pair mac='{mac}' pool='{}' \
             policy='prefer'/></hybond:domain></metadata>",
            pool(*pf)
        );
        let _written = writeln!(
            text,
            "<domain type='test'><name>{name}</name><uuid>{id}</uuid>{metadata}<memory unit='MiB'>512</memory><vcpu>1</vcpu>\
             <os><type>hvm</type></os><devices><interface type='ethernet'><mac address='{mac}'/>\
             <target dev='{standby}' managed='no'/><model type='virtio'/></interface>\
             <channel type='unix'><source mode='bind' path='{}'/><target type='virtio' name='org.hybond.agent.0'/><alias name='ua-agent'/>\
             </channel>\
             </devices></domain>",
            agent.display(),
            metadata = if hybonds { metadata.as_str() } else { "" },
        );
    }
    text + "</node>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_domain_is_hybonds_where_it_is_to_be_and_has_a_pf_with_a_free_vf() {
        let plan = Plan { domains: 100, pfs: 2 };
        let domains = plan.domains().expect("two PFs are enough");
        for pf in 0..2 {
            assert_eq!(domains.iter().filter(|domain| domain.pf == pf).count(), 50);
        }
        let xml = node(&domains, true);
        assert_eq!(xml.matches("<hybond:pair mac='52:54:00:bb:00:63'").count(), 1);
        assert!(!node(&domains, false).contains("hybond:pair"));
        assert!(plan.links(&domains).contains("name hb525400bb0063 index 1000099 "));
        assert!(
            plan.config(Path::new("/run/node.xml"))
                .contains("name = \"lan1\"\npf = [\"pf1\"]\nemulated = { bridge = \"br1\"")
        );
        assert!(Plan { domains: 65, pfs: 1 }.domains().is_err());
    }
}
