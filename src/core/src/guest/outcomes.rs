//! How actions went.

use super::act::{Action, Answer, Failure, Outcome};
use super::record::Stage;
use super::{Event, Guest, Retry, Unplugging};
use crate::Millis;
use crate::ids::{IfName, Mac};
use crate::spec::{Flavor, Policy};

impl Guest {
    pub(super) fn succeeded(&mut self, now: Millis, action: &Action, outcome: Outcome) {
        match (action, outcome) {
            (Action::Look { .. }, Outcome::Looked(snapshot)) => {
                if snapshot.libvirt.is_some() {
                    self.job_seen = Some(now);
                }
                self.seen.take(snapshot);
                self.catch_up();
                self.seen.looked = !std::mem::take(&mut self.look_again);
                self.find_pfs();
            }
            (Action::LookAtJob, Outcome::Job(domain, job)) => {
                self.seen.note(Event::Domain(domain));
                self.seen.job = job;
                self.catch_up();
                self.job_seen = Some(now);
                self.later(Retry::Job, now);
            }
            (Action::Lease(ask), Outcome::Leased(lease)) => {
                let pair = self.record_mut().pairs.entry(ask.mac).or_default();
                pair.pf = Some(lease.vf.pf.clone());
                // One that the pool still has is no better than before: why it could not be plugged is still so.
                let confirmed = pair.lease.as_ref() == Some(&lease);
                pair.lease = Some(lease);
                self.confirm.remove(&ask.mac);
                self.awaits_vf.remove(&ask.mac);
                if !confirmed {
                    self.degraded.remove(&ask.mac);
                }
            }
            (Action::Lease(ask), Outcome::NotYet { reason, pf }) => self.not_yet(now, ask.mac, reason, pf),
            (Action::Lease(ask) | Action::ChoosePf(ask), Outcome::NoVf { reason, pf }) => {
                self.no_vf(now, ask.mac, reason, pf);
            }
            (Action::ReadFilters, Outcome::Filters(filters)) => {
                self.read(now, filters);
            }
            (Action::MakeStandby { mac, .. } | Action::RaiseStandby(mac), Outcome::Standby(standby)) => {
                self.seen.standby.insert(*mac, Box::new(standby));
                if !self.lacks_vf(*mac) {
                    self.degraded.remove(mac);
                }
            }
            (Action::LowerStandby(mac), Outcome::Standby(standby)) => {
                self.seen.standby.insert(*mac, Box::new(standby));
            }
            (Action::TuneStandby { mac, mode, multicast }, Outcome::Done) => {
                if let Some(standby) = self.seen.standby.get_mut(mac) {
                    (standby.mode, standby.multicast) = (*mode, multicast.clone());
                }
            }
            (Action::AskDrain { .. }, _) => self.drained = true,
            (Action::PrepareVf { lease, .. }, _) => {
                self.seen.prepared.insert(lease.mac);
                self.reset.remove(&lease.mac);
            }
            (Action::Plug(lease), _) => {
                if let Some(qmp) = &mut self.seen.qmp {
                    qmp.plugged.insert(lease.mac);
                }
                self.degraded.remove(&lease.mac);
            }
            (Action::Failover(mac) | Action::Failback(mac), Outcome::Switched(pair)) => {
                let before = self.seen.agent.clone();
                if let Some(agent) = &mut self.seen.agent {
                    agent.insert(*mac, pair);
                }
                self.note_switch(now, before.as_ref());
                self.unsure.remove(mac);
                self.degraded.remove(mac);
                if matches!(action, Action::Failback(_)) {
                    // A guest that leaves its VF again is switched at our pace, not at its own.
                    self.later(Retry::Failback(*mac), now);
                }
            }
            (Action::Unplug(lease), Outcome::NotPlugged) => {
                if let Some(qmp) = &mut self.seen.qmp {
                    qmp.plugged.remove(&lease.mac);
                }
            }
            // DEVICE_DELETED can come before device_del has returned.
            (Action::Unplug(lease), _) if self.seen.plugged(lease.mac) => {
                let until = now + self.settings.unplug_within;
                self.unplugging.insert(lease.mac, Unplugging { until, looked: false });
            }
            (Action::ResetVf(lease), _) => {
                self.reset.insert(lease.mac);
                self.undo.remove(&lease.mac);
            }
            (Action::Release(lease), _) => {
                let comes = self.comes();
                if let Some(pair) = self.record_mut().pairs.get_mut(&lease.mac) {
                    pair.lease = None;
                    // Chosen for the VF; without it there may be a better place.
                    pair.pf = pair.pf.take().filter(|_| !comes);
                }
            }
            (Action::RemoveStandby(mac), _) => {
                self.seen.standby.remove(mac);
                if let Some(pair) = self.record_mut().pairs.get_mut(mac) {
                    pair.pf = None;
                }
            }
            (Action::Announce, _) => {
                self.record_mut().arrived = false;
                self.later(Retry::Repair, now);
            }
            (Action::RepairXml { .. }, _) => {
                self.record_mut().xml_stale = false;
                self.repair_again();
            }
            (Action::WritePolicies(written), _) => self
                .record_mut()
                .unwritten
                .retain(|mac, policy| written.get(mac) != Some(policy)),
            _ => {}
        }
    }

