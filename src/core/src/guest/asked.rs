//! What is asked, who waits for it, and the answers.

use super::act::{Action, Answer, Request, Token};
use super::record::{DrainReason, Hook, Stage};
use super::seen::DomainSeen;
use super::{Guest, Retry};
use crate::Millis;
use crate::ids::{Mac, MigrationId};
use crate::spec::{DomainSpec, Flavor, Policy, StandbyKind};
use std::collections::BTreeSet;

/// Somebody who waits for the present stage to do what it is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiter {
    token: Token,
    what: For,
}

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// It is a hook whose answer libvirt takes as the domain's new XML.
    Xml,
    /// The stage's end; in `Running`, every pair on its VF.
    Stage,
    /// A policy that is in the metadata, and obeyed as far as can be.
    Policy,
}

impl Guest {
    pub(super) fn requested(&mut self, now: Millis, token: Token, request: Request) {
        match request {
            Request::Prepare(spec) => self.prepare(now, token, spec),
            Request::Place(spec) => self.place(now, token, spec),
            Request::Restore(spec) => {
                self.begin(now, spec, Stage::Starting);
                self.rewritable = true;
                self.wait(token, For::Xml);
            }
            Request::Receive(spec, migration) => self.receive(now, token, spec, migration),
            Request::Drain(migration) => self.drain(now, token, migration),
            Request::HoldBack => self.hold_back(now, token),
            Request::Plug => match &self.record.stage {
                Stage::Running => {
                    for pair in self.record_mut().pairs.values_mut() {
                        pair.held_back = None;
                    }
                    self.not_before.clear();
                    self.repair_again();
                    let lasting: Vec<Mac> = self
                        .record
                        .macs()
                        .into_iter()
                        .filter(|mac| self.lacks_vf(*mac))
                        .collect();
                    self.degraded.retain(|mac, _| lasting.contains(mac));
                    self.wait(token, For::Stage);
                }
                _ => self.refuse_stage(token),
            },
            Request::SetPolicy(macs, policy) => self.set_policy(now, token, macs, policy),
        }
    }

    /// `prepare` follows `migrate` and `restore`, which have laid everything out; alone, it is a start.
    fn prepare(&mut self, now: Millis, token: Token, spec: DomainSpec) {
        if self.comes() && self.record.answered == Some(Hook::Announce) && self.is_as_told(&spec) {
            self.rewritable = false;
            self.record_mut().set_spec(spec);
            self.deadline = self.stage_ends(now);
            // libvirt holds the domain's lock: a question about the domain would wait for this very hook.
            self.give_up_look();
        } else {
            self.begin(now, spec, Stage::Starting);
        }
        self.seen.domain = DomainSeen::Active;
        self.wait(token, For::Stage);
    }

    /// `start` follows `prepare`, and says where libvirt has put the standbys whose places it chooses itself.
    fn place(&mut self, now: Millis, token: Token, spec: DomainSpec) {
        if !self.comes() || self.record.answered != Some(Hook::Prepare) {
            return self.refuse(
                token,
                "libvirt starts the domain, and has not said so before; start it again",
            );
        }
        for pair in &spec.pairs {
            // The network that it is on now may not be what it was laid out for.
            let moved = pair.standby.source().is_some()
                && self
                    .record
                    .pair_spec(pair.mac)
                    .is_some_and(|old| old.standby != pair.standby);
            if let Some(has) = self.record_mut().pairs.get_mut(&pair.mac).filter(|_| moved) {
                has.pf = has.lease.as_ref().map(|lease| lease.vf.pf.clone());
            }
        }
        self.record_mut().set_spec(spec);
        self.deadline = self.stage_ends(now);
        self.give_up_look();
        self.wait(token, For::Stage);
    }

