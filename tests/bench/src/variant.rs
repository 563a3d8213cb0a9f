//! Variants of one task, taken in turn.
//!
//! A machine is never the same twice: its clock, its caches and its neighbours change over minutes. So each round takes
//! every variant once, in an order that changes from round to round, and ratios are taken within a round.
//!
//! Whatever can be measured next to something else is a [`Variant`]: a file of its own that says how it is done once. A
//! comparison of whole migrations on emulated hosts is no different: one variant for each way to migrate.

use crate::figures::Section;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;

/// Figures of one go, by what they are of.
pub type Measures = BTreeMap<String, Vec<f64>>;

/// Takes what is known after a round, and of how many rounds that is: a benchmark of an hour that is interrupted has not been
/// for nothing.
pub type Keep<'a> = dyn FnMut(Section, usize) -> Result<()> + 'a;

/// A way to do the task.
pub trait Variant {
    /// Its name in tables and pictures.
    fn name(&self) -> String;

    /// Does it once, and says what it took. A figure may have several samples.
    ///
    /// # Errors
    /// It could not be done.
    fn once(&mut self, round: usize) -> Result<Measures>;
}

/// What all rounds came to.
#[derive(Debug, Default)]
pub struct Taken {
    /// By variant and by round, from 0. A go that failed is not in it.
    goes: BTreeMap<String, BTreeMap<usize, Measures>>,
    /// What failed, in words.
    failed: Vec<String>,
}

impl Taken {
    /// Notes what a go took.
    pub fn put(&mut self, variant: &str, round: usize, measures: Measures) {
        let own = self.goes.entry(variant.to_owned()).or_default();
        own.insert(round, measures);
    }

    /// What failed: the variant, the round and why.
    #[must_use]
    pub fn failed(&self) -> &[String] {
        &self.failed
    }

    /// Every figure that was measured of any variant.
    #[must_use]
    pub fn figures(&self) -> Vec<&str> {
        let goes = self.goes.values().flat_map(BTreeMap::values);
        let mut figures: Vec<&str> = goes.flat_map(|go| go.keys().map(String::as_str)).collect();
        figures.sort_unstable();
        figures.dedup();
        figures
    }

    /// One figure's samples of a variant, in the order of the rounds; none where there are none.
    #[must_use]
    pub fn samples(&self, variant: &str, figure: &str) -> Vec<f64> {
        let goes = self.goes.get(variant).into_iter().flat_map(BTreeMap::values);
        goes.filter_map(|go| go.get(figure)).flatten().copied().collect()
    }

    /// One figure of a variant over the same of another, of each round in which both have it and the other's is not 0.
    #[must_use]
    pub fn ratios(&self, variant: &str, base: &str, figure: &str) -> Vec<f64> {
        let (Some(own), Some(base)) = (self.goes.get(variant), self.goes.get(base)) else {
            return Vec::new();
        };
        let of = |go: &Measures| go.get(figure).cloned().unwrap_or_default();
        let rounds = own
            .iter()
            .filter_map(|(round, go)| Some((of(go), of(base.get(round)?))));
        rounds
            .flat_map(|(own, base)| own.into_iter().zip(base))
            .filter(|(_, base)| *base > 0.0)
            .map(|(own, base)| own / base)
            .collect()
    }
}

/// How a benchmark is taken.
#[derive(Debug, Clone, Copy)]
pub struct Rounds {
    /// The first, which fill caches and are not counted.
    pub warm: usize,
    /// Those that count.
    pub count: usize,
    /// How many goes of a variant may fail one after the other. One more, and it is not tried any more. With none the first
    /// failure ends the benchmark.
    pub failures: usize,
}

