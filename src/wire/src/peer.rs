//! Daemons of two hosts, over mutual TLS. The destination connects to the source, sends one request, and reads answers
//! until a final one. A request repeated with the same migration id finds the work done, or under way.

use hybond_core::ids::{DomainId, IfName, Mac, MigrationId, PeerAddr, PoolName, VfId};
use hybond_core::spec::Policy;
use serde::{Deserialize, Serialize};

/// Default TCP port. libvirt's TLS port is 16514.
pub const PORT: u16 = 16515;
/// Longest message in either direction, in bytes.
pub const LIMIT: usize = 16 * 1024;
/// Version of the protocol that a migration needs: the same for as long as hosts of different releases can migrate guests to
/// each other. Each request has the version that it came with; a host of an older release refuses it with a sentence.
pub const VERSION: u16 = 1;
/// The version that [`Request::Check`], [`Request::Reserve`] and [`Request::Cancel`] came with.
pub const SCHEDULING: u16 = 2;
/// Longest that a VF can be reserved, in milliseconds.
pub const LONGEST_RESERVATION_MS: u64 = 24 * 60 * 60 * 1000;

/// Destination to source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Unplug every VF of the domain: it is about to be migrated to me.
    Drain {
        /// [`VERSION`].
        version: u16,
        /// This migration.
        migration: MigrationId,
        /// The domain. Refused unless it is in an outgoing migration.
        domain: DomainId,
        /// How long the destination waits, in milliseconds. The source gives up earlier than that.
        within_ms: u64,
    },
    /// The migration failed at the destination: look whether the VFs may come back.
    Abandon {
        /// [`VERSION`].
        version: u16,
        /// This migration.
        migration: MigrationId,
        /// The domain.
        domain: DomainId,
    },
    /// Are you there, and who are you? For `hybondctl doctor`.
    Ping {
        /// [`VERSION`].
        version: u16,
    },
    /// Would the domain fit there? Nothing is changed. Answer: [`Response::Fits`].
    Check {
        /// [`SCHEDULING`].
        version: u16,
        /// The domain.
        domain: DomainId,
        /// Its pairs.
        pairs: Vec<PairAsk>,
        /// Whom the destination would ask for the drain: is it to be reached from there?
        source: PeerAddr,
    },
    /// Hold VFs for the domain, all or none. Repeated, it holds the same for longer. Answer: [`Response::Reserved`].
    Reserve {
        /// [`SCHEDULING`].
        version: u16,
        /// The domain.
        domain: DomainId,
        /// Its name, for people.
        name: String,
        /// Its pairs.
        pairs: Vec<PairAsk>,
        /// For how long, at most [`LONGEST_RESERVATION_MS`].
        for_ms: u64,
    },
    /// Hold them no longer. Answer: [`Response::Cancelled`].
    Cancel {
        /// [`SCHEDULING`].
        version: u16,
        /// The domain.
        domain: DomainId,
    },
}

impl Request {
    /// The version that the sender speaks, and the one that the request came with.
    #[must_use]
    pub fn versions(&self) -> (u16, u16) {
        match self {
            Self::Drain { version, .. } | Self::Abandon { version, .. } | Self::Ping { version } => (*version, VERSION),
            Self::Check { version, .. } | Self::Reserve { version, .. } | Self::Cancel { version, .. } => {
                (*version, SCHEDULING)
            }
        }
    }
}

/// What a pair would need at the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairAsk {
    /// The pair.
    pub mac: Mac,
    /// Its pool.
    pub pool: PoolName,
    /// Its policy.
    pub policy: Policy,
    /// Where the guest's memory is to be.
    #[serde(default)]
    pub numa_nodes: Vec<u32>,
}

/// How a domain, or a pair, would be at the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// As its policy would have it.
    Vf,
    /// It would run, on its standby.
    Standby,
    /// It would be refused.
    No,
}

/// A pair at the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairFit {
    /// The pair.
    pub mac: Mac,
    /// Its pool.
    pub pool: PoolName,
    /// Its policy.
    pub policy: Policy,
    /// How it would be.
    pub fit: Fit,
    /// The VF that it would get.
    pub vf: Option<VfId>,
    /// The PF that it would be on.
    pub pf: Option<IfName>,
    /// Why not on a VF.
    pub why: Option<String>,
}

/// A VF that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// For this pair.
    pub mac: Mac,
    /// The VF.
    pub vf: VfId,
    /// Its PF.
    pub pf: IfName,
}

/// Source to destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Response {
    /// Still at it. Sent at every phase, so that the destination can tell slow from gone.
    Progress {
        /// The phase that has begun.
        phase: String,
    },
    /// Final: no VF is plugged, and none will be while the migration goes on.
    Drained,
    /// Final: the guest keeps its VFs.
    Refused {
        /// A sentence that names what and where.
        reason: String,
    },
    /// Final answer to `Abandon` and `Ping`.
    Hello {
        /// The answering host's name.
        host: String,
        /// Its hybond release.
        release: String,
    },
    /// Final answer to `Check`.
    Fits {
        /// The answering host's name.
        host: String,
        /// How it plugs VFs.
        plug: String,
        /// Each pair.
        pairs: Vec<PairFit>,
        /// What would make the migration fail, whatever the pairs get.
        obstacles: Vec<String>,
    },
    /// Final answer to `Reserve`.
    Reserved {
        /// The VFs.
        held: Vec<Held>,
        /// When that ends, in milliseconds since the epoch of the answering host's clock.
        until_ms: u64,
    },
    /// Final answer to `Cancel`.
    Cancelled {
        /// There was something.
        held: bool,
    },
}
