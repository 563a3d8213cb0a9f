//! Who waits for a VF, and since when. When one is freed all who wait are told and ask; the book lets the one have it that
//! began to wait first.
//!
//! A guest that waits asks again from time to time. One that has not asked for longer than that (its CPUs stand, it was
//! drained, it has gone) does not keep others waiting, and has to queue anew.

use super::{Ask, Lease, NoVf, PoolBook};
use crate::Millis;
use crate::ids::{DomainId, PoolName, VfId};
use std::collections::BTreeSet;

/// A pair that has asked for a VF and got none.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    ask: Ask,
    /// When it last asked.
    asked: Millis,
}

impl Waiting {
    fn is(&self, ask: &Ask) -> bool {
        (self.ask.domain, self.ask.mac) == (ask.domain, ask.mac)
    }
}

impl PoolBook {
    /// As [`Self::lease`], and only what is left when everybody who waits longer has got one. Who gets none waits from now
    /// on, if it does not yet. `patience`: for how long after it has asked a pair is believed to wait still.
    ///
    /// # Errors
    /// Why there is none.
    pub fn lease_in_turn(&mut self, ask: &Ask, now: Millis, patience: Millis) -> Result<Lease, NoVf> {
        self.queue.retain(|waiting| now < waiting.asked + patience);
        let promised = self.promised_before(ask);
        let result = self.lease_but(ask, &promised);
        match (&result, self.queue.iter_mut().find(|waiting| waiting.is(ask))) {
            (Ok(_) | Err(NoVf::UnknownPool(_) | NoVf::Empty { .. }), _) => {
                self.queue.retain(|waiting| !waiting.is(ask));
            }
            // It asks for another PF once its standby is on one; its place stays.
            (Err(_), Some(waiting)) => {
                waiting.ask = ask.clone();
                waiting.asked = now;
            }
            (Err(_), None) => self.queue.push(Waiting {
                ask: ask.clone(),
                asked: now,
            }),
        }
        result
    }

    /// It would get a VF, in its turn, if those were back that are on their way. Nothing changes.
    #[must_use]
    pub fn will_lease(&self, ask: &Ask, now: Millis, patience: Millis) -> bool {
        let mut later = self.clone();
        later
            .leases
            .retain(|_, lease| !self.returning.contains(&(lease.domain, lease.mac)));
        later.lease_in_turn(ask, now, patience).is_ok()
    }

    /// A domain that has gone waits no longer.
    pub fn leave_queue(&mut self, domain: DomainId) {
        self.queue.retain(|waiting| waiting.ask.domain != domain);
    }

    /// Who waits for a VF of a pool, the longest first.
    pub fn waiting<'a>(&'a self, pool: &'a PoolName) -> impl Iterator<Item = &'a Ask> {
        self.queue
            .iter()
            .map(|waiting| &waiting.ask)
            .filter(move |ask| ask.pool == *pool)
    }

    /// Every domain that waits for a VF, of whatever pool: who is to be told when one is freed. Of a pool without any VF
    /// nobody waits for one to be freed.
    #[must_use]
    pub fn all_waiting(&self) -> BTreeSet<DomainId> {
        self.queue.iter().map(|waiting| waiting.ask.domain).collect()
    }

    /// Sets the clock from `now` to `to`, as [`crate::guest::Guest::set_clock`] does; `to` must be later than `patience`. Who
    /// is not believed to wait any more is forgotten, as the next question would do.
    pub fn set_clock(&mut self, now: Millis, to: Millis, patience: Millis) {
        self.queue.retain(|waiting| now < waiting.asked + patience);
        for waiting in &mut self.queue {
            waiting.asked = (to + waiting.asked).saturating_sub(now);
        }
    }

    /// What those get that wait longer than this one.
    fn promised_before(&self, ask: &Ask) -> BTreeSet<VfId> {
        let mut promised = BTreeSet::new();
        for waiting in self.queue.iter().take_while(|waiting| !waiting.is(ask)) {
            let Ask { pool, pf, .. } = &waiting.ask;
            let vfs = self.pools.get(pool).into_iter().flatten();
            let suits = vfs.filter(|vf| pf.as_ref().is_none_or(|pf| *pf == vf.pf));
            let first = suits
                .filter(|vf| self.is_free(vf))
                .find(|vf| !promised.contains(&vf.id));
            promised.extend(first.map(|vf| vf.id.clone()));
        }
        promised
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ask, book};
    use super::*;

    const PATIENCE: Millis = 10_000;

    fn take(book: &mut PoolBook, n: u8, pf: Option<&str>, now: Millis) -> Result<String, NoVf> {
        let lease = book.lease_in_turn(&ask(n, pf), now, PATIENCE)?;
        Ok(lease.vf.id.to_string())
    }

