//! QEMU's monitor protocol (QMP), as hybond uses it: one task owns one connection, answers are matched by id, and
//! whatever QEMU says that this release does not know is passed on by name instead of ending the stream.
//!
//! ```text
//!  Qmp (Clone) ──requests──▶ ┌────────────────┐ ◀── lines ──▶ QEMU
//!  QmpLink keeps one alive   │ connection task │
//!  Receiver<Stamped> ◀─events│   └ Guard       │
//!                            └────────────────┘
//! ```
//!
//! The [`Guard`] sits in the task that reads the socket. It takes no lock and asks nobody: when QEMU begins to migrate
//! while a primary is plugged, `migrate_cancel` is written before the next line is read.
//!
//! One command is in flight at a time. QEMU runs the commands of a monitor one after the other anyway, and so nothing
//! that was sent earlier stands between the guard and QEMU, and a descriptor is never replaced by the next one before
//! the command that it came with has taken it (`tcp_chr_recv()` keeps only those of the last message).

mod commands;
mod connection;
mod error;
mod event;
mod guard;
mod link;
mod message;
mod qmp;
mod rx_filter;
mod socket;

pub use commands::QUICK;
pub use error::QmpError;
pub use event::{Event, MigrationStatus, Stamped};
pub use guard::{Guard, PRIMARY_PREFIX, Verdict};
pub use link::{LinkEvent, QmpLink, remove_dead_socket};
/// The types of QEMU's commands, for [`Qmp::execute`].
pub use qapi::qmp as types;
pub use qmp::{GREETING, Qmp};
pub use rx_filter::RxFilter;
