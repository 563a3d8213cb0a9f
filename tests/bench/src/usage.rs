//! What a process uses: memory, processor time, wake-ups.

use anyhow::{Context, Result};
use std::fs;
use std::time::{Duration, Instant};

/// A process's use so far.
#[derive(Debug, Clone, Copy)]
struct Used {
    /// Of all its threads, in nanoseconds.
    cpu_ns: u64,
    /// How often one of its threads slept and went on: voluntary context switches.
    wakeups: u64,
}

/// What a process used in some time.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// How long.
    pub time: Duration,
    /// Processor time, of all its threads.
    pub cpu: Duration,
    /// How often one of its threads was woken.
    pub wakeups: u64,
}

impl Usage {
    /// Per second.
    #[must_use]
    pub fn wakeups_per_second(&self) -> f64 {
        self.wakeups as f64 / self.time.as_secs_f64()
    }

    /// Of one core, in percent.
    #[must_use]
    pub fn cpu_percent(&self) -> f64 {
        100.0 * self.cpu.as_secs_f64() / self.time.as_secs_f64()
    }
}

/// A process that is watched.
#[derive(Debug, Clone, Copy)]
pub struct Watched {
    pid: u32,
    since: Instant,
    before: Used,
}

impl Watched {
    /// From now on.
    ///
    /// # Errors
    /// There is no such process.
    pub fn begin(pid: u32) -> Result<Self> {
        Ok(Self {
            pid,
            before: used(pid)?,
            since: Instant::now(),
        })
    }

    /// Until now. A thread that has ended meanwhile is not in it.
    ///
    /// # Errors
    /// The process has ended.
    pub fn end(self) -> Result<Usage> {
        let now = used(self.pid)?;
        Ok(Usage {
            time: self.since.elapsed(),
            cpu: Duration::from_nanos(now.cpu_ns.saturating_sub(self.before.cpu_ns)),
            wakeups: now.wakeups.saturating_sub(self.before.wakeups),
        })
    }
}

fn used(pid: u32) -> Result<Used> {
    let folder = format!("/proc/{pid}/task");
    let mut sum = Used { cpu_ns: 0, wakeups: 0 };
    let tasks = fs::read_dir(&folder).with_context(|| format!("process {pid} has ended"))?;
    for task in tasks {
        let task = task?.path();
        // A thread may end between the listing and the look.
        let (Ok(sched), Ok(status)) = (
            fs::read_to_string(task.join("schedstat")),
            fs::read_to_string(task.join("status")),
        ) else {
            continue;
        };
        let ran = sched.split(' ').next().and_then(|text| text.parse().ok());
        sum.cpu_ns += ran.unwrap_or(0);
        sum.wakeups += value(&status, "voluntary_ctxt_switches").unwrap_or(0);
    }
    Ok(sum)
}

/// Resident memory, in MiB.
///
/// # Errors
/// There is no such process.
pub fn rss_mib(pid: u32) -> Result<f64> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} has ended"))?;
    let kib = value(&status, "VmRSS").with_context(|| format!("process {pid} has no memory"))?;
    Ok(kib as f64 / 1024.0)
}

fn value(status: &str, name: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voluntary_switches_are_not_mistaken_for_the_others() {
        let status = "VmRSS:\t 2048 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t9\n";
        assert_eq!(value(status, "voluntary_ctxt_switches"), Some(7));
        assert_eq!(value(status, "VmRSS"), Some(2048));
    }

    #[test]
    fn work_is_seen() {
        let me = std::process::id();
        let watched = Watched::begin(me).expect("it runs");
        let mut sum = 0u64;
        for n in 0..5_000_000u64 {
            sum = std::hint::black_box(sum.wrapping_add(n));
        }
        let usage = watched.end().expect("it runs");
        assert!(usage.cpu > Duration::ZERO && usage.time > Duration::ZERO);
        assert!(rss_mib(me).expect("memory") > 0.0);
    }
}
