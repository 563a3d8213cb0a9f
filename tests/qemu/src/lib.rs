//! Real QEMUs for tests, without libvirt and without KVM.

pub mod monitor;
pub mod qemu;

pub use monitor::Monitor;
pub use qemu::Qemu;

use std::time::Duration;

/// Bound on every wait. TCG on a busy machine is slow; a test that meets this bound has failed.
pub const LONG: Duration = Duration::from_secs(60);
