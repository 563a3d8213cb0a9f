//! What each stage does next.

use super::act::{Action, Answer};
use super::record::{DrainReason, HeldBack, Stage};
use super::seen::{DomainSeen, Job, MigrationSeen};
use super::{Guest, Retry};
use crate::Millis;
use crate::ids::{IfName, Mac};
use crate::pool::{Ask, Lease};
use crate::spec::StandbyKind;

impl Guest {
    /// The stage changes that follow from what is seen.
    pub(super) fn follow(&mut self, now: Millis) {
        if self.seen.qmp.is_some() {
            self.met = true;
        }
        if !self.seen.looked || self.in_flight.is_some() {
            return;
        }
        let absent = self.seen.domain == DomainSeen::Absent;
        match &self.record.stage {
            Stage::Starting | Stage::Incoming { .. } => {
                let expired = self.deadline.is_none_or(|at| now >= at);
                if self.seen.running() && self.seen.migration() != MigrationSeen::Active {
                    self.record.arrived = matches!(self.record.stage, Stage::Incoming { .. });
                    self.record.xml_stale = true;
                    self.answer_all(&Answer::Done(Vec::new()));
                    self.enter(now, Stage::Running);
                } else if absent && (self.met || expired) {
                    self.leave(now, "the domain did not come up on this host");
                } else if self.asked && !self.answered && self.waiters.is_empty() {
                    self.leave(now, "libvirt waits no longer");
                } else if expired {
                    // It is there, and not yet running: as long as it takes.
                    self.deadline = Some(now + self.settings.reservation);
                }
            }
            Stage::Running | Stage::Draining { .. } if absent => self.leave(now, "the domain is gone from this host"),
            Stage::Running | Stage::Draining { .. } => {}
            Stage::Outgoing { .. } if absent => self.leave(now, "the domain is gone from this host"),
            Stage::Outgoing { .. } => {
                // The job ended and the CPUs run here: the migration has failed, before or after QEMU's part in it.
                if self.job_known && self.seen.job == Job::None && self.stays_here() {
                    self.enter(now, Stage::Running);
                }
            }
            Stage::Leaving if self.seen.running() => self.enter(now, Stage::Running),
            Stage::Leaving => {}
        }
    }

    fn look(&self) -> Action {
        let comes = matches!(self.record.stage, Stage::Starting | Stage::Incoming { .. });
        Action::Look {
            libvirt: !comes || self.waiters.is_empty() && self.seen.qmp.is_none(),
        }
    }

    fn stays_here(&self) -> bool {
        self.seen.running() && self.seen.migration() == MigrationSeen::Idle
    }

    /// Nothing but taking back is left to do; who waits is told why.
    pub(super) fn leave(&mut self, now: Millis, reason: &str) {
        self.answer_all(&Answer::Refused(reason.to_owned()));
        self.enter(now, Stage::Leaving);
    }

    pub(super) fn next_action(&mut self, now: Millis) -> Option<Action> {
        if !self.answers.is_empty() {
            return Some(self.answers.remove(0));
        }
        if !self.seen.looked {
            return self.may(Retry::Look, now).then(|| self.look());
        }
        self.follow(now);
        let action = match self.record.stage.clone() {
            Stage::Starting => self.starting(now),
            Stage::Incoming { migration } => self.settle(now).or_else(|| {
                let peer = self.record.spec.source_peer.clone()?;
                let ask = !self.drained && !self.waiters.is_empty();
                ask.then_some(Action::AskDrain { peer, migration })
            }),
            Stage::Running => self.running(now),
            Stage::Draining { reason } => self.draining(now, &reason),
            // Only the end of the job tells that it failed.
            Stage::Outgoing { .. } => self.may(Retry::Job, now).then_some(Action::LookAtJob),
            Stage::Leaving => self.leaving(now),
        };
        let action = action.or_else(|| self.arriving(now));
        // A stage that has just ended may have left answers.
        action.or_else(|| (!self.answers.is_empty()).then(|| self.answers.remove(0)))
    }

    /// Finds a PF and perhaps a VF for each pair, and makes the macvtaps.
    fn settle(&mut self, _now: Millis) -> Option<Action> {
        for pair in &self.record.spec.pairs {
            let mac = pair.mac;
            let has = self.record.pair(mac);
            let ask = Ask {
                pool: pair.pool.clone(),
                domain: self.record.spec.id,
                mac,
                pf: None,
            };
            let Some(pf) = has.pf else {
                let lease = self.record.wants_primary(mac);
                return Some(if lease {
                    Action::Lease(ask)
                } else {
                    Action::ChoosePf(ask)
                });
            };
            if self.record.owns_standby(mac) && self.seen.standby.get(&mac).is_none_or(|seen| seen.pf != pf) {
                return Some(Action::MakeStandby {
                    mac,
                    pf,
                    vlan: pair.vlan,
                });
            }
        }
        None
    }

