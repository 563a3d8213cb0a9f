//! What a user does with hybond, as pieces that demonstrations and tests are put together from: install the packages on
//! two hosts, make a guest hybrid, migrate it with a plain `virsh migrate --live` while packets are counted, and look at
//! what is left behind. Nothing of hybond is linked: its programs run, and their JSON is read.

mod demo;
mod follow;
mod interrupts;
mod leftovers;
mod measured;
mod packages;
mod pages;
mod pair;
mod stage;
mod timeline;
mod traffic;

pub use demo::{arguments as demo_arguments, demo};
pub use follow::{Follow, Stopwatch};
pub use interrupts::Interrupts;
pub use leftovers::Inventory;
pub use measured::{Measured, measured_migration, switches, virtio_only_gap};
pub use packages::Packages;
pub use pages::Pages;
pub use pair::{HybridGuest, MIGRATE, POOL};
pub use stage::Stage;
pub use timeline::{Timeline, runs, timeline};
pub use traffic::Traffic;
