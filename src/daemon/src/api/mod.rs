//! The daemon's doors: libvirt's hook, hybondctl, and other hosts' daemons.

pub mod control;
pub mod hook;
mod inventory;
pub mod peer;
mod socket;

pub use socket::listen;

/// hybond's release.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");
