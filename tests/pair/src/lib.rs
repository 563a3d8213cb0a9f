//! Two hosts of hybond on virtual time.

pub mod case;
pub mod dice;
mod driver;
mod effects;
pub mod host;
pub mod invariants;
mod libvirt;
mod link;
pub mod machine;
mod migration;
mod monitor;
pub mod plant;
mod trouble;
pub mod world;
