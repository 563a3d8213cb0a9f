//! What the allocator keeps for itself.
//!
//! glibc makes an arena for every thread that allocates while others do, up to eight for each core, and a burst of a thousand
//! guests' work, such as a start, leaves holes in all of them that stay resident: half as much again as what is in use. hybondd
//! waits for others most of its life and needs no speed from the allocator, so one arena does for all threads, and after a burst
//! the holes go back to the kernel (mallopt(3), `M_ARENA_MAX`; malloc_trim(3)).

use crate::shared::Shared;
use std::sync::Arc;
use std::time::Duration;
use tokio::time;

/// After so long without anything done for a guest a burst is over.
const QUIET: Duration = Duration::from_secs(1);
/// A trim walks the whole heap (a millisecond for 30 MiB), and is not worth more wake-ups than this.
const PAUSE: Duration = Duration::from_secs(60);

/// Before there are threads.
#[allow(unsafe_code, reason = "no safe binding")]
pub fn one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number that is read when a thread first allocates.
    let set = unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1) };
    #[cfg(target_env = "gnu")]
    if set != 1 {
        tracing::debug!("the allocator takes no limit of its arenas");
    }
}

/// Gives back what bursts have left, until the daemon ends.
pub async fn give_back(shared: Arc<Shared>) {
    loop {
        shared.stirred.notified().await;
        // An error is a second without a word.
        while time::timeout(QUIET, shared.stirred.notified()).await.is_ok() {}
        trim();
        time::sleep(PAUSE).await;
    }
}

#[allow(unsafe_code, reason = "no safe binding")]
fn trim() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: takes the allocator's own locks, and moves nothing that is in use.
        let given = unsafe { nix::libc::malloc_trim(0) };
        tracing::debug!(given, "memory given back");
    }
}
