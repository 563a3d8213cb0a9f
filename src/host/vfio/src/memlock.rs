//! RLIMIT_MEMLOCK of a QEMU: VFIO pins all of the guest's memory, and counts it against this limit.
//!
//! Raised when the first primary is plugged, set back when the last one is gone. What it was before is kept in memory
//! only: after a restart of the daemon the limit stays raised until QEMU ends. It gives QEMU no access to anything, and
//! the alternative, a guess, could take from QEMU what libvirt gave it for a device of its own.
#![allow(unsafe_code, reason = "prlimit(2) on another process has no safe wrapper in nix")]

use crate::error::GrantError;
use crate::process::Process;
use hybond_core::ids::Bdf;
use std::collections::{BTreeSet, HashMap};
use std::io;

/// Beside the guest's RAM, VFIO maps device memory, ROMs and firmware. The figure is libvirt's (`qemuDomainGetMemLockLimitBytes()`).
pub(crate) const HEADROOM: u64 = 1 << 30;
/// More processes than one host runs. Beyond it limits stay raised.
const PROCESSES_MAX: usize = 4096;

/// Soft and hard limit in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// Pid and start time.
type ProcessId = (u32, u64);

/// What the limits were.
#[derive(Debug, Default)]
pub(crate) struct Ledger(HashMap<ProcessId, Entry>);

#[derive(Debug)]
struct Entry {
    before: Limit,
    raised: Limit,
    users: BTreeSet<Bdf>,
}

impl Ledger {
    /// Raises the limit for one more VF that pins `bytes`, if it is lower.
    pub(crate) fn raise(&mut self, process: &Process, vf: Bdf, bytes: u64) -> Result<(), GrantError> {
        let id = (process.pid, process.start_time()?);
        let now = limit(process)?;
        // What is pinned or locked already counts as well: by a <hostdev> of libvirt's through another container.
        let needed = process.locked_bytes()?.saturating_add(bytes);
        if now.soft < needed {
            let raised = Limit {
                soft: needed,
                hard: now.hard.max(needed),
            };
            set(process, raised)?;
            tracing::debug!(
                pid = process.pid,
                before = now.soft,
                now = needed,
                "memory lock limit raised"
            );
            let known = self.0.contains_key(&id);
            if known || self.0.len() < PROCESSES_MAX {
                let entry = self.0.entry(id).or_insert(Entry {
                    before: now,
                    raised,
                    users: BTreeSet::new(),
                });
                entry.raised = raised;
            }
        }
        if let Some(entry) = self.0.get_mut(&id) {
            entry.users.insert(vf);
        }
        Ok(())
    }

    /// Sets the limit back when `vf` was the last user of it. A limit that someone else changed meanwhile is left alone.
    pub(crate) fn restore(&mut self, process: &Process, vf: Bdf) -> Result<(), GrantError> {
        let id = (process.pid, process.start_time()?);
        let Some(entry) = self.0.get_mut(&id) else {
            return Ok(());
        };
        entry.users.remove(&vf);
        if !entry.users.is_empty() {
            return Ok(());
        }
        let (before, raised) = (entry.before, entry.raised);
        if limit(process)? != raised {
            self.0.remove(&id);
            return Ok(());
        }
        set(process, before)?;
        self.0.remove(&id);
        let found = limit(process)?;
        if found != before {
            return Err(GrantError::ReadBack {
                pid: process.pid,
                what: "the memory lock limit".to_owned(),
                found: format!("{} bytes", found.soft),
            });
        }
        Ok(())
    }

    /// Forgets a VF whose QEMU has ended.
    pub(crate) fn forget(&mut self, vf: Bdf) {
        self.0.retain(|_, entry| {
            entry.users.remove(&vf);
            !entry.users.is_empty()
        });
    }
}

pub(crate) fn limit(process: &Process) -> Result<Limit, GrantError> {
    let (soft, hard) = process.memlock()?;
    Ok(Limit { soft, hard })
}

fn set(process: &Process, new: Limit) -> Result<(), GrantError> {
    let gone = GrantError::Gone(process.pid);
    let Ok(pid) = libc::pid_t::try_from(process.pid) else {
        return Err(gone);
    };
    let new = libc::rlimit {
        rlim_cur: new.soft,
        rlim_max: new.hard,
    };
    // SAFETY: `new` is a struct rlimit that outlives the call; null means that the old one is not wanted.
    let result = unsafe { libc::prlimit(pid, libc::RLIMIT_MEMLOCK, &new, std::ptr::null_mut()) };
    if result == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    match source.raw_os_error() {
        Some(libc::ESRCH) => Err(gone),
        _ => Err(GrantError::Memlock {
            pid: process.pid,
            bytes: new.rlim_cur,
            source,
        }),
    }
}

#[cfg(test)]
#[path = "memlock_tests.rs"]
mod tests;
