//! Events on their way to the daemon: at most one of each kind for each pair, and only so many per second, however fast
//! the guest changes its mind.

use crate::budget::Budget;
use crate::report::{Agent, GuestEvent};
use hybond_core::ids::Mac;
use hybond_wire::agent::PairState;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio::time::{self, Instant};

/// A migration of a domain with sixteen pairs brings fewer.
const BURST: u32 = 128;
const PER_SECOND: u32 = 10;

#[derive(Debug)]
pub(crate) struct Outbox {
    to: mpsc::Sender<Box<GuestEvent>>,
    budget: Budget,
    gone: bool,
    misbehaves: Option<&'static str>,
    hello: Option<(Agent, Vec<PairState>)>,
    states: BTreeMap<Mac, PairState>,
}

impl Outbox {
    pub fn new(to: mpsc::Sender<Box<GuestEvent>>) -> Self {
        Self {
            to,
            budget: Budget::new(BURST, PER_SECOND, Instant::now()),
            gone: false,
            misbehaves: None,
            hello: None,
            states: BTreeMap::new(),
        }
    }

    pub fn hello(&mut self, agent: Agent, pairs: Vec<PairState>) {
        self.states.clear();
        self.hello = Some((agent, pairs));
    }

    pub fn state(&mut self, state: PairState) {
        self.states.insert(state.mac, state);
    }

    pub fn gone(&mut self) {
        self.hello = None;
        self.states.clear();
        self.gone = true;
    }

    pub fn misbehaves(&mut self, what: &'static str) {
        self.misbehaves = Some(what);
    }

    pub fn is_empty(&self) -> bool {
        !self.gone && self.misbehaves.is_none() && self.hello.is_none() && self.states.is_empty()
    }

    fn next(&mut self) -> Option<GuestEvent> {
        if std::mem::take(&mut self.gone) {
            return Some(GuestEvent::AgentGone);
        }
        if let Some(what) = self.misbehaves.take() {
            return Some(GuestEvent::Misbehaves { what });
        }
        if let Some((agent, pairs)) = self.hello.take() {
            return Some(GuestEvent::AgentHello { agent, pairs });
        }
        self.states.pop_first().map(|(_, state)| GuestEvent::State(state))
    }

    /// Waits until one event may be passed on, and passes it on. `false`: nobody listens any more. Cancelling it loses
    /// nothing. Pending for ever while there is none.
    pub async fn drain(&mut self) -> bool {
        if self.is_empty() {
            self.to.closed().await;
            return false;
        }
        if let Some(wait) = self.budget.wait(Instant::now()) {
            time::sleep(wait).await;
            return !self.to.is_closed();
        }
        // Cloned, as the permit borrows the sender while the event is picked.
        let to = self.to.clone();
        let Ok(permit) = to.reserve().await else { return false };
        if let Some(event) = self.next() {
            self.budget.spend(1);
            permit.send(Box::new(event));
        }
        true
    }
}