    /// The standbys that libvirt makes are where the hook was told to have them: it is that domain which comes now, and not
    /// a start of another XML after one that never came.
    fn is_as_told(&self, spec: &DomainSpec) -> bool {
        spec.pairs.iter().all(|pair| match &pair.standby {
            StandbyKind::Ethernet => true,
            // One whose network still chooses has not been told.
            told => told.source().is_some() && self.record.pair(pair.mac).pf.as_ref() == told.source(),
        })
    }

    fn receive(&mut self, now: Millis, token: Token, spec: DomainSpec, migration: MigrationId) {
        let comes = matches!(
            self.record.stage,
            Stage::Starting | Stage::Incoming { .. } | Stage::Leaving
        );
        let here = match self.seen.domain {
            DomainSeen::Absent => false,
            DomainSeen::Active => true,
            DomainSeen::Unknown => !comes,
        };
        if here {
            self.refuse(token, "the domain is on this host already");
        } else if spec.source_peer.is_none() {
            self.refuse(
                token,
                "the domain's metadata does not name the hybond daemon of its present host",
            );
        } else {
            self.begin(now, spec, Stage::Incoming { migration });
            self.wait(token, For::Xml);
        }
    }

    fn drain(&mut self, now: Millis, token: Token, migration: MigrationId) {
        let plugged = self.seen.qmp.as_ref().is_some_and(|qmp| !qmp.plugged.is_empty());
        let draining = Stage::Draining {
            reason: DrainReason::Migration(migration),
        };
        match &self.record.stage {
            Stage::Starting | Stage::Incoming { .. } | Stage::Leaving => {
                return self.refuse(token, "the domain does not run on this host");
            }
            // Asked again, after a lost answer: nothing is plugged, and nothing will be while the job lasts.
            Stage::Outgoing { .. } if !plugged => return self.give(token, Answer::Done(Vec::new())),
            Stage::Draining { reason } => {
                if !matches!(reason, DrainReason::Migration(_)) {
                    self.answer_all(&Answer::Refused("the domain is being migrated".to_owned()));
                }
                // What is under way goes on. Whether the domain is in a migration was found out for another, or not at all.
                self.record_mut().stage = draining;
                self.deadline = self.stage_ends(now);
                self.job_seen = None;
            }
            Stage::Running | Stage::Outgoing { .. } => {
                self.answer_all(&Answer::Refused("the domain is being migrated".to_owned()));
                self.enter(now, draining);
            }
        }
        self.wait(token, For::Stage);
    }

    fn hold_back(&mut self, now: Millis, token: Token) {
        match &self.record.stage {
            Stage::Running => {
                self.answer_all(&Answer::Refused("the domain is being drained".to_owned()));
                let reason = DrainReason::Administrator;
                self.enter(now, Stage::Draining { reason });
                self.wait(token, For::Stage);
            }
            Stage::Draining {
                reason: DrainReason::Administrator,
            } => self.wait(token, For::Stage),
            _ => self.refuse_stage(token),
        }
    }

    /// No MACs: every pair. A pair that is to lose its VF loses it first, and has its old policy until then.
    fn set_policy(&mut self, now: Millis, token: Token, macs: BTreeSet<Mac>, policy: Policy) {
        if self.record.stage != Stage::Running {
            return self.refuse_stage(token);
        }
        let macs = if macs.is_empty() {
            self.record.macs().into_iter().collect()
        } else {
            macs
        };
        if let Some(mac) = macs.iter().find(|mac| self.record.pair_spec(**mac).is_none()) {
            return self.refuse(token, &format!("it has no pair {mac}"));
        }
        if let Some(mac) = macs
            .iter()
            .find(|mac| policy == Policy::Never && self.record.is_indirect(**mac))
        {
            return self.refuse(
                token,
                &format!(
                    "the VF of pair {mac} is below its standby, which cannot be moved under QEMU: 'hybondctl enable … --mac \
                     {mac} --flavor virtual', and it is without a VF from its next start"
                ),
            );
        }
        // Whether a VF is plugged is not known while the monitor is away.
        if policy == Policy::Never && macs.iter().any(|mac| self.record.pair(*mac).lease.is_some()) {
            self.answer_all(&Answer::Refused("the domain is being drained".to_owned()));
            let reason = DrainReason::Never(macs);
            self.enter(now, Stage::Draining { reason });
        } else {
            for mac in macs {
                self.record_mut().set_policy(mac, policy);
                self.not_before.remove(&Retry::Lease(mac));
                if !self.lacks_vf(mac) {
                    self.degraded.remove(&mac);
                }
                self.note_lack(mac);
            }
            self.not_before.remove(&Retry::Write);
        }
        self.wait(token, For::Policy);
    }

