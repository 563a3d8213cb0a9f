//! What happened to a guest, phase by phase: kept for `hybondctl timeline`, told to whoever watches, and logged.

use hybond_core::ids::DomainId;
use hybond_wire::control::{Phase, Response, Run};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast;

/// Most phases of one run. A guest that flaps for hours fills no memory.
const MAX_PHASES: usize = 256;

/// Phases as they begin and end, to all who watch.
pub type Feed = broadcast::Sender<(DomainId, Response)>;

/// Milliseconds since the epoch, with fraction.
#[must_use]
pub fn wall_ms(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64() * 1000.0)
}

/// Records one guest's runs. One is open at a time.
#[derive(Debug)]
pub struct Recorder {
    id: DomainId,
    name: String,
    feed: Feed,
    open: Option<Run>,
}

impl Recorder {
    /// For a guest.
    #[must_use]
    pub fn new(id: DomainId, name: String, feed: Feed) -> Self {
        Self {
            id,
            name,
            feed,
            open: None,
        }
    }

    /// The domain's name is another now. True if it was not that before.
    pub fn rename(&mut self, name: &str) -> bool {
        let renamed = self.name != name;
        if renamed {
            name.clone_into(&mut self.name);
        }
        renamed
    }

    /// Begins a run. One that is open ends as overtaken, and is given back to be kept.
    pub fn begin(&mut self, kind: &str, id: String) -> Option<Run> {
        let overtaken = self.end(&format!("overtaken by {kind}"));
        let started_ms = wall_ms(SystemTime::now()) as u64;
        self.open = Some(Run {
            id,
            kind: kind.to_owned(),
            started_ms,
            phases: Vec::new(),
            outcome: None,
        });
        overtaken
    }

    /// Whether a run is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The open run.
    #[must_use]
    pub fn open(&self) -> Option<&Run> {
        self.open.as_ref()
    }

    /// Ends the open run and gives it out to be kept.
    pub fn end(&mut self, outcome: &str) -> Option<Run> {
        let mut run = self.open.take()?;
        run.outcome = Some(outcome.to_owned());
        Some(run)
    }

    /// A phase begins.
    pub fn start(&mut self, name: &str, detail: Option<String>) {
        let phase = Phase {
            name: name.to_owned(),
            start_ms: wall_ms(SystemTime::now()),
            end_ms: None,
            detail,
        };
        self.tell(&phase);
        self.keep(phase);
    }

    /// The phase of that name that is under way ends.
    pub fn finish(&mut self, name: &str, detail: Option<String>) {
        self.finish_at(name, detail, SystemTime::now());
    }

    /// As [`Recorder::finish`], at a time that QEMU has stamped.
    pub fn finish_at(&mut self, name: &str, detail: Option<String>, at: SystemTime) {
        let Some(run) = &mut self.open else { return };
        let under_way = run
            .phases
            .iter_mut()
            .rev()
            .find(|p| p.name == name && p.end_ms.is_none());
        if let Some(phase) = under_way {
            phase.end_ms = Some(wall_ms(at));
            phase.detail = detail.or(phase.detail.take());
            let phase = phase.clone();
            self.tell(&phase);
        }
    }

    /// A phase that began at a time that QEMU has stamped.
    pub fn start_at(&mut self, name: &str, at: SystemTime) {
        let phase = Phase {
            name: name.to_owned(),
            start_ms: wall_ms(at),
            end_ms: None,
            detail: None,
        };
        self.tell(&phase);
        self.keep(phase);
    }

    /// Something that has no length.
    pub fn mark(&mut self, name: &str, at: SystemTime) {
        let at = wall_ms(at);
        let phase = Phase {
            name: name.to_owned(),
            start_ms: at,
            end_ms: Some(at),
            detail: None,
        };
        self.tell(&phase);
        self.keep(phase);
    }

    fn keep(&mut self, phase: Phase) {
        if let Some(run) = self.open.as_mut().filter(|run| run.phases.len() < MAX_PHASES) {
            run.phases.push(phase);
        }
    }

    fn tell(&self, phase: &Phase) {
        let told = Response::Progress {
            domain: self.name.clone(),
            phase: phase.clone(),
        };
        // An error means that nobody watches.
        drop(self.feed.send((self.id, told)));
    }
}
