//! Daemon and guest agent. The guest is not trusted: what comes from it is a report, never an order.
//!
//! The daemon speaks first (`hello`), whenever it has opened the port; the agent answers each request once, with the
//! request's `id`, and sends `state` by itself when a pair's state changes.

use hybond_core::ids::Mac;
use serde::{Deserialize, Serialize};

/// Name of the virtio-serial port.
pub const PORT: &str = "org.hybond.agent.0";
/// Version of this protocol. Both ends go on with the lower of the two.
pub const VERSION: u16 = 1;
/// Longest message in either direction, in bytes.
pub const LIMIT: usize = 4096;

/// Daemon to agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ToAgent {
    /// The daemon is there; which pairs this guest has. The agent answers with its own [`FromAgent::Hello`].
    Hello {
        /// Answered by id.
        id: u64,
        /// The daemon's [`VERSION`].
        version: u16,
        /// MACs of the pairs. The agent leaves other NICs alone.
        pairs: Vec<Mac>,
    },
    /// Move the pair's traffic to the standby and answer once it is proven and announced.
    Failover {
        /// Answered by id.
        id: u64,
        /// The pair.
        mac: Mac,
        /// For how long, in milliseconds around the switch, the bond takes what arrives on either slave
        /// (`all_slaves_active`). 0: only the active one.
        overlap_ms: u32,
    },
    /// Move the pair's traffic to the primary.
    Failback {
        /// Answered by id.
        id: u64,
        /// The pair.
        mac: Mac,
        /// As in `Failover`.
        overlap_ms: u32,
    },
    /// Announce the pair's addresses (gratuitous ARP, unsolicited neighbour advertisements) from the bond.
    Announce {
        /// Answered by id.
        id: u64,
        /// The pair.
        mac: Mac,
    },
}

/// Agent to daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum FromAgent {
    /// Answer to the daemon's hello.
    Hello {
        /// The request's id.
        id: u64,
        /// The agent's [`VERSION`].
        version: u16,
        /// The agent's release, for people.
        agent: String,
        /// Every pair that the daemon named and the guest has.
        pairs: Vec<PairState>,
    },
    /// The request was carried out; the state after it.
    Done {
        /// The request's id.
        id: u64,
        /// The pair now.
        state: PairState,
    },
    /// The request was not carried out; the traffic flows as before.
    Failed {
        /// The request's id.
        id: u64,
        /// A sentence for the host's administrator.
        reason: String,
    },
    /// A pair has changed.
    State {
        /// The pair now.
        state: PairState,
    },
}

/// A pair, seen from within the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairState {
    /// The pair.
    pub mac: Mac,
    /// The bond; `None` until the agent has made it.
    #[serde(default)]
    pub bond: Option<String>,
    /// The standby NIC, a slave of the bond.
    #[serde(default)]
    pub standby: Option<String>,
    /// The primary NIC, a slave of the bond.
    #[serde(default)]
    pub primary: Option<String>,
    /// The primary has carrier.
    #[serde(default)]
    pub primary_up: bool,
    /// Which of them carries the traffic.
    pub active: Path,
}

/// Which NIC of a pair carries the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// The VF.
    Primary,
    /// The virtio-net.
    Standby,
    /// Neither.
    None,
}
