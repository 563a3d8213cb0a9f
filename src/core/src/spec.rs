//! What a domain asks for: its pairs, each with a pool and a policy. Written into the domain's metadata by
//! `hybondctl enable`, read by the hook, and carried from host to host by libvirt with the domain's XML.

use crate::ids::{DomainId, IfName, Mac, PeerAddr, PoolName};
use crate::port::PortProfile;
use serde::{Deserialize, Serialize};

/// The most pairs that one domain may have. QEMU's q35 has room for 32 slots on its root bus.
pub const MAX_PAIRS: usize = 16;

/// How a pair uses its VF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Flavor {
    /// The guest has the VF itself, beside its standby.
    #[default]
    Hybrid,
    /// The guest has its standby alone: a macvtap on a PF.
    Virtual,
    /// The guest has its standby alone: a macvtap in passthru mode over a VF that stays the host's. It migrates without an
    /// unplug.
    Indirect,
}

impl Flavor {
    /// What is taken where nothing is said, and not written down.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a pair may run without its VF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Run without when no VF is free: on the standby, and take one later; of [`Flavor::Indirect`] on a PF.
    #[default]
    Prefer,
    /// Refuse to start or to migrate where no VF is free.
    Require,
    /// Run as [`Flavor::Virtual`] does, until it is set otherwise: of [`Flavor::Hybrid`], which can change while it runs.
    Never,
}

/// How the standby stands in the domain's XML.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum StandbyKind {
    /// `<interface type='ethernet'>` on a macvtap that hybond makes; the XML is the same on every host.
    Ethernet,
    /// `<interface type='direct'>`: libvirt makes the macvtap, hybond rewrites `<source dev=…>` for the destination.
    Direct {
        /// The lower device that the XML names now.
        source: IfName,
    },
    /// `<interface type='network'>` of a libvirt network that has PFs: libvirt makes the macvtap on a PF of its choice.
    /// Where libvirt still takes another XML, hybond makes `type='direct'` of it.
    Network {
        /// The lower device that libvirt has chosen, once it has: known from hook `start` on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<IfName>,
    },
}

impl StandbyKind {
    /// The lower device that the XML names now, of a standby that libvirt makes.
    #[must_use]
    pub fn source(&self) -> Option<&IfName> {
        match self {
            Self::Ethernet => None,
            Self::Direct { source } => Some(source),
            Self::Network { source } => source.as_ref(),
        }
    }
}

/// One pair of a domain: primary and standby of one MAC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairSpec {
    /// MAC of both NICs.
    pub mac: Mac,
    /// Pool that the primary's VF comes from.
    pub pool: PoolName,
    /// How the pair uses it.
    #[serde(default, skip_serializing_if = "Flavor::is_default")]
    pub flavor: Flavor,
    /// What to do when the pool has none.
    #[serde(default)]
    pub policy: Policy,
    /// VLAN of both paths, 1–4094. `None` is untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// MTU that the guest is told of (`<mtu size=…>`), in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// By what the switch is to know its port (`<virtualport>`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortProfile>,
    /// The standby in the XML.
    pub standby: StandbyKind,
}

impl PairSpec {
    /// A pair with nothing special: hybrid, untagged, on a macvtap of hybond's.
    #[must_use]
    pub fn new(mac: Mac, pool: PoolName) -> Self {
        Self {
            mac,
            pool,
            flavor: Flavor::default(),
            policy: Policy::default(),
            vlan: None,
            mtu: None,
            port: None,
            standby: StandbyKind::Ethernet,
        }
    }

    /// What the pair is to be now: its flavor, as its policy lets it.
    #[must_use]
    pub fn flavor(&self) -> Flavor {
        match self.policy {
            Policy::Never => Flavor::Virtual,
            Policy::Prefer | Policy::Require => self.flavor,
        }
    }
}

/// A hybond domain, as its XML describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainSpec {
    /// libvirt's UUID.
    pub id: DomainId,
    /// libvirt's name; may differ after a rename, so it is for people only.
    pub name: String,
    /// At least one, at most [`MAX_PAIRS`], with different MACs.
    pub pairs: Vec<PairSpec>,
    /// The hybond daemon of the host that the domain last ran on: whom the destination asks for the drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_peer: Option<PeerAddr>,
    /// NUMA nodes of the host that the guest's memory comes from (`<numatune>`). Empty: libvirt leaves it to the kernel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numa_nodes: Vec<u32>,
}

impl DomainSpec {
    /// Whether a VF is to be in the guest, which can then write into all of its memory: every page is pinned.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pairs.iter().any(|pair| pair.flavor() == Flavor::Hybrid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_pinned_where_one_pair_has_its_vf_in_the_guest() {
        let pair = |n: u8, flavor, policy| PairSpec {
            flavor,
            policy,
            ..PairSpec::new(
                format!("52:54:00:aa:00:{n:02x}").parse().expect("a MAC"),
                "lan".parse().expect("a pool"),
            )
        };
        let domain = |pairs| DomainSpec {
            id: "a2a2a2a2-0000-4000-8000-000000000002".parse().expect("a UUID"),
            name: "web".into(),
            pairs,
            source_peer: None,
            numa_nodes: Vec::new(),
        };
        let without = [
            pair(1, Flavor::Hybrid, Policy::Never),
            pair(2, Flavor::Virtual, Policy::Prefer),
            pair(3, Flavor::Indirect, Policy::Require),
        ];
        assert!(!domain(without.to_vec()).is_pinned());
        let with = [without[1].clone(), pair(4, Flavor::Hybrid, Policy::Prefer)];
        assert!(domain(with.to_vec()).is_pinned());
    }
}
