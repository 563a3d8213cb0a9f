//! What is asked, and how actions went.

use super::act::{Action, Answer, Failure, Outcome, Request, Token};
use super::record::{DrainReason, Stage};
use super::seen::DomainSeen;
use super::{Guest, Retry, Unplugging};
use crate::Millis;
use crate::ids::{IfName, Mac};
use crate::spec::Policy;

impl Guest {
    pub(super) fn requested(&mut self, now: Millis, token: Token, request: Request) {
        let here = !matches!(
            self.record.stage,
            Stage::Starting | Stage::Incoming { .. } | Stage::Leaving
        );
        match request {
            Request::Prepare(spec) => {
                self.record.set_spec(spec);
                // `prepare` follows `migrate` on the destination; alone, it is a start.
                if !matches!(self.record.stage, Stage::Incoming { .. } | Stage::Starting) {
                    self.begin(now, Stage::Starting);
                }
                self.wait(token);
            }
            Request::Receive(spec, migration) => {
                if here && self.seen.domain != DomainSeen::Absent {
                    self.refuse(token, "the domain already runs on this host");
                } else if spec.source_peer.is_none() {
                    self.record.set_spec(spec);
                    self.refuse(
                        token,
                        "the domain's metadata does not name the hybond daemon of its present host",
                    );
                } else {
                    self.record.set_spec(spec);
                    self.begin(now, Stage::Incoming { migration });
                    self.wait(token);
                }
            }
            Request::Drain(migration) => match &self.record.stage {
                Stage::Running => {
                    self.leave_waiters("a drain for a migration has begun");
                    self.enter(
                        now,
                        Stage::Draining {
                            reason: DrainReason::Migration(migration),
                        },
                    );
                    self.wait(token);
                }
                Stage::Draining { .. } => {
                    self.record.stage = Stage::Draining {
                        reason: DrainReason::Migration(migration),
                    };
                    self.wait(token);
                }
                // Asked again, after a lost answer: nothing is plugged, and nothing will be while the job lasts.
                Stage::Outgoing { .. } => self.give(token, Answer::Done(Vec::new())),
                Stage::Starting | Stage::Incoming { .. } | Stage::Leaving => {
                    self.refuse(token, "the domain does not run on this host");
                }
            },
            Request::HoldBack => match &self.record.stage {
                Stage::Running => {
                    self.leave_waiters("a drain has begun");
                    self.enter(
                        now,
                        Stage::Draining {
                            reason: DrainReason::Administrator,
                        },
                    );
                    self.wait(token);
                }
                Stage::Draining { .. } => self.wait(token),
                _ => self.refuse_stage(token),
            },
            Request::Plug => match &self.record.stage {
                Stage::Running => {
                    for pair in self.record.pairs.values_mut() {
                        pair.held_back = None;
                    }
                    self.not_before.clear();
                    self.degraded.clear();
                    self.wait(token);
                }
                _ => self.refuse_stage(token),
            },
        }
    }

    /// The domain comes anew. What it may have left here serves again, but for a standby without a VF, which may be better
    /// placed now.
    fn begin(&mut self, now: Millis, stage: Stage) {
        for pair in self.record.pairs.values_mut() {
            pair.held_back = None;
            pair.pf = pair.lease.as_ref().map(|lease| lease.vf.pf.clone());
        }
        self.record.arrived = false;
        self.leave_waiters("the domain is started anew");
        self.enter(now, stage);
        // Whatever was seen belongs to its former life.
        self.seen.looked = false;
        self.seen.domain = DomainSeen::Absent;
        self.seen.qmp = None;
        self.seen.agent = None;
    }

    fn wait(&mut self, token: Token) {
        self.asked = true;
        self.waiters.push(token);
    }

    fn give(&mut self, token: Token, answer: Answer) {
        self.answers.push(Action::Answer { token, answer });
    }

    fn refuse(&mut self, token: Token, reason: &str) {
        self.give(token, Answer::Refused(reason.to_owned()));
    }

    fn refuse_stage(&mut self, token: Token) {
        let stage = self.record.stage_name();
        self.refuse(token, &format!("the domain is {stage}; try again when it is running"));
    }

    fn leave_waiters(&mut self, reason: &str) {
        self.answer_all(&Answer::Refused(reason.to_owned()));
    }

