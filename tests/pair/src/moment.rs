//! What can happen next where nothing is left to chance, and one of it happening.
//!
//! All that is under way (a message, an action of a daemon's, a step of libvirt's, a guest's driver) happens in any order and
//! takes no time. Time passes to the next deadline or pause that is over when nothing else is left, or as a misfortune: then
//! all that is under way takes longer than that.
//!
//! Between the effect of an action and the daemon's learning of it other things happen only where that has ever mattered: with
//! looks and with what QEMU or the guest is asked for, whose events can come first. Lifecycle events of libvirt's are late: told
//! when the daemon has nothing else to do, or, as a misfortune, earlier.
//!
//! One order is kept. A macvtap goes up within 40 ms of being told to, and between MIGRATION completed and the CPUs' start there
//! are 70 ms at least: libvirt does not go on while that is under way.

use crate::case::Faults;
use crate::dice::MISFORTUNE;
use crate::driver::LOCKED;
use crate::host::{Daemon, Running};
use crate::libvirt::Step;
use crate::world::{Tally, World};
use hybond_core::Millis;
use hybond_core::guest::Action;
use hybond_core::ids::{DomainId, Mac};
use hybond_core::spec::Policy;
use std::fmt::{self, Write};

/// What every clock shows in a state: later than anything lasts.
const EPOCH: Millis = 10_000_000;

/// How long an administrator's word counts; see `check_leases`.
const TOUCHED: Millis = 200_000;

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A message between the daemons arrives.
    Arrives(usize),
    /// libvirt's operation takes its next step.
    Libvirt(DomainId),
    /// A lifecycle event of libvirt's is told.
    Told(usize),
    /// A daemon that has crashed starts again.
    Restart(usize),
    /// An action of a daemon's has its effect; or the daemon learns how it went.
    Action(usize, DomainId),
    /// A monitor is connected.
    Link(usize, DomainId),
    /// The guest's driver has the primary up.
    Ready(usize, DomainId, Mac),
    /// The guest lets go of the primary.
    Gone(usize, DomainId, Mac),
    /// A guest obeys again, and its agent speaks again.
    Recovers(usize, DomainId),
    /// Time passes.
    Time,
    /// What is not to happen.
    Wrong(Wrong),
    /// Somebody wants something.
    Wish(Wish, DomainId),
}

/// What goes wrong from outside. What goes wrong within another moment is chosen there: messages that are lost or repeated,
/// actions that fail before or after their effect, crashes at the points of the driver, operations of libvirt's that fail,
/// events that are lost, records that cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// The daemon of this host crashes while it waits.
    Crash(usize),
    /// This host loses its power.
    Power(usize),
    /// A lifecycle event of libvirt's comes in the middle of something.
    Told(usize),
    /// A monitor breaks off.
    Unlink(usize, DomainId),
    /// A guest ignores unplugs.
    Ignores(usize, DomainId),
    /// A guest's agent falls silent.
    Silent(usize, DomainId),
    /// A guest throws its primary out.
    ThrowsOut(usize, DomainId, Mac),
    /// What is under way takes longer than the next deadline.
    Slow,
}

/// What people want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// `virsh migrate`, to the other host.
    Migrate,
    /// `virsh start`, where its file is or on the first host.
    Start,
    /// `virsh destroy`, or the guest shuts down.
    Stop,
    /// `virsh save`.
    Save,
    /// A migration to a host without hybond.
    Unasked,
    /// `hybondctl drain`.
    Drain,
    /// `hybondctl plug`.
    Plug,
    /// `hybondctl set --policy`.
    Set(Policy),
}

fn is_timed(running: &Running) -> bool {
    match &running.result {
        None => matches!(running.action, Action::AskDrain { .. }),
        Some(result) => result.as_ref().is_err_and(|failure| failure.reason == LOCKED),
    }
}

