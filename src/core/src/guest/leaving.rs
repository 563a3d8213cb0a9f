//! `Leaving`: the domain is not on this host; what it had is taken back.

use super::act::{Action, Answer};
use super::record::{DrainReason, Hook, Record, Stage};
use super::seen::DomainSeen;
use super::{Guest, Retry};
use crate::Millis;
use crate::ids::Mac;
use crate::pool::Lease;
use std::collections::BTreeSet;

impl Guest {
    /// Nothing but taking back is left to do; who waits is told why.
    pub(super) fn leave(&mut self, now: Millis, reason: &str) {
        self.answer_all(&Answer::Refused(reason.to_owned()));
        self.enter(now, Stage::Leaving);
        // What there is to take back is seen, not remembered; and that nobody uses it any more is libvirt's to say.
        self.seen.looked = false;
    }

    pub(super) fn leaving(&mut self, now: Millis) -> Option<Action> {
        if self.seen.domain != DomainSeen::Absent {
            if !self.may(Retry::Job, now) {
                return None;
            }
            self.later(Retry::Job, now);
            return Some(self.look());
        }
        let macs: Vec<Mac> = self.record.pairs.keys().copied().collect();
        for mac in &macs {
            // One that fails is tried again later, and the others are not kept waiting.
            if !self.may(Retry::Clean(*mac), now) {
                continue;
            }
            if self.has_standby(*mac) {
                return Some(Action::RemoveStandby(*mac));
            }
            if let Some(lease) = self.record.pair(*mac).lease {
                return Some(self.give_back(lease));
            }
        }
        self.forgotten = macs
            .iter()
            .all(|mac| self.record.pair(*mac).lease.is_none() && !self.has_standby(*mac));
        None
    }

    /// A standby that libvirt made is libvirt's to remove; that of a pair which the domain no longer has is not looked for.
    pub(super) fn has_standby(&self, mac: Mac) -> bool {
        match self.record.pair_spec(mac) {
            Some(_) => self.seen.standby.contains_key(&mac) && self.record.owns_standby(mac),
            None => self.record.pair(mac).pf.is_some(),
        }
    }

    /// The next step of an unplugged VF towards the pool.
    pub(super) fn give_back(&self, lease: Lease) -> Action {
        if self.reset.contains(&lease.mac) {
            Action::Release(lease)
        } else {
            Action::ResetVf(lease)
        }
    }

    /// Pairs whose VF is on its way back to the pool. Who takes it next may wait for it. `written`: the record as it is on
    /// stable storage; the pool has a VF back only when that one does not name it any more.
    #[must_use]
    pub fn returning(&self, written: Option<&Record>) -> BTreeSet<Mac> {
        let ends = self.ends();
        let leases = self.leases().into_iter().map(|lease| lease.mac);
        let given_up = leases.filter(|mac| ends || self.gives_up(*mac));
        let released = written.into_iter().flat_map(|written| &written.pairs);
        let released = released.filter(|(mac, pair)| pair.lease.is_some() && self.record.pair(**mac).lease.is_none());
        given_up.chain(released.map(|(mac, _)| *mac)).collect()
    }

    /// The domain has gone, or will not come. libvirt's word counts at once, whatever is still being done.
    pub(super) fn ends(&self) -> bool {
        let absent = self.seen.domain == DomainSeen::Absent;
        match self.record.stage {
            Stage::Leaving => true,
            Stage::Starting | Stage::Incoming { .. } => {
                absent && (self.met || self.record.answered == Some(Hook::Prepare))
            }
            Stage::Running | Stage::Draining { .. } | Stage::Outgoing { .. } => absent,
        }
    }

    /// It stays, and does without the VF of this pair.
    fn gives_up(&self, mac: Mac) -> bool {
        if self.record.is_indirect(mac) {
            return false;
        }
        match &self.record.stage {
            Stage::Running => !self.record.wants_primary(mac) && !self.seen.plugged(mac),
            Stage::Draining { reason } => match reason {
                DrainReason::Administrator => true,
                DrainReason::Never(macs) => macs.contains(&mac),
                // It gets it back if it stays.
                DrainReason::Migration(_) => false,
            },
            Stage::Starting | Stage::Incoming { .. } | Stage::Outgoing { .. } | Stage::Leaving => false,
        }
    }

    pub(super) fn leases(&self) -> Vec<Lease> {
        let pairs = self.record.pairs.values();
        pairs.filter_map(|pair| pair.lease.clone()).collect()
    }
}
