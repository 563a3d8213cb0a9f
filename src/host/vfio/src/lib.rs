//! VFs, and the ways to give one to a running QEMU behind libvirt's back.
//!
//! ```text
//!   Sysfs ── what there is: PFs, their VFs, drivers, IOMMU groups
//!     ▲ Uevents ── when to look again
//!     │
//!   bind ── a VF to vfio-pci and back
//!     │
//!   detect ── which way this host has ──▶ PlugWay
//!     │
//!   Plugger ── plug: grants, then QMP ── revoke: every grant taken back, past errors
//!               ├ iommufd   open descriptors; only the memory lock is granted
//!               ├ group     device nodes, device map of the cgroup, memory lock
//!               ├ emulated  an emulated NIC on a tap: for tests and for hosts without SR-IOV
//!               └ libvirt   not here: libvirt's own attach, in its adapter
//! ```
//!
//! What stops a QEMU under libvirt from opening `/dev/vfio/*` itself: its private `/dev`, the device program of its cgroup,
//! the nodes' owner, AppArmor or SELinux, and the memory lock limit. All but the last act at `open()`, so descriptors that
//! are already open pass them. Where the kernel has no iommufd the first three are granted for the one leased group; the
//! line for AppArmor comes with the package, since a profile is read when the domain starts.
//!
//! Adapters decide nothing: whether to plug, and when, is the daemon's. Requests for one domain must not overlap.

mod bind;
mod bpf;
mod cgroup;
mod detect;
mod device;
pub mod emulated;
mod error;
mod iommufd;
mod memlock;
mod nodes;
mod plug;
mod process;
mod revoke;
mod sysfs;
#[cfg(test)]
mod testing;
#[cfg(any(test, feature = "testing"))]
pub mod tree;
mod uevent;

pub use detect::{Detection, PlugWay, detect};
pub use error::{BindError, GrantError, PlugError, SysfsError};
pub use plug::{PlugRequest, Plugger, Unplug, request_unplug};
pub use sysfs::{Pf, Sysfs, Vf};
pub use uevent::{UeventError, Uevents};

/// Whether an effect changed anything. Effects are idempotent: a repeated one finds its work done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was not so before.
    Made,
    /// It was so already.
    AlreadyThere,
}