impl World {
    /// What is under way.
    pub(crate) fn under_way(&self) -> Vec<Moment> {
        let mut all: Vec<Moment> = (0..self.link.len()).map(Moment::Arrives).collect();
        let steps = self.operations.iter().filter(|(id, operation)| {
            let rises = |host: usize| self.running(host, **id).is_some_and(is_raise);
            !matches!(operation.step, Step::Hook(_)) && !rises(0) && !rises(1)
        });
        all.extend(steps.map(|(id, _)| Moment::Libvirt(*id)));
        let idle = |host: usize| !matches!(&self.hosts[host].daemon, Some(daemon) if !daemon.running.is_empty());
        let told = self.whispers.iter().enumerate().filter(|(_, (_, host, _))| idle(*host));
        all.extend(told.map(|(n, _)| Moment::Told(n)));
        for (n, host) in self.hosts.iter().enumerate() {
            all.extend(self.restart_at[n].map(|_| Moment::Restart(n)));
            for (id, qemu) in host.machine.qemu.iter().filter(|(_, qemu)| qemu.running) {
                for (mac, nic) in &qemu.nics {
                    if nic.gone_at.is_some() && qemu.obedient {
                        all.push(Moment::Gone(n, *id, *mac));
                    } else if nic.ready_at.is_some() {
                        all.push(Moment::Ready(n, *id, *mac));
                    }
                }
            }
            let Some(daemon) = &host.daemon else { continue };
            let untimed = daemon.running.iter().filter(|(_, running)| !is_timed(running));
            all.extend(untimed.map(|(id, _)| Moment::Action(n, *id)));
            let links = daemon.relink_at.keys();
            let links = links.filter(|id| host.machine.qemu.contains_key(id) && !host.is_linked(**id));
            all.extend(links.map(|id| Moment::Link(n, *id)));
        }
        all
    }

    fn running(&self, host: usize, id: DomainId) -> Option<&Running> {
        self.hosts[host].daemon.as_ref()?.running.get(&id)
    }

    /// The next deadline, or the end of a pause.
    pub(crate) fn next_time(&self) -> Option<Millis> {
        let waiters = self.waiters.values().filter_map(|waiter| waiter.until());
        let hooks = self.operations.values();
        let hooks = hooks.filter(|operation| matches!(operation.step, Step::Hook(_)));
        let mut times: Vec<Millis> = waiters.chain(hooks.map(|operation| operation.until)).collect();
        for daemon in self.hosts.iter().filter_map(|host| host.daemon.as_ref()) {
            for (id, guest) in &daemon.guests {
                match daemon.running.get(id) {
                    Some(running) if is_timed(running) => times.push(running.until),
                    Some(_) => {}
                    None => times.extend(guest.next_deadline(self.now)),
                }
            }
        }
        times.into_iter().filter(|at| *at > self.now).min()
    }

    /// What could go wrong now, of what is allowed to.
    pub(crate) fn could_go_wrong(&self, faults: Faults) -> Vec<Wrong> {
        let mut all = Vec::new();
        if faults.deaf > 0 {
            all.extend((0..self.whispers.len()).map(Wrong::Told));
        }
        for (n, host) in self.hosts.iter().enumerate() {
            let daemon = host.daemon.as_ref();
            all.extend(daemon.filter(|_| faults.crash > 0).map(|_| Wrong::Crash(n)));
            if faults.power > 0 {
                all.push(Wrong::Power(n));
            }
            for (id, qemu) in &host.machine.qemu {
                if faults.deaf > 0 && host.is_linked(*id) {
                    all.push(Wrong::Unlink(n, *id));
                }
                if faults.disobey == 0 {
                    continue;
                }
                all.extend(Some(Wrong::Ignores(n, *id)).filter(|_| qemu.obedient));
                all.extend(Some(Wrong::Silent(n, *id)).filter(|_| qemu.agent));
                // A guest that throws its VF out while its standby is down has cut itself off.
                let plugged = qemu
                    .nics
                    .iter()
                    .filter(|(mac, nic)| qemu.running && nic.plugged.is_some() && host.machine.standby_up(**mac));
                all.extend(plugged.map(|(mac, _)| Wrong::ThrowsOut(n, *id, *mac)));
            }
        }
        all
    }

    /// Guests that may come to their senses.
    pub(crate) fn recoveries(&self) -> Vec<Moment> {
        let all = self.hosts.iter().enumerate().flat_map(|(n, host)| {
            let ill = host
                .machine
                .qemu
                .iter()
                .filter(|(_, qemu)| !(qemu.obedient && qemu.agent));
            ill.map(move |(id, _)| Moment::Recovers(n, *id))
        });
        all.collect()
    }

    /// Somebody could want this now.
    pub(crate) fn may_wish(&self, wish: Wish, id: DomainId) -> bool {
        let host = (0..2).find(|host| self.hosts[*host].machine.qemu.contains_key(&id));
        let home = self.home(id).filter(|_| !self.operations.contains_key(&id));
        match wish {
            Wish::Drain | Wish::Plug | Wish::Set(_) => host.is_some(),
            Wish::Start => host.is_none() && !self.operations.contains_key(&id),
            Wish::Stop | Wish::Migrate => home.is_some(),
            // A guard that is not there guards nothing.
            Wish::Save | Wish::Unasked => home.is_some_and(|home| self.hosts[home].is_linked(id)),
        }
    }