/// Takes each variant once in each round. `after` is told of what there is after each round.
///
/// # Errors
/// As [`Variant::once`], where no failure is borne; all variants have failed too often; or `after` fails.
pub fn interleave(
    variants: &mut [Box<dyn Variant + '_>],
    rounds: Rounds,
    after: &mut dyn FnMut(&Taken, usize) -> Result<()>,
) -> Result<Taken> {
    let mut taken = Taken::default();
    let count = variants.len();
    let mut failures = vec![0; count];
    for round in 0..rounds.warm + rounds.count {
        for turn in 0..count {
            let place = place(round, turn, count);
            let (Some(variant), Some(failures)) = (variants.get_mut(place), failures.get_mut(place)) else {
                continue;
            };
            if *failures > rounds.failures {
                continue;
            }
            let (name, number) = (variant.name(), round + 1);
            match variant.once(round).with_context(|| format!("{name}, round {number}")) {
                Err(error) if rounds.failures == 0 => return Err(error),
                Err(error) => {
                    *failures += 1;
                    eprintln!("failed: {error:#}");
                    taken.failed.push(format!("{error:#}"));
                }
                Ok(measures) => {
                    *failures = 0;
                    if let Some(counted) = round.checked_sub(rounds.warm) {
                        taken.put(&name, counted, measures);
                    }
                }
            }
        }
        ensure!(
            failures.iter().any(|failures| *failures <= rounds.failures),
            "every variant has failed too often; the last: {}",
            taken.failed.last().map_or("", String::as_str)
        );
        if let Some(counted) = round.checked_sub(rounds.warm) {
            after(&taken, counted + 1)?;
        }
    }
    Ok(taken)
}

/// Which variant has this turn in a round. Each begins as often as the others, and every second round goes backwards, so
/// that none always follows the same one.
fn place(round: usize, turn: usize, count: usize) -> usize {
    let turn = if round % 2 == 0 { turn } else { count - 1 - turn };
    (round / 2 + turn) % count
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use std::cell::RefCell;
    use std::rc::Rc;

    const STRICT: Rounds = Rounds {
        warm: 0,
        count: 1,
        failures: 0,
    };

    struct Noted(&'static str, Rc<RefCell<Vec<&'static str>>>);

    impl Variant for Noted {
        fn name(&self) -> String {
            self.0.to_owned()
        }

        fn once(&mut self, _round: usize) -> Result<Measures> {
            self.1.borrow_mut().push(self.0);
            let order = self.1.borrow().len() as f64;
            Ok(Measures::from([("order".to_owned(), vec![order])]))
        }
    }

    /// Fails in the rounds of the list.
    struct Broken(&'static str, &'static [usize]);

    impl Variant for Broken {
        fn name(&self) -> String {
            self.0.to_owned()
        }

        fn once(&mut self, round: usize) -> Result<Measures> {
            if self.1.contains(&round) {
                bail!("no cable");
            }
            Ok(Measures::from([("time".to_owned(), vec![10.0 * (round + 1) as f64])]))
        }
    }

    #[test]
    fn every_variant_comes_once_a_round_in_changing_order_and_warm_rounds_do_not_count() {
        let order = Rc::new(RefCell::new(Vec::new()));
        let mut variants: Vec<Box<dyn Variant>> = vec![
            Box::new(Noted("a", Rc::clone(&order))),
            Box::new(Noted("b", Rc::clone(&order))),
            Box::new(Noted("c", Rc::clone(&order))),
        ];
        let mut kept = Vec::new();
        let rounds = Rounds {
            warm: 1,
            count: 3,
            failures: 0,
        };
        let taken = interleave(&mut variants, rounds, &mut |taken, rounds| {
            kept.push((rounds, taken.samples("a", "order").len()));
            Ok(())
        });
        let taken = taken.expect("nothing fails");
        assert_eq!(order.borrow().concat(), "abccbabcaacb");
        assert_eq!(taken.samples("a", "order"), [6.0, 9.0, 10.0]);
        assert!(taken.samples("a", "nothing").is_empty());
        assert_eq!(kept, [(1, 1), (2, 2), (3, 3)]);
    }

    #[test]
    fn a_go_that_fails_ends_the_benchmark_and_is_named_where_no_failure_is_borne() {
        let mut variants: Vec<Box<dyn Variant>> = vec![Box::new(Broken("broken", &[0]))];
        let error = interleave(&mut variants, STRICT, &mut |_, _| Ok(())).expect_err("it fails");
        assert_eq!(format!("{error:#}"), "broken, round 1: no cable");
    }

    #[test]
    fn where_failures_are_borne_ratios_are_of_the_rounds_that_both_have_and_who_fails_too_often_is_left_out() {
        let mut variants: Vec<Box<dyn Variant>> = vec![
            Box::new(Broken("base", &[])),
            Box::new(Broken("own", &[1])),
            Box::new(Broken("never", &[0, 1, 2, 3])),
        ];
        let rounds = Rounds {
            count: 4,
            failures: 1,
            ..STRICT
        };
        let taken = interleave(&mut variants, rounds, &mut |_, _| Ok(())).expect("some succeed");
        assert_eq!(taken.samples("own", "time"), [10.0, 30.0, 40.0]);
        assert_eq!(taken.ratios("own", "base", "time"), [1.0, 1.0, 1.0]);
        assert!(taken.ratios("never", "base", "time").is_empty());
        let mut failed = taken.failed().to_vec();
        failed.sort();
        assert_eq!(
            failed,
            [
                "never, round 1: no cable",
                "never, round 2: no cable",
                "own, round 2: no cable"
            ]
        );
        let mut all: Vec<Box<dyn Variant>> = vec![Box::new(Broken("never", &[0, 1, 2, 3]))];
        let error = interleave(&mut all, rounds, &mut |_, _| Ok(())).expect_err("nothing is left");
        assert!(error.to_string().contains("never, round 2: no cable"), "{error}");
    }
}
