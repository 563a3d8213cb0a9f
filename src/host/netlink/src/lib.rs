//! Network devices of a host, by rtnetlink: standbys (macvtaps), their VLAN sub-interfaces, the attributes and port profiles
//! that a PF keeps for its VFs, taps of emulated primaries, and link events.
//!
//! Nothing is decided here. Each effect is idempotent ([`Change`] says whether anything had to be done), is read back
//! after it was made, and waits for the kernel no longer than [`TIMEOUT`] per request. rtnetlink has breaking releases
//! every few months: no type of it is in this crate's interface.

mod associate;
mod error;
mod link;
mod lower;
mod multicast;
mod node;
mod port;
mod request;
mod standby;
mod tap;
mod tune;
mod vf;
mod vf_list;
mod vlan;
mod watch;

pub use error::Error;
pub use link::{Kind, Link};
pub use lower::Lower;
pub use port::{PortAssociation, PortSeen};
pub use request::{Netlink, TIMEOUT};
pub use standby::{StandbyLink, StandbySpec, VlanBelow};
pub use vf::{VfConfig, VfState};
pub use watch::LinkEvent;

/// What an idempotent effect did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Something was changed.
    Made,
    /// Everything was already as asked.
    AlreadyThere,
}

impl Change {
    /// [`Change::Made`] if either is.
    pub fn or(self, other: Self) -> Self {
        if self == Self::Made { self } else { other }
    }
}

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;
