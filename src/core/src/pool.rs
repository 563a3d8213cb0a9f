//! Pools of VFs and who holds which: at most one lease for a VF, whatever number of pools lists it.
//!
//! The book lives in memory. What survives a crash is each guest's own record, which names its leases; the book is filled
//! from the records at start, before anything else may ask for a VF.

mod reserved;
mod turn;

pub use reserved::Reservation;

use crate::ids::{DomainId, IfName, Mac, PoolName, VfId};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use turn::Waiting;

/// A VF as a pool offers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vf {
    /// Its PCI address, or the name of an emulated primary.
    pub id: VfId,
    /// The PF it belongs to, where the standby of its pair must be.
    pub pf: IfName,
    /// Its number at the PF (`ip link set PF vf N`).
    pub index: u32,
    /// NUMA node of the PF, where the machine says so.
    pub numa_node: Option<u32>,
}

/// A VF that is held for one pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Which VF.
    pub vf: Vf,
    /// For which domain.
    pub domain: DomainId,
    /// For which pair of it.
    pub mac: Mac,
}

/// What a pair asks the book for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// From this pool.
    pub pool: PoolName,
    /// For this domain.
    pub domain: DomainId,
    /// For this pair.
    pub mac: Mac,
    /// Only on this PF: the standby of a running guest cannot be moved to another.
    pub pf: Option<IfName>,
    /// Rather on one of these NUMA nodes, where the guest's memory is. Empty: it does not matter.
    pub numa_nodes: Vec<u32>,
}

impl Ask {
    fn is_near(&self, vf: &Vf) -> bool {
        vf.numa_node.is_some_and(|node| self.numa_nodes.contains(&node))
    }
}

/// Why there is no VF.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoVf {
    /// The host's configuration has no such pool.
    #[error("this host has no pool {0:?}")]
    UnknownPool(PoolName),
    /// Every VF that would do is leased.
    #[error("every VF of pool {pool:?} is leased{}", on(.pf))]
    AllLeased {
        /// The pool.
        pool: PoolName,
        /// The PF, where only one would do.
        pf: Option<IfName>,
    },
    /// What is not leased is held for guests that are to come.
    #[error("every VF of pool {pool:?} is leased or reserved{}", on(.pf))]
    Reserved {
        /// The pool.
        pool: PoolName,
        /// The PF, where only one would do.
        pf: Option<IfName>,
    },
    /// What is free goes to guests that have waited longer.
    #[error("the free VFs of pool {pool:?} go to guests that have waited longer{}", on(.pf))]
    NotItsTurn {
        /// The pool.
        pool: PoolName,
        /// The PF, where only one would do.
        pf: Option<IfName>,
    },
    /// The pool's selectors match no VF on this machine.
    #[error("pool {pool:?} has no VF{}", on(.pf))]
    Empty {
        /// The pool.
        pool: PoolName,
        /// The PF, where only one would do.
        pf: Option<IfName>,
    },
}

fn on(pf: &Option<IfName>) -> String {
    pf.as_ref().map(|pf| format!(" on PF {pf}")).unwrap_or_default()
}

/// A VF that two records claim, or that is leased to somebody else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("VF {vf} is already leased to domain {holder}, pair {mac}")]
pub struct LeaseConflict {
    /// The VF.
    pub vf: VfId,
    /// Who holds it.
    pub holder: DomainId,
    /// For which pair.
    pub mac: Mac,
}

/// The pools of one host, and every lease.
#[derive(Debug, Clone, Default)]
pub struct PoolBook {
    pools: BTreeMap<PoolName, Vec<Vf>>,
    leases: BTreeMap<VfId, Lease>,
    reservations: BTreeMap<VfId, Reservation>,
    /// Pairs whose lease ends soon.
    returning: BTreeSet<(DomainId, Mac)>,
    /// In the order in which they began to wait.
    queue: Vec<Waiting>,
}

impl PoolBook {
    /// Replaces what the pools offer, after the configuration or the machine has changed. Leases stay, also those of VFs
    /// that are no longer offered: their guests may still have them.
    pub fn set_pools(&mut self, pools: BTreeMap<PoolName, Vec<Vf>>) {
        self.pools = pools;
    }

    /// The pools, by name.
    #[must_use]
    pub fn pools(&self) -> &BTreeMap<PoolName, Vec<Vf>> {
        &self.pools
    }

    /// Who holds a VF.
    #[must_use]
    pub fn holder(&self, vf: &VfId) -> Option<&Lease> {
        self.leases.get(vf)
    }

