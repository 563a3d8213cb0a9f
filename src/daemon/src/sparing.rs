//! Log lines that somebody else sets the pace of: a guest, a client.

use std::time::{Duration, Instant};

/// So many lines of one kind at once.
const BURST: u32 = 5;
/// One more after each of these.
const APART: Duration = Duration::from_secs(60);

/// Lets a few lines of each kind through, and then one a minute, which tells how many there were meanwhile.
#[derive(Debug, Default)]
pub struct Sparing(Vec<Kind>);

#[derive(Debug)]
struct Kind {
    name: &'static str,
    left: u32,
    earned: Instant,
    kept_back: u64,
}

impl Sparing {
    /// Whether a line of this kind is written now: with how many that were not since the last one.
    pub fn pass(&mut self, kind: &'static str, now: Instant) -> Option<u64> {
        let known = self.0.iter().position(|known| known.name == kind);
        let at = known.unwrap_or_else(|| {
            self.0.push(Kind {
                name: kind,
                left: BURST,
                earned: now,
                kept_back: 0,
            });
            self.0.len() - 1
        });
        let kind = &mut self.0[at];
        let minutes = now.saturating_duration_since(kind.earned).as_secs() / APART.as_secs();
        if minutes > 0 {
            let minutes = u32::try_from(minutes).unwrap_or(u32::MAX);
            kind.left = kind.left.saturating_add(minutes).min(BURST);
            kind.earned = now;
        }
        if kind.left == 0 {
            kind.kept_back += 1;
            return None;
        }
        if kind.left == BURST {
            kind.earned = now;
        }
        kind.left -= 1;
        Some(std::mem::take(&mut kind.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_line_a_minute_which_counts_it() {
        let begun = Instant::now();
        let mut sparing = Sparing::default();
        // A hundred lines a second, for an hour.
        let times = (0..360_000u64).map(|n| begun + Duration::from_millis(10 * n));
        let passed: Vec<u64> = times.filter_map(|now| sparing.pass("hello", now)).collect();
        assert!((60..=70).contains(&passed.len()), "{} lines", passed.len());
        assert!(
            passed.iter().skip(5).all(|kept_back| (5990..=6000).contains(kept_back)),
            "{passed:?}"
        );
        assert_eq!(sparing.pass("another", begun), Some(0), "of another kind");
    }

    #[test]
    fn what_is_seldom_is_always_told() {
        let begun = Instant::now();
        let mut sparing = Sparing::default();
        for n in 0..100 {
            assert_eq!(sparing.pass("hello", begun + APART * n), Some(0), "{n}");
        }
    }
}
