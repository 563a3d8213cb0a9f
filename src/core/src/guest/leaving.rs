//! `Leaving`: the domain is not on this host; what it had is taken back.

use super::act::{Action, Answer};
use super::record::Stage;
use super::seen::DomainSeen;
use super::{Guest, Retry};
use crate::Millis;
use crate::ids::Mac;
use crate::pool::Lease;

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

    pub(super) fn leases(&self) -> Vec<Lease> {
        let pairs = self.record.pairs.values();
        pairs.filter_map(|pair| pair.lease.clone()).collect()
    }
}
