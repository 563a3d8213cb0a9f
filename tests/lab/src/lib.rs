//! The lab: hypervisor hosts with SR-IOV on a machine that has none.
//!
//! [`Lab`] is tier 3: two emulated Debian hosts with igb NICs, an IOMMU, systemd and AppArmor, restored from saved states
//! in seconds. [`tier2::Pair`] is two libvirtds in namespaces of this machine. Both give out [`Machine`]s.
//!
//! Everything runs as root, in network namespaces of its own, and everything that takes long says what it is doing on
//! standard error.

pub mod cache;
pub mod clock;
pub mod crash;
pub mod domain;
pub mod guest;
pub mod host;
pub mod image;
mod inventory;
pub mod machine;
pub mod memory;
pub mod net;
mod place;
pub mod probe;
pub mod process;
pub mod qmp;
pub mod report;
pub mod saved;
pub mod scenario;
pub mod soak;
pub mod svg;
pub mod tier2;
pub mod tier2_hybond;
pub mod tier2_modular;
pub mod tier3;

pub use domain::Domain;
pub use guest::Guest;
pub use host::Host;
pub use inventory::inventory;
pub use machine::{Machine, Output};
pub use tier3::Lab;
