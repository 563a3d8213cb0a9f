//! Moving a pair's traffic from one slave to the other without losing a packet.
//!
//! ```text
//!  Begin ── SetAllActive(on) ──▶ Opened ── SetActive(target) ──▶ Switched ── overlap ──▶ Closing ── SetAllActive(off) ─▶ end
//!    │ (no overlap asked for) ───────────────▲                      │ ├─ target is seen to receive ▲
//!    │                                                              │ target lost its carrier     ▲
//!    │                                                              └── Err ──────────────────────┤
//!    └── target not there, or without carrier: Err, nothing touched       any step failed: Err ───┘
//! ```
//!
//! Why this order loses nothing:
//!
//! * Receiving. The bond drops what an inactive slave receives (`bond_should_deliver_exact_match`). Before the switch the
//!   network sends to the old path, after it, when it has heard the announcement, to the new one; frames are on both paths
//!   in between. So the gate for inactive slaves is opened first and closed last.
//! * Sending. `SetActive` is one pointer in the kernel: each packet goes out on the old slave or on the new one, whose
//!   carrier has been seen. What the old slave has queued it still sends, as it stays up.
//! * Learning. At the change of the active slave the kernel announces (`num_grat_arp`, `num_unsol_na`) from the new slave;
//!   the agent does so again over the overlap, as an announcement is a datagram like any other.
//! * Duplicates. A card that delivers to both functions, and every flooded broadcast, arrives twice while the gate is
//!   open. That is why it is closed again, why the overlap is the host's to choose, and why it ends before its time once the
//!   target is seen to receive ([`PROOF`]): then the network sends to the new path, and what is on the old one is on its last
//!   milliseconds. A driver that counts late, and a guest to which nothing is sent, have the whole overlap.
//!
//! A primary that loses its carrier is left by the kernel itself (miimon); the agent then only announces.

use crate::model::{Action, Bond, Link};
use hybond_wire::agent::Path;
use std::collections::BTreeMap;

/// The longest overlap that a host may ask for, in milliseconds.
pub const OVERLAP_MAX: u32 = 10_000;
/// Milliseconds between two looks at what the target has received. What was sent to the old path before the network knew of the
/// switch arrives within that.
const PROOF: u64 = 50;
/// Requests that wait for one switch. A host asks again only after its own time-out.
const WAITING_MAX: usize = 8;

/// What a switch sees of its pair.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The bond.
    pub bond: &'a Link,
    /// Its options.
    pub options: Bond,
    /// The standby, a slave.
    pub standby: &'a Link,
    /// The primary, where it is a slave.
    pub primary: Option<&'a Link>,
    /// What links had received when they were counted last.
    pub received: &'a BTreeMap<u32, u64>,
}

impl Seen<'_> {
    /// Which path the bond sends on.
    pub fn active(&self) -> Path {
        match self.options.active {
            Some(index) if index == self.standby.index => Path::Standby,
            Some(index) if self.primary.is_some_and(|p| p.index == index) => Path::Primary,
            _ => Path::None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Begin,
    Opened,
    Switched { until: u64, proof: Option<Proof> },
    Closing(Result<(), String>),
    Closed(Result<(), String>),
}

/// Whether the target receives.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Proof {
    /// When it is counted next.
    at: u64,
    /// It has just been counted.
    counted: bool,
    /// What it had received at first.
    first: Option<u64>,
}

/// A switch under way.
#[derive(Debug)]
pub struct Switch {
    /// Where to.
    pub to: Path,
    /// The host's requests that it answers; none where the agent decided.
    pub ids: Vec<u64>,
    overlap: u64,
    stage: Stage,
}

/// What a switch wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Do this, and say how it went.
    Do(Action),
    /// Nothing before that time.
    Wait(u64),
    /// It is over.
    Finished(Result<(), String>),
}

impl Switch {
    /// A switch that has not begun.
    pub fn new(to: Path, id: Option<u64>, overlap_ms: u32) -> Self {
        Self {
            to,
            ids: id.into_iter().collect(),
            overlap: overlap_ms.min(OVERLAP_MAX).into(),
            stage: Stage::Begin,
        }
    }

    /// Another request for what is under way.
    pub fn also(&mut self, id: u64) -> Result<(), String> {
        if self.ids.len() >= WAITING_MAX {
            return Err(format!("{WAITING_MAX} requests already wait for this switch"));
        }
        self.ids.push(id);
        Ok(())
    }

