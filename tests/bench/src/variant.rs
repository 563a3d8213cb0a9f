//! Variants of one task, taken in turn.
//!
//! A machine is never the same twice: its clock, its caches and its neighbours change over minutes. So each round takes
//! every variant once, in an order that changes from round to round, and ratios are taken within a round.
//!
//! Whatever can be measured next to something else is a [`Variant`]: a file of its own that says how it is done once. A
//! comparison of whole migrations on emulated hosts is no different: one variant for each way to migrate.

use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// Figures of one go, by what they are of.
pub type Measures = BTreeMap<String, Vec<f64>>;

/// A way to do the task.
pub trait Variant {
    /// Its name in tables and pictures.
    fn name(&self) -> String;

    /// Does it once, and says what it took. A figure may have several samples.
    ///
    /// # Errors
    /// It could not be done: a benchmark with a go that failed has no result.
    fn once(&mut self) -> Result<Measures>;
}

/// What all rounds came to: by variant, by figure, in the order of the rounds.
pub type Taken = BTreeMap<String, Measures>;

/// Takes each variant once in each round. The first rounds, which fill caches, are not counted.
///
/// # Errors
/// As [`Variant::once`].
pub fn interleave(variants: &mut [Box<dyn Variant + '_>], warm: usize, rounds: usize) -> Result<Taken> {
    let mut taken = Taken::new();
    let count = variants.len();
    for round in 0..warm + rounds {
        for turn in 0..count {
            let Some(variant) = variants.get_mut(place(round, turn, count)) else {
                continue;
            };
            let name = variant.name();
            let measures = variant.once().with_context(|| format!("{name}, round {}", round + 1))?;
            if round < warm {
                continue;
            }
            let own = taken.entry(name).or_default();
            for (figure, samples) in measures {
                own.entry(figure).or_default().extend(samples);
            }
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

/// One figure's samples of a variant; none where there are none.
#[must_use]
pub fn samples<'a>(taken: &'a Taken, variant: &str, figure: &str) -> &'a [f64] {
    taken
        .get(variant)
        .and_then(|own| own.get(figure))
        .map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    struct Noted(&'static str, Rc<RefCell<Vec<&'static str>>>);

    impl Variant for Noted {
        fn name(&self) -> String {
            self.0.to_owned()
        }

        fn once(&mut self) -> Result<Measures> {
            self.1.borrow_mut().push(self.0);
            let order = self.1.borrow().len() as f64;
            Ok(Measures::from([("order".to_owned(), vec![order])]))
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
        let taken = interleave(&mut variants, 1, 3).expect("nothing fails");
        assert_eq!(order.borrow().concat(), "abccbabcaacb");
        assert_eq!(samples(&taken, "a", "order"), [6.0, 9.0, 10.0]);
        assert!(samples(&taken, "a", "nothing").is_empty());
    }

    #[test]
    fn a_go_that_fails_ends_the_benchmark_and_is_named() {
        struct Broken;
        impl Variant for Broken {
            fn name(&self) -> String {
                "broken".to_owned()
            }
            fn once(&mut self) -> Result<Measures> {
                anyhow::bail!("no cable")
            }
        }
        let mut variants: Vec<Box<dyn Variant>> = vec![Box::new(Broken)];
        let error = interleave(&mut variants, 0, 1).expect_err("it fails");
        assert_eq!(format!("{error:#}"), "broken, round 1: no cable");
    }
}
