//! What happened to a guest, phase by phase: kept for `hybondctl timeline`, told to whoever watches, and logged.

use hybond_core::ids::DomainId;
use hybond_wire::control::{Phase, Response, Run};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast;

/// Most phases of one run. A guest that flaps for hours fills no memory.
const MAX_PHASES: usize = 256;

/// Phases that a slow watcher may be behind.
const BEHIND: usize = 64;

/// Phases as they begin and end, to whoever watches a domain. Each domain that is watched has a channel of its own: on one for
/// all of them, each of many drains at once would be woken by the phases of all others.
#[derive(Debug, Default)]
pub struct Feed(Mutex<HashMap<DomainId, broadcast::Sender<Response>>>);

impl Feed {
    /// Phases of a domain from now on, for as long as the receiver is kept.
    #[must_use]
    pub fn subscribe(&self, id: DomainId) -> broadcast::Receiver<Response> {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Of those that nobody watches any more.
        watched.retain(|_, channel| channel.receiver_count() > 0);
        watched
            .entry(id)
            .or_insert_with(|| broadcast::channel(BEHIND).0)
            .subscribe()
    }

    fn tell(&self, id: DomainId, told: impl FnOnce() -> Response) {
        let watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = watched.get(&id) {
            // An error means that nobody watches any more.
            drop(channel.send(told()));
        }
    }
}

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
    feed: Arc<Feed>,
    open: Option<Run>,
}

impl Recorder {
    /// For a guest.
    #[must_use]
    pub fn new(id: DomainId, name: String, feed: Arc<Feed>) -> Self {
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
        self.feed.tell(self.id, || Response::Progress {
            domain: self.name.clone(),
            phase: phase.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_watches_a_guest_is_told_of_its_phases_and_of_no_others() {
        let feed = Arc::new(Feed::default());
        let [one, other] = [1, 2].map(|n| DomainId::from_bytes([n; 16]));
        let recorder = |id, name: &str| Recorder::new(id, name.to_owned(), Arc::clone(&feed));
        let (mut first, mut second) = (recorder(one, "one"), recorder(other, "other"));
        let (mut watcher, mut further) = (feed.subscribe(one), feed.subscribe(one));
        second.start("plug", None);
        first.start("failover", None);
        for watcher in [&mut watcher, &mut further] {
            let told = watcher.try_recv().expect("told");
            assert!(
                matches!(told, Response::Progress { domain, phase } if domain == "one" && phase.name == "failover")
            );
            assert!(watcher.try_recv().is_err(), "and of nothing else");
        }
    }

    #[test]
    fn a_guest_that_nobody_watches_any_more_costs_nothing_and_can_be_watched_again() {
        let feed = Feed::default();
        let [one, other] = [1, 2].map(|n| DomainId::from_bytes([n; 16]));
        drop(feed.subscribe(one));
        feed.tell(other, || unreachable!("nobody watches"));
        let _watcher = feed.subscribe(other);
        assert_eq!(feed.0.lock().expect("whole").len(), 1);
        assert!(feed.subscribe(one).try_recv().is_err());
    }
}
