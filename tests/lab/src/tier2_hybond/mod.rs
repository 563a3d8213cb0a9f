//! hybond on the hosts of tier 2: installed by hand where its package would put it, since there is no systemd that a
//! package could be installed with. Primaries are emulated NICs on bridge `hbup`.

mod daemon;
mod guest;
mod life;
mod lost;
mod programs;
mod stage;
mod traffic;

pub use daemon::{CRASH, Daemon, PoolOn, configure, install, leftovers};
pub use guest::{Hybrid, POOL, STANDBY};
pub use life::{BOOT, CLEAN, boot_id, booted_again, configured, end, moved, nothing_is_left, on_its_vf, same_vf};
pub use lost::{Lost, phase};
pub use programs::Programs;
pub use stage::{on_stage, on_stage_with, results};
pub use traffic::Traffic;