    /// Every lease.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// Leases a VF; a pair that has one gets the same again, unless its pool does not offer that one any more: then it gets
    /// another, or none. Not to be called for a pair whose VF is plugged.
    ///
    /// A VF that is reserved for the pair is taken first. A VF on the NUMA node of the guest's memory goes before one that is
    /// not: what the card writes for the guest does not cross the machine. Of the PFs that would do, the one with the most free
    /// VFs is taken, so that guests spread over the links; of its VFs the first.
    ///
    /// # Errors
    /// Why there is none.
    pub fn lease(&mut self, ask: &Ask) -> Result<Lease, NoVf> {
        self.lease_but(ask, &BTreeSet::new())
    }

    /// As [`Self::lease`], and leaves alone what is promised to others.
    fn lease_but(&mut self, ask: &Ask, promised: &BTreeSet<VfId>) -> Result<Lease, NoVf> {
        let held = self
            .leases
            .values()
            .find(|l| l.domain == ask.domain && l.mac == ask.mac)
            .cloned();
        if let Some(held) = held {
            // By another pool only: that is another network.
            let pool = self.pools.get(&ask.pool);
            if pool.is_some_and(|vfs| vfs.iter().any(|vf| vf.id == held.vf.id)) {
                return Ok(held);
            }
            self.leases.remove(&held.vf.id);
        }
        let pool = self
            .pools
            .get(&ask.pool)
            .ok_or_else(|| NoVf::UnknownPool(ask.pool.clone()))?;
        let suitable: Vec<&Vf> = pool
            .iter()
            .filter(|vf| ask.pf.as_ref().is_none_or(|pf| *pf == vf.pf))
            .collect();
        if suitable.is_empty() {
            return Err(NoVf::Empty {
                pool: ask.pool.clone(),
                pf: ask.pf.clone(),
            });
        }
        let is_free = |vf: &&Vf| self.is_free(vf) && !promised.contains(&vf.id);
        let free = || suitable.iter().copied().filter(is_free);
        let free_on = |pf: &IfName| free().filter(|vf| vf.pf == *pf).count();
        let chosen = self
            .reserved_of(ask, &suitable)
            .or_else(|| free().min_by_key(|vf| (!ask.is_near(vf), Reverse(free_on(&vf.pf)))))
            .ok_or_else(|| self.why_none(ask, &suitable))?;
        let lease = Lease {
            vf: chosen.clone(),
            domain: ask.domain,
            mac: ask.mac,
        };
        self.leases.insert(lease.vf.id.clone(), lease.clone());
        Ok(lease)
    }

    /// Neither leased nor held for anybody.
    fn is_free(&self, vf: &Vf) -> bool {
        !self.leases.contains_key(&vf.id) && !self.reservations.contains_key(&vf.id)
    }

    fn why_none(&self, ask: &Ask, suitable: &[&Vf]) -> NoVf {
        let (pool, pf) = (ask.pool.clone(), ask.pf.clone());
        if suitable.iter().any(|vf| self.is_free(vf)) {
            NoVf::NotItsTurn { pool, pf }
        } else if suitable.iter().any(|vf| !self.leases.contains_key(&vf.id)) {
            NoVf::Reserved { pool, pf }
        } else {
            NoVf::AllLeased { pool, pf }
        }
    }

    /// Puts a lease from a guest's record back into the book, after a restart.
    ///
    /// # Errors
    /// Somebody else has it: the records contradict each other.
    pub fn restore(&mut self, lease: &Lease) -> Result<(), LeaseConflict> {
        match self.leases.get(&lease.vf.id) {
            Some(held) if (held.domain, held.mac) != (lease.domain, lease.mac) => Err(LeaseConflict {
                vf: lease.vf.id.clone(),
                holder: held.domain,
                mac: held.mac,
            }),
            _ => {
                self.leases.insert(lease.vf.id.clone(), lease.clone());
                Ok(())
            }
        }
    }

    /// Gives back what a pair holds. True if it held anything.
    pub fn release(&mut self, domain: DomainId, mac: Mac) -> bool {
        let before = self.leases.len();
        self.leases.retain(|_, l| (l.domain, l.mac) != (domain, mac));
        self.leases.len() != before
    }