    /// One thing happens, and nothing else but what follows at once.
    pub(crate) fn take(&mut self, moment: Moment) {
        let now = self.now;
        self.log(|| format!("-- {moment:?}"));
        match moment {
            Moment::Arrives(n) => self.link[n].at = now,
            Moment::Told(n) | Moment::Wrong(Wrong::Told(n)) => self.whispers[n].0 = now,
            Moment::Restart(host) => self.restart_at[host] = Some(now),
            Moment::Libvirt(id) => {
                if let Some(operation) = self.operations.get_mut(&id) {
                    operation.until = now;
                }
            }
            Moment::Action(host, id) => {
                let daemon = self.hosts[host].daemon.as_mut();
                if let Some(running) = daemon.and_then(|daemon| daemon.running.get_mut(&id)) {
                    match running.result {
                        None if is_learnt_at_once(&running.action) => (running.effect_at, running.until) = (now, now),
                        None => running.effect_at = now,
                        Some(_) => running.until = now,
                    }
                }
            }
            Moment::Link(host, id) => {
                if let Some(daemon) = &mut self.hosts[host].daemon {
                    daemon.relink_at.insert(id, now);
                }
            }
            Moment::Ready(host, id, mac) | Moment::Gone(host, id, mac) => {
                let qemu = self.hosts[host].machine.qemu.get_mut(&id);
                if let Some(nic) = qemu.and_then(|qemu| qemu.nics.get_mut(&mac)) {
                    match moment {
                        Moment::Gone(..) => nic.gone_at = Some(now),
                        _ => nic.ready_at = Some(now),
                    }
                }
            }
            Moment::Recovers(host, id) => {
                if let Some(qemu) = self.hosts[host].machine.qemu.get_mut(&id) {
                    (qemu.obedient, qemu.agent) = (true, true);
                }
            }
            Moment::Time | Moment::Wrong(Wrong::Slow) => {
                self.now = self.next_time().unwrap_or(now);
                self.postpone();
            }
            Moment::Wrong(wrong) => self.go_wrong(wrong),
            Moment::Wish(wish, id) => self.fulfil(wish, id),
        }
        self.happen();
    }

    fn go_wrong(&mut self, wrong: Wrong) {
        match wrong {
            Wrong::Crash(host) => self.crash(host),
            Wrong::Power(host) => self.power_cut(host),
            Wrong::Unlink(host, id) => self.unlink(host, id),
            Wrong::ThrowsOut(host, id, mac) => self.lose_primary(host, id, mac),
            Wrong::Ignores(host, id) | Wrong::Silent(host, id) => {
                if let Some(qemu) = self.hosts[host].machine.qemu.get_mut(&id) {
                    match wrong {
                        Wrong::Silent(..) => qemu.agent = false,
                        _ => qemu.obedient = false,
                    }
                }
            }
            Wrong::Told(_) | Wrong::Slow => {}
        }
    }

    fn fulfil(&mut self, wish: Wish, id: DomainId) {
        let host = (0..2).find(|host| self.hosts[*host].machine.qemu.contains_key(&id));
        let here = self.home(id).or(host).unwrap_or(0);
        match wish {
            Wish::Migrate => self.migrate(here, id),
            Wish::Start => {
                let host = self.saved.get(&id).copied().unwrap_or(0);
                self.start_domain(host, id);
            }
            Wish::Stop => self.stop_domain(here, id),
            Wish::Save => self.unasked(here, id, true),
            Wish::Unasked => self.unasked(here, id, false),
            Wish::Drain => self.hold_back(here, id, true),
            Wish::Plug => self.hold_back(here, id, false),
            Wish::Set(policy) => self.set_policy(here, id, policy),
        }
    }

    /// All that is under way is still to come.
    fn postpone(&mut self) {
        let next = self.now + 1;
        self.link.iter_mut().for_each(|packet| packet.at = next);
        self.whispers.iter_mut().for_each(|whisper| whisper.0 = next);
        self.restart_at.iter_mut().flatten().for_each(|at| *at = next);
        let steps = self.operations.values_mut();
        let steps = steps.filter(|operation| !matches!(operation.step, Step::Hook(_)));
        steps.for_each(|operation| operation.until = next);
        for host in &mut self.hosts {
            for nic in host.machine.qemu.values_mut().flat_map(|qemu| qemu.nics.values_mut()) {
                nic.gone_at = nic.gone_at.map(|_| next);
                nic.ready_at = nic.ready_at.map(|_| next);
            }
            let Some(daemon) = &mut host.daemon else { continue };
            daemon.relink_at.values_mut().for_each(|at| *at = next);
            for running in daemon.running.values_mut().filter(|running| !is_timed(running)) {
                (running.effect_at, running.until) = match running.result {
                    None => (next, next + 1),
                    Some(_) => (self.now, next),
                };
            }
        }
    }

