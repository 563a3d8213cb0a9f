//! One pair: its bond, its primary, its switches and announcements, one action at a time.

use crate::agent::SILENCE;
use crate::announcer::Announcer;
use crate::model::{Action, View};
use crate::outbox::Outbox;
use crate::retry::Retry;
use crate::switch::{Next, Seen, Switch};
use crate::takeover::{self, Step};
use hybond_core::ids::Mac;
use hybond_wire::agent::{FromAgent, PairState, Path};
use std::collections::BTreeSet;

/// The overlap of a failback that no host asked for, in milliseconds.
const OWN_OVERLAP: u32 = 200;
/// Milliseconds between two times of putting the standby back.
const PUT_BACK_EVERY: u64 = 1_000;

/// A pair.
#[derive(Debug)]
pub struct Pair {
    mac: Mac,
    /// Making the bond, enslaving the primary, closing a gate that an earlier run left open.
    making: Retry,
    enslaving: Retry,
    closing: Retry,
    /// A takeover failed and is taken back; how taking it back fares.
    undoing: Option<Retry>,
    switch: Option<Switch>,
    announcer: Announcer,
    /// Where the traffic went when it was last looked at.
    active: Option<Path>,
    /// Since when a primary with carrier has waited in the bond.
    primary_since: Option<u64>,
    /// When the standby may be put back again.
    put_back_at: u64,
    alone: bool,
    wait: Option<u64>,
    sent: Option<PairState>,
}

impl Pair {
    /// A pair of which nothing is known.
    pub fn new(mac: Mac) -> Self {
        Self {
            mac,
            making: Retry::default(),
            enslaving: Retry::default(),
            closing: Retry::default(),
            undoing: None,
            switch: None,
            announcer: Announcer::default(),
            active: None,
            primary_since: None,
            put_back_at: 0,
            alone: true,
            wait: None,
            sent: None,
        }
    }

    /// Whoever asked is not there any more.
    pub fn forget_host(&mut self) {
        self.announcer.forget();
        if let Some(switch) = &mut self.switch {
            switch.ids.clear();
        }
    }

    /// Do not wait with what failed before.
    pub fn try_now(&mut self) {
        self.making = Retry::default();
        self.enslaving = Retry::default();
        self.closing = Retry::default();
    }

    /// The host wants the traffic on one path.
    pub fn ask_switch(&mut self, id: u64, back: bool, overlap_ms: u32, out: &mut Outbox) {
        self.try_now();
        let to = if back { Path::Primary } else { Path::Standby };
        match &mut self.switch {
            Some(switch) if switch.to == to => {
                if let Err(reason) = switch.also(id) {
                    out.push(FromAgent::Failed { id, reason });
                }
                return;
            }
            Some(switch) => {
                for old in std::mem::take(&mut switch.ids) {
                    let reason = format!("overtaken by request {id}, which wants the other path");
                    out.push(FromAgent::Failed { id: old, reason });
                }
            }
            None => {}
        }
        self.switch = Some(Switch::new(to, Some(id), overlap_ms));
    }

    /// The host wants an announcement.
    pub fn ask_announce(&mut self, id: u64, now: u64, out: &mut Outbox) {
        if let Err(reason) = self.announcer.ask(id, now) {
            out.push(FromAgent::Failed { id, reason });
        }
    }

    /// Some links were announced by the kernel; if the active slave is among them, so is the bond, as often: QEMU repeats itself.
    pub fn slave_announced(&mut self, view: &View, links: &BTreeSet<u32>, now: u64) {
        let active = view.bond(self.mac).and_then(|(_, options)| options.active);
        if active.is_some_and(|index| links.contains(&index)) {
            self.announcer.once(now);
        }
    }

    /// The next thing to do.
    pub fn next(&mut self, view: &View, alone: bool, now: u64, out: &mut Outbox) -> Option<Action> {
        self.alone = alone;
        self.wait = None;
        let saved = view.saved.get(&self.mac);
        if let Some(undoing) = &self.undoing {
            match takeover::undo(view, saved, self.mac) {
                Some(action) if undoing.due(now) => return Some(action),
                Some(_) => return self.refuse(&self.making.reason(), out),
                None => {
                    log!(info, "pair {}: the standby is as it was", self.mac);
                    self.undoing = None;
                }
            }
        }
        if !self.making.due(now) {
            return self.refuse(&self.making.reason(), out);
        }
        match takeover::next(view, saved, self.mac) {
            Step::Do(action @ Action::Enslave { .. }) => self.put_back(action, now, out),
            Step::Do(action) => Some(action),
            Step::Complete { bond } => self.run(view, bond, now, out),
            Step::Absent => {
                self.making = Retry::default();
                self.refuse(&format!("the guest has no virtio NIC of MAC {}", self.mac), out)
            }
            Step::Refused(reason) => {
                log!(error, "pair {}: {reason}", self.mac);
                self.making.failed(reason.clone(), now);
                self.refuse(&reason, out)
            }
        }
    }

