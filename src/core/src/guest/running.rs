//! `Running`: every pair gets to its VF and stays there.

use super::act::{Action, Answer};
use super::seen::{Job, MigrationSeen};
use super::{Guest, REPAIRS, Retry, STANDBY_GONE};
use crate::Millis;
use crate::ids::Mac;
use crate::pool::Ask;

impl Guest {
    pub(super) fn running(&mut self, now: Millis) -> Option<Action> {
        if self.seen.qmp.is_none() {
            // What the guest wants can no longer be followed.
            return self.tune(now);
        }
        for mac in self.record.macs() {
            if self.standby_is_gone(mac) {
                self.degraded.insert(mac, STANDBY_GONE.to_owned());
            }
        }
        if let Some(raise) = self.raise(now) {
            return Some(raise);
        }
        let wait = !self.seen.running() || self.seen.migration() == MigrationSeen::Active;
        if wait || !self.may(Retry::Anything, now) {
            return None;
        }
        if self.record.arrived {
            return Some(Action::Announce);
        }
        if let Some(tune) = self.tune(now) {
            return Some(tune);
        }
        if !self.record.unwritten.is_empty() && self.may(Retry::Write, now) {
            return Some(Action::WritePolicies(self.record.unwritten.clone()));
        }
        for mac in self.record.macs() {
            let action = self.upgrade(now, mac);
            if action.is_some() {
                return action;
            }
        }
        if self.repairs_now(now) {
            let sources = self.sources();
            return Some(Action::RepairXml { sources });
        }
        self.answer_plug();
        // After an answer, which is given at once.
        if self.answers.is_empty() {
            self.read_filters(now)
        } else {
            None
        }
    }

    /// The next step of a running pair towards its VF, or away from one that it is not to have.
    fn upgrade(&mut self, now: Millis, mac: Mac) -> Option<Action> {
        let has = self.record.pair(mac);
        let wanted = self.record.wants_primary(mac);
        if self.record.is_indirect(mac) && !self.seen.plugged(mac) {
            // Its VF is below its standby, which cannot be moved under QEMU.
            return None;
        }
        if self.seen.plugged(mac) {
            // It was said to have failed, and has not.
            self.undo.remove(&mac);
            let ready = |pair: &super::AgentPair| pair.primary_ready && !pair.on_primary;
            let switch = wanted && self.seen.agent_pair(mac).as_ref().is_some_and(ready);
            return (switch && self.may(Retry::Failback(mac), now)).then_some(Action::Failback(mac));
        }
        let pf = self.pinned_pf(mac).or(has.pf);
        match has.lease {
            Some(lease) if self.undo.contains(&mac) => {
                self.may(Retry::Clean(mac), now).then_some(Action::ResetVf(lease))
            }
            // libvirt's standby is on another PF than was meant for it: that VF is not for this pair.
            Some(lease) if self.pinned_pf(mac).is_some_and(|pf| pf != lease.vf.pf) => {
                self.may(Retry::Clean(mac), now).then(|| self.give_back(lease))
            }
            Some(lease) if !wanted => self.may(Retry::Clean(mac), now).then(|| self.give_back(lease)),
            Some(lease) if !self.confirm.contains(&mac) => self.plug(now, lease),
            // The standby of a running guest stays where it is; while that is not known, no VF fits.
            _ if wanted && pf.is_some() && self.may(Retry::Lease(mac), now) => Some(Action::Lease(Ask {
                pool: self.record.pair_spec(mac)?.pool.clone(),
                domain: self.record.spec.id,
                mac,
                pf,
                numa_nodes: self.record.spec.numa_nodes.clone(),
            })),
            _ => None,
        }
    }

    fn plug(&mut self, now: Millis, lease: crate::pool::Lease) -> Option<Action> {
        let mac = lease.mac;
        let bonded = self.seen.agent_pair(mac).is_some_and(|pair| pair.bonded);
        if (self.settings.need_agent && !bonded) || !self.may(Retry::Plug(mac), now) {
            return None;
        }
        if self.seen.prepared.contains(&mac) {
            return Some(Action::Plug(lease));
        }
        // QEMU refuses device_add during a migration, and libvirt may be about to begin one: look right before.
        let fresh = self.job_seen.is_some_and(|at| now <= at + self.settings.job_interval);
        if !fresh || matches!(self.seen.job, Job::Outgoing | Job::Other) {
            return self.may(Retry::Job, now).then_some(Action::LookAtJob);
        }
        Some(Action::PrepareVf {
            vlan: self.record.pair_spec(mac)?.vlan,
            lease,
        })
    }

    /// Nobody reads the persistent XML before the domain's next start: a guest that has just come, and needs its host's
    /// processors to go on, is left alone for a while, unless it is on its VFs already.
    fn repairs_now(&self, now: Millis) -> bool {
        let settled = self.pairs_are_as_wanted() && self.record.macs().iter().any(|mac| self.on_primary(*mac));
        let due = self.may(Retry::Repair, now) || (settled && self.repairs_failed == 0);
        self.record.xml_stale && self.unrepaired.is_none() && due
    }

    /// Tried again with a growing pause, and not for ever: what does not come right by itself somebody has to mend.
    pub(super) fn repair_failed(&mut self, now: Millis, reason: &str) {
        self.repairs_failed += 1;
        self.later(Retry::Repair, now);
        if self.repairs_failed >= REPAIRS {
            let name = &self.record.spec.name;
            self.unrepaired = Some(format!(
                "the XML of {name} still names the host that it came from, which counts at its next start or migration: \
                 {reason}; mend that, and 'hybondctl plug {name}' tries again"
            ));
        }
    }

    /// Something has happened to the domain: its XML may be put right now.
    pub(super) fn repair_again(&mut self) {
        self.repairs_failed = 0;
        if self.unrepaired.take().is_some() {
            self.not_before.remove(&Retry::Repair);
        }
    }

    /// `hybondctl plug` and `set` wait until the pairs are on their VFs, or it is known why one is not.
    fn answer_plug(&mut self) {
        let lacks = |mac: &Mac| self.record.wants_primary(*mac) || self.record.barred(*mac).is_some();
        let waiting = |mac: &Mac| lacks(mac) && !self.on_primary(*mac);
        let open: Vec<Mac> = self.record.macs().into_iter().filter(waiting).collect();
        if open.is_empty() {
            self.answer_all(&Answer::Done(Vec::new()));
        } else if let Some(reason) = open.iter().find_map(|mac| self.degraded.get(mac)) {
            let reason = reason.clone();
            // A policy that cannot be obeyed for now is set all the same.
            self.answer_policy(&Answer::Done(Vec::new()));
            self.answer_all(&Answer::Refused(reason));
        }
    }

    /// A VF that has gone. Where nobody asked for that, the guest has thrown it out, or lets go of it late: it must not keep
    /// the pair's MAC, which would draw the standby's frames to it.
    pub(super) fn device_deleted(&mut self, now: Millis, mac: Mac) {
        self.unplugging.remove(&mac);
        self.unsure.remove(&mac);
        // Of the VF that it gets next.
        self.not_before.remove(&Retry::Failback(mac));
        if matches!(&self.in_flight, Some(Action::Plug(lease)) if lease.mac == mac) {
            // Plugged and gone again, or a late word of the last time.
            self.seen.looked = false;
        }
        if self.record.stage == super::Stage::Running && self.record.pair(mac).lease.is_some() {
            self.undo.insert(mac);
            self.later(Retry::Plug(mac), now);
        }
    }
}
