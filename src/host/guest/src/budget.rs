//! A token bucket.

use std::time::Duration;
use tokio::time::Instant;

/// So much at once, and so much per second after that.
#[derive(Debug)]
pub(crate) struct Budget {
    burst: f64,
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    pub fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        Self {
            burst: f64::from(burst),
            per_second: f64::from(per_second),
            left: f64::from(burst),
            at: now,
        }
    }

    /// Whether there is something left to spend; otherwise how long until there is.
    pub fn wait(&mut self, now: Instant) -> Option<Duration> {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.left = (self.left + earned).min(self.burst);
        self.at = now;
        // One whole unit at least, so that nobody is woken for a fraction of it.
        (self.left < 1.0).then(|| Duration::from_secs_f64((1.0 - self.left) / self.per_second))
    }

    /// Spends; may run into debt by what one read brings.
    pub fn spend(&mut self, amount: usize) {
        self.left -= amount as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_comes_back_with_time_and_no_further_than_the_burst() {
        let start = Instant::now();
        let mut budget = Budget::new(10, 5, start);
        budget.spend(14);
        let wait = budget.wait(start).expect("in debt");
        assert_eq!(wait, Duration::from_secs(1));
        assert_eq!(budget.wait(start + wait), None);
        assert_eq!(budget.wait(start + Duration::from_secs(3600)), None);
        budget.spend(10);
        assert!(budget.wait(start + Duration::from_secs(3600)).is_some());
    }
}
