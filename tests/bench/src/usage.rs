//! What a process uses: memory, processor time, wake-ups.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// A thread's use so far.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    /// In nanoseconds.
    cpu_ns: u64,
    /// How often it slept and went on: voluntary context switches.
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
#[derive(Debug, Clone)]
pub struct Watched {
    pid: u32,
    since: Instant,
    before: BTreeMap<String, Used>,
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

    /// Until now. What a thread did that has ended meanwhile is not in it: threads that wait for work end after 10 s of it.
    ///
    /// # Errors
    /// The process has ended.
    pub fn end(self) -> Result<Usage> {
        let time = self.since.elapsed();
        let mut usage = Usage {
            time,
            cpu: Duration::ZERO,
            wakeups: 0,
        };
        for (thread, now) in used(self.pid)? {
            let before = self.before.get(&thread).copied().unwrap_or_default();
            usage.cpu += Duration::from_nanos(now.cpu_ns.saturating_sub(before.cpu_ns));
            usage.wakeups += now.wakeups.saturating_sub(before.wakeups);
        }
        Ok(usage)
    }
}

/// By the number of its thread, which is not used again within seconds.
fn used(pid: u32) -> Result<BTreeMap<String, Used>> {
    let folder = format!("/proc/{pid}/task");
    let mut threads = BTreeMap::new();
    let tasks = fs::read_dir(&folder).with_context(|| format!("process {pid} has ended"))?;
    for task in tasks {
        let task = task?;
        // A thread may end between the listing and the look.
        let (Ok(sched), Ok(status)) = (
            fs::read_to_string(task.path().join("schedstat")),
            fs::read_to_string(task.path().join("status")),
        ) else {
            continue;
        };
        let ran = sched.split(' ').next().and_then(|text| text.parse().ok());
        let used = Used {
            cpu_ns: ran.unwrap_or(0),
            wakeups: value(&status, "voluntary_ctxt_switches").unwrap_or(0),
        };
        threads.insert(task.file_name().to_string_lossy().into_owned(), used);
    }
    Ok(threads)
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
