//! VFs that are held ahead for domains that are to come.

use super::{Ask, Lease, NoVf, PoolBook, Vf};
use crate::Millis;
use crate::ids::{DomainId, VfId};
use serde::{Deserialize, Serialize};

/// Milliseconds since the epoch: a reservation outlives the daemon, and its clock.
type Epoch = u64;

/// A VF that is held for a pair of a domain that is to come, until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The VF, and the pair that it is for.
    pub lease: Lease,
    /// The domain's name, for people.
    pub name: String,
    /// Who has asked for it, for people.
    pub by: String,
    /// When it ends, in milliseconds since the epoch.
    pub until: Epoch,
}

impl PoolBook {
    /// Holds a VF for each of a domain's pairs, all or none. What is reserved for one of them already stays the same VF, and
    /// lasts until the new end. Guests that wait now come first, as in [`Self::lease_in_turn`].
    ///
    /// # Errors
    /// Why there is none for one of them; nothing has changed then.
    pub fn reserve(
        &mut self,
        asks: &[Ask],
        (name, by): (&str, &str),
        until: Epoch,
        (now, patience): (Millis, Millis),
    ) -> Result<Vec<Reservation>, NoVf> {
        let mut draft = self.clone();
        let mut made = Vec::new();
        for ask in asks {
            let lease = draft.lease_in_turn(ask, now, patience)?;
            made.push(Reservation {
                lease,
                name: name.to_owned(),
                by: by.to_owned(),
                until,
            });
        }
        let pairs = |old: &Reservation| {
            asks.iter()
                .any(|ask| (old.lease.domain, old.lease.mac) == (ask.domain, ask.mac))
        };
        self.reservations.retain(|_, old| !pairs(old));
        let held = made.iter().map(|new| (new.lease.vf.id.clone(), new.clone()));
        self.reservations.extend(held);
        Ok(made)
    }

    /// What each of a domain's pairs would get if it came now, one after the other. Nothing changes.
    #[must_use]
    pub fn would_lease(&self, asks: &[Ask], (now, patience): (Millis, Millis)) -> Vec<Result<Lease, NoVf>> {
        let mut draft = self.clone();
        asks.iter().map(|ask| draft.lease_in_turn(ask, now, patience)).collect()
    }

    /// Gives up what is reserved for a domain. True if there was anything.
    pub fn cancel(&mut self, domain: DomainId) -> bool {
        let before = self.reservations.len();
        self.reservations.retain(|_, held| held.lease.domain != domain);
        self.reservations.len() != before
    }

    /// Gives up what has ended. True if there was anything.
    pub fn expire(&mut self, now: Epoch) -> bool {
        let before = self.reservations.len();
        self.reservations.retain(|_, held| held.until > now);
        self.reservations.len() != before
    }

    /// Every reservation.
    pub fn reservations(&self) -> impl Iterator<Item = &Reservation> {
        self.reservations.values()
    }

    /// Something is held for a domain.
    #[must_use]
    pub fn holds_for(&self, domain: DomainId) -> bool {
        self.reservations.values().any(|held| held.lease.domain == domain)
    }

    /// Whom a VF is held for.
    #[must_use]
    pub fn reserved(&self, vf: &VfId) -> Option<&Reservation> {
        self.reservations.get(vf)
    }

    /// Puts reservations back into the book, after a restart. A VF that somebody else has by now is not held any more.
    pub fn restore_reservations(&mut self, reservations: Vec<Reservation>) {
        for held in reservations {
            let Reservation { lease, .. } = &held;
            let other = |has: &Lease| (has.domain, has.mac) != (lease.domain, lease.mac);
            if !self.leases.get(&lease.vf.id).is_some_and(other) {
                self.reservations.insert(lease.vf.id.clone(), held);
            }
        }
    }