    /// Somebody has taken the standby out of the bond. Whoever does that again and again is not raced with.
    fn put_back(&mut self, action: Action, now: u64, out: &mut Outbox) -> Option<Action> {
        if self.enslaving.due(now) && now >= self.put_back_at {
            log!(
                warning,
                "pair {}: something took the standby out of the bond: putting it back",
                self.mac
            );
            self.put_back_at = now + PUT_BACK_EVERY;
            return Some(action);
        }
        self.wait = Some(self.put_back_at).filter(|at| *at > now);
        self.refuse(
            "something else has taken the standby out of the bond: mark it as unmanaged there",
            out,
        )
    }

    /// There is no bond: whoever waits is told so.
    fn refuse(&mut self, reason: &str, out: &mut Outbox) -> Option<Action> {
        let switch = self.switch.take();
        let waiting = switch.map(|s| s.ids).unwrap_or_default();
        for id in waiting.into_iter().chain(self.announcer.stop()) {
            out.push(FromAgent::Failed {
                id,
                reason: reason.to_owned(),
            });
        }
        self.active = None;
        None
    }

    /// The bond is there.
    fn run(&mut self, view: &View, bond: u32, now: u64, out: &mut Outbox) -> Option<Action> {
        self.making = Retry::default();
        let bond_link = view.get(bond)?;
        let options = bond_link.bond?;
        let standby = view.standby(self.mac)?;
        let primary = view.primary(self.mac, Some(bond));
        if let Some(free) = primary.filter(|p| p.master != Some(bond)) {
            if self.enslaving.due(now) {
                return Some(Action::Enslave {
                    index: free.index,
                    bond,
                });
            }
        } else {
            self.enslaving = Retry::default();
        }
        let seen = Seen {
            bond: bond_link,
            options,
            standby,
            primary: primary.filter(|p| p.master == Some(bond)),
            received: &view.received,
        };
        let slaves = [Some(seen.standby), seen.primary];
        if let Some(slave) = slaves.into_iter().flatten().find(|s| view.addressed.contains(&s.index)) {
            return Some(Action::Flush { index: slave.index });
        }
        self.watch(&seen, now);
        self.answer_announced(&seen, out);
        // First: until it is over, packets arrive twice.
        if let Some(action) = self.run_switch(&seen, now, out) {
            return Some(action);
        }
        if self.announcer.due(now) {
            return Some(Action::Announce { bond });
        }
        if !options.all_active {
            self.closing = Retry::default();
        } else if self.switch.is_none() && self.closing.due(now) {
            return Some(Action::SetAllActive { bond, on: false });
        }
        None
    }

    /// Sees what happened without the agent: the kernel has left a path; a primary waits and no host is there.
    fn watch(&mut self, seen: &Seen<'_>, now: u64) {
        let active = seen.active();
        let before = self.active.replace(active);
        // A switch says itself what it does.
        if before.is_some_and(|b| b != active) && self.switch.is_none() {
            let name = &seen.bond.name;
            if active == Path::None {
                log!(warning, "pair {}: no slave of {name} has carrier", self.mac);
            } else {
                log!(info, "pair {}: {name} is on the {}", self.mac, word(active));
                self.announcer.begin(now);
            }
        }
        let ready = seen.primary.is_some_and(|p| p.carrier) && active == Path::Standby;
        let since = ready.then(|| self.primary_since.unwrap_or(now));
        self.primary_since = since;
        if let Some(since) = since.filter(|_| self.alone && self.switch.is_none()) {
            if now >= since + SILENCE {
                log!(info, "pair {}: no host has ever spoken: back to the primary", self.mac);
                self.primary_since = Some(now);
                self.switch = Some(Switch::new(Path::Primary, None, OWN_OVERLAP));
            }
        }
    }

    fn run_switch(&mut self, seen: &Seen<'_>, now: u64, out: &mut Outbox) -> Option<Action> {
        let switch = self.switch.as_mut()?;
        match switch.next(seen, now) {
            Next::Do(action) => return Some(action),
            Next::Wait(until) => self.wait = Some(until),
            Next::Finished(result) => {
                let switch = self.switch.take()?;
                let to = word(switch.to);
                match &result {
                    Ok(()) => log!(info, "pair {}: traffic is on the {to}", self.mac),
                    Err(reason) => log!(warning, "pair {}: not moved to the {to}: {reason}", self.mac),
                }
                let state = state(self.mac, Some(seen), None);
                if result.is_ok() && !switch.ids.is_empty() {
                    self.sent = Some(state.clone());
                }
                for id in switch.ids {
                    out.push(match &result {
                        Ok(()) => FromAgent::Done {
                            id,
                            state: state.clone(),
                        },
                        Err(reason) => FromAgent::Failed {
                            id,
                            reason: reason.clone(),
                        },
                    });
                }
            }
        }
        None
    }

