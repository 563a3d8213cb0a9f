//! Real QEMUs for tests, without libvirt and without KVM: [`Qemu`] with nothing in it, [`Guest`] with the lab's guest and
//! its agent, [`side::Side`] with all that hybond puts around it, and [`Traffic`] to see what a guest's network loses.

pub mod guest;
pub mod image;
pub mod monitor;
pub mod qemu;
pub mod side;
pub mod traffic;

pub use guest::Guest;
pub use image::Image;
pub use monitor::Monitor;
pub use qemu::Qemu;
pub use traffic::Traffic;

use std::time::Duration;

/// Bound on every wait. TCG on a busy machine is slow; a test that meets this bound has failed.
pub const LONG: Duration = Duration::from_secs(60);