    /// It is laid out here, and does not run yet.
    pub(super) fn comes(&self) -> bool {
        matches!(self.record.stage, Stage::Starting | Stage::Incoming { .. })
    }

    /// A record that was made for a guest found running knows nothing yet. Of a standby that libvirt makes, where libvirt has
    /// put it counts, whatever it was laid out for: a VF of another PF may still wait to be given back.
    pub(super) fn find_pfs(&mut self) {
        if self.comes() {
            return;
        }
        for mac in self.record.macs() {
            let seen = self.seen.standby.get(&mac).map(|standby| standby.pf.clone());
            let pinned = self.pinned_pf(mac);
            let known = self.record.pair(mac).pf;
            let pf = pinned.or_else(|| known.clone()).or(seen);
            let unknown = pf.is_none();
            if pf != known {
                // Only then: a record that is taken to be changed is no longer shared, and each look comes here.
                self.record_mut().pairs.entry(mac).or_default().pf = pf;
            }
            if unknown && self.record.wants_primary(mac) {
                let why = "libvirt has not said which PF its standby is on; start the domain again";
                self.degraded.entry(mac).or_insert_with(|| why.to_owned());
            }
            self.note_lack(mac);
        }
    }

    /// Says of a pair that lacks its VF for good why it is so, where nothing better is known.
    pub(super) fn note_lack(&mut self, mac: Mac) {
        if let Some(why) = self.record.barred(mac) {
            self.degraded.insert(mac, why);
            return;
        }
        if let (Some(pf), true) = (self.record.pair(mac).pf, self.lacks_vf(mac)) {
            let why = format!(
                "it came here without a VF, and is on a bridge-mode macvtap of PF {pf} until its next start or migration"
            );
            self.degraded.entry(mac).or_insert(why);
        }
    }

    /// It gets no VF before its next start or migration: it has a standby of the wrong kind, as there was no VF for it, or can
    /// have none.
    pub(super) fn lacks_vf(&self, mac: Mac) -> bool {
        let misplaced = self.record.is_indirect(mac) && self.record.pair(mac).lease.is_none();
        misplaced || self.record.barred(mac).is_some()
    }

    /// It may not come without a VF.
    fn is_required(&self, mac: Mac) -> bool {
        let policy = self.record.pair_spec(mac).map(|pair| pair.policy);
        policy == Some(Policy::Require) && self.record.flavor(mac) != Some(Flavor::Virtual)
    }

    /// What happened during a look is younger than what was seen, or the same.
    fn catch_up(&mut self) {
        for event in std::mem::take(&mut self.meanwhile) {
            self.seen.note(event);
        }
    }

    /// A domain that comes and must have a VF waits for one that is on its way back, for a while.
    fn not_yet(&mut self, now: Millis, mac: Mac, reason: String, pf: Option<IfName>) {
        if !self.comes() || !self.is_required(mac) {
            return self.no_vf(now, mac, reason, pf);
        }
        let until = *self.awaits_vf.entry(mac).or_insert(now + self.settings.vf_within);
        // Told when the pool has it; asked all the same, as who has it may keep it.
        let again = until.min(now + self.settings.job_interval);
        self.not_before.insert(Retry::Lease(mac), again);
        if now >= until {
            self.no_vf(now, mac, reason, pf);
        }
    }

    fn no_vf(&mut self, now: Millis, mac: Mac, reason: String, pf: Option<IfName>) {
        let comes = self.comes();
        let pf = self.pinned_pf(mac).or(pf);
        let reason = self.record.barred(mac).unwrap_or(reason);
        match (self.record.flavor(mac), &pf) {
            (Some(Flavor::Hybrid), _) => drop(self.degraded.insert(mac, reason.clone())),
            (Some(Flavor::Indirect), Some(pf)) => {
                let why = format!("{reason}: it is on a bridge-mode macvtap of PF {pf}");
                self.degraded.insert(mac, why);
            }
            _ => {}
        }
        let required = self.is_required(mac);
        self.record_mut().pairs.entry(mac).or_default().lease = None;
        self.confirm.remove(&mac);
        if !comes {
            self.later(Retry::Lease(mac), now);
            return;
        }
        match pf {
            _ if required => {
                self.leave(now, &format!("{reason}, and the policy of pair {mac} is \"require\""));
            }
            Some(pf) => self.record_mut().pairs.entry(mac).or_default().pf = Some(pf),
            None => self.leave(now, &reason),
        }
    }

