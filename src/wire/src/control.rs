//! `hybondctl` and the daemon: one request, any number of `progress` lines, one final line.

use crate::agent::Path;
use crate::inventory::VfRow;
use crate::peer::{Fit, Held, PairFit};
use hybond_core::ids::{DomainId, IfName, Mac, PeerAddr, PoolName, VfId};
use hybond_core::spec::{Flavor, Policy};
use serde::{Deserialize, Serialize};

/// Where the daemon listens. Root and the group `hybond`.
pub const SOCKET: &str = "/run/hybond/control.sock";
/// Longest request, in bytes.
pub const REQUEST_LIMIT: usize = 16 * 1024;
/// Longest response line, in bytes: `status` of a thousand domains fits.
pub const RESPONSE_LIMIT: usize = 4 * 1024 * 1024;

/// hybondctl to daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The domains of this host. Answer: [`Response::Status`].
    Status {
        /// Name or UUID; all without.
        #[serde(default)]
        domain: Option<String>,
    },
    /// The pools of this host. Answer: [`Response::Pools`].
    Pools,
    /// Move the traffic to the standby, unplug the VFs and give them back. Answer: [`Response::Done`].
    Drain {
        /// Name or UUID.
        domain: String,
    },
    /// Plug VFs again after a drain. Answer: [`Response::Done`].
    Plug {
        /// Name or UUID.
        domain: String,
    },
    /// Change pairs: of a domain that runs at once, and from its next start; of another from its next start. Answer:
    /// [`Response::Done`].
    Set {
        /// Name or UUID.
        domain: String,
        /// The pair; all without.
        #[serde(default)]
        mac: Option<Mac>,
        /// Another policy.
        #[serde(default)]
        policy: Option<Policy>,
        /// Another VLAN, from the next start; 0 is untagged.
        #[serde(default)]
        vlan: Option<u16>,
    },
    /// Would a domain fit on another host? Answer: [`Response::Check`].
    Check {
        /// Name or UUID.
        domain: String,
        /// The other host's hybondd.
        to: PeerAddr,
    },
    /// Hold VFs of another host for a domain. Answer: [`Response::Reserved`].
    Reserve {
        /// Name or UUID.
        domain: String,
        /// The other host's hybondd.
        to: PeerAddr,
        /// For how long, in seconds.
        seconds: u64,
    },
    /// Hold them no longer. Answer: [`Response::Done`].
    CancelReservation {
        /// Name or UUID.
        domain: String,
        /// The other host's hybondd.
        to: PeerAddr,
    },
    /// What happened to a domain, newest last. Answer: [`Response::Timeline`].
    Timeline {
        /// Name or UUID.
        domain: String,
        /// How many runs at most.
        limit: usize,
    },
    /// Follow a domain's phases until the connection is closed: [`Response::Progress`] only.
    Watch {
        /// Name or UUID.
        domain: String,
    },
    /// How this host plugs, and whom it is reached as. Answer: [`Response::Host`].
    Host,
    /// Every VF of this host. Answer: [`Response::Inventory`].
    Inventory,
}

/// Daemon to hybondctl.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Response {
    /// Not final: a phase has begun or ended.
    Progress {
        /// The domain's name.
        domain: String,
        /// The phase.
        phase: Phase,
    },
    /// Final.
    Status {
        /// By name.
        domains: Vec<DomainStatus>,
    },
    /// Final.
    Pools {
        /// By name.
        pools: Vec<PoolStatus>,
    },
    /// Final.
    Timeline {
        /// Oldest first.
        runs: Vec<Run>,
    },
    /// Final.
    Host {
        /// This host.
        host: HostStatus,
    },
    /// Final.
    Inventory {
        /// By address.
        vfs: Vec<VfRow>,
    },
    /// Final.
    Check {
        /// How it would go.
        check: Check,
    },
    /// Final.
    Reserved {
        /// What is held.
        reserved: Reserved,
    },
    /// Final: it was done, or there was nothing to do.
    Done {
        /// What was done, for people.
        message: String,
    },
    /// Final.
    Error {
        /// For the exit code.
        kind: ErrorKind,
        /// What, why, and what to do about it.
        message: String,
    },
}

/// Kinds of failure, each with an exit code of hybondctl's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// No such domain or pool here.
    NotFound,
    /// Not possible in the present state.
    Refused,
    /// Tried, and failed.
    Failed,
    /// Request not understood.
    Invalid,
}

/// A domain on this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DomainStatus {
    /// libvirt's UUID.
    pub id: DomainId,
    /// libvirt's name.
    pub name: String,
    /// What hybond is doing with it, one word: `running`, `draining`, `outgoing`, `incoming`, `starting`, `leaving`.
    pub stage: String,
    /// The agent has said hello.
    pub agent: bool,
    /// Its pairs.
    pub pairs: Vec<PairStatus>,
}

