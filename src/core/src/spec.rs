//! What a domain asks for: its pairs, each with a pool and a policy. Written into the domain's metadata by
//! `hybondctl enable`, read by the hook, and carried from host to host by libvirt with the domain's XML.

use crate::ids::{DomainId, IfName, Mac, PeerAddr, PoolName};
use serde::{Deserialize, Serialize};

/// The most pairs that one domain may have. QEMU's q35 has room for 32 slots on its root bus.
pub const MAX_PAIRS: usize = 16;

/// Whether a pair may run without its primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Run on the standby when no VF is free, and take one later.
    #[default]
    Prefer,
    /// Refuse to start or to migrate where no VF is free.
    Require,
    /// Standby only.
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
}

/// One pair of a domain: primary and standby of one MAC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairSpec {
    /// MAC of both NICs.
    pub mac: Mac,
    /// Pool that the primary's VF comes from.
    pub pool: PoolName,
    /// What to do when the pool has none.
    #[serde(default)]
    pub policy: Policy,
    /// VLAN of both paths, 1–4094. `None` is untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// MTU that the guest is told of (`<mtu size=…>`), in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The standby in the XML.
    pub standby: StandbyKind,
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