    /// Gives back what a domain holds beside `kept`: what its record names once that is on stable storage. True if there was
    /// anything.
    pub fn keep_only<'a>(&mut self, domain: DomainId, kept: impl IntoIterator<Item = &'a Lease>) -> bool {
        let kept: Vec<&VfId> = kept.into_iter().map(|lease| &lease.vf.id).collect();
        let before = self.leases.len();
        self.leases
            .retain(|vf, lease| lease.domain != domain || kept.contains(&vf));
        self.leases.len() != before
    }

    /// Says which of a domain's leases are on their way back to the pool; the others are not.
    pub fn set_returning(&mut self, domain: DomainId, macs: impl IntoIterator<Item = Mac>) {
        self.returning.retain(|(of, _)| *of != domain);
        self.returning.extend(macs.into_iter().map(|mac| (domain, mac)));
    }

    /// The PF for a standby that has no VF: one with free VFs, where an upgrade is possible; of these one on the NUMA node of
    /// the guest's memory; of these the one with the most free VFs; of equals the one with the fewest leases.
    #[must_use]
    pub fn standby_pf(&self, ask: &Ask) -> Option<IfName> {
        #[derive(Default)]
        struct Load {
            near: bool,
            free: usize,
            leased: usize,
        }
        let mut loads: BTreeMap<&IfName, Load> = BTreeMap::new();
        for vf in self.pools.get(&ask.pool)? {
            let load = loads.entry(&vf.pf).or_default();
            load.near |= ask.is_near(vf);
            if self.is_free(vf) {
                load.free += 1;
            } else {
                load.leased += 1;
            }
        }
        let rank = |load: &Load| (load.free == 0, !load.near, Reverse(load.free), load.leased);
        let best = loads.into_iter().min_by_key(|(_, load)| rank(load));
        best.map(|(pf, _)| pf.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vf(id: &str, pf: &str, index: u32) -> Vf {
        Vf {
            id: id.parse().expect("id"),
            pf: pf.parse().expect("pf"),
            index,
            numa_node: None,
        }
    }

    pub(super) fn book() -> PoolBook {
        let mut book = PoolBook::default();
        let vfs = vec![
            vf("01:10.0", "pf0", 0),
            vf("01:10.2", "pf0", 1),
            vf("02:10.0", "pf1", 0),
        ];
        book.set_pools([("lan".parse().expect("name"), vfs)].into());
        book
    }

    pub(super) fn ask(n: u8, pf: Option<&str>) -> Ask {
        Ask {
            pool: "lan".parse().expect("name"),
            domain: DomainId::from_bytes([n; 16]),
            mac: Mac::from_octets([0x52, 0x54, 0, 0, 0, n]).expect("mac"),
            pf: pf.map(|pf| pf.parse().expect("pf")),
            numa_nodes: Vec::new(),
        }
    }

    fn offer(book: &mut PoolBook, pools: &[(&str, Vec<Vf>)]) {
        let pools = pools
            .iter()
            .map(|(name, vfs)| (name.parse().expect("name"), vfs.clone()));
        book.set_pools(pools.collect());
    }

    /// Two VFs on node 0, three on node 1.
    fn two_nodes() -> PoolBook {
        let on = |node, vf| Vf {
            numa_node: Some(node),
            ..vf
        };
        let mut book = PoolBook::default();
        let vfs = vec![
            on(0, vf("01:10.0", "pf0", 0)),
            on(0, vf("01:10.2", "pf0", 1)),
            on(1, vf("81:10.0", "pf1", 0)),
            on(1, vf("81:10.2", "pf1", 1)),
            on(1, vf("81:10.4", "pf1", 2)),
        ];
        offer(&mut book, &[("lan", vfs)]);
        book
    }

    #[test]
    fn a_vf_beside_the_guests_memory_goes_before_one_that_is_not() {
        let mut book = two_nodes();
        let near = |n| Ask {
            numa_nodes: vec![0],
            ..ask(n, None)
        };
        assert_eq!(book.standby_pf(&near(1)).expect("a PF").as_str(), "pf0");
        let got: Vec<String> = (1..=3)
            .map(|n| book.lease(&near(n)).expect("free").vf.id.to_string())
            .collect();
        assert_eq!(got, ["01:10.0", "01:10.2", "81:10.0"], "a far one before none");
        assert_eq!(
            book.standby_pf(&near(4)).expect("a PF").as_str(),
            "pf1",
            "an upgrade is possible there only"
        );
        book.lease(&ask(4, None)).expect("free");
        book.lease(&ask(5, None)).expect("free");
        assert_eq!(book.standby_pf(&near(6)).expect("a PF").as_str(), "pf0");
        let indifferent = ask(7, None);
        let mut book = two_nodes();
        assert_eq!(book.lease(&indifferent).expect("free").vf.pf.as_str(), "pf1", "spread");
    }

    #[test]
    fn a_vf_of_several_pools_is_leased_once() {
        let mut book = PoolBook::default();
        let shared = vf("01:10.0", "pf0", 0);
        let other = vf("01:10.2", "pf0", 1);
        offer(
            &mut book,
            &[("lan", vec![shared.clone(), other]), ("gold", vec![shared])],
        );
        let gold = |n| Ask {
            pool: "gold".parse().expect("name"),
            ..ask(n, None)
        };
        assert_eq!(book.lease(&gold(1)).expect("free").vf.id.as_str(), "01:10.0");
        assert_eq!(book.lease(&ask(2, None)).expect("free").vf.id.as_str(), "01:10.2");
        assert!(matches!(book.lease(&ask(3, None)), Err(NoVf::AllLeased { .. })));
        book.release(gold(1).domain, gold(1).mac);
        assert_eq!(book.lease(&ask(3, None)).expect("free").vf.id.as_str(), "01:10.0");
        assert!(matches!(book.lease(&gold(1)), Err(NoVf::AllLeased { .. })));
    }

    #[test]
    fn a_vf_that_has_moved_to_another_pool_is_not_given_again() {
        let mut book = PoolBook::default();
        let moved = vf("01:10.0", "pf0", 0);
        offer(&mut book, &[("lan", vec![moved.clone()])]);
        book.lease(&ask(1, None)).expect("free");
        offer(
            &mut book,
            &[("lan", vec![vf("01:10.2", "pf0", 1)]), ("dmz", vec![moved])],
        );
        assert_eq!(book.lease(&ask(1, None)).expect("free").vf.id.as_str(), "01:10.2");
        assert_eq!(book.leases().count(), 1);
    }

    #[test]
    fn guests_spread_over_the_pfs_until_all_is_leased() {
        let mut book = book();
        let got: Vec<String> = (1..=3)
            .map(|n| book.lease(&ask(n, None)).expect("free").vf.id.to_string())
            .collect();
        assert_eq!(got, ["01:10.0", "01:10.2", "02:10.0"]);
        assert!(matches!(book.lease(&ask(4, None)), Err(NoVf::AllLeased { .. })));
    }

    #[test]
    fn a_pair_has_one_lease_however_often_it_asks() {
        let mut book = book();
        let first = book.lease(&ask(1, None)).expect("free");
        assert_eq!(book.lease(&ask(1, None)).expect("held"), first);
        assert!(book.release(first.domain, first.mac));
        assert!(!book.release(first.domain, first.mac));
        assert_eq!(book.leases().count(), 0);
    }

    #[test]
    fn a_vf_that_no_pool_offers_any_more_is_replaced() {
        let mut book = book();
        let lost = book.lease(&ask(1, Some("pf0"))).expect("free");
        let vfs = vec![vf("01:10.2", "pf0", 1)];
        book.set_pools([("lan".parse().expect("name"), vfs)].into());
        assert_eq!(book.leases().count(), 1, "its guest may still have it");
        let other = book.lease(&ask(1, Some("pf0"))).expect("free");
        assert_eq!(other.vf.id.as_str(), "01:10.2");
        assert_eq!(book.holder(&lost.vf.id), None);
        book.set_pools(BTreeMap::new());
        assert!(matches!(book.lease(&ask(1, None)), Err(NoVf::UnknownPool(_))));
        assert_eq!(book.leases().count(), 0);
    }

    #[test]
    fn a_standby_that_stays_on_its_pf_gets_a_vf_of_that_pf_only() {
        let mut book = book();
        assert_eq!(
            book.lease(&ask(1, Some("pf1"))).expect("free").vf.id.as_str(),
            "02:10.0"
        );
        let refused = book.lease(&ask(2, Some("pf1"))).expect_err("the only one is leased");
        assert_eq!(refused.to_string(), "every VF of pool lan is leased on PF pf1");
    }

    #[test]
    fn what_a_record_no_longer_names_is_given_back() {
        let mut book = book();
        let mine = book.lease(&ask(1, None)).expect("free");
        book.lease(&ask(2, None)).expect("free");
        assert!(!book.keep_only(mine.domain, [&mine]));
        assert!(book.keep_only(mine.domain, []));
        assert_eq!(book.leases().count(), 1, "another's is not touched");
    }

    #[test]
    fn records_that_contradict_each_other_are_told() {
        let mut book = book();
        let mine = book.lease(&ask(1, None)).expect("free");
        let theirs = Lease {
            domain: DomainId::from_bytes([9; 16]),
            ..mine.clone()
        };
        assert!(book.restore(&mine).is_ok());
        assert_eq!(book.restore(&theirs).expect_err("held").holder, mine.domain);
    }
}