    /// The VF that is held for the pair, if it would do.
    pub(super) fn reserved_of<'a>(&self, ask: &Ask, suitable: &[&'a Vf]) -> Option<&'a Vf> {
        suitable.iter().copied().find(|vf| {
            let held = self.reservations.get(&vf.id);
            let own = held.is_some_and(|held| (held.lease.domain, held.lease.mac) == (ask.domain, ask.mac));
            own && !self.leases.contains_key(&vf.id)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ask, book};
    use super::*;

    const NOW: (Millis, Millis) = (0, 10_000);

    fn reserve(book: &mut PoolBook, n: u8, until: Epoch) -> Result<String, NoVf> {
        let made = book.reserve(&[ask(n, None)], ("web", "node1"), until, NOW)?;
        Ok(made[0].lease.vf.id.to_string())
    }

    #[test]
    fn a_reserved_vf_is_for_its_domain_alone() {
        let mut book = book();
        let held = reserve(&mut book, 9, 100).expect("free");
        for n in 1..=2 {
            let lease = book.lease(&ask(n, None)).expect("free");
            assert_ne!(lease.vf.id.as_str(), held);
        }
        let refused = book.lease(&ask(3, None)).expect_err("the last one is reserved");
        assert_eq!(refused.to_string(), "every VF of pool lan is leased or reserved");
        assert_eq!(book.lease(&ask(9, None)).expect("its own").vf.id.as_str(), held);
        // It came, failed to stay, and comes again.
        book.release(ask(9, None).domain, ask(9, None).mac);
        assert_eq!(book.lease(&ask(9, None)).expect("its own").vf.id.as_str(), held);
    }

    #[test]
    fn a_reservation_ends_by_time_or_by_word() {
        let mut book = book();
        reserve(&mut book, 8, 100).expect("free");
        reserve(&mut book, 9, 200).expect("free");
        assert!(!book.expire(99));
        assert!(book.expire(100));
        assert_eq!(book.reservations().count(), 1);
        assert!(book.cancel(ask(9, None).domain));
        assert!(!book.cancel(ask(9, None).domain));
        assert_eq!(book.reservations().count(), 0);
    }

    #[test]
    fn reserving_again_keeps_the_vf_and_lasts_longer() {
        let mut book = book();
        let first = reserve(&mut book, 9, 100).expect("free");
        assert_eq!(reserve(&mut book, 9, 500).expect("held"), first);
        assert_eq!(book.reservations().map(|held| held.until).collect::<Vec<_>>(), [500]);
    }

    #[test]
    fn a_domain_of_several_pairs_gets_all_or_none() {
        let mut book = book();
        let pair = |n: u8| Ask {
            domain: ask(9, None).domain,
            ..ask(n, None)
        };
        let asks: Vec<Ask> = (1..=4).map(pair).collect();
        let refused = book.reserve(&asks, ("web", "node1"), 100, NOW).expect_err("three VFs");
        assert!(matches!(refused, NoVf::AllLeased { .. }), "{refused}");
        assert_eq!((book.reservations().count(), book.leases().count()), (0, 0));
        let made = book.reserve(&asks[..3], ("web", "node1"), 100, NOW).expect("three VFs");
        assert_eq!((made.len(), book.leases().count()), (3, 0));
    }

    #[test]
    fn a_question_changes_nothing() {
        let book = book();
        let asks: Vec<Ask> = (1..=4).map(|n| ask(n, None)).collect();
        let would = book.would_lease(&asks, NOW);
        assert_eq!(would.iter().filter(|lease| lease.is_ok()).count(), 3);
        assert_eq!(book.leases().count(), 0);
    }

    #[test]
    fn after_a_restart_leases_come_before_reservations() {
        let mut book = book();
        reserve(&mut book, 8, 100).expect("free");
        reserve(&mut book, 9, 100).expect("free");
        let kept: Vec<Reservation> = book.reservations().cloned().collect();
        let mut next = super::super::tests::book();
        let taken = Lease {
            domain: ask(1, None).domain,
            ..kept[0].lease.clone()
        };
        next.restore(&taken).expect("free");
        next.restore(&kept[1].lease).expect("its own");
        next.restore_reservations(kept.clone());
        assert_eq!(next.reservations().cloned().collect::<Vec<_>>(), kept[1..]);
    }
}