    fn full() -> PoolBook {
        let mut book = book();
        for n in 1..=3 {
            take(&mut book, n, None, 0).expect("free");
        }
        book
    }

    fn give_back(book: &mut PoolBook, n: u8) {
        let ask = ask(n, None);
        assert!(book.release(ask.domain, ask.mac));
    }

    #[test]
    fn who_began_to_wait_first_is_first() {
        let mut book = full();
        for (n, now) in [(4, 1), (5, 2), (6, 3), (4, 5_000)] {
            take(&mut book, n, None, now).expect_err("all leased");
        }
        let pool = "lan".parse().expect("name");
        let order: Vec<_> = book.waiting(&pool).map(|ask| ask.mac.octets()[5]).collect();
        assert_eq!(order, [4, 5, 6]);
        let told: Vec<_> = book.all_waiting().into_iter().collect();
        assert_eq!(told, [4, 5, 6].map(|n| ask(n, None).domain), "and nobody who has a VF");
        give_back(&mut book, 1);
        // The quickest are not the first.
        let refused = take(&mut book, 6, None, 5_001).expect_err("not its turn");
        assert_eq!(
            refused.to_string(),
            "the free VFs of pool lan go to guests that have waited longer"
        );
        take(&mut book, 5, None, 5_001).expect_err("not its turn");
        take(&mut book, 7, None, 5_001).expect_err("who has just come is last");
        take(&mut book, 4, None, 5_002).expect("its turn");
        give_back(&mut book, 2);
        give_back(&mut book, 3);
        take(&mut book, 6, None, 5_003).expect("one for each");
        take(&mut book, 5, None, 5_003).expect("one for each");
    }

    #[test]
    fn only_what_suits_who_waits_is_kept_for_it() {
        let mut book = full();
        take(&mut book, 4, Some("pf1"), 1).expect_err("all leased");
        give_back(&mut book, 1);
        take(&mut book, 5, None, 2).expect("it waits for pf1");
        give_back(&mut book, 3);
        take(&mut book, 6, None, 3).expect_err("that one is for the other");
        assert_eq!(take(&mut book, 4, Some("pf1"), 3).expect("its turn"), "02:10.0");
    }

    #[test]
    fn who_does_not_ask_any_more_keeps_nobody_waiting() {
        let mut book = full();
        take(&mut book, 4, None, 0).expect_err("all leased");
        take(&mut book, 5, None, 5_000).expect_err("all leased");
        give_back(&mut book, 1);
        take(&mut book, 5, None, PATIENCE - 1).expect_err("not its turn");
        take(&mut book, 5, None, PATIENCE).expect("the other is silent");
        take(&mut book, 6, None, PATIENCE).expect_err("all leased");
        book.leave_queue(ask(6, None).domain);
        give_back(&mut book, 2);
        take(&mut book, 7, None, PATIENCE).expect("the other has gone");
    }

    #[test]
    fn a_vf_that_is_on_its_way_back_is_for_who_waits_longest() {
        let mut book = full();
        let will = |book: &PoolBook, n, pf| book.will_lease(&ask(n, pf), 1, PATIENCE);
        take(&mut book, 4, None, 1).expect_err("all leased");
        assert!(!will(&book, 4, None), "nobody gives one back");
        let back = ask(1, None);
        book.set_returning(back.domain, [back.mac]);
        assert!(will(&book, 4, None));
        assert!(!will(&book, 4, Some("pf1")), "it is of the other PF");
        take(&mut book, 5, None, 1).expect_err("all leased");
        assert!(!will(&book, 5, None), "the one before waits for it");
        take(&mut book, 4, None, 1).expect_err("it is not back yet");
        book.set_returning(back.domain, []);
        assert!(!will(&book, 4, None), "it stays where it is");
    }

    #[test]
    fn with_another_time_on_the_clock_everybody_waits_as_long() {
        let mut book = full();
        take(&mut book, 4, None, 0).expect_err("all leased");
        take(&mut book, 5, None, 6_000).expect_err("all leased");
        let later = 1_000_000;
        book.set_clock(8_000, later, PATIENCE);
        give_back(&mut book, 1);
        take(&mut book, 5, None, later + 1_999).expect_err("not its turn");
        take(&mut book, 5, None, later + 2_000).expect("the other is silent");
    }

    #[test]
    fn a_pair_that_asks_again_after_a_restart_gets_its_own() {
        let mut book = full();
        take(&mut book, 4, None, 0).expect_err("all leased");
        assert_eq!(take(&mut book, 1, None, 1).expect("its own"), "01:10.0");
    }
}
