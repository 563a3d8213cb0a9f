//! The daemon's doors: libvirt's hook, hybondctl, and other hosts' daemons.

mod arrivals;
mod change;
pub mod control;
mod find;
pub mod hook;
mod inventory;
pub mod peer;
mod schedule;
mod socket;

pub use socket::listen;

/// hybond's release.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");
