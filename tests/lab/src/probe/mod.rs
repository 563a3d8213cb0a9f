//! The traffic probe: numbered UDP packets in both directions between a peer and a guest, each stream on its own and
//! not an echo of the other, so that loss in either direction is seen for itself.
//!
//! ```text
//! peer                              guest
//!   │── hello, until it answers ───▶│  a new run: forgets the last one, starts its stream
//!   │◀──────────────── data 0 … ────│  paced by its own clock, with its time
//!   │── data 0 … ──────────────────▶│  notes when each came first, and how often
//!   │── query from ────────────────▶│  stops its stream
//!   │◀───────────────── report from │  what it noted, 200 packets at a time
//! ```
//!
//! The guest's clock stands still while it is moved. All times in the [`Record`]s are the peer's: see [`GuestClock`].
//!
//! Beside it, [`keep`] and [`send_pages`] look whether memory comes through a migration as it was.

mod analyse;
mod guest_clock;
mod packet;
mod pages;
mod peer;
mod respond;

pub use analyse::{Count, LATE_MS, Span, Summary, analyse, arrivals};
pub use guest_clock::GuestClock;
pub use pages::{BURST, Kept, PAGES_PORT, keep, send_pages};
pub use peer::{Config, read, run, write};
pub use respond::respond;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};
use std::net::UdpSocket;

/// UDP port of the guest's side.
pub const PORT: u16 = 9901;

/// What a socket may hold until the probe reads it. The kernel's default is about 100 packets, half a second of them: a busy
/// guest that is not scheduled for longer would lose packets that the network has delivered.
const HELD: usize = 16 << 20;

fn hold(socket: &UdpSocket) -> Result<(), Errno> {
    match setsockopt(socket, sockopt::RcvBufForce, &HELD) {
        // Not root: as much as the host lets everybody have.
        Err(Errno::EPERM) => setsockopt(socket, sockopt::RcvBuf, &HELD),
        set => set,
    }
}

/// A direction of the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Peer to guest.
    ToGuest,
    /// Guest to peer.
    FromGuest,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ToGuest, Self::FromGuest];
}

/// What became of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its direction.
    pub dir: Direction,
    /// Its number in that direction.
    pub seq: u32,
    /// When it was sent: milliseconds since the epoch by the peer's clock.
    pub sent_ms: f64,
    /// When it came first; `None` if it never did.
    pub recv_ms: Option<f64>,
    /// How often it came.
    pub copies: u8,
}