    pub(super) fn succeeded(&mut self, now: Millis, action: &Action, outcome: Outcome) {
        match (action, outcome) {
            (Action::Look { .. }, Outcome::Looked(snapshot)) => {
                self.job_known |= snapshot.libvirt.is_some();
                self.seen.take(snapshot);
                self.catch_up();
                // A record that was made for a guest found running knows nothing yet.
                for (mac, standby) in &self.seen.standby {
                    if let Some(pair) = self.record.pairs.get_mut(mac) {
                        pair.pf.get_or_insert_with(|| standby.pf.clone());
                    }
                }
            }
            (Action::LookAtJob, Outcome::Job(domain, job)) => {
                self.seen.domain = domain;
                self.seen.job = job;
                self.catch_up();
                self.job_known = true;
                self.later(Retry::Job, now);
            }
            (Action::Lease(ask), Outcome::Leased(lease)) => {
                let pair = self.record.pairs.entry(ask.mac).or_default();
                pair.pf = Some(lease.vf.pf.clone());
                pair.lease = Some(lease);
                self.degraded.remove(&ask.mac);
            }
            (Action::Lease(ask) | Action::ChoosePf(ask), Outcome::NoVf { reason, pf }) => {
                self.no_vf(now, ask.mac, reason, pf);
            }
            (Action::MakeStandby { mac, .. } | Action::RaiseStandby(mac), Outcome::Standby(standby)) => {
                self.seen.standby.insert(*mac, standby);
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
                self.job_known = false;
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
                if let Some(pair) = self.record.pairs.get_mut(&lease.mac) {
                    pair.lease = None;
                }
            }
            (Action::RemoveStandby(mac), _) => {
                self.seen.standby.remove(mac);
                if let Some(pair) = self.record.pairs.get_mut(mac) {
                    pair.pf = None;
                }
            }
            (Action::Announce, _) => self.record.arrived = false,
            (Action::RepairXml, _) => self.record.xml_stale = false,
            _ => {}
        }
    }

    /// What happened during a look is younger than what was seen, or the same.
    fn catch_up(&mut self) {
        for event in std::mem::take(&mut self.meanwhile) {
            self.seen.note(event);
        }
    }

    fn no_vf(&mut self, now: Millis, mac: Mac, reason: String, pf: Option<IfName>) {
        let policy = self.record.pair_spec(mac).map(|pair| pair.policy).unwrap_or_default();
        let settling = matches!(self.record.stage, Stage::Starting | Stage::Incoming { .. });
        if policy != Policy::Never {
            self.degraded.insert(mac, reason.clone());
        }
        if !settling {
            self.later(Retry::Lease(mac), now);
            return;
        }
        let pair = self.record.pairs.entry(mac).or_default();
        match (policy, pf) {
            (Policy::Require, _) => {
                self.leave(now, &format!("{reason}, and the policy of pair {mac} is \"require\""));
            }
            (_, Some(pf)) => pair.pf = Some(pf),
            (_, None) => self.leave(now, &reason),
        }
    }

    pub(super) fn failed(&mut self, now: Millis, action: &Action, failure: Failure) {
        let reason = failure.reason;
        self.meanwhile.clear();
        let settling = matches!(self.record.stage, Stage::Starting | Stage::Incoming { .. });
        if let (Some(mac), false) = (action.mac(), settling) {
            self.degraded.insert(mac, reason.clone());
        }
        match action {
            Action::Look { .. } => self.later(Retry::Look, now),
            Action::LookAtJob => self.later(Retry::Job, now),
            Action::AskDrain { .. } | Action::MakeStandby { .. } | Action::ChoosePf(_) => self.leave(now, &reason),
            Action::Lease(ask) => self.no_vf(now, ask.mac, reason, None),
            Action::RaiseStandby(_) if matches!(self.record.stage, Stage::Starting) => self.leave(now, &reason),
            Action::RaiseStandby(mac) => self.later(Retry::RaiseStandby(*mac), now),
            // A VF that has the pair's MAC and no driver can take frames from the standby.
            Action::PrepareVf { lease, .. } | Action::Plug(lease) => {
                self.undo.insert(lease.mac);
                self.later(Retry::Plug(lease.mac), now);
            }
            Action::Failback(mac) => self.later(Retry::Failback(*mac), now),
            Action::Failover(_) | Action::Unplug(_) => drop(self.drain_failed(now, &reason)),
            Action::ResetVf(lease) | Action::Release(lease) => self.later(Retry::Clean(lease.mac), now),
            Action::RemoveStandby(mac) => self.later(Retry::Clean(*mac), now),
            // Lost announcements cost the guest's neighbours a moment; the frames that the guest sends repair it.
            Action::Announce => self.record.arrived = false,
            Action::RepairXml => self.later(Retry::Repair, now),
            Action::Answer { .. } => {}
        }
    }
}
