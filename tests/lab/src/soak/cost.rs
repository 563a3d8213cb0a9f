//! What hybond costs a host: to see whether that grows with what it has done.

use crate::Machine;
use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// A daemon that has done its work may keep so much more memory than one that has just begun: buffers, pools of threads, the
/// allocator's own.
const RSS_GROWTH_KIB: u64 = 16 * 1024;
/// Once it has worked for a while, it may keep so much more for all that it goes on doing, in percent.
const RSS_GROWTH_PERCENT: u64 = 5;

/// What a host's hybondd and its things come to at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Guests on the host.
    pub guests: u64,
    /// hybondd's resident memory.
    pub rss_kib: u64,
    /// hybondd's open descriptors.
    pub descriptors: u64,
    /// hybondd's threads.
    pub threads: u64,
    /// The host's network devices.
    pub netdevs: u64,
    /// VFs that are held.
    pub leases: u64,
    /// Records in the journal.
    pub records: u64,
    /// The journal, timelines included.
    pub journal_bytes: u64,
}

impl Cost {
    /// Looks at a host whose hybondd has this process number there.
    ///
    /// # Errors
    /// The host does not answer as it should.
    pub fn of(host: &impl Machine, pid: u32) -> Result<Self> {
        let script = format!(
            "set -e; virsh -q list --name | grep -c . || true\n\
             awk '/^VmRSS/ {{print $2}}' /proc/{pid}/status\n\
             ls /proc/{pid}/fd | wc -l\n\
             ls /proc/{pid}/task | wc -l\n\
             ls /sys/class/net | wc -l\n\
             hybondctl --json pool | grep -c '\"mac\"' || true\n\
             find /var/lib/hybond/domains /var/lib/hybond/named -type f | wc -l\n\
             find /var/lib/hybond -type f -printf '%s\\n' | awk '{{n += $1}} END {{print n + 0}}'"
        );
        let text = host.ok(&script)?;
        let figures: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [
            guests,
            rss_kib,
            descriptors,
            threads,
            netdevs,
            leases,
            records,
            journal_bytes,
        ] = figures[..]
        else {
            anyhow::bail!("what hybondd costs {}: {text}", host.name());
        };
        Ok(Self {
            guests,
            rss_kib,
            descriptors,
            threads,
            netdevs,
            leases,
            records,
            journal_bytes,
        })
    }

    /// Held against an earlier time with as many guests: nothing may have been left open or behind.
    ///
    /// # Errors
    /// Something has: the error says what.
    pub fn has_not_grown_since(&self, before: &Self) -> Result<()> {
        ensure!(self.guests == before.guests, "other guests: {self:?} {before:?}");
        for (what, now, then) in [
            ("network devices", self.netdevs, before.netdevs),
            ("leases", self.leases, before.leases),
            ("records", self.records, before.records),
        ] {
            ensure!(now == then, "{then} {what} before, {now} now");
        }
        for (what, now, then, allowed) in [
            ("descriptors", self.descriptors, before.descriptors, 0),
            ("KiB of memory", self.rss_kib, before.rss_kib, RSS_GROWTH_KIB),
        ] {
            ensure!(now <= then + allowed, "hybondd had {then} {what} before, {now} now");
        }
        Ok(())
    }

    /// Holds the memory of two hybondds together against that of a time when they had done some of their work already, with
    /// as many guests on both hosts together.
    ///
    /// # Errors
    /// They need more than five percent more.
    pub fn is_flat(before: &[Self; 2], after: &[Self; 2]) -> Result<()> {
        let sum = |costs: &[Self; 2]| costs[0].rss_kib + costs[1].rss_kib;
        let (then, now) = (sum(before), sum(after));
        eprintln!("both hybondds had {then} KiB of memory, and have {now}");
        ensure!(
            now * 100 <= then * (100 + RSS_GROWTH_PERCENT),
            "both hybondds had {then} KiB of memory, and have {now}: more than {RSS_GROWTH_PERCENT} % more"
        );
        Ok(())
    }
}

/// One line of a table.
impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:2} guests, {:2} leases, {:3} netdevs, {:2} records, journal {:4} KiB; hybondd: {:5} KiB, {:3} descriptors, {:2} threads",
            self.guests,
            self.leases,
            self.netdevs,
            self.records,
            self.journal_bytes / 1024,
            self.rss_kib,
            self.descriptors,
            self.threads
        )
    }
}

/// The median and the longest of some times, in milliseconds.
///
/// # Errors
/// There is none.
pub fn times(mut all: Vec<u64>) -> Result<(u64, u64)> {
    all.sort_unstable();
    let median = all.get(all.len() / 2).copied();
    median.zip(all.last().copied()).context("nothing was measured")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_that_stays_open_is_growth_and_a_little_memory_is_not() {
        let before = Cost {
            guests: 0,
            rss_kib: 20_000,
            descriptors: 20,
            threads: 4,
            netdevs: 5,
            leases: 0,
            records: 0,
            journal_bytes: 0,
        };
        let memory = Cost {
            rss_kib: 22_000,
            journal_bytes: 9000,
            ..before
        };
        memory.has_not_grown_since(&before).expect("no growth");
        for grown in [
            Cost {
                descriptors: 21,
                ..before
            },
            Cost { netdevs: 6, ..before },
            Cost { leases: 1, ..before },
            Cost {
                rss_kib: 90_000,
                ..before
            },
        ] {
            grown.has_not_grown_since(&before).expect_err("grown");
        }
    }

    #[test]
    fn five_percent_more_memory_is_flat_and_six_is_not() {
        let cost = |rss_kib| Cost {
            guests: 1,
            rss_kib,
            descriptors: 20,
            threads: 4,
            netdevs: 5,
            leases: 1,
            records: 1,
            journal_bytes: 0,
        };
        let before = [cost(10_000), cost(10_000)];
        Cost::is_flat(&before, &[cost(10_000), cost(11_000)]).expect("flat");
        Cost::is_flat(&before, &[cost(10_600), cost(10_600)]).expect_err("grown");
    }

    #[test]
    fn median_and_longest() {
        assert_eq!(times(vec![5, 1, 9]).expect("three"), (5, 9));
        times(Vec::new()).expect_err("none");
    }
}