    /// Forgets what makes no difference: two worlds in which the same can happen are the same.
    pub(crate) fn settle_down(&mut self) {
        self.postpone();
        let now = std::mem::replace(&mut self.now, EPOCH);
        let shift = |at: &mut Millis| *at = (EPOCH + *at).saturating_sub(now);
        self.link.iter_mut().for_each(|packet| shift(&mut packet.at));
        self.whispers.iter_mut().for_each(|whisper| shift(&mut whisper.0));
        self.whispers.sort_unstable();
        self.whispers.dedup();
        self.restart_at.iter_mut().flatten().for_each(shift);
        self.operations
            .values_mut()
            .for_each(|operation| shift(&mut operation.until));
        self.waiters
            .values_mut()
            .filter_map(|waiter| waiter.until_mut())
            .for_each(shift);
        self.touched.retain(|_, at| now < *at + TOUCHED);
        self.touched.values_mut().for_each(shift);
        for host in &mut self.hosts {
            for nic in host.machine.qemu.values_mut().flat_map(|qemu| qemu.nics.values_mut()) {
                nic.gone_at.iter_mut().chain(&mut nic.ready_at).for_each(shift);
            }
            let Some(daemon) = &mut host.daemon else { continue };
            daemon.relink_at.values_mut().for_each(shift);
            for running in daemon.running.values_mut() {
                shift(&mut running.effect_at);
                shift(&mut running.until);
                if running.result.is_some() {
                    running.effect_at = EPOCH;
                }
            }
            daemon.guests.values_mut().for_each(|guest| guest.set_clock(now, EPOCH));
            daemon.book.set_clock(now, EPOCH, host.settings.retry_after * 2);
        }
        (self.tally, self.points) = (Tally::default(), [0, 0]);
        self.refusals.clear();
    }

    /// All that makes a difference, as text. What no run changes is not in it.
    pub(crate) fn write_state(&self, out: &mut String) -> fmt::Result {
        for host in &self.hosts {
            write!(out, "{:?}{:?}", host.disk, host.machine)?;
            if let Some(Daemon {
                book,
                guests,
                links,
                relink_at,
                running,
            }) = &host.daemon
            {
                write!(out, "{book:?}{guests:?}{links:?}{relink_at:?}{running:?}")?;
            }
            out.push('|');
        }
        write!(out, "{:?}{:?}{:?}", self.domains, self.restart_at, self.link)?;
        write!(out, "{:?}{:?}{:?}", self.operations, self.waiters, self.whispers)?;
        write!(out, "{:?}{:?}{}", self.saved, self.touched, self.count)
    }
}

/// Nothing that happens meanwhile has anything to do with it.
fn is_learnt_at_once(action: &Action) -> bool {
    match action {
        Action::Look { .. }
        | Action::LookAtJob
        | Action::AskDrain { .. }
        | Action::Plug(_)
        | Action::Unplug(_)
        | Action::Failover(_)
        | Action::Failback(_) => false,
        Action::Lease(_)
        | Action::ChoosePf(_)
        | Action::MakeStandby { .. }
        | Action::RaiseStandby(_)
        | Action::LowerStandby(_)
        | Action::ReadFilters
        | Action::TuneStandby { .. }
        | Action::PrepareVf { .. }
        | Action::ResetVf(_)
        | Action::Release(_)
        | Action::RemoveStandby(_)
        | Action::Announce
        | Action::RepairXml { .. }
        | Action::WritePolicies(_)
        | Action::Answer { .. } => true,
    }
}

fn is_raise(running: &Running) -> bool {
    running.result.is_none() && matches!(running.action, Action::RaiseStandby(_))
}

/// All that may go wrong within a moment, of what is allowed to.
pub(crate) fn possible(faults: Faults) -> Faults {
    let may = |percent: u64| percent.min(MISFORTUNE);
    Faults {
        crash: may(faults.crash),
        power: may(faults.power),
        lose: may(faults.lose),
        repeat: may(faults.repeat),
        abort: may(faults.abort),
        fail: may(faults.fail),
        disk: may(faults.disk),
        deaf: may(faults.deaf),
        disobey: may(faults.disobey),
    }
}