    /// The domain comes anew. What it may have left here serves again, but for a standby without a VF, which may be better
    /// placed now.
    fn begin(&mut self, now: Millis, spec: DomainSpec, stage: Stage) {
        for new in &spec.pairs {
            let mac = new.mac;
            let changed = self.record.pair_spec(mac).is_some_and(|old| old != new);
            if changed && new.flavor() == Flavor::Indirect {
                // What was made for another VLAN or flavor is not what is asked for now.
                self.confirm.insert(mac);
            }
            let pair = self.record_mut().pairs.entry(mac).or_default();
            pair.held_back = None;
            pair.pf = pair.lease.as_ref().map(|lease| lease.vf.pf.clone());
        }
        self.record_mut().set_spec(spec);
        self.record_mut().arrived = false;
        self.answer_all(&Answer::Refused("the domain is started anew".to_owned()));
        self.enter(now, stage);
        // Whatever was seen, or is being looked at, belongs to its former life.
        self.give_up_look();
        self.give_up_asking();
        self.former = self.in_flight.is_some();
        self.seen.looked = false;
        self.seen.domain = DomainSeen::Absent;
        self.seen.qmp = None;
        self.seen.agent = None;
        self.seen.filters = None;
        self.degraded.clear();
    }

    pub(super) fn abandoned(&mut self, token: Token) {
        self.waiters.retain(|waiter| waiter.token != token);
        if self.waiters.is_empty() {
            self.give_up_asking();
        }
    }

    /// A look that is under way is not waited for.
    fn give_up_look(&mut self) {
        if self.is_looking() {
            self.in_flight = None;
            self.meanwhile.clear();
            self.look_again = false;
            self.seen.looked = false;
        }
    }

    /// The source's answer, for a hook that is gone.
    fn give_up_asking(&mut self) {
        if matches!(self.in_flight, Some(Action::AskDrain { .. })) {
            self.in_flight = None;
        }
    }

    fn wait(&mut self, token: Token, what: For) {
        self.waiters.push(Waiter { token, what });
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

    /// Everybody who waits gets this answer.
    pub(super) fn answer_all(&mut self, answer: &Answer) {
        for waiter in std::mem::take(&mut self.waiters) {
            self.give(waiter.token, answer.clone());
        }
    }

    /// Those who have set a policy get this answer; others wait on.
    pub(super) fn answer_policy(&mut self, answer: &Answer) {
        let (set, others) = std::mem::take(&mut self.waiters)
            .into_iter()
            .partition(|waiter| waiter.what == For::Policy);
        self.waiters = others;
        let set: Vec<Waiter> = set;
        for waiter in set {
            self.give(waiter.token, answer.clone());
        }
    }

    /// Hook `prepare` waits.
    pub(super) fn is_preparing(&self) -> bool {
        self.waiters.iter().any(|waiter| waiter.what != For::Xml)
    }

    /// All is laid out: the hooks that wait may go on.
    pub(super) fn answer_hooks(&mut self) {
        let sources = self.sources();
        for Waiter { token, what } in std::mem::take(&mut self.waiters) {
            let edits = what == For::Xml;
            self.record_mut().answered = Some(if edits { Hook::Announce } else { Hook::Prepare });
            let sources = if edits { sources.clone() } else { Vec::new() };
            self.give(token, Answer::Done(sources));
        }
    }
}
