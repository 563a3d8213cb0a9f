//! The daemon's tasks, one for each guest: journal first, then the action, one at a time. As `hybondd` does it.

use crate::host::Running;
use crate::link::Waiter;
use crate::plant::Plant;
use crate::world::World;
use hybond_core::guest::{Action, Answer, Event, Failure, Outcome};
use hybond_core::ids::DomainId;

/// Actions that a task may begin in one moment. More would be a loop.
const AT_ONCE: usize = 64;

pub(crate) fn failure(reason: &str) -> Failure {
    Failure { reason: reason.into() }
}

impl World {
    /// Every task of a host, until it waits. How much they have begun.
    pub(crate) fn drive(&mut self, host: usize) -> usize {
        let mut sum = 0;
        for id in self.ids() {
            self.finish(host, id);
            let mut begun = 0;
            while self.violation.is_none() && self.start_next(host, id) {
                begun += 1;
                if begun > AT_ONCE {
                    self.violate(format!("host{host} is busy with {id} for ever"));
                }
            }
            self.forget(host, id);
            sum += begun;
        }
        sum
    }

    /// Here the daemon could crash.
    fn point(&mut self, host: usize) -> bool {
        self.points[host] += 1;
        let here = self.crash_at == Some((host, self.points[host]));
        let crashes = here || self.dice.rarely(self.faults.crash);
        if crashes {
            self.crash(host);
        }
        crashes
    }

    /// The daemon's memory is gone. Hooks that waited for it are refused, its peer's connection breaks.
    pub fn crash(&mut self, host: usize) {
        if self.hosts[host].daemon.take().is_none() {
            return;
        }
        self.tally.crashed += 1;
        // What starts services waits longer when one crashes again and again.
        let longest = if self.dice.chance(10) { 60_000 } else { 5_000 };
        self.restart_at[host] = Some(self.now + self.dice.between(1, longest));
        self.log(|| format!("host{host}: the daemon crashes"));
        let lost = self.waiters.keys().filter(|(at, _)| *at == host);
        for key in lost.copied().collect::<Vec<_>>() {
            if let Some(Waiter::Hook { id, hook }) = self.waiters.remove(&key) {
                self.hooked(id, hook, None);
            }
        }
    }

    /// Puts the record on stable storage. The pool gets back what the record no longer names, not before.
    fn keep(&mut self, host: usize, id: DomainId) -> Result<(), Failure> {
        let fails = self.dice.chance(self.faults.disk);
        let at = &mut self.hosts[host];
        let Some(daemon) = &mut at.daemon else { return Ok(()) };
        let Some(guest) = daemon.guests.get(&id) else {
            return Ok(());
        };
        let record = guest.record().as_ref();
        if at.disk.get(&id) == Some(record) {
            return Ok(());
        }
        if fails {
            return Err(failure("the journal cannot be written"));
        }
        let leases = record.pairs.values().filter_map(|pair| pair.lease.as_ref());
        // What is being leased is not in the record yet.
        let leasing = matches!(guest.in_flight(), Some(Action::Lease(_)));
        let freed = !leasing && daemon.book.keep_only(id, leases);
        at.disk.insert(id, record.clone());
        if freed {
            self.pool_changed(host);
        }
        Ok(())
    }

    /// Nothing is to be done: what has changed is written down all the same.
    fn keep_idle(&mut self, host: usize, id: DomainId) {
        let at = &self.hosts[host];
        let Some(guest) = at.guest(id).filter(|guest| !guest.is_forgotten()) else {
            return;
        };
        if at.disk.get(&id) != Some(guest.record().as_ref()) && !self.point(host) && self.keep(host, id).is_err() {
            self.log(|| format!("host{host}: {id} could not be written down"));
        }
    }

    fn pool_changed(&mut self, host: usize) {
        for id in self.ids() {
            self.hosts[host].tell(self.now, id, Event::PoolChanged);
        }
    }

    fn start_next(&mut self, host: usize, id: DomainId) -> bool {
        let now = self.now;
        let Some(daemon) = self.hosts[host].daemon.as_mut() else {
            return false;
        };
        let Some(guest) = daemon.guests.get_mut(&id) else {
            return false;
        };
        if guest.in_flight().is_none() && daemon.running.remove(&id).is_some() {
            self.log(|| format!("host{host}: {id} gives up what it does"));
        }
        let at = &mut self.hosts[host];
        let Some(daemon) = at.daemon.as_mut() else {
            return false;
        };
        let busy = daemon.running.contains_key(&id);
        let action = daemon.guests.get_mut(&id).and_then(|guest| {
            let action = guest.poll(now);
            daemon.book.set_returning(id, guest.returning(at.disk.get(&id)));
            action
        });
        let Some(action) = action else {
            if !busy {
                self.keep_idle(host, id);
            }
            return false;
        };
        // Before the journal.
        if self.point(host) {
            return false;
        }
        let late = self.plant == Some(Plant::JournalLate);
        let kept = if late { Ok(()) } else { self.keep(host, id) };
        // After the journal, before the effect.
        if self.point(host) {
            return false;
        }
        match (action, kept) {
            (Action::Answer { token, answer }, kept) => {
                let answer = match (kept, answer) {
                    (Err(failure), Answer::Done(_)) => Answer::Refused(failure.reason),
                    (_, answer) => answer,
                };
                self.answer(host, token, answer);
            }
            (_, Err(failure)) => self.complete(host, id, Err(failure)),
            (Action::Release(lease), Ok(())) => {
                self.log(|| format!("host{host}: {id} releases {}", lease.vf.id));
                if self.plant == Some(Plant::ReleaseEarly) {
                    if let Some(daemon) = self.hosts[host].daemon.as_mut() {
                        daemon.book.release(lease.domain, lease.mac);
                    }
                    self.pool_changed(host);
                    return self.set_running(host, id, Action::Release(lease));
                }
                self.complete(host, id, Ok(Outcome::Done));
                // The record must say so before anybody else may have the VF.
                if !self.point(host) && self.keep(host, id).is_err() {
                    self.log(|| format!("host{host}: {id} could not write the release down"));
                }
            }
            (action, Ok(())) => return self.set_running(host, id, action),
        }
        true
    }

