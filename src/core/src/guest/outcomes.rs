//! How actions went.

use super::act::{Action, Failure, Outcome};
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
                let pair = self.record.pairs.entry(ask.mac).or_default();
                pair.pf = Some(lease.vf.pf.clone());
                pair.lease = Some(lease);
                self.confirm.remove(&ask.mac);
                self.degraded.remove(&ask.mac);
            }
            (Action::Lease(ask) | Action::ChoosePf(ask), Outcome::NoVf { reason, pf }) => {
                self.no_vf(now, ask.mac, reason, pf);
            }
            (Action::MakeStandby { mac, .. } | Action::RaiseStandby(mac), Outcome::Standby(standby)) => {
                self.seen.standby.insert(*mac, standby);
                if !self.lacks_vf(*mac) {
                    self.degraded.remove(mac);
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
                if let Some(agent) = &mut self.seen.agent {
                    agent.insert(*mac, pair);
                }
                self.degraded.remove(mac);
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
                self.seen.prepared.remove(&lease.mac);
            }
            (Action::Release(lease), _) => {
                let comes = self.comes();
                if let Some(pair) = self.record.pairs.get_mut(&lease.mac) {
                    pair.lease = None;
                    // Chosen for the VF; without it there may be a better place.
                    pair.pf = pair.pf.take().filter(|_| !comes);
                }
            }
            (Action::RemoveStandby(mac), _) => {
                self.seen.standby.remove(mac);
                if let Some(pair) = self.record.pairs.get_mut(mac) {
                    pair.pf = None;
                }
            }
            (Action::Announce, _) => self.record.arrived = false,
            (Action::RepairXml { .. }, _) => self.record.xml_stale = false,
            _ => {}
        }
    }

    fn comes(&self) -> bool {
        matches!(self.record.stage, Stage::Starting | Stage::Incoming { .. })
    }

    /// A record that was made for a guest found running knows nothing yet.
    fn find_pfs(&mut self) {
        if self.comes() {
            return;
        }
        for mac in self.record.macs() {
            let seen = self.seen.standby.get(&mac).map(|standby| standby.pf.clone());
            let pf = seen.or_else(|| self.pinned_pf(mac));
            let pair = self.record.pairs.entry(mac).or_default();
            if pair.pf.is_none() {
                pair.pf = pf;
            }
            let why = match pair.pf.clone() {
                Some(pf) if self.lacks_vf(mac) => {
                    format!("no VF was free when the domain came here: it is on a bridge-mode macvtap of PF {pf}")
                }
                None if self.record.wants_primary(mac) => {
                    "libvirt has not said which PF its standby is on; start the domain again".to_owned()
                }
                _ => continue,
            };
            self.degraded.entry(mac).or_insert(why);
        }
    }

    /// It has a standby of the wrong kind, as there was no VF for it.
    pub(super) fn lacks_vf(&self, mac: Mac) -> bool {
        self.record.is_indirect(mac) && self.record.pair(mac).lease.is_none()
    }

    /// What happened during a look is younger than what was seen, or the same.
    fn catch_up(&mut self) {
        for event in std::mem::take(&mut self.meanwhile) {
            self.seen.note(event);
        }
    }

    fn no_vf(&mut self, now: Millis, mac: Mac, reason: String, pf: Option<IfName>) {
        let policy = self.record.pair_spec(mac).map(|pair| pair.policy).unwrap_or_default();
        let comes = self.comes();
        let pf = self.pinned_pf(mac).or(pf);
        match (self.record.flavor(mac), &pf) {
            (Some(Flavor::Hybrid), _) => drop(self.degraded.insert(mac, reason.clone())),
            (Some(Flavor::Indirect), Some(pf)) => {
                let why = format!("{reason}: it is on a bridge-mode macvtap of PF {pf}");
                self.degraded.insert(mac, why);
            }
            _ => {}
        }
        let required = policy == Policy::Require && self.record.flavor(mac) != Some(Flavor::Virtual);
        let pair = self.record.pairs.entry(mac).or_default();
        pair.lease = None;
        self.confirm.remove(&mac);
        if !comes {
            self.later(Retry::Lease(mac), now);
            return;
        }
        match pf {
            _ if required => {
                self.leave(now, &format!("{reason}, and the policy of pair {mac} is \"require\""));
            }
            Some(pf) => pair.pf = Some(pf),
            None => self.leave(now, &reason),
        }
    }

    pub(super) fn failed(&mut self, now: Millis, action: &Action, failure: Failure) {
        let reason = failure.reason;
        self.meanwhile.clear();
        self.look_again = false;
        let comes = self.comes();
        if let (Some(mac), false) = (action.mac(), comes) {
            self.degraded.insert(mac, reason.clone());
        }
        match action {
            Action::Look { .. } => self.later(Retry::Look, now),
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
            // A VF that has the pair's MAC and no driver can take frames from the standby; and the pool may have lost it.
            Action::PrepareVf { lease, .. } => self.undo_plug(now, lease.mac),
            Action::Plug(lease) => {
                self.undo_plug(now, lease.mac);
                // device_add may have been carried out, and its answer lost.
                self.seen.looked = false;
            }
            Action::Failback(mac) => self.later(Retry::Failback(*mac), now),
            Action::Failover(_) | Action::Unplug(_) if matches!(self.record.stage, Stage::Draining { .. }) => {
                self.drain_failed(now, &reason);
            }
            Action::ResetVf(lease) | Action::Release(lease) => self.later(Retry::Clean(lease.mac), now),
            Action::RemoveStandby(mac) => self.later(Retry::Clean(*mac), now),
            // Lost announcements cost the guest's neighbours a moment; the frames that the guest sends repair it.
            Action::Announce => self.record.arrived = false,
            Action::RepairXml { .. } => self.later(Retry::Repair, now),
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
