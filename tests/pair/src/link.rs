//! Messages between the daemons, and who waits for an answer of a daemon's. The link loses, delays, repeats and reorders:
//! more than TLS over TCP would, so that nothing rests on that.

use crate::libvirt::Hook;
use crate::plant::Plant;
use crate::world::World;
use hybond_core::Millis;
use hybond_core::guest::{Action, Answer, Event, Failure, Outcome, Request, Token};
use hybond_core::ids::{DomainId, MigrationId};

/// A message between the daemons.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub at: Millis,
    to: usize,
    body: Body,
}

#[derive(Debug, Clone)]
enum Body {
    Drain {
        id: DomainId,
        migration: MigrationId,
        from: usize,
    },
    Answer {
        id: DomainId,
        migration: MigrationId,
        answer: Answer,
    },
}

/// Who waits for a daemon's answer.
#[derive(Debug, Clone)]
pub(crate) enum Waiter {
    /// libvirt's hook; libvirt's operation knows for how long.
    Hook { id: DomainId, hook: Hook },
    /// The other daemon.
    Peer {
        id: DomainId,
        migration: MigrationId,
        from: usize,
        until: Millis,
    },
    /// `hybondctl`.
    Control { id: DomainId, until: Millis },
}

impl Waiter {
    pub fn until(&self) -> Option<Millis> {
        match self {
            Self::Hook { .. } => None,
            Self::Peer { until, .. } | Self::Control { until, .. } => Some(*until),
        }
    }

    pub fn until_mut(&mut self) -> Option<&mut Millis> {
        match self {
            Self::Hook { .. } => None,
            Self::Peer { until, .. } | Self::Control { until, .. } => Some(until),
        }
    }
}

impl World {
    /// Asks a guest's machine, which is made for a domain that is new here. `false` where nobody answers.
    pub(crate) fn ask(&mut self, host: usize, id: DomainId, request: Request, waiter: Waiter) -> bool {
        let token = self.token();
        let new = self.new_guest(host, id);
        let now = self.now;
        let Some(daemon) = &mut self.hosts[host].daemon else {
            return false;
        };
        let starts = matches!(
            request,
            Request::Prepare(_) | Request::Restore(_) | Request::Receive(..)
        );
        if !starts && !daemon.guests.contains_key(&id) {
            return false;
        }
        let guest = daemon.guests.entry(id).or_insert(new);
        let text = self.trace.is_some().then(|| format!("{request:?}"));
        guest.handle(now, Event::Request(token, request));
        self.waiters.insert((host, token), waiter);
        self.log(|| format!("host{host}: {id} asked {token:?} {}", text.unwrap_or_default()));
        true
    }

    /// A name for who asks. Where every state is to be seen once, names come back when nobody has them any more.
    fn token(&mut self) -> Token {
        if self.dice.is_chosen() {
            let taken = self.waiters.keys().map(|(_, token)| token.0);
            return Token(taken.max().unwrap_or(0) + 1);
        }
        Token(self.number())
    }

    /// Who waits has had enough.
    pub(crate) fn abandon(&mut self, whom: impl Fn(&Waiter) -> bool) {
        let gone = self.waiters.iter().filter(|(_, waiter)| whom(waiter));
        let gone: Vec<(usize, Token)> = gone.map(|(key, _)| *key).collect();
        for (host, token) in gone {
            let Some(waiter) = self.waiters.remove(&(host, token)) else {
                continue;
            };
            let (Waiter::Hook { id, .. } | Waiter::Peer { id, .. } | Waiter::Control { id, .. }) = waiter;
            self.log(|| format!("host{host}: {id} abandoned {token:?}"));
            self.hosts[host].tell(self.now, id, Event::Abandoned(token));
        }
    }

    pub(crate) fn answer(&mut self, host: usize, token: Token, answer: Answer) {
        self.log(|| format!("host{host}: answers {token:?} {answer:?}"));
        let Some(waiter) = self.waiters.remove(&(host, token)) else {
            return;
        };
        if let Answer::Refused(reason) = &answer {
            self.refusals.push(reason.clone());
        }
        match waiter {
            Waiter::Hook { id, hook } => {
                let edits = match answer {
                    Answer::Done(edits) => Some(edits),
                    Answer::Refused(_) if self.plant == Some(Plant::HookPasses) => Some(Vec::new()),
                    Answer::Refused(_) => None,
                };
                self.hooked(id, hook, edits);
            }
            Waiter::Peer {
                id, migration, from, ..
            } => self.send(from, Body::Answer { id, migration, answer }),
            Waiter::Control { .. } => {}
        }
    }

    /// Asks whom the domain's metadata names.
    pub(crate) fn ask_drain(&mut self, host: usize, id: DomainId, peer: &str, migration: MigrationId) {
        let to = usize::from(peer == "host1");
        let from = host;
        self.send(to, Body::Drain { id, migration, from });
    }

    fn send(&mut self, to: usize, body: Body) {
        if self.dice.chance(self.faults.lose) {
            return;
        }
        let slow = if self.faults.lose > 0 { 8_000 } else { 100 };
        let at = self.now + self.dice.between(1, slow);
        let again = self.dice.chance(self.faults.repeat);
        // One that comes again may come when another migration of the same domain is under way.
        let late = self.now + self.dice.between(1, 120_000);
        if again {
            let body = body.clone();
            self.link.push(Packet { at: late, to, body });
        }
        self.link.push(Packet { at, to, body });
    }

    pub(crate) fn deliver(&mut self) {
        let now = self.now;
        self.abandon(|waiter| waiter.until().is_some_and(|at| now >= at));
        let (due, later) = std::mem::take(&mut self.link).into_iter().partition(|p| p.at <= now);
        self.link = later;
        let due: Vec<Packet> = due;
        for Packet { to, body, .. } in due {
            match body {
                Body::Drain { id, migration, from } => {
                    let waiter = Waiter::Peer {
                        id,
                        migration: migration.clone(),
                        from,
                        until: now + self.hosts[to].settings.drain_within - 2_000,
                    };
                    if !self.ask(to, id, Request::Drain(migration.clone()), waiter) && self.hosts[to].daemon.is_some() {
                        let answer = Answer::Refused("no such domain".into());
                        self.send(from, Body::Answer { id, migration, answer });
                    }
                }
                Body::Answer { id, migration, answer } => self.answered(to, id, &migration, answer),
            }
        }
    }

    fn answered(&mut self, host: usize, id: DomainId, migration: &MigrationId, answer: Answer) {
        let now = self.now;
        let daemon = self.hosts[host].daemon.as_mut();
        let Some(running) = daemon.and_then(|daemon| daemon.running.get_mut(&id)) else {
            return;
        };
        if matches!(&running.action, Action::AskDrain { migration: asked, .. } if asked == migration) {
            running.until = now;
            running.result = Some(match answer {
                Answer::Done(_) => Ok(Outcome::Done),
                Answer::Refused(reason) => Err(Failure { reason }),
            });
        }
    }
}