    fn complete(&mut self, host: usize, id: DomainId, result: Result<Outcome, Failure>) {
        let now = self.now;
        let daemon = self.hosts[host].daemon.as_mut();
        if let Some(guest) = daemon.and_then(|daemon| daemon.guests.get_mut(&id)) {
            guest.complete(now, result);
        }
    }

    fn set_running(&mut self, host: usize, id: DomainId, action: Action) -> bool {
        self.log(|| format!("host{host}: {id} begins {action:?}"));
        let now = self.now;
        let longest = match action {
            // Between MIGRATION completed and RESUME there are 70 ms at least.
            Action::RaiseStandby(_) => 40,
            Action::Look { .. } if self.peaceful => 10,
            _ => 400,
        };
        let effect_at = now + self.dice.between(0, longest / 2);
        let mut running = Running {
            effect_at,
            until: effect_at + self.dice.between(0, longest / 2),
            result: None,
            action,
        };
        if let Some(lie) = self.plant.and_then(|plant| plant.lie(&running.action)) {
            running.result = Some(Ok(lie));
        } else if let Action::AskDrain { peer, migration } = &running.action {
            (running.effect_at, running.until) = (now + 70_000, now + 70_000);
            let (peer, migration) = (peer.to_string(), migration.clone());
            self.ask_drain(host, id, &peer, migration);
        }
        if let Some(daemon) = self.hosts[host].daemon.as_mut() {
            daemon.running.insert(id, running);
        }
        true
    }

    /// Applies the effect of what is being done, and later reports it.
    fn finish(&mut self, host: usize, id: DomainId) {
        let now = self.now;
        // Most often it is too early, and this is the busiest place of all.
        let due = |running: &&Running| match running.result {
            None => now >= running.effect_at,
            Some(_) => now >= running.until,
        };
        let running = |world: &Self| world.hosts[host].daemon.as_ref()?.running.get(&id).filter(due).cloned();
        let Some(mut doing) = running(self) else { return };
        if doing.result.is_none() && now >= doing.effect_at {
            doing.result = Some(self.effect(host, id, &doing));
            let blocked = matches!(&doing.result, Some(Err(failure)) if failure.reason == LOCKED);
            if blocked {
                doing.until = now + 5_000;
            }
            if self.violation.is_some() || self.point(host) {
                return;
            }
            if let Some(daemon) = self.hosts[host].daemon.as_mut() {
                daemon.running.insert(id, doing.clone());
            }
        }
        if now < doing.until || self.point(host) {
            return;
        }
        let Some(result) = doing.result else { return };
        let Some(daemon) = self.hosts[host].daemon.as_mut() else {
            return;
        };
        daemon.running.remove(&id);
        let wanted = daemon
            .guests
            .get(&id)
            .is_some_and(|guest| guest.in_flight() == Some(&doing.action));
        self.log(|| format!("host{host}: {id} {:?} -> {result:?}", doing.action));
        if wanted {
            let result = result.map(|outcome| self.plant.map_or(outcome.clone(), |plant| plant.twist(outcome)));
            self.complete(host, id, result);
        }
    }

    fn effect(&mut self, host: usize, id: DomainId, doing: &Running) -> Result<Outcome, Failure> {
        let action = &doing.action;
        if matches!(action, Action::AskDrain { .. }) {
            return Err(failure("the peer is silent"));
        }
        // libvirt holds the domain's lock while its hook waits: whoever asks about it waits too.
        let asks = matches!(action, Action::Look { libvirt: true } | Action::LookAtJob);
        if asks && self.is_locked(host, id) {
            return Err(failure(LOCKED));
        }
        // What is done in memory does not fail.
        let memory = matches!(action, Action::Lease(_) | Action::ChoosePf(_) | Action::Release(_));
        if memory || !self.dice.chance(self.faults.fail) {
            return self.apply(host, id, action);
        }
        if self.dice.chance(50) {
            drop(self.apply(host, id, action));
            return Err(failure("chance, after the effect"));
        }
        Err(failure("chance"))
    }

    fn forget(&mut self, host: usize, id: DomainId) {
        let Some(guest) = self.hosts[host].guest(id) else {
            return;
        };
        if !guest.is_forgotten() || self.point(host) {
            return;
        }
        self.log(|| format!("host{host}: {id} is forgotten"));
        let at = &mut self.hosts[host];
        at.disk.remove(&id);
        let Some(daemon) = &mut at.daemon else { return };
        daemon.guests.remove(&id);
        daemon.links.remove(&id);
        daemon.relink_at.remove(&id);
        daemon.book.leave_queue(id);
        daemon.book.set_returning(id, []);
        if daemon.book.keep_only(id, []) {
            self.pool_changed(host);
        }
    }
}

/// Why a question to libvirt has no answer while its hook waits.
pub(crate) const LOCKED: &str = "libvirt does not answer";