    fn starting(&mut self, now: Millis) -> Option<Action> {
        self.settle(now).or_else(|| self.raise(now))
    }

    /// What `Starting` and `Incoming` do once everything is laid out: answer the hook, then wait for the guest.
    fn arriving(&mut self, now: Millis) -> Option<Action> {
        let incoming = match self.record.stage {
            Stage::Starting => false,
            Stage::Incoming { .. } => true,
            _ => return None,
        };
        if !self.waiters.is_empty() && (!incoming || self.drained || self.answered) {
            self.answered = true;
            self.answer_all(&Answer::Done(self.sources()));
            return None;
        }
        // A macvtap's address is in the PF's filter while it is up. On the destination it goes up when QEMU has everything
        // (MIGRATION completed), 70-180 ms before the CPUs start: not earlier, or two hosts claim the address.
        let received = self.seen.migration() == MigrationSeen::Completed;
        if incoming && received { self.raise(now) } else { None }
    }

    /// The lower devices of standbys that libvirt makes itself.
    fn sources(&self) -> Vec<(Mac, IfName)> {
        let direct = self
            .record
            .spec
            .pairs
            .iter()
            .filter(|pair| pair.standby != StandbyKind::Ethernet);
        direct
            .filter_map(|pair| Some((pair.mac, self.record.pair(pair.mac).pf?)))
            .collect()
    }

    fn raise(&mut self, now: Millis) -> Option<Action> {
        let macs = self.record.macs();
        macs.into_iter()
            .find(|mac| {
                self.record.owns_standby(*mac)
                    && !self.seen.standby_up(*mac)
                    && self.may(Retry::RaiseStandby(*mac), now)
            })
            .map(Action::RaiseStandby)
    }

    fn running(&mut self, now: Millis) -> Option<Action> {
        self.seen.qmp.as_ref()?;
        if let Some(raise) = self.raise(now) {
            return Some(raise);
        }
        if !self.seen.running() || self.seen.migration() == MigrationSeen::Active {
            return None;
        }
        if self.record.arrived {
            return Some(Action::Announce);
        }
        for mac in self.record.macs() {
            let action = self.upgrade(now, mac);
            if action.is_some() {
                return action;
            }
        }
        if self.record.xml_stale && self.may(Retry::Repair, now) {
            return Some(Action::RepairXml);
        }
        self.answer_plug();
        None
    }

    /// The next step of a running pair towards its VF.
    fn upgrade(&mut self, now: Millis, mac: Mac) -> Option<Action> {
        let has = self.record.pair(mac);
        if let (Some(lease), true) = (&has.lease, self.undo.contains(&mac)) {
            return self.may(Retry::Clean(mac), now).then(|| Action::ResetVf(lease.clone()));
        }
        if self.seen.plugged(mac) {
            let pair = self.seen.agent_pair(mac)?;
            let wanted = self.record.wants_primary(mac) && pair.primary_ready && !pair.on_primary;
            return (wanted && self.may(Retry::Failback(mac), now)).then_some(Action::Failback(mac));
        }
        if !self.record.wants_primary(mac) {
            return None;
        }
        let Some(lease) = has.lease else {
            let pool = self.record.pair_spec(mac)?.pool.clone();
            let ask = Ask {
                pool,
                domain: self.record.spec.id,
                mac,
                pf: has.pf,
            };
            return self.may(Retry::Lease(mac), now).then_some(Action::Lease(ask));
        };
        let bonded = self.seen.agent_pair(mac).is_some_and(|pair| pair.bonded);
        if (self.settings.need_agent && !bonded) || !self.may(Retry::Plug(mac), now) {
            return None;
        }
        // QEMU refuses device_add during a migration, and libvirt may be about to begin one: look right before.
        if !self.job_known || matches!(self.seen.job, Job::Outgoing | Job::Other) {
            return self.may(Retry::Job, now).then_some(Action::LookAtJob);
        }
        if !self.seen.prepared.contains(&mac) {
            return Some(Action::PrepareVf {
                vlan: self.record.pair_spec(mac)?.vlan,
                lease,
            });
        }
        Some(Action::Plug(lease))
    }

    /// `hybondctl plug` waits until its pairs are on their VFs, or it is known why one is not.
    fn answer_plug(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let waiting = |mac: &Mac| {
            self.record.wants_primary(*mac) && !self.seen.agent_pair(*mac).is_some_and(|pair| pair.on_primary)
        };
        let macs = self.record.macs();
        let open: Vec<&Mac> = macs.iter().filter(|mac| waiting(mac)).collect();
        if open.is_empty() {
            self.answer_all(&Answer::Done(Vec::new()));
        } else if let Some(reason) = open.iter().find_map(|mac| self.degraded.get(mac)) {
            let reason = reason.clone();
            self.answer_all(&Answer::Refused(reason));
        }
    }