    pub(super) fn failed(&mut self, now: Millis, action: &Action, failure: Failure) {
        let reason = failure.reason;
        self.meanwhile.clear();
        let again = std::mem::take(&mut self.look_again);
        let comes = self.comes();
        // A pair whose standby cannot be tuned is on the path that it is to be on: the journal has it.
        let tunes = matches!(action, Action::LowerStandby(_) | Action::TuneStandby { .. });
        if let (Some(mac), false) = (action.mac(), comes || tunes) {
            self.degraded.insert(mac, reason.clone());
        }
        match action {
            // Asked for while this one was about to fail.
            Action::Look { .. } if again => {}
            Action::Look { .. } => self.later(Retry::Look, now),
            // Nothing has been done to the guest yet, and who asked is told why; asked again, it is tried again.
            Action::LookAtJob if matches!(self.record.stage, Stage::Draining { .. }) => self.drain_failed(now, &reason),
            Action::LookAtJob => self.later(Retry::Job, now),
            Action::AskDrain { .. } | Action::MakeStandby { .. } | Action::ChoosePf(_) | Action::PrepareVf { .. }
                if comes =>
            {
                self.leave(now, &reason);
            }
            Action::Lease(_) if comes => self.leave(now, &reason),
            Action::Lease(ask) => self.later(Retry::Lease(ask.mac), now),
            Action::RaiseStandby(_) if self.record.stage == Stage::Starting => self.leave(now, &reason),
            Action::RaiseStandby(mac) => self.later(Retry::RaiseStandby(*mac), now),
            // The standby takes everything until they can be had.
            Action::ReadFilters => {
                self.seen.filters = None;
                self.seen.filters_fresh = false;
                self.later(Retry::Filters, now);
            }
            Action::LowerStandby(mac) | Action::TuneStandby { mac, .. } => {
                self.later(Retry::Tune(*mac), now);
                // It may have been done, in part or whole: what it takes now decides whether the traffic may go to it.
                self.seen.looked = false;
                if matches!(self.record.stage, Stage::Draining { .. }) {
                    self.drain_failed(now, &reason);
                }
            }
            // A VF that has the pair's MAC and no driver can take frames from the standby; and the pool may have lost it.
            Action::PrepareVf { lease, .. } => self.undo_plug(now, lease.mac),
            Action::Plug(lease) => {
                self.undo_plug(now, lease.mac);
                // device_add may have been carried out, and its answer lost.
                self.seen.looked = false;
            }
            Action::Failback(mac) => {
                self.unsure.insert(*mac);
                self.later(Retry::Failback(*mac), now);
            }
            Action::Failover(_) | Action::Unplug(_) if matches!(self.record.stage, Stage::Draining { .. }) => {
                self.drain_failed(now, &reason);
            }
            // As long as it has one of another PF, it is not known whether there is one for it.
            Action::ResetVf(lease) | Action::Release(lease) if comes && self.is_required(lease.mac) => {
                self.leave(now, &reason);
            }
            Action::ResetVf(lease) | Action::Release(lease) => self.later(Retry::Clean(lease.mac), now),
            // It may be gone all the same; and in its place there has to be another.
            Action::RemoveStandby(mac) if comes && self.record.pair_spec(*mac).is_some() => self.leave(now, &reason),
            Action::RemoveStandby(mac) => self.later(Retry::Clean(*mac), now),
            // Lost announcements cost the guest's neighbours a moment; the frames that the guest sends repair it.
            Action::Announce => self.record_mut().arrived = false,
            Action::RepairXml { .. } => self.repair_failed(now, &reason),
            Action::WritePolicies(_) => {
                self.later(Retry::Write, now);
                self.answer_policy(&Answer::Refused(format!(
                    "the policy holds here, but is not in the domain's metadata yet, which is tried again: {reason}"
                )));
            }
            Action::AskDrain { .. }
            | Action::MakeStandby { .. }
            | Action::ChoosePf(_)
            | Action::Failover(_)
            | Action::Unplug(_)
            | Action::Answer { .. } => {}
        }
    }

    fn undo_plug(&mut self, now: Millis, mac: Mac) {
        self.undo.insert(mac);
        self.confirm.insert(mac);
        self.later(Retry::Plug(mac), now);
    }
}
