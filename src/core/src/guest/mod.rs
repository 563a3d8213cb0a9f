//! One guest on one host: what hybond wants of it, what is seen of it, and the next thing to do about the difference.
//!
//! ```text
//!   hook prepare ──▶ Starting ─────────┐ runs                 ┌──────────┐ no VF plugged, for a migration
//!                                      ▼                      │          ▼
//!                              ┌──▶ Running ──drain asked──▶ Draining  Outgoing
//!   hook migrate ─▶ Incoming ──┘       ▲ ▲ ▲                  │ │        │ │
//!                      │ resumed       │ │ └── refused, late ─┘ │        │ │
//!                      │               │ └── done, for hybondctl ┘        │ │
//!                      │               └── job ended, still runs here ────┘ │
//!                      │ refused, expired                                   │ gone from here
//!                      ▼                                                    ▼
//!                   Leaving ◀──────────── gone, from any stage ─────────────┘
//!                      │ nothing left
//!                      ▼
//!                   forgotten
//! ```
//!
//! A [`Guest`] is driven by three calls: [`Guest::handle`] takes what happened, [`Guest::poll`] gives out the next
//! [`Action`] (one at a time), [`Guest::complete`] takes how it went. [`Guest::record`] must be on stable storage before an
//! action is carried out; it is all that survives a crash, and with a fresh [`Action::Look`] it is all that is needed to go
//! on: nothing is ever repeated from memory alone.
//!
//! Every action is idempotent. What is done next follows from the record and from what is seen, never from which action
//! came before; that is why a crash at any point needs no code of its own.

mod act;
mod arriving;
mod asked;
mod clock;
mod draining;
mod leaving;
mod outcomes;
mod record;
mod running;
mod seen;
mod stages;
#[cfg(test)]
mod tests;
mod tuning;

pub use act::{Action, Answer, Failure, Outcome, Request, Token};
pub use record::{DrainReason, HeldBack, Hook, PairRecord, Record, Stage};
pub use seen::{AgentPair, DomainSeen, Event, Job, MigrationSeen, QmpSeen, Snapshot, StandbySeen};

use crate::Millis;
use crate::ids::{DomainId, Mac};
use crate::paths::Paths;
use asked::Waiter;
use seen::Seen;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How often in a row a domain's XML may fail to be put right, the pause twice as long each time, before it is left as it is.
const REPAIRS: u32 = 5;

/// What is said of a pair with [`Guest::standby_is_gone`].
const STANDBY_GONE: &str = "its macvtap is gone, as its PF was or its driver was reloaded: the guest has its VF only, and cannot be \
                            drained or migrated before it has been shut down and started again";

/// How long things may take, and what a guest must have. From the host's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// A drain that has not ended by then has failed.
    pub drain_within: Millis,
    /// From `device_del` to DEVICE_DELETED. A guest that ignores an unplug gives no other sign.
    pub unplug_within: Millis,
    /// How long a reservation for a domain that never comes is kept.
    pub reservation: Millis,
    /// Pause before something that failed, or found no VF, is tried again.
    pub retry_after: Millis,
    /// How long a domain that comes, and must have a VF, waits for one that is on its way back to the pool. Hooks give up after
    /// 30 s: the reason is to arrive.
    pub vf_within: Millis,
    /// Pause between two looks at libvirt's job while one is being waited out: a failure before QEMU's `migrate` gives no
    /// event on the source.
    pub job_interval: Millis,
    /// From the moment in which a guest that has come by migration goes on until anything is done for it, but for giving it the
    /// standby that it goes on with. Its traffic has waited while it stood still, and has the host's processors for itself:
    /// flushes, announcements and lines of a log would come between. And QEMU holds its main lock through two resets of a
    /// function (100 ms each, `pcie_flr()`) while it plugs a VF: a CPU of the guest that touches an emulated register then
    /// stands still once more, and two short silences are better than a long one.
    pub first_moments: Millis,
    /// How long the bond takes what arrives on either NIC, around a switch.
    pub overlap_ms: u32,
    /// Plug and unplug only where the guest's agent answers.
    pub need_agent: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            drain_within: 60_000,
            unplug_within: 20_000,
            reservation: 300_000,
            retry_after: 5_000,
            vf_within: 20_000,
            job_interval: 500,
            first_moments: 500,
            overlap_ms: 300,
            need_agent: true,
        }
    }
}

