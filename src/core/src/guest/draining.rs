//! `Draining`: the traffic to the standby, then the VF out of the guest, then the VF clean.

use super::act::{Action, Answer};
use super::record::{DrainReason, HeldBack, Stage};
use super::seen::Job;
use super::{Guest, Retry, STANDBY_GONE};
use crate::Millis;
use crate::ids::Mac;
use crate::pool::Lease;
use crate::spec::Policy;

impl Guest {
    pub(super) fn draining(&mut self, now: Millis, reason: &DrainReason) -> Option<Action> {
        match self.drain_step(now, reason) {
            Ok(action) => action,
            Err(reason) => {
                self.drain_failed(now, &reason);
                None
            }
        }
    }

    fn drain_step(&mut self, now: Millis, reason: &DrainReason) -> Result<Option<Action>, String> {
        if self.deadline.is_some_and(|at| now >= at) {
            let within = self.settings.drain_within;
            return Err(format!("the drain did not end within {within} ms"));
        }
        // What is plugged is known from the monitor only.
        let Some(qmp) = &self.seen.qmp else { return Ok(None) };
        if let DrainReason::Migration(_) = reason {
            if self.job_seen.is_none() {
                return Ok(self.may(Retry::Job, now).then_some(Action::LookAtJob));
            }
            if self.seen.job != Job::Outgoing {
                return Err("the domain is not in an outgoing migration on this host".to_owned());
            }
        }
        // A VF below a standby stays there: there is nothing of it to unplug, and the guest's traffic is on it.
        let leases: Vec<Lease> = self
            .leases()
            .into_iter()
            .filter(|lease| !self.record.is_indirect(lease.mac) || self.seen.plugged(lease.mac))
            .collect();
        if let Some(mac) = qmp.plugged.iter().find(|mac| leases.iter().all(|l| l.mac != **mac)) {
            return Err(format!(
                "pair {mac} has a primary plugged that no lease accounts for; unplug it with virsh \
                 qemu-monitor-command, or shut the guest down"
            ));
        }
        // Without its VF, nothing would be left.
        let cut_off = |mac: &Mac| self.standby_is_gone(*mac) && self.seen.plugged(*mac);
        if let Some(mac) = self.record.macs().into_iter().find(cut_off) {
            return Err(format!("pair {mac}: {STANDBY_GONE}"));
        }
        if let Some(raise) = self.raise(now) {
            return Ok(Some(raise));
        }
        // Before a failover the standby takes every group: those that the guest's bond has are told to it by the switch only
        // (`bond_hw_addr_swap()`), and known here a moment later.
        if let Some(tune) = self.tune(now) {
            return Ok(Some(tune));
        }
        let meant = |lease: &Lease| match reason {
            DrainReason::Never(macs) => macs.contains(&lease.mac),
            DrainReason::Migration(_) | DrainReason::Administrator => true,
        };
        let (plugged, unplugged): (Vec<Lease>, Vec<Lease>) = leases
            .into_iter()
            .filter(meant)
            .partition(|lease| self.seen.plugged(lease.mac));
        for lease in &plugged {
            if let Some(action) = self.unplug(now, lease)? {
                return Ok(Some(action));
            }
        }
        if !plugged.is_empty() {
            return Ok(None);
        }
        for lease in &unplugged {
            if !self.reset.contains(&lease.mac) {
                let may = self.may(Retry::Clean(lease.mac), now);
                return Ok(may.then(|| Action::ResetVf(lease.clone())));
            }
        }
        match reason {
            DrainReason::Migration(migration) => {
                let migration = migration.clone();
                self.answer_all(&Answer::Done(Vec::new()));
                self.enter(now, Stage::Outgoing { migration });
            }
            DrainReason::Administrator | DrainReason::Never(_) => {
                if let Some(lease) = unplugged.into_iter().next() {
                    let may = self.may(Retry::Clean(lease.mac), now);
                    return Ok(may.then_some(Action::Release(lease)));
                }
                match reason {
                    // Who has set the policy waits on: it is to be written down, too.
                    DrainReason::Never(macs) => macs
                        .iter()
                        .for_each(|mac| self.record_mut().set_policy(*mac, Policy::Never)),
                    DrainReason::Administrator | DrainReason::Migration(_) => {
                        for mac in self.record.macs() {
                            if !self.record.is_indirect(mac) {
                                self.record_mut().pairs.entry(mac).or_default().held_back = Some(HeldBack::Drained);
                            }
                        }
                        self.answer_all(&Answer::Done(Vec::new()));
                    }
                }
                self.enter(now, Stage::Running);
            }
        }
        Ok(None)
    }

    /// The next step of a plugged VF out of the guest. An error ends the drain.
    fn unplug(&mut self, now: Millis, lease: &Lease) -> Result<Option<Action>, String> {
        let mac = lease.mac;
        // Never before the guest has another path.
        if self.record.owns_standby(mac) && !self.seen.standby_up(mac) {
            return Ok(None);
        }
        if let Some(unplugging) = self.unplugging.get_mut(&mac) {
            if now < unplugging.until {
                return Ok(None);
            }
            if !unplugging.looked {
                // DEVICE_DELETED may have been lost.
                unplugging.looked = true;
                return Ok(Some(self.look()));
            }
            let (vf, within) = (&lease.vf.id, self.settings.unplug_within);
            return Err(format!("the guest did not let go of VF {vf} within {within} ms"));
        }
        match self.seen.agent_pair(mac) {
            Some(pair) if pair.on_primary || self.unsure.contains(&mac) => Ok(Some(Action::Failover(mac))),
            Some(pair) if pair.bonded => Ok(Some(Action::Unplug(lease.clone()))),
            Some(_) => Err(format!("the guest has no bond for pair {mac}")),
            None if !self.settings.need_agent => Ok(Some(Action::Unplug(lease.clone()))),
            None => Err("hybond-agent does not answer in the guest; start it there and try again".to_owned()),
        }
    }

    /// Who waits is told; the guest gets its VFs back by what `Running` does anyway.
    pub(super) fn drain_failed(&mut self, now: Millis, reason: &str) {
        self.answer_all(&Answer::Refused(reason.to_owned()));
        self.enter(now, Stage::Running);
    }
}
