//! Daemons of two hosts, over mutual TLS 1.3. The destination asks, the source answers.
//!
//! ```text
//!  destination: PeerClient::ask ── connect, handshake, request ──▶ PeerServer ─▶ IncomingRequest ─▶ daemon
//!               progress, final answer ◀──────────────────────── Responder ◀──────────────────────┘
//! ```
//!
//! - Both ends show a certificate of the same authority. By default these are libvirt's own files, so a host that can be
//!   migrated to over TLS needs nothing more.
//! - TLS 1.2 is refused: its handshake shows certificates to anyone who listens, and libvirt's hosts have had 1.3 for
//!   years. Sessions are never resumed, so that a certificate that was taken away counts at the next connection.
//! - While the daemon works, the server repeats the last phase every [`HEARTBEAT`]: silence means that the host is gone.
//! - Everything is bounded: the length of a line, the number of connections in all and from one address, and each wait.

mod address;
mod admission;
mod client;
mod connection;
mod error;
mod files;
mod line;
mod names;
mod server;
#[cfg(feature = "testing")]
pub mod testing;

pub use client::{Patience, PeerClient};
pub use connection::{IncomingRequest, Responder, ResponderError};
pub use error::{CertificateFault, PeerError};
pub use files::{FilesError, TlsFiles};
pub use names::PeerIdentity;
pub use server::{Limits, PeerServer};

/// Between two signs of life of a server that works on a request.
pub const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(2);

/// Keeps a client from talking to some other service that happens to have a certificate of the same authority, such as
/// libvirt's TLS port.
const ALPN: &[u8] = b"hybond-peer";