    fn draining(&mut self, now: Millis, reason: &DrainReason) -> Option<Action> {
        if self.deadline.is_some_and(|at| now >= at) {
            let within = self.settings.drain_within;
            return self.drain_failed(now, &format!("the drain did not end within {within} ms"));
        }
        // What is plugged is known from the monitor only.
        self.seen.qmp.as_ref()?;
        if let DrainReason::Migration(_) = reason {
            if !self.job_known {
                return self.may(Retry::Job, now).then_some(Action::LookAtJob);
            }
            if self.seen.job != Job::Outgoing {
                return self.drain_failed(now, "the domain is not in an outgoing migration on this host");
            }
        }
        let leases = self.leases();
        let unknown = self
            .seen
            .qmp
            .iter()
            .flat_map(|qmp| &qmp.plugged)
            .find(|mac| leases.iter().all(|l| l.mac != **mac));
        if let Some(mac) = unknown {
            return self.drain_failed(
                now,
                &format!("pair {mac} has a primary plugged that no lease accounts for"),
            );
        }
        for lease in self.leases() {
            if self.seen.plugged(lease.mac) {
                return self.unplug(now, lease);
            }
        }
        for lease in self.leases() {
            if !self.reset.contains(&lease.mac) {
                return self.may(Retry::Clean(lease.mac), now).then_some(Action::ResetVf(lease));
            }
        }
        match reason {
            DrainReason::Migration(migration) => {
                let migration = migration.clone();
                self.answer_all(&Answer::Done(Vec::new()));
                self.enter(now, Stage::Outgoing { migration });
            }
            DrainReason::Administrator => {
                if let Some(lease) = self.leases().into_iter().next() {
                    return Some(Action::Release(lease));
                }
                for pair in self.record.pairs.values_mut() {
                    pair.held_back = Some(HeldBack::Drained);
                }
                self.answer_all(&Answer::Done(Vec::new()));
                self.enter(now, Stage::Running);
            }
        }
        None
    }

    /// The next step of a plugged VF towards the pool: traffic away, then the device.
    fn unplug(&mut self, now: Millis, lease: Lease) -> Option<Action> {
        let mac = lease.mac;
        if let Some(unplugging) = self.unplugging.get_mut(&mac) {
            if now < unplugging.until {
                return None;
            }
            if !unplugging.looked {
                unplugging.looked = true;
                return Some(self.look());
            }
            let (vf, within) = (&lease.vf.id, self.settings.unplug_within);
            let reason = format!("the guest did not let go of VF {vf} within {within} ms");
            return self.drain_failed(now, &reason);
        }
        match self.seen.agent_pair(mac) {
            Some(pair) if pair.on_primary => Some(Action::Failover(mac)),
            Some(pair) if pair.bonded => Some(Action::Unplug(lease)),
            Some(_) => self.drain_failed(now, &format!("the guest has no bond for pair {mac}")),
            None if !self.settings.need_agent => Some(Action::Unplug(lease)),
            None => self.drain_failed(
                now,
                "hybond-agent does not answer in the guest; start it there and try again",
            ),
        }
    }

    /// Who waits is told; the guest gets its VFs back by what `Running` does anyway.
    pub(super) fn drain_failed(&mut self, now: Millis, reason: &str) -> Option<Action> {
        self.answer_all(&Answer::Refused(reason.to_owned()));
        self.enter(now, Stage::Running);
        None
    }

    fn leaving(&mut self, now: Millis) -> Option<Action> {
        if self.seen.domain != DomainSeen::Absent {
            return self.may(Retry::Job, now).then_some(Action::LookAtJob);
        }
        let macs: Vec<Mac> = self.record.pairs.keys().copied().collect();
        for mac in &macs {
            let lease = self.record.pair(*mac).lease;
            let standby = self.seen.standby.contains_key(mac) && self.record.owns_standby(*mac);
            // One that fails is tried again later, and the others are not kept waiting.
            if !self.may(Retry::Clean(*mac), now) {
                continue;
            }
            match lease {
                _ if standby => return Some(Action::RemoveStandby(*mac)),
                Some(lease) if self.reset.contains(mac) => return Some(Action::Release(lease)),
                Some(lease) => return Some(Action::ResetVf(lease)),
                None => {}
            }
        }
        // A standby that libvirt made is libvirt's to remove.
        let clean = |mac: &Mac| {
            let standby = self.seen.standby.contains_key(mac) && self.record.owns_standby(*mac);
            self.record.pair(*mac).lease.is_none() && !standby
        };
        self.forgotten = macs.iter().all(clean);
        None
    }

    fn leases(&self) -> Vec<Lease> {
        self.record
            .pairs
            .values()
            .filter_map(|pair| pair.lease.clone())
            .collect()
    }
}
