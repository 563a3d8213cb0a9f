//! The task that owns a guest: it alone changes the guest's machine, reads its monitor's and its agent's events, and
//! carries out its actions, one at a time.

use crate::adapters::{Adapters, GuestLinks, agent_pair, chain, migration_seen, primary_of};
use crate::crash::{self, Side};
use crate::inside::{Inside, look_inside};
use crate::logging::message_id;
use crate::reservations;
use crate::shared::Shared;
use crate::sparing::Sparing;
use crate::timeline::Recorder;
use hybond_core::Millis;
use hybond_core::guest::{Action, Answer, Event, Failure, Guest, Outcome, Record, Request, Stage, Token};
use hybond_core::ids::Mac;
use hybond_core::spec::{DomainSpec, Flavor};
use hybond_domxml::AgentChannel;
use hybond_guest::{GuestEvent, GuestHandle, GuestLink, Pace};
use hybond_qmp::{LinkEvent, MigrationStatus, QmpLink, Stamped};
use hybond_vfio::PlugWay;
use hybond_wire::agent::Path as ActivePath;
use hybond_wire::control::{DomainStatus, PairStatus, Run};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{mpsc, oneshot};
use tracing::{Instrument, debug, error, info, info_span, warn};

/// What a guest's task is sent.
pub enum Message {
    /// Something happened.
    Event(Event),
    /// Somebody asks, and waits.
    Request(Token, Request, oneshot::Sender<Answer>),
    /// Somebody wants to see it.
    View(oneshot::Sender<View>),
}

/// A guest, as it is shown.
#[derive(Debug, Clone)]
pub struct View {
    /// For `hybondctl status`.
    pub status: DomainStatus,
    /// What its XML asks for.
    pub spec: DomainSpec,
    /// The run that is under way.
    pub run: Option<Run>,
}

type InFlight = Pin<Box<dyn Future<Output = (Instant, Result<Outcome, Failure>)> + Send>>;

/// A look into the guest that is under way.
type Finding = Pin<Box<dyn Future<Output = Option<Inside>> + Send>>;

/// How long a guest that is taken up waits for the first word about it, most often libvirt's, before it looks. What is said right
/// after the first look would make it look again: with a thousand guests that is most of a daemon's start.
const FIRST_WORD: Duration = Duration::from_secs(1);

struct Task {
    shared: Arc<Shared>,
    guest: Guest,
    link: QmpLink,
    agent: Option<GuestHandle>,
    /// The agent's link has not heard yet that the guest runs.
    agent_asleep: bool,
    /// The agent's port, as QEMU's events name it.
    agent_port: Option<String>,
    /// Where the NICs are in the guest.
    slots: Vec<hybond_domxml::Slots>,
    waiters: HashMap<Token, oneshot::Sender<Answer>>,
    recorder: Recorder,
    /// Lines that the guest sets the pace of.
    sparing: Sparing,
    /// The record as it is on stable storage.
    kept: Option<Arc<Record>>,
    /// Why the last request was refused: the outcome of the run that it was part of.
    refusal: Option<String>,
    since: BTreeMap<Mac, (bool, u64)>,
    /// Pairs of which it was said that their standby is gone.
    bereft: BTreeSet<Mac>,
}

/// Runs until nothing of the guest is left on this host. `kept`: its record as it is on stable storage, if it is there.
pub async fn run(
    shared: Arc<Shared>,
    record: Arc<Record>,
    kept: Option<Arc<Record>>,
    messages: mpsc::Receiver<Box<Message>>,
    asked: bool,
) {
    let span = info_span!("guest", domain_uuid = %record.spec.id, domain = record.spec.name);
    async move {
        let id = record.spec.id;
        let path = hybond_domxml::qmp_path(id);
        let (link, monitor) = QmpLink::spawn(path);
        let recorder = Recorder::new(id, record.spec.name.clone(), Arc::clone(&shared.feed));
        let guest = Guest::new(record, shared.adapters.config.guest);
        let mut task = Task {
            shared: Arc::clone(&shared),
            guest,
            link,
            agent: None,
            agent_asleep: false,
            agent_port: None,
            slots: Vec::new(),
            waiters: HashMap::new(),
            recorder,
            sparing: Sparing::default(),
            kept,
            refusal: None,
            since: BTreeMap::new(),
            bereft: BTreeSet::new(),
        };
        task.run(messages, monitor, asked).await;
        shared.ended(id);
    }
    .instrument(span)
    .await;
}

