//! Where the guests are, shared by those who move them.

use super::judge::Place;
use super::plan::{Side, Step};
use anyhow::{Result, bail};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Whoever is in the way of the next migration has gone by then.
const PATIENCE: Duration = Duration::from_secs(900);

/// Where the guests are.
#[derive(Debug)]
pub(super) struct Board {
    /// What is to come. Held by whoever waits to begin: nobody overtakes, since the plan is right in its order only.
    steps: Mutex<VecDeque<Step>>,
    state: Mutex<State>,
    changed: Condvar,
    room: usize,
}

#[derive(Debug)]
struct State {
    places: Vec<Place>,
    /// How often each has begun or ended a journey.
    changes: Vec<u64>,
    failed: bool,
}

/// All places at one moment.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    places: Vec<Place>,
    changes: Vec<u64>,
}

impl Board {
    /// Guests on hosts that have room for so many.
    pub(super) fn new(places: Vec<Place>, room: usize) -> Self {
        let changes = vec![0; places.len()];
        Self {
            steps: Mutex::default(),
            state: Mutex::new(State {
                places,
                changes,
                failed: false,
            }),
            changed: Condvar::new(),
            room,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn steps(&self) -> MutexGuard<'_, VecDeque<Step>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be done next.
    pub(super) fn plan(&self, steps: &[Step]) {
        *self.steps() = steps.iter().copied().collect();
    }

    /// Waits until the next migration can begin, and begins it; `None` when all have, or somebody has failed. They begin in
    /// the plan's order: each waits until its guest rests, and its destination has room.
    pub(super) fn next(&self) -> Result<Option<Step>> {
        let mut steps = self.steps();
        let Some(step) = steps.pop_front() else { return Ok(None) };
        let to = 1 - step.from;
        let blocked = |state: &mut State| {
            let load = state.places.iter().filter(|place| place.may_be_on(to)).count();
            !state.failed && (state.places[step.guest] != Place::Rests(step.from) || load >= self.room)
        };
        let (mut state, waited) = self
            .changed
            .wait_timeout_while(self.state(), PATIENCE, blocked)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            bail!(
                "{step:?} could not begin within {} s: {:?}",
                PATIENCE.as_secs(),
                state.places
            );
        }
        if state.failed {
            return Ok(None);
        }
        state.places[step.guest] = Place::Moves(step.from);
        state.changes[step.guest] += 1;
        Ok(Some(step))
    }

    /// A guest has arrived and settled.
    pub(super) fn rests(&self, guest: usize, at: Side) {
        let mut state = self.state();
        state.places[guest] = Place::Rests(at);
        state.changes[guest] += 1;
        self.changed.notify_all();
    }

    /// Nobody shall begin anything more.
    pub(super) fn fail(&self) {
        self.state().failed = true;
        self.changed.notify_all();
    }

    pub(super) fn moment(&self) -> Moment {
        let state = self.state();
        Moment {
            places: state.places.clone(),
            changes: state.changes.clone(),
        }
    }
}

impl Moment {
    /// Places of those that have stayed where they were until `later`.
    pub(super) fn unchanged(&self, later: &Self) -> Vec<Option<Place>> {
        let both = self.places.iter().zip(self.changes.iter().zip(&later.changes));
        both.map(|(place, (before, after))| (before == after).then_some(*place))
            .collect()
    }

    /// Who rests on a host.
    pub(super) fn resting(&self, side: Side) -> Vec<usize> {
        (0..self.places.len())
            .filter(|guest| self.places[*guest] == Place::Rests(side))
            .collect()
    }
}
