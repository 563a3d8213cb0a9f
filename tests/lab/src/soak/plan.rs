//! Which guest goes when. The same size and seed give the same migrations in the same order.

use std::env::VarError;

/// How large a soak is. Told by the environment, so that the same test is short in the suite and long when asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Guests, over both hosts: `HYBOND_SOAK_GUESTS`.
    pub guests: u8,
    /// Migrations: `HYBOND_SOAK_MIGRATIONS`.
    pub migrations: usize,
    /// Migrations at one time: `HYBOND_SOAK_AT_ONCE`.
    pub at_once: usize,
    /// Of the order: `HYBOND_SOAK_SEED`.
    pub seed: u64,
}

impl Size {
    /// What a lab's suite has minutes for.
    pub const SHORT: Self = Self {
        guests: 4,
        migrations: 6,
        at_once: 2,
        seed: 1,
    };

    /// [`Size::SHORT`], where the environment says nothing else.
    ///
    /// # Errors
    /// A variable is no number, or is out of range.
    pub fn from_environment() -> anyhow::Result<Self> {
        let short = Self::SHORT;
        let size = Self {
            guests: number("HYBOND_SOAK_GUESTS", short.guests)?,
            migrations: migrations(short.migrations)?,
            at_once: number("HYBOND_SOAK_AT_ONCE", short.at_once)?,
            seed: number("HYBOND_SOAK_SEED", short.seed)?,
        };
        anyhow::ensure!(
            (1..=100).contains(&size.guests) && size.at_once > 0,
            "a soak has 1 to 100 guests, and at least one migration at a time: {size:?}"
        );
        Ok(size)
    }
}

/// The number of migrations that the environment says, or this one.
///
/// # Errors
/// The variable is no number.
pub fn migrations(otherwise: usize) -> anyhow::Result<usize> {
    number("HYBOND_SOAK_MIGRATIONS", otherwise)
}

fn number<T: std::str::FromStr>(name: &str, otherwise: T) -> anyhow::Result<T> {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .map_err(|_| anyhow::anyhow!("{name}={text:?} is no number")),
        Err(VarError::NotPresent) => Ok(otherwise),
        Err(error) => Err(error.into()),
    }
}

/// One of the two hosts: 0 or 1.
pub type Side = usize;

/// A guest, by its number from 0, goes to the other host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub guest: usize,
    /// From this host.
    pub from: Side,
}

/// Where each guest is started: turn and turn about.
#[must_use]
pub fn start(guest: usize) -> Side {
    guest % 2
}

/// All migrations in order. A host takes up to `room` guests.
///
/// A walk without an aim would stay around half and half. So it has one: a number of guests on the second host, first all
/// of them, then a random one each time it is reached. One step in four does not mind it.
#[must_use]
pub fn steps(size: Size, room: usize) -> Vec<Step> {
    let count = usize::from(size.guests);
    let mut dice = Dice(size.seed);
    let mut at: Vec<Side> = (0..count).map(start).collect();
    let on = |at: &[Side], side| at.iter().filter(|s| **s == side).count();
    let aims = count.saturating_sub(room)..=count.min(room);
    let mut aim = *aims.end();
    let mut steps = Vec::new();
    if aims.is_empty() {
        return steps;
    }
    while steps.len() < size.migrations {
        let there = on(&at, 1);
        if there == aim {
            let other = aims.start() + dice.below(aims.end() - aims.start() + 1);
            if other == aim && aims.start() < aims.end() {
                continue;
            }
            aim = other;
        }
        let towards: Side = usize::from(there < aim);
        let to = if dice.below(4) == 0 { dice.below(2) } else { towards };
        let candidates: Vec<usize> = (0..count).filter(|guest| at[*guest] != to).collect();
        if candidates.is_empty() || on(&at, to) >= room {
            if aims.start() == aims.end() {
                break;
            }
            continue;
        }
        let guest = candidates[dice.below(candidates.len())];
        steps.push(Step { guest, from: at[guest] });
        at[guest] = to;
    }
    steps
}

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators"): the same numbers on every machine and
/// with every release.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit as u64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(guests: u8, migrations: usize, seed: u64) -> Size {
        Size {
            guests,
            migrations,
            at_once: 2,
            seed,
        }
    }

    #[test]
    fn a_long_plan_fills_and_empties_both_hosts_and_never_exceeds_them() {
        for seed in 0..50 {
            let mut at: Vec<Side> = (0..14).map(start).collect();
            let mut least = [14, 14];
            let steps = steps(size(14, 200, seed), 14);
            assert_eq!(steps.len(), 200);
            for step in steps {
                assert_eq!(at[step.guest], step.from);
                at[step.guest] = 1 - step.from;
                for (side, least) in least.iter_mut().enumerate() {
                    *least = (*least).min(at.iter().filter(|s| **s == side).count());
                }
            }
            assert_eq!(least[0], 0, "seed {seed}: the second host was never full");
            assert!(
                least[1] <= 4,
                "seed {seed}: the first host had at most {}",
                14 - least[1]
            );
        }
    }

    #[test]
    fn hosts_that_are_nearly_full_take_no_more_than_they_have_room_for() {
        let mut at: Vec<Side> = (0..20).map(start).collect();
        for step in steps(size(20, 300, 7), 14) {
            at[step.guest] = 1 - step.from;
            for side in 0..2 {
                assert!(at.iter().filter(|s| **s == side).count() <= 14);
            }
        }
        assert!(steps(size(20, 300, 7), 10).is_empty(), "nobody can go anywhere");
        assert!(steps(size(21, 300, 7), 10).is_empty(), "they are too many");
    }

    #[test]
    fn a_seed_gives_the_same_plan_again() {
        assert_eq!(steps(size(14, 60, 3), 14), steps(size(14, 60, 3), 14));
        assert_ne!(steps(size(14, 60, 3), 14), steps(size(14, 60, 4), 14));
    }
}
