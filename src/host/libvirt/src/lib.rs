//! libvirt, as hybond needs it: one connection that is kept open and opened again, its events as values, and a handful
//! of calls that cannot hang their caller.
//!
//! ```text
//!   event loop thread ── callbacks copy, try_send ──▶ Events ──▶ daemon
//!   supervisor task ──── open, register, watch for the close, back off, open again
//!   one short-lived thread per call ── blocking libvirt call ──▶ answer, or LibvirtError::Timeout
//! ```
//!
//! libvirt holds a domain's lock while it runs the hooks `prepare`, `start` and `started` of that domain, without any
//! time-out, and every call that names the domain, or lists all of them, waits for that lock. So nothing that answers
//! those hooks may wait for a call of this crate.

mod call;
mod callbacks;
mod capabilities;
mod error;
mod event;
mod event_loop;
mod handle;
mod job;
mod metadata;
mod persistent;
mod pidfile;
mod session;
mod state;
mod supervisor;

pub use error::{LibvirtError, Said};
pub use event::{Events, LibvirtEvent, Lifecycle, Operation, ResumedBy, StartedBy, StoppedBy, SuspendedBy};
pub use handle::{Libvirt, Scope, Settings};
pub use job::{Job, Progress};
pub use state::{DomainState, PausedBy};