    /// How an action went.
    pub fn done(&mut self, action: &Action, result: Result<(), String>, now: u64) {
        match action {
            Action::Announce { .. } => {
                if let Err(reason) = &result {
                    log!(warning, "pair {}: {reason}", self.mac);
                }
                self.announcer.done(result, now);
            }
            Action::Count { .. } => {
                if let Some(switch) = &mut self.switch {
                    switch.done(result, now);
                }
            }
            Action::SetActive { .. } | Action::SetAllActive { .. } => {
                if let Some(switch) = &mut self.switch {
                    switch.done(result, now);
                    if switch.switched() {
                        self.announcer.begin(now);
                    }
                } else if let Err(reason) = result {
                    log!(warning, "pair {}: {reason}", self.mac);
                    self.closing.failed(reason, now);
                }
            }
            Action::Flush { .. } => {
                if let Err(reason) = result {
                    log!(warning, "pair {}: {reason}", self.mac);
                }
            }
            Action::Enslave { .. } => {
                if let Err(reason) = result {
                    log!(error, "pair {}: {reason}", self.mac);
                    self.enslaving.failed(reason, now);
                }
            }
            _ => {
                if let Err(reason) = result {
                    log!(error, "pair {}: {reason}", self.mac);
                    match &mut self.undoing {
                        Some(undoing) => undoing.failed(reason, now),
                        None => {
                            self.making.failed(reason, now);
                            self.undoing = Some(Retry::default());
                        }
                    }
                }
            }
        }
    }

    fn answer_announced(&mut self, seen: &Seen<'_>, out: &mut Outbox) {
        let Some((ids, result)) = self.announcer.answered() else {
            return;
        };
        for id in ids {
            out.push(match &result {
                Ok(()) => FromAgent::Done {
                    id,
                    state: state(self.mac, Some(seen), None),
                },
                Err(reason) => FromAgent::Failed {
                    id,
                    reason: reason.clone(),
                },
            });
        }
    }

    /// Its bond is there, or will not be soon.
    pub fn settled(&self, view: &View) -> bool {
        self.making.deadline().is_some() || (view.bond(self.mac).is_some() && !view.saved.contains_key(&self.mac))
    }

    /// The state for the host: always, or only where it differs from what it was told. `None` too where the guest does
    /// not have the pair.
    pub fn report(&mut self, view: &View, always: bool) -> Option<PairState> {
        let standby = view.standby(self.mac)?;
        let seen = view.bond(self.mac).map(|(bond, options)| Seen {
            bond,
            options,
            standby,
            primary: view
                .primary(self.mac, Some(bond.index))
                .filter(|p| p.master == Some(bond.index)),
            received: &view.received,
        });
        let state = state(self.mac, seen.as_ref(), Some(standby.up && standby.carrier));
        if !always && (self.switch.is_some() || self.sent.as_ref() == Some(&state)) {
            return None;
        }
        self.sent = Some(state.clone());
        Some(state)
    }

    /// When to ask again.
    pub fn deadline(&self) -> Option<u64> {
        if let Some(undoing) = &self.undoing {
            return undoing.deadline();
        }
        if let Some(at) = self.making.deadline() {
            return Some(at);
        }
        let announce = self.announcer.deadline();
        let alone = self
            .primary_since
            .filter(|_| self.alone && self.switch.is_none())
            .map(|since| since + SILENCE);
        [
            self.enslaving.deadline(),
            self.closing.deadline(),
            announce,
            alone,
            self.wait,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

fn word(path: Path) -> &'static str {
    match path {
        Path::Primary => "primary",
        Path::Standby => "standby",
        Path::None => "neither",
    }
}

/// A pair as the host is told; without a bond it is the standby that carries the traffic, if it is up.
fn state(mac: Mac, seen: Option<&Seen<'_>>, bare: Option<bool>) -> PairState {
    let Some(seen) = seen else {
        let active = if bare == Some(true) { Path::Standby } else { Path::None };
        return PairState {
            mac,
            bond: None,
            standby: None,
            primary: None,
            primary_up: false,
            active,
        };
    };
    PairState {
        mac,
        bond: Some(seen.bond.name.clone()),
        standby: Some(seen.standby.name.clone()),
        primary: seen.primary.map(|p| p.name.clone()),
        primary_up: seen.primary.is_some_and(|p| p.up && p.carrier),
        active: seen.active(),
    }
}