/// The machine of one guest. See the module.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Shared with who keeps it on stable storage, until it is changed.
    record: Arc<Record>,
    seen: Seen,
    settings: Settings,
    /// What the pools ask of the paths.
    paths: Arc<Paths>,
    in_flight: Option<Action>,
    /// What is in flight was begun for the domain's former life.
    former: bool,
    /// What is not to be done yet, most often because it failed or was refused for now, and when it may be tried.
    not_before: BTreeMap<Retry, Millis>,
    /// Who waits for what the present stage is to bring about.
    waiters: Vec<Waiter>,
    /// When the present stage gives up. Not part of the record: a restart gives it its whole time again.
    deadline: Option<Millis>,
    /// The clock has been seen since the start, and the deadline is set.
    armed: bool,
    /// Why a pair is not as its policy would have it, for people.
    degraded: BTreeMap<Mac, String>,
    /// How often its XML could not be put right since something last happened to the domain.
    repairs_failed: u32,
    /// Why its XML is left as it is, for people.
    unrepaired: Option<String>,
    /// Answers to give, before anything else is done.
    answers: Vec<Action>,
    /// When libvirt's job was last looked at in this stage.
    job_seen: Option<Millis>,
    /// The source has said that its VFs are gone.
    drained: bool,
    /// libvirt still takes other lower devices from its hook.
    rewritable: bool,
    /// A device_del that waits for its DEVICE_DELETED: until when, and whether the machine was looked at after that.
    unplugging: BTreeMap<Mac, Unplugging>,
    /// Pairs whose failback failed, and may have been carried out all the same: the agent's word of it can be still to come. They
    /// are switched to the standby before an unplug, whatever path was last heard of.
    unsure: BTreeSet<Mac>,
    /// VFs that are known to be clean: no MAC, no VLAN, no grant.
    reset: BTreeSet<Mac>,
    /// VFs to clean before another try to plug them.
    undo: BTreeSet<Mac>,
    /// Leases to ask the pool about before their VFs are used: it may have lost them.
    confirm: BTreeSet<Mac>,
    /// Pairs that must have a VF and wait for one that is on its way back to the pool, and until when.
    awaits_vf: BTreeMap<Mac, Millis>,
    /// The monitor has been there in this stage.
    met: bool,
    /// What happened while a look was under way.
    meanwhile: Vec<Event>,
    /// A look was asked for while one was under way, which may have been too early.
    look_again: bool,
    forgotten: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unplugging {
    until: Millis,
    looked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Retry {
    Lease(Mac),
    Plug(Mac),
    Failback(Mac),
    RaiseStandby(Mac),
    Clean(Mac),
    Job,
    Repair,
    Write,
    Look,
    Filters,
    Tune(Mac),
    /// Anything for a guest that has just come and has a standby.
    Anything,
}

impl Guest {
    /// A guest from its record: a new one, or what the journal had.
    #[must_use]
    pub fn new(record: impl Into<Arc<Record>>, settings: Settings) -> Self {
        let record = record.into();
        let leased = record.pairs.iter().filter(|(_, pair)| pair.lease.is_some());
        Self {
            confirm: leased.map(|(mac, _)| *mac).collect(),
            record,
            seen: Seen::default(),
            settings,
            paths: Arc::default(),
            in_flight: None,
            former: false,
            not_before: BTreeMap::new(),
            waiters: Vec::new(),
            deadline: None,
            armed: false,
            degraded: BTreeMap::new(),
            repairs_failed: 0,
            unrepaired: None,
            answers: Vec::new(),
            job_seen: None,
            drained: false,
            rewritable: false,
            unplugging: BTreeMap::new(),
            unsure: BTreeSet::new(),
            reset: BTreeSet::new(),
            undo: BTreeSet::new(),
            awaits_vf: BTreeMap::new(),
            met: false,
            meanwhile: Vec::new(),
            look_again: false,
            forgotten: false,
        }
    }

    /// With what the pools of this host ask of the paths. Without, standbys stay as they are made.
    #[must_use]
    pub fn with_paths(mut self, paths: Arc<Paths>) -> Self {
        self.set_paths(paths);
        self
    }

    /// What the pools of this host ask of the paths now.
    pub fn set_paths(&mut self, paths: Arc<Paths>) {
        self.paths = paths;
    }

    /// What must be on stable storage before the next action is carried out.
    #[must_use]
    pub fn record(&self) -> &Arc<Record> {
        &self.record
    }

    fn record_mut(&mut self) -> &mut Record {
        Arc::make_mut(&mut self.record)
    }

    /// The domain.
    #[must_use]
    pub fn id(&self) -> DomainId {
        self.record.spec.id
    }

    /// Nothing of this guest is left on this host: its record may be removed.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.forgotten
    }

    /// The action that is being carried out. `None` while one is: nobody wants its outcome any more, and the driver may
    /// drop it. That happens to looks and to requests to a peer only, which change nothing on this host.
    #[must_use]
    pub fn in_flight(&self) -> Option<&Action> {
        self.in_flight.as_ref()
    }

    /// What the guest's agent last said of a pair.
    #[must_use]
    pub fn agent_pair(&self, mac: Mac) -> Option<&AgentPair> {
        self.seen.agent.as_ref()?.get(&mac)
    }

    /// The guest's agent has said hello and has not gone since.
    #[must_use]
    pub fn has_agent(&self) -> bool {
        self.seen.agent.is_some()
    }

    /// The primary of a pair is plugged into QEMU.
    #[must_use]
    pub fn is_plugged(&self, mac: Mac) -> bool {
        self.seen.plugged(mac)
    }

    /// Why a pair is not as its policy would have it, or not as it is to be at the domain's next start.
    #[must_use]
    pub fn degraded(&self, mac: Mac) -> Option<&str> {
        let now = self.degraded.get(&mac);
        now.or(self.unrepaired.as_ref()).map(String::as_str)
    }

    /// Its CPUs run, as QEMU said last.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.seen.running()
    }

    /// How long this guest, which has just come, is still left alone: see [`Settings::first_moments`]. What its record says
    /// anew can wait that long for the disk, as a daemon that reads the former one finds the same by looking.
    #[must_use]
    pub fn left_alone_for(&self, now: Millis) -> Millis {
        let until = self.not_before.get(&Retry::Anything);
        until.map_or(0, |until| until.saturating_sub(now))
    }

    /// It runs here, and every pair is as its policy would have it, or it is known why not.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let busy = self.in_flight.is_some() || !self.waiters.is_empty() || !self.answers.is_empty();
        let repaired = !self.record.xml_stale || self.unrepaired.is_some();
        let written = repaired && self.record.unwritten.is_empty();
        let done = self.seen.looked && written && !self.record.arrived;
        self.record.stage == Stage::Running && !busy && done && self.pairs_are_as_wanted()
    }

    /// Every pair is as its policy would have it, or it is known why not.
    fn pairs_are_as_wanted(&self) -> bool {
        let as_wanted =
            |mac: &Mac| self.on_primary(*mac) || !self.record.wants_primary(*mac) || self.degraded.contains_key(mac);
        self.record.macs().iter().all(as_wanted)
    }

    /// The pair's traffic goes over its VF, as far as can be known.
    fn on_primary(&self, mac: Mac) -> bool {
        match self.seen.agent_pair(mac) {
            Some(pair) => pair.on_primary,
            None => !self.settings.need_agent && self.seen.plugged(mac),
        }
    }

    /// When [`Guest::poll`] may have something to do without anything having happened.
    #[must_use]
    pub fn next_deadline(&self, now: Millis) -> Option<Millis> {
        if self.in_flight.is_some() {
            return None;
        }
        let retries = self.not_before.values().copied();
        let unplugs = self.unplugging.values().map(|u| u.until);
        // What is past has been acted on by the poll that came before this call, or waits for an event.
        retries.chain(unplugs).chain(self.deadline).filter(|at| *at > now).min()
    }

    /// Takes what happened.
    pub fn handle(&mut self, now: Millis, event: Event) {
        self.arm(now);
        match event {
            Event::Request(token, request) => self.requested(now, token, request),
            Event::Abandoned(token) => self.abandoned(token),
            Event::LookAgain => {
                self.repair_again();
                self.seen.looked = false;
                self.look_again = matches!(self.in_flight, Some(Action::Look { .. }));
                // What kept the last look from succeeding may be over: libvirt is back.
                self.not_before.remove(&Retry::Look);
            }
            Event::Renamed(name) => self.record_mut().spec.name = name,
            Event::PoolChanged => self.not_before.retain(|retry, _| !matches!(retry, Retry::Lease(_))),
            event => {
                if let Event::DeviceDeleted(mac) = &event {
                    self.device_deleted(now, *mac);
                }
                // libvirt let go of a domain whose hook had its answer: it came, and went.
                self.met |= self.record.answered.is_some() && event == Event::Domain(DomainSeen::Absent);
                if self.is_looking() {
                    self.meanwhile.push(event.clone());
                }
                if event == Event::Migration(MigrationSeen::Completed) {
                    // The guest is about to run at the destination, most likely.
                    self.later(Retry::Job, now);
                }
                let before = self.seen.agent.clone();
                self.seen.note(event);
                self.note_switch(now, before.as_ref());
            }
        }
        self.follow(now);
    }

    fn is_looking(&self) -> bool {
        matches!(self.in_flight, Some(Action::Look { .. } | Action::LookAtJob))
    }

    /// Gives out the next action; `None` while one is in flight, or there is nothing to do until something happens or
    /// [`Guest::next_deadline`] has come. Answers do not wait for what is in flight: it may itself wait for who asked.
    pub fn poll(&mut self, now: Millis) -> Option<Action> {
        self.arm(now);
        if let Some(answer) = self.next_answer() {
            return Some(answer);
        }
        if self.in_flight.is_some() || self.forgotten {
            return None;
        }
        let action = self.next_action(now)?;
        // Answers are messages, not effects: they are over once given.
        if !matches!(action, Action::Answer { .. }) {
            self.in_flight = Some(action.clone());
        }
        Some(action)
    }

    /// Takes how the action in flight went.
    pub fn complete(&mut self, now: Millis, result: Result<Outcome, Failure>) {
        let Some(action) = self.in_flight.take() else {
            return;
        };
        let former = std::mem::take(&mut self.former);
        if let Action::ResetVf(lease) = &action {
            // One that failed may have taken its MAC all the same.
            self.seen.prepared.remove(&lease.mac);
        }
        match result {
            // What the present life lacks is found by looking, and said for it.
            Ok(Outcome::NoVf { .. } | Outcome::NotYet { .. } | Outcome::Filters(_)) | Err(_) if former => {}
            Ok(outcome) => self.succeeded(now, &action, outcome),
            Err(failure) => self.failed(now, &action, failure),
        }
        self.follow(now);
    }

    fn may(&self, retry: Retry, now: Millis) -> bool {
        self.not_before.get(&retry).is_none_or(|at| now >= *at)
    }

    fn later(&mut self, retry: Retry, now: Millis) {
        let pause = match retry {
            // Without a standby a guest that has just arrived has no path at all.
            Retry::Job | Retry::RaiseStandby(_) => self.settings.job_interval,
            Retry::Anything => self.settings.first_moments,
            Retry::Repair => self.settings.retry_after << self.repairs_failed.saturating_sub(1).min(REPAIRS),
            _ => self.settings.retry_after,
        };
        self.not_before.insert(retry, now + pause);
    }

    fn enter(&mut self, now: Millis, stage: Stage) {
        self.record_mut().stage = stage;
        self.deadline = self.stage_ends(now);
        self.job_seen = None;
        self.drained = false;
        self.record_mut().answered = None;
        self.rewritable = false;
        self.met = false;
        self.unplugging.clear();
        self.reset.clear();
        self.undo.clear();
        self.awaits_vf.clear();
        self.repair_again();
        self.not_before.clear();
    }

    fn arm(&mut self, now: Millis) {
        if !std::mem::replace(&mut self.armed, true) {
            self.deadline = self.stage_ends(now);
        }
    }

    fn stage_ends(&self, now: Millis) -> Option<Millis> {
        match &self.record.stage {
            Stage::Starting | Stage::Incoming { .. } => Some(now + self.settings.reservation),
            Stage::Draining { .. } => Some(now + self.settings.drain_within),
            Stage::Running | Stage::Outgoing { .. } | Stage::Leaving => None,
        }
    }
}
