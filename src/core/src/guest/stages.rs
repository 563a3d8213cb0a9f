//! Which stage follows from what is seen, and whose turn it is to say what to do next.

use super::act::Action;
use super::record::Stage;
use super::seen::{DomainSeen, Job, MigrationSeen};
use super::{Guest, Retry};
use crate::Millis;
use crate::ids::Mac;

impl Guest {
    /// The stage changes that follow from what is seen.
    pub(super) fn follow(&mut self, now: Millis) {
        if self.seen.qmp.is_some() {
            self.met = true;
        }
        if self.record.stage == Stage::Running {
            // However late it came, and whoever brought it about.
            let seen = &self.seen;
            let arrived = |mac: &Mac| seen.agent_pair(*mac).is_some_and(|pair| pair.on_primary);
            self.degraded.retain(|mac, _| !arrived(mac));
        }
        if !self.seen.looked || self.in_flight.is_some() {
            return;
        }
        let absent = self.seen.domain == DomainSeen::Absent;
        match &self.record.stage {
            Stage::Starting | Stage::Incoming { .. } => self.follow_arrival(now),
            Stage::Running | Stage::Draining { .. } | Stage::Outgoing { .. } if absent => {
                self.leave(now, "the domain is gone from this host");
            }
            Stage::Running | Stage::Draining { .. } => {}
            Stage::Outgoing { .. } => {
                // The job ended and the CPUs run here: the migration has failed, before or after QEMU's part in it.
                if self.job_seen.is_some() && self.seen.job == Job::None && self.stays_here() {
                    self.enter(now, Stage::Running);
                }
            }
            Stage::Leaving if self.seen.running() => self.enter(now, Stage::Running),
            Stage::Leaving => {}
        }
    }

    /// QEMU says "completed" of a migration that was lost after its part in it, and also, ever after, of the one that the
    /// guest came by: only whether the CPUs run tells.
    fn stays_here(&self) -> bool {
        self.seen.running() && self.seen.migration() != MigrationSeen::Active
    }

    pub(super) fn look(&self) -> Action {
        Action::Look {
            libvirt: !self.comes() || self.waiters.is_empty() && self.seen.qmp.is_none(),
        }
    }

    pub(super) fn next_action(&mut self, now: Millis) -> Option<Action> {
        if let Some(answer) = self.next_answer() {
            return Some(answer);
        }
        if !self.seen.looked {
            return self.may(Retry::Look, now).then(|| self.look());
        }
        self.follow(now);
        // A stage that has just ended may have left answers, and nothing looked at.
        if !self.answers.is_empty() || !self.seen.looked {
            return self.next_action(now);
        }
        let stage = self.record.stage.clone();
        let action = match &stage {
            Stage::Starting => self.starting(now),
            Stage::Incoming { .. } => self.incoming(now),
            Stage::Running => self.running(now),
            Stage::Draining { reason } => self.draining(now, reason),
            // QEMU tells the end of its own part. Whoever asks libvirt has it ask QEMU, which has a guest to move: a question that
            // comes while the guest stands still keeps it standing.
            Stage::Outgoing { .. } if self.seen.migration() == MigrationSeen::Active => None,
            // Before and after that, only the end of the job tells that it failed.
            Stage::Outgoing { .. } => self.may(Retry::Job, now).then_some(Action::LookAtJob),
            Stage::Leaving => self.leaving(now),
        };
        // A stage that ends here has something to say, or is followed by one that has.
        if action.is_none() && (stage != self.record.stage || !self.answers.is_empty()) {
            return self.next_action(now);
        }
        action
    }

    pub(super) fn next_answer(&mut self) -> Option<Action> {
        (!self.answers.is_empty()).then(|| self.answers.remove(0))
    }
}
