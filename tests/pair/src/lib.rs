//! Two hosts of hybond on virtual time, over a link that loses, delays, repeats and reorders, with either daemon crashing at
//! any point. Nothing here sleeps, and a run is repeated exactly by its seed.
//!
//! ```text
//!   World ── time, the order of everything (`Dice`), the link, libvirt's migration
//!     ├ Host a ── daemon: Guest + PoolBook, lost in a crash
//!     │           disk: records, which survive
//!     │           machine: macvtaps, VFs, QEMUs, which survive
//!     └ Host b ── the same
//! ```

pub mod dice;
pub mod host;
pub mod invariants;
pub mod machine;
pub mod world;