impl Task {
    /// By reference: a future that owns what it is called on keeps it twice.
    async fn run(
        &mut self,
        mut messages: mpsc::Receiver<Box<Message>>,
        mut monitor: mpsc::Receiver<Box<LinkEvent>>,
        asked: bool,
    ) {
        // A hook: libvirt holds the domain's lock, and a look at libvirt would wait for it.
        let patience = if asked { Duration::MAX } else { FIRST_WORD };
        match tokio::time::timeout(patience, messages.recv()).await {
            Ok(Some(first)) => self.message(*first),
            // The daemon ends; the guest goes on by itself.
            Ok(None) => return,
            // Nobody has anything to say, such as where libvirt is away.
            Err(_) => {}
        }
        if let Some(kept) = &self.kept {
            // As after it was written: a daemon may have died in between. It is not written again as it is: after the start
            // of a host with a thousand guests the disk would be waited for a thousand times.
            self.give_back(kept);
        }
        let mut in_flight: Option<InFlight> = None;
        let mut reports: Option<mpsc::Receiver<Box<GuestEvent>>> = None;
        let mut finding: Option<Finding> = None;
        // What the monitor has said by now needs no look of its own.
        while let Ok(event) = monitor.try_recv() {
            finding = self.heard(*event).or(finding);
        }
        loop {
            // While one is under way, only answers are given.
            if let Some(action) = self.next().await {
                in_flight = Some(action);
            }
            if in_flight.is_none() && self.guest.is_forgotten() {
                self.forget(&mut messages).await;
                return;
            }
            let now = self.now();
            let deadline = self.guest.next_deadline(now).map(|at| Duration::from_millis(at - now));
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.message(*message),
                    // The daemon ends; the guest goes on by itself.
                    None => return,
                },
                Some(event) = monitor.recv() => finding = self.heard(*event).or(finding),
                found = async { finding.as_mut().expect("guarded").await }, if finding.is_some() => {
                    finding = None;
                    if let Some(Inside { agent: AgentChannel { path, alias }, slots }) = found {
                        self.slots = slots;
                        let macs = self.guest.record().spec.pairs.iter().map(|pair| pair.mac).collect();
                        // Of a port without a name QEMU's events say nothing that could be understood.
                        let pace = alias.as_ref().map_or_else(Pace::default, |_| Pace::told());
                        let (handle, events) = GuestLink::spawn_asleep(path, macs, pace);
                        self.agent = Some(handle);
                        self.agent_asleep = true;
                        self.agent_port = alias;
                        reports = Some(events);
                    }
                }
                Some(report) = async { reports.as_mut().expect("guarded").recv().await }, if reports.is_some() => self.report(*report),
                (began, result) = async { in_flight.as_mut().expect("guarded").await }, if in_flight.is_some() => {
                    in_flight = None;
                    self.done(began, result).await;
                    self.shared.stirred.notify_one();
                }
                () = tokio::time::sleep(deadline.unwrap_or_default()), if deadline.is_some() && in_flight.is_none() => {}
            }
            if in_flight.is_some() && self.guest.in_flight().is_none() {
                // Nobody waits for its outcome any more.
                in_flight = None;
                self.recorder.finish("drain-source", Some("given up".to_owned()));
            }
            // In postcopy the guest runs before all of it is here.
            let here = !matches!(self.guest.record().stage, Stage::Incoming { .. });
            if self.agent_asleep && here && self.guest.is_running() {
                let pause = Duration::from_millis(self.guest.left_alone_for(self.now()));
                self.agent_asleep = self.agent.as_ref().is_some_and(|agent| !agent.awake(pause));
            }
            self.settle();
        }
    }

    fn now(&self) -> Millis {
        u64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        self.guest.handle(now, event);
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Event(event) => {
                if matches!(event, Event::LookAgain) {
                    // Such as the hook's `started`.
                    self.link.try_now();
                }
                self.handle(event);
            }
            Message::Request(token, request, reply) => {
                self.waiters.insert(token, reply);
                self.open_run(&request);
                self.handle(Event::Request(token, request));
            }
            Message::View(reply) => {
                // Who asked may have gone.
                drop(reply.send(self.view()));
            }
        }
    }

    fn open_run(&mut self, request: &Request) {
        let counted = || format!("{}-{}", request_kind(request), self.now());
        let (kind, id) = match request {
            Request::Prepare(_) if matches!(self.guest.record().stage, Stage::Incoming { .. }) => return,
            // Of the start that hook `prepare` has begun.
            Request::Place(_) => return,
            Request::Receive(_, migration) => ("migration-in", migration.to_string()),
            Request::Drain(migration) => {
                if self.recorder.open().is_some_and(|run| run.id == migration.as_str()) {
                    return;
                }
                ("migration-out", migration.to_string())
            }
            other => (request_kind(other), counted()),
        };
        self.refusal = None;
        if let Some(overtaken) = self.recorder.begin(kind, id) {
            self.keep_run(overtaken);
        }
    }

    fn keep_run(&self, run: Run) {
        let id = self.guest.id();
        // Not waited for: a timeline that is lost in a crash is no loss to the guest.
        drop(self.shared.disk.run(move |journal| {
            if let Err(error) = journal.append_run(&id, &run) {
                warn!(domain_uuid = %id, error = chain(&error), "the timeline could not be kept");
            }
        }));
    }

    /// Ends the open run once everything is as it should be, or it is known why not.
    fn settle(&mut self) {
        let spec = &self.guest.record().spec;
        if self.recorder.rename(&spec.name) {
            self.shared.rename(spec.id, &spec.name);
        }
        for pair in &self.guest.record().spec.pairs {
            let on_primary = self.guest.agent_pair(pair.mac).is_some_and(|seen| seen.on_primary);
            let changed = self
                .since
                .get(&pair.mac)
                .is_none_or(|(before, _)| *before != on_primary);
            if changed {
                let at = crate::timeline::wall_ms(SystemTime::now()) as u64;
                self.since.insert(pair.mac, (on_primary, at));
            }
            // Not taken back while the machine is looked at again: it would be said after each look.
            let gone = self
                .guest
                .degraded(pair.mac)
                .filter(|_| self.guest.standby_is_gone(pair.mac));
            if let Some(why) = gone.filter(|_| self.bereft.insert(pair.mac)) {
                error!(pair = %pair.mac, "{}: pair {}: {why}", spec.name, pair.mac);
            }
        }
        if self.recorder.is_open() && self.guest.is_settled() {
            let degraded = self
                .guest
                .record()
                .spec
                .pairs
                .iter()
                .find_map(|pair| self.guest.degraded(pair.mac));
            let outcome = self.refusal.take().or(degraded.map(str::to_owned));
            self.end_run(outcome);
        }
    }

    fn end_run(&mut self, outcome: Option<String>) {
        let outcome = outcome.unwrap_or_else(|| "ok".to_owned());
        if let Some(run) = self.recorder.end(&outcome) {
            let (name, kind) = (&self.guest.record().spec.name, &run.kind);
            info!(
                migration_id = run.id,
                kind, outcome, "{name}: {kind} finished: {outcome}"
            );
            self.keep_run(run);
        }
    }

    fn links(&self) -> GuestLinks {
        GuestLinks {
            id: self.guest.id(),
            pairs: self.guest.record().spec.pairs.clone(),
            qmp: self.link.current(),
            agent: self.agent.clone(),
        }
    }

    /// Puts the record on stable storage, then starts the next action.
    async fn next(&mut self) -> Option<InFlight> {
        loop {
            let now = self.now();
            // They may have been read again.
            self.guest.set_paths(self.shared.adapters.pools.paths());
            let action = self.guest.poll(now);
            self.tell_pool();
            let Some(action) = action else {
                let left_alone = self.guest.left_alone_for(now) > 0;
                if !left_alone && !self.guest.is_forgotten() && self.guest.in_flight().is_none() {
                    // What could not be written has been told, and nothing depends on it yet.
                    drop(self.keep(false).await);
                }
                return None;
            };
            let asked = matches!(action, Action::Answer { .. });
            // Beside an answer an action may be under way; any other action is yet to begin.
            let leasing = asked && matches!(self.guest.in_flight(), Some(Action::Lease(_)));
            let kept = self.keep(leasing).await;
            if let Action::Answer { token, answer } = action {
                crash::point(Side::Before, Some(crash::ANSWER));
                self.answer(token, answer, kept);
                crash::point(Side::After, Some(crash::ANSWER));
                continue;
            }
            if let Err(failure) = kept {
                let now = self.now();
                self.guest.complete(now, Err(failure));
                continue;
            }
            self.begin(&action);
            let phase = action.phase();
            crash::point(Side::Before, phase);
            if let Action::Release(_) = &action {
                // The record must say so before anybody else may have the VF: `keep` gives it back, with whatever else the
                // record has to say before the next action.
                let now = self.now();
                self.guest.complete(now, Ok(Outcome::Done));
                self.recorder.finish("release", None);
                crash::point(Side::After, phase);
                continue;
            }
            let (shared, links) = (Arc::clone(&self.shared), self.links());
            return Some(Box::pin(async move {
                let began = Instant::now();
                let adapters: &Adapters = &shared.adapters;
                let result = adapters.run(links, action).await;
                crash::point(Side::After, phase);
                (began, result)
            }));
        }
    }

    /// Who asks for a VF that is on its way back waits for it. Said before a record without the VF is written, which takes a
    /// while: only then has the pool got it.
    fn tell_pool(&self) {
        let returning = self.guest.returning(self.kept.as_deref());
        self.shared.adapters.book().set_returning(self.guest.id(), returning);
    }

    /// `leasing`: a lease is under way, and not in the record yet.
    async fn keep(&mut self, leasing: bool) -> Result<(), Failure> {
        let record = self.guest.record();
        if self.kept.as_ref() == Some(record) {
            return Ok(());
        }
        let record = Arc::clone(record);
        match self.shared.keep(Arc::clone(&record)).await {
            Ok(()) => {
                if !leasing {
                    self.give_back(&record);
                }
                self.kept = Some(record);
                Ok(())
            }
            Err(error) => {
                let reason = chain(&error);
                error!(
                    MESSAGE_ID = message_id::JOURNAL_BROKEN,
                    error = reason,
                    "{reason}; nothing is done for this guest until the journal can be written"
                );
                Err(Failure { reason })
            }
        }
    }

    /// The pool gets back what a record on stable storage no longer names.
    fn give_back(&self, record: &Record) {
        if record.stage == Stage::Running && self.shared.adapters.book().holds_for(record.spec.id) {
            // It has come: what was held for it is its own now, or of no use.
            let (shared, id) = (Arc::clone(&self.shared), record.spec.id);
            tokio::spawn(async move {
                if let Err(error) = reservations::give_up(&shared, id).await {
                    warn!(
                        error = chain(&error),
                        "a reservation is held again after a restart: {}",
                        chain(&error)
                    );
                }
            });
        }
        let leases = record.pairs.values().filter_map(|pair| pair.lease.as_ref());
        if self.shared.adapters.book().keep_only(record.spec.id, leases) {
            self.tell_waiting();
        }
    }

    /// Whoever waits for a VF is told that one is free, beside what this task does: their tasks may be busy.
    fn tell_waiting(&self) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move { shared.tell_waiting().await });
    }

    fn answer(&mut self, token: Token, answer: Answer, kept: Result<(), Failure>) {
        let answer = match (kept, answer) {
            (Err(failure), Answer::Done(_)) => Answer::Refused(failure.reason),
            (_, answer) => answer,
        };
        if let Answer::Refused(reason) = &answer {
            let name = &self.guest.record().spec.name;
            warn!(MESSAGE_ID = message_id::REFUSED, reason, "{name}: refused: {reason}");
            self.refusal = Some(reason.clone());
        }
        if let Some(reply) = self.waiters.remove(&token) {
            // Who asked may have gone.
            drop(reply.send(answer));
        }
    }

    fn begin(&mut self, action: &Action) {
        debug!(?action, "begins");
        if let Some(phase) = action.phase() {
            let detail = match action {
                Action::MakeStandby { vf: Some(lease), .. } => Some(lease.vf.id.to_string()),
                Action::MakeStandby { pf, .. } => Some(pf.to_string()),
                Action::AskDrain { peer, .. } => Some(peer.to_string()),
                action => action.vf().map(ToString::to_string),
            };
            self.recorder.start(phase, detail);
        }
    }

    async fn done(&mut self, began: Instant, result: Result<Outcome, Failure>) {
        let Some(action) = self.guest.in_flight().cloned() else {
            return;
        };
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let pair = action.mac().map(|mac| mac.to_string());
        let name = self.guest.record().spec.name.clone();
        match (&result, action.phase()) {
            (Ok(outcome), Some(phase)) => {
                let told = match outcome {
                    Outcome::Leased(lease) => Some(format!("{} on {}", lease.vf.id, lease.vf.pf)),
                    Outcome::NoVf { reason, .. } => Some(reason.clone()),
                    Outcome::NotYet { reason, .. } => Some(format!("{reason}, and one is on its way back")),
                    _ => None,
                };
                let vf = action.vf().map(ToString::to_string);
                let about = told
                    .as_ref()
                    .or(vf.as_ref())
                    .map(|text| format!(" ({text})"))
                    .unwrap_or_default();
                if matches!(action, Action::TuneStandby { .. } | Action::RaiseStandby(_)) {
                    // The one as often as the guest likes, the other while a guest stands still and waits for this host. Both
                    // are in its timeline.
                    debug!(phase, pair, ms, "{name}: {phase} done in {ms} ms");
                    self.recorder.finish(phase, None);
                    let now = self.now();
                    return self.guest.complete(now, result);
                }
                info!(
                    phase,
                    pair,
                    ms,
                    vf,
                    detail = told,
                    "{name}: {phase}{about} done in {ms} ms"
                );
                if matches!(action, Action::Plug(_)) && self.shared.adapters.way == PlugWay::Libvirt {
                    // libvirt asks nobody before it refuses: said ahead, where the one who is refused will look.
                    info!(
                        "{name}: its VF is plugged through libvirt, which refuses a plain 'virsh migrate': use \
                         'hybondctl migrate {name} URI', or 'hybondctl drain {name}' before any other tool"
                    );
                }
                // The device goes when the guest lets it.
                if !(matches!(action, Action::Unplug(_)) && *outcome == Outcome::Done) {
                    self.recorder.finish(phase, told);
                }
            }
            (Err(failure), Some(phase)) => {
                let reason = &failure.reason;
                warn!(
                    MESSAGE_ID = message_id::PHASE_FAILED,
                    phase, pair, ms, reason, "{name}: {phase} failed: {reason}"
                );
                self.recorder.finish(phase, Some(failure.reason.clone()));
            }
            // Repeated until it succeeds: libvirt is busy with the domain at both ends of a migration.
            (Err(failure), None) => debug!(?action, reason = failure.reason, "{name}: looking failed"),
            (Ok(_), None) => {}
        }
        let now = self.now();
        self.guest.complete(now, result);
    }

    /// Takes what the monitor says; where it has just been connected, the guest's inside is to be looked at.
    fn heard(&mut self, event: LinkEvent) -> Option<Finding> {
        let finding: Option<Finding> = match &event {
            LinkEvent::Connected(qmp) => Some(Box::pin(look_inside(
                Arc::clone(&self.shared),
                self.guest.id(),
                qmp.clone(),
                self.guest.record().stage != Stage::Running,
            ))),
            _ => None,
        };
        self.monitor(event);
        finding
    }

    fn monitor(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Connected(_) => self.handle(Event::LookAgain),
            LinkEvent::Lost { reason } => {
                debug!(%reason, "the monitor is gone");
                self.handle(Event::QmpLost);
                self.handle(Event::LookAgain);
            }
            LinkEvent::Unreachable { error } => debug!(error = chain(&error), "the monitor cannot be reached"),
            LinkEvent::Event(Stamped { at, event }) => self.qmp_event(at, event),
        }
    }

    fn qmp_event(&mut self, at: SystemTime, event: hybond_qmp::Event) {
        use hybond_qmp::Event as Qmp;
        let name = self.guest.record().spec.name.clone();
        match event {
            Qmp::Migration { status } => {
                match &status {
                    MigrationStatus::Setup => self.recorder.start_at("migration", at),
                    status if status.is_over() => {
                        self.recorder.finish_at("migration", Some(status.as_str().into()), at)
                    }
                    _ => {}
                }
                debug!(status = status.as_str(), "MIGRATION");
                self.handle(Event::Migration(migration_seen(&status)));
            }
            Qmp::DeviceDeleted {
                device: Some(device), ..
            } => {
                let links = self.links();
                if let Some(mac) = primary_of(&links.pairs, &device) {
                    self.recorder.finish_at("unplug", None, at);
                    let name = &self.guest.record().spec.name;
                    info!(pair = %mac, phase = "unplug", "{name}: the guest has let go of its VF");
                    self.handle(Event::DeviceDeleted(mac));
                }
            }
            Qmp::Resume => {
                self.recorder.mark("resume", at);
                self.handle(Event::Running(true));
            }
            Qmp::Stop => {
                self.recorder.mark("stop", at);
                self.handle(Event::Running(false));
            }
            Qmp::GuardCancelled { status, plugged } => {
                self.recorder.mark("guard-cancelled", at);
                let (status, plugged) = (status.as_str(), plugged.join(" "));
                error!(
                    MESSAGE_ID = message_id::GUARD_CANCELLED,
                    status,
                    plugged,
                    "{name}: a migration or save began with a VF plugged, and was cancelled: RAM that the VF \
                    writes meanwhile would be lost. Is hybond enabled at the destination? For a save: hybondctl save"
                );
            }
            Qmp::GuardTooLate { status, plugged } => {
                let (status, plugged) = (status.as_str(), plugged.join(" "));
                error!(
                    MESSAGE_ID = message_id::GUARD_TOO_LATE,
                    status,
                    plugged,
                    "{name}: a migration, save or snapshot went on with a VF plugged and can no longer be cancelled: do \
                    not use its result, the guest's memory in it may be damaged"
                );
            }
            Qmp::NicRxFilterChanged { .. } => self.handle(Event::FiltersChanged),
            Qmp::Resync { lost } => {
                debug!(lost, "events of the monitor were lost");
                self.handle(Event::LookAgain);
                if let Some(handle) = &self.agent {
                    handle.check();
                }
            }
            // Of the agent's port only: greeted for another's sake, an agent forgets what it is about to answer.
            Qmp::PortChanged { id, open } if self.agent_port.as_ref() == Some(&id) => match &self.agent {
                Some(handle) if open => handle.hello(),
                Some(handle) => handle.closed(),
                None => {}
            },
            _ => {}
        }
    }

    fn report(&mut self, report: GuestEvent) {
        match report {
            GuestEvent::AgentHello { agent, pairs } => {
                let (name, release) = (&self.guest.record().spec.name, &agent.release);
                if let Some(others_before) = self.sparing.pass("hello", Instant::now()) {
                    info!(
                        agent = release,
                        others_before, "{name}: the guest's agent {release} says hello"
                    );
                }
                let pairs = pairs.iter().map(|state| (state.mac, agent_pair(state))).collect();
                self.handle(Event::AgentHello(pairs));
            }
            GuestEvent::State(state) => {
                let seen = agent_pair(&state);
                let before = self.guest.agent_pair(state.mac).copied().unwrap_or_default();
                if seen.primary_ready && !before.primary_ready {
                    self.recorder.mark("primary-ready", SystemTime::now());
                }
                self.handle(Event::AgentState(state.mac, seen));
            }
            GuestEvent::AgentGone => {
                if let Some(others_before) = self.sparing.pass("gone", Instant::now()) {
                    info!(
                        others_before,
                        "{}: the guest's agent is gone",
                        self.guest.record().spec.name
                    );
                }
                self.handle(Event::AgentGone);
            }
            GuestEvent::Misbehaves { what } => {
                if let Some(others_before) = self.sparing.pass("misbehaves", Instant::now()) {
                    let name = &self.guest.record().spec.name;
                    warn!(what, others_before, "{name}: the guest's agent misbehaves: {what}");
                }
            }
        }
    }

    async fn forget(&mut self, messages: &mut mpsc::Receiver<Box<Message>>) {
        let id = self.guest.id();
        match self.shared.drop_record(id).await {
            Ok(()) => {
                let freed = {
                    let mut book = self.shared.adapters.book();
                    book.leave_queue(id);
                    book.set_returning(id, []);
                    book.keep_only(id, [])
                };
                if freed {
                    self.tell_waiting();
                }
            }
            // What it names stays leased: it is read back at the next start.
            Err(error) => error!(
                error = chain(&error),
                "the record of a guest that has gone cannot be removed"
            ),
        }
        let socket = hybond_domxml::qmp_path(id);
        if let Err(error) = hybond_qmp::remove_dead_socket(&socket).await {
            warn!(
                error = chain(&error),
                "the monitor's socket {} of a guest that has gone is left behind: remove it",
                socket.display()
            );
        }
        self.kept = None;
        let refusal = self.refusal.take();
        self.end_run(refusal);
        // Who has asked in this moment finds the task ended, and starts another.
        messages.close();
        while let Ok(message) = messages.try_recv() {
            if let Message::View(reply) = *message {
                // Who asked may have gone.
                drop(reply.send(self.view()));
            }
        }
        info!(
            "{}: nothing is left of the guest on this host",
            self.guest.record().spec.name
        );
    }

    fn view(&self) -> View {
        let record = self.guest.record();
        let pairs = record.spec.pairs.iter().map(|pair| {
            let has = record.pairs.get(&pair.mac).cloned().unwrap_or_default();
            let active = self.guest.agent_pair(pair.mac).map(|seen| {
                if seen.on_primary {
                    ActivePath::Primary
                } else {
                    ActivePath::Standby
                }
            });
            let slots = self.slots.iter().find(|slots| slots.mac == pair.mac);
            // A pair of another flavor has a root port as well, and never a VF behind it.
            let primary = slots.filter(|_| pair.flavor == Flavor::Hybrid);
            PairStatus {
                mac: pair.mac,
                pool: pair.pool.clone(),
                flavor: pair.flavor,
                policy: pair.policy,
                active,
                vf: has.lease.as_ref().map(|lease| lease.vf.id.clone()),
                plugged: self.guest.is_plugged(pair.mac),
                pf: has.pf,
                degraded: self.guest.degraded(pair.mac).map(str::to_owned),
                drained: has.held_back.is_some(),
                since_ms: self.since.get(&pair.mac).map(|(_, at)| *at),
                primary_slot: primary.and_then(|slots| slots.primary.clone()),
                standby_slot: slots.and_then(|slots| slots.standby.clone()),
            }
        });
        let status = DomainStatus {
            id: record.spec.id,
            name: record.spec.name.clone(),
            stage: record.stage_name().to_owned(),
            agent: self.guest.has_agent(),
            pairs: pairs.collect(),
        };
        View {
            status,
            spec: record.spec.clone(),
            run: self.recorder.open().cloned(),
        }
    }
}

fn request_kind(request: &Request) -> &'static str {
    match request {
        Request::Prepare(_) | Request::Place(_) | Request::Restore(_) => "start",
        Request::Receive(..) => "migration-in",
        Request::Drain(_) => "migration-out",
        Request::HoldBack => "drain",
        Request::Plug => "plug",
        Request::SetPolicy(..) => "set",
    }
}