    /// The next step at that time.
    pub fn next(&mut self, seen: &Seen<'_>, now: u64) -> Next {
        loop {
            match &mut self.stage {
                Stage::Begin => {
                    let target = match self.target(seen) {
                        Ok(Some(target)) => target,
                        Ok(None) => return Next::Finished(Ok(())),
                        Err(reason) => return Next::Finished(Err(reason)),
                    };
                    if seen.options.active == Some(target) {
                        self.stage = Stage::Switched {
                            until: now,
                            proof: None,
                        };
                        continue;
                    }
                    if self.overlap > 0 {
                        return Next::Do(Action::SetAllActive {
                            bond: seen.bond.index,
                            on: true,
                        });
                    }
                    self.stage = Stage::Opened;
                }
                Stage::Opened => match self.target(seen) {
                    Ok(Some(slave)) => {
                        return Next::Do(Action::SetActive {
                            bond: seen.bond.index,
                            slave,
                        });
                    }
                    Ok(None) => self.stage = Stage::Closing(Ok(())),
                    Err(reason) => self.stage = Stage::Closing(Err(reason)),
                },
                Stage::Switched { until, proof } => {
                    let until = *until;
                    if seen.bond.up && seen.active() != self.to {
                        self.stage = Stage::Closing(Err(format!(
                            "{} took the traffic and left it again within the overlap: look at its carrier",
                            seen.bond.name
                        )));
                    } else if now >= until {
                        self.stage = Stage::Closing(Ok(()));
                    } else {
                        let slave = seen.options.active.filter(|_| seen.bond.up);
                        let (Some(slave), Some(proof)) = (slave, proof) else {
                            return Next::Wait(until);
                        };
                        let received = seen.received.get(&slave).copied().filter(|_| proof.counted);
                        proof.counted = false;
                        if received.zip(proof.first).is_some_and(|(now, first)| now > first) {
                            self.stage = Stage::Closing(Ok(()));
                            continue;
                        }
                        proof.first = proof.first.or(received);
                        if now >= proof.at {
                            return Next::Do(Action::Count { slave });
                        }
                        return Next::Wait(proof.at.min(until));
                    }
                }
                Stage::Closing(_) if seen.options.all_active => {
                    return Next::Do(Action::SetAllActive {
                        bond: seen.bond.index,
                        on: false,
                    });
                }
                Stage::Closing(outcome) | Stage::Closed(outcome) => return Next::Finished(outcome.clone()),
            }
        }
    }

    /// How the last step went.
    pub fn done(&mut self, result: Result<(), String>, now: u64) {
        self.stage = match (std::mem::replace(&mut self.stage, Stage::Begin), result) {
            (Stage::Begin, Ok(())) => Stage::Opened,
            (Stage::Opened, Ok(())) => Stage::Switched {
                until: now + self.overlap,
                proof: Some(Proof {
                    at: now,
                    counted: false,
                    first: None,
                }),
            },
            (Stage::Switched { until, proof }, Ok(())) => Stage::Switched {
                until,
                proof: proof.map(|proof| Proof {
                    at: now + PROOF,
                    counted: true,
                    ..proof
                }),
            },
            // What cannot be counted is waited for.
            (Stage::Switched { until, .. }, Err(_)) => Stage::Switched { until, proof: None },
            (Stage::Begin | Stage::Opened, Err(reason)) => Stage::Closing(Err(reason)),
            // The traffic flows; the gate is closed by the agent's own tidying, later.
            (Stage::Closing(outcome), _) => Stage::Closed(outcome),
            (stage, _) => stage,
        };
    }

    /// The active slave has just been changed by this switch.
    pub fn switched(&self) -> bool {
        matches!(self.stage, Stage::Switched { .. })
    }

    /// The slave to switch to; `None` where the bond is down and carries nothing.
    fn target(&self, seen: &Seen<'_>) -> Result<Option<u32>, String> {
        let target = match self.to {
            Path::Primary => seen
                .primary
                .ok_or_else(|| format!("no primary is in {}: plug it first", seen.bond.name))?,
            _ => seen.standby,
        };
        if !seen.bond.up {
            return Ok(None);
        }
        if !target.up || !target.carrier {
            return Err(format!(
                "{} has no carrier, so {} stays where it is: look at the link on the host",
                target.name, seen.bond.name
            ));
        }
        Ok(Some(target.index))
    }
}