/// A pair on this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairStatus {
    /// MAC of both NICs.
    pub mac: Mac,
    /// Its pool.
    pub pool: PoolName,
    /// Its flavor.
    #[serde(default)]
    pub flavor: Flavor,
    /// Its policy.
    pub policy: Policy,
    /// Which path carries the traffic, as the guest says; `None` without an agent.
    pub active: Option<Path>,
    /// The VF that is leased.
    pub vf: Option<VfId>,
    /// The VF is plugged into QEMU.
    pub plugged: bool,
    /// The PF below the standby.
    pub pf: Option<IfName>,
    /// Why it is not as its policy would have it.
    pub degraded: Option<String>,
    /// An administrator has drained it.
    #[serde(default)]
    pub drained: bool,
    /// Milliseconds since the epoch at which the active path last changed.
    pub since_ms: Option<u64>,
    /// Where the VF is in the guest when it is plugged, as `lspci -P` there prints it: `00:1c.0/00.0`.
    #[serde(default)]
    pub primary_slot: Option<String>,
    /// Where the standby is in the guest.
    #[serde(default)]
    pub standby_slot: Option<String>,
}

/// A pool of this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: PoolName,
    /// Its VFs.
    pub vfs: Vec<VfStatus>,
    /// How MACs are handed over on each of its PFs.
    #[serde(default)]
    pub handover: Vec<HandoverStatus>,
    /// Pairs that wait for a VF of it, in the order in which they get one.
    #[serde(default)]
    pub waiting: Vec<LeaseStatus>,
}

/// How MACs are handed over on a PF.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverStatus {
    /// The PF.
    pub pf: IfName,
    /// Its driver; `None` where it has none of its own.
    #[serde(default)]
    pub driver: Option<String>,
    /// The row, as `handover = { … }` of a pool would write it.
    pub row: String,
    /// Why it is so, and where that is known from.
    pub source: String,
}

/// A VF of a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VfStatus {
    /// Its address.
    pub vf: VfId,
    /// Its PF.
    pub pf: IfName,
    /// NUMA node of the PF.
    pub numa_node: Option<u32>,
    /// Who holds it.
    pub lease: Option<LeaseStatus>,
    /// Whom it is held for.
    #[serde(default)]
    pub reserved: Option<ReservationStatus>,
}

/// A reservation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReservationStatus {
    /// The domain.
    pub domain: DomainId,
    /// Its name.
    pub name: String,
    /// The pair.
    pub mac: Mac,
    /// Who has asked for it.
    pub by: String,
    /// When it ends, in milliseconds since the epoch.
    pub until_ms: u64,
}

/// How a domain would be on another host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The domain's name.
    pub domain: String,
    /// The host that was asked.
    pub to: PeerAddr,
    /// Of all pairs the worst, and [`Fit::No`] where there is an obstacle.
    pub fit: Fit,
    /// How that host plugs VFs; `None` where it could not be asked.
    pub plug: Option<String>,
    /// Each pair.
    pub pairs: Vec<PairFit>,
    /// What would make the migration fail.
    pub obstacles: Vec<String>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

/// VFs that another host holds for a domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reserved {
    /// The domain's name.
    pub domain: String,
    /// The host.
    pub to: PeerAddr,
    /// The VFs.
    pub held: Vec<Held>,
    /// When that ends, in milliseconds since the epoch of that host's clock.
    pub until_ms: u64,
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// The domain.
    pub domain: DomainId,
    /// Its name.
    pub name: String,
    /// The pair.
    pub mac: Mac,
}

/// This host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    /// hybond's release.
    pub release: String,
    /// What peers reach this host as.
    pub peer: PeerAddr,
    /// How primaries are plugged: `iommufd`, `group`, `libvirt`, `emulated`.
    pub plug: String,
    /// Why this way and not a better one.
    pub plug_reason: String,
    /// libvirt on this host; `None` from a release that did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libvirt: Option<LibvirtStatus>,
    /// How MACs are handed over on each PF of a pool.
    #[serde(default)]
    pub handover: Vec<HandoverStatus>,
}

/// libvirt, as hybondd finds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LibvirtStatus {
    /// Where hybondd asks.
    pub uri: String,
    /// Who has this host's guests: `virtqemud` or `libvirtd`; `None` where neither runs, or that cannot be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon: Option<String>,
    /// Why there is no connection; `None` while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// One start, migration, drain or plug of a domain, as seen by this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Same on both hosts for a migration.
    pub id: String,
    /// `start`, `migration-out`, `migration-in`, `drain`, `plug`.
    pub kind: String,
    /// Milliseconds since the epoch.
    pub started_ms: u64,
    /// Its phases, in order of their beginning.
    pub phases: Vec<Phase>,
    /// `None` while under way; then `ok`, or a sentence.
    pub outcome: Option<String>,
}

/// One phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// One word of `docs/operation.md`'s table.
    pub name: String,
    /// Milliseconds since the epoch, with fraction.
    pub start_ms: f64,
    /// `None` while under way.
    pub end_ms: Option<f64>,
    /// What was found, or went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
