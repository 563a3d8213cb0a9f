//! Two hosts, the link between them, and libvirt's migrations.

use crate::dice::Dice;
use crate::host::{Host, Running};
use crate::invariants;
use crate::machine::Qemu;
use hybond_core::Millis;
use hybond_core::guest::{
    Action, Answer, DomainSeen, Event, Failure, MigrationSeen, Outcome, Record, Request, Settings,
};
use hybond_core::guest::{Stage, StandbySeen, Token};
use hybond_core::ids::{DomainId, Mac, MigrationId, PoolName};
use hybond_core::pool::Vf;
use hybond_core::spec::{DomainSpec, PairSpec, Policy, StandbyKind};
use std::collections::BTreeMap;

/// What goes wrong, in percent for each step.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// A daemon crashes.
    pub crash: u64,
    /// A message is lost.
    pub lose: u64,
    /// A message is delivered twice.
    pub repeat: u64,
    /// A migration fails while RAM is copied.
    pub abort: u64,
    /// An action fails.
    pub fail: u64,
    /// A guest ignores unplugs for a while.
    pub disobey: u64,
}

/// A message between the daemons.
#[derive(Debug, Clone)]
struct Packet {
    at: Millis,
    to: usize,
    body: Body,
}

#[derive(Debug, Clone)]
enum Body {
    Drain(DomainId, MigrationId),
    Answer(DomainId, MigrationId, Answer),
}

#[derive(Debug, Clone)]
enum Waiter {
    Hook { domain: DomainId },
    Prepare { domain: DomainId },
    Peer { domain: DomainId, migration: MigrationId },
    Control,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    /// The destination's hook is asked.
    Hook,
    /// It has answered; `prepare` is asked.
    Prepare,
    /// RAM is copied.
    Copying,
    /// Everything has arrived, the CPUs start next.
    Arrived,
}

#[derive(Debug, Clone)]
struct Migration {
    from: usize,
    progress: Progress,
    until: Millis,
}

/// All of it.
#[derive(Debug, Clone)]
pub struct World {
    /// Now.
    pub now: Millis,
    /// Chance.
    pub dice: Dice,
    /// The two hosts.
    pub hosts: [Host; 2],
    /// The domains, with the MACs of their pairs.
    pub domains: BTreeMap<DomainId, Mac>,
    /// What goes wrong.
    pub faults: Faults,
    /// Migrations that succeeded, failed.
    pub ended: (u32, u32),
    /// Why hooks were refused.
    pub refusals: Vec<String>,
    policy: Policy,
    link: Vec<Packet>,
    migrations: BTreeMap<DomainId, Migration>,
    waiters: BTreeMap<(usize, Token), Waiter>,
    count: u64,
}

fn pool() -> PoolName {
    "lan".parse().expect("name")
}

fn vfs(host: usize, count: u32) -> Vec<Vf> {
    (0..count)
        .map(|index| Vf {
            id: format!("000{host}:01:10.{index}").parse().expect("vf"),
            pf: format!("pf{}", index % 2).parse().expect("pf"),
            index,
            numa_node: None,
        })
        .collect()
}

impl World {
    /// `domains` guests that run on host 0, `vfs` VFs on each host.
    #[must_use]
    pub fn new(seed: u64, domains: u8, vfs_per_host: u32, policy: Policy, faults: Faults) -> Self {
        let settings = Settings::default();
        let host = |n| Host::new(pool(), vfs(n, vfs_per_host), settings);
        let mut world = Self {
            now: 1,
            dice: Dice::new(seed),
            hosts: [host(0), host(1)],
            domains: BTreeMap::new(),
            faults,
            ended: (0, 0),
            refusals: Vec::new(),
            policy,
            link: Vec::new(),
            migrations: BTreeMap::new(),
            waiters: BTreeMap::new(),
            count: 0,
        };
        for n in 1..=domains {
            let id = DomainId::from_bytes([n; 16]);
            let mac = Mac::from_octets([0x52, 0x54, 0, 0, 0, n]).expect("mac");
            world.domains.insert(id, mac);
            world.boot(id);
        }
        world
    }

    fn spec(&self, id: DomainId) -> DomainSpec {
        let mac = self.domains[&id];
        let pair = PairSpec {
            mac,
            pool: pool(),
            policy: self.policy,
            vlan: None,
            standby: StandbyKind::Ethernet,
        };
        let source_peer = Some("peer".parse().expect("peer"));
        DomainSpec {
            id,
            name: id.to_string(),
            pairs: vec![pair],
            source_peer,
        }
    }

    /// Starts a domain on host 0: hook `prepare`, then QEMU.
    fn boot(&mut self, id: DomainId) {
        let request = Request::Prepare(self.spec(id));
        self.ask(0, id, request, Waiter::Prepare { domain: id });
        for _ in 0..1000 {
            self.quiet_step();
            if !self
                .waiters
                .values()
                .any(|w| matches!(w, Waiter::Prepare { domain } if *domain == id))
            {
                break;
            }
        }
        self.hosts[0].machine.qemu.insert(id, new_qemu(true));
    }

    fn ask(&mut self, host: usize, id: DomainId, request: Request, waiter: Waiter) -> bool {
        let record = Record::new(self.spec(id), Stage::Leaving);
        let settings = self.hosts[host].settings;
        self.count += 1;
        let token = Token(self.count);
        let Some(daemon) = &mut self.hosts[host].daemon else {
            return false;
        };
        let starts = matches!(request, Request::Prepare(_) | Request::Receive(..));
        if !starts && !daemon.guests.contains_key(&id) {
            return false;
        }
        let guest = daemon
            .guests
            .entry(id)
            .or_insert_with(|| hybond_core::guest::Guest::new(record, settings));
        guest.handle(self.now, Event::Request(token, request));
        self.waiters.insert((host, token), waiter);
        true
    }

    /// One step: everything that is due, then chance.
    pub fn step(&mut self) {
        self.quiet_step();
        self.misfortune();
        self.intend();
    }

    /// A step in which nothing goes wrong and nobody wants anything new.
    pub fn quiet_step(&mut self) {
        self.now += self.dice.between(1, 120);
        for host in 0..2 {
            self.observe(host);
            self.drive(host);
        }
        self.deliver();
        self.migrate();
        invariants::always(self);
    }

    /// Steps without faults for as long as anything may take, then nothing may be left to do.
    pub fn calm(&mut self) {
        self.faults = Faults::default();
        for host in 0..2 {
            if self.hosts[host].daemon.is_none() {
                self.hosts[host].start();
            }
            for qemu in self.hosts[host].machine.qemu.values_mut() {
                qemu.obedient = true;
            }
        }
        let end = self.now + 900_000;
        while self.now < end {
            self.quiet_step();
        }
        invariants::at_rest(self);
    }

    /// Where a domain runs, or would, were it not being moved.
    #[must_use]
    pub fn home(&self, id: DomainId) -> Option<usize> {
        (0..2).find(|host| self.hosts[*host].machine.qemu.get(&id).is_some_and(|qemu| qemu.running))
    }

    /// Somebody wants to migrate, drain or plug.
    fn intend(&mut self) {
        let ids: Vec<DomainId> = self.domains.keys().copied().collect();
        let id = ids[self.dice.pick(ids.len())];
        let Some(from) = self.home(id).filter(|_| !self.migrations.contains_key(&id)) else {
            return;
        };
        if self.dice.chance(2) {
            self.hosts[from].machine.outgoing.insert(id);
            let until = self.now + 120_000;
            self.migrations.insert(
                id,
                Migration {
                    from,
                    progress: Progress::Hook,
                    until,
                },
            );
            let migration = format!("m{}", self.count).parse().expect("id");
            let request = Request::Receive(self.spec(id), migration);
            if !self.ask(1 - from, id, request, Waiter::Hook { domain: id }) {
                self.end(id, false);
            }
        } else if self.dice.chance(1) {
            let request = if self.dice.chance(50) {
                Request::HoldBack
            } else {
                Request::Plug
            };
            self.ask(from, id, request, Waiter::Control);
        }
    }

    fn misfortune(&mut self) {
        for host in 0..2 {
            if self.hosts[host].daemon.is_some() {
                if self.dice.chance(self.faults.crash) {
                    self.crash(host);
                }
            } else if self.dice.chance(20) {
                self.hosts[host].start();
            }
            if self.dice.chance(self.faults.disobey) {
                for qemu in self.hosts[host].machine.qemu.values_mut() {
                    qemu.obedient = !qemu.obedient;
                }
            }
        }
    }

    /// The daemon's memory is gone; hooks that waited for it fail.
    fn crash(&mut self, host: usize) {
        self.hosts[host].daemon = None;
        let lost: Vec<(usize, Token)> = self.waiters.keys().filter(|(at, _)| *at == host).copied().collect();
        for key in lost {
            match self.waiters.remove(&key) {
                Some(Waiter::Hook { domain } | Waiter::Prepare { domain }) => self.end(domain, false),
                Some(Waiter::Peer { .. } | Waiter::Control) | None => {}
            }
        }
    }

    /// What the daemon's adapters notice.
    fn observe(&mut self, host: usize) {
        let now = self.now;
        for (id, mac) in self.domains.clone() {
            let agent = self.hosts[host].agent(id);
            let qemu = self.hosts[host].machine.qemu.contains_key(&id);
            let Some(daemon) = self.hosts[host].daemon.as_mut() else {
                continue;
            };
            let Some(guest) = daemon.guests.get_mut(&id) else {
                // Found running, with no record: started while the daemon was away.
                continue;
            };
            if qemu && daemon.linked.insert(id) {
                guest.handle(now, Event::LookAgain);
            }
            if !qemu && daemon.linked.remove(&id) {
                guest.handle(now, Event::QmpLost);
                guest.handle(now, Event::LookAgain);
            }
            match agent {
                Some(pair) if !guest.has_agent() => {
                    guest.handle(now, Event::AgentHello([(mac, pair)].into()));
                }
                Some(pair) if guest.agent_pair(mac) != Some(&pair) => guest.handle(now, Event::AgentState(mac, pair)),
                None if guest.has_agent() => guest.handle(now, Event::AgentGone),
                _ => {}
            }
        }
        self.guests_move(host);
    }

    /// What happens inside the guests.
    fn guests_move(&mut self, host: usize) {
        for (id, mac) in self.domains.clone() {
            let dice = &mut self.dice;
            let Some(qemu) = self.hosts[host].machine.qemu.get_mut(&id).filter(|qemu| qemu.running) else {
                continue;
            };
            if qemu.plugged.is_some() && !qemu.primary_ready && !qemu.unplugging && dice.chance(20) {
                qemu.primary_ready = true;
            }
            if qemu.unplugging && qemu.obedient && dice.chance(30) {
                qemu.plugged = None;
                qemu.unplugging = false;
                qemu.primary_ready = false;
                // The kernel's bond goes over by itself where its active slave vanishes.
                qemu.on_primary = false;
                let now = self.now;
                self.hosts[host].tell(now, id, Event::DeviceDeleted(mac));
            }
        }
    }

    /// The daemon's tasks: journal first, then the action, one at a time for each guest.
    fn drive(&mut self, host: usize) {
        for id in self.domains.keys().copied().collect::<Vec<_>>() {
            self.finish(host, id);
            for _ in 0..8 {
                if !self.start_next(host, id) {
                    break;
                }
            }
            let forgotten = |guest: &hybond_core::guest::Guest| guest.is_forgotten();
            let daemon = self.hosts[host].daemon.as_mut();
            if let Some(daemon) = daemon.filter(|daemon| daemon.guests.get(&id).is_some_and(forgotten)) {
                daemon.guests.remove(&id);
                daemon.linked.remove(&id);
                self.hosts[host].disk.remove(&id);
            }
        }
    }

    fn start_next(&mut self, host: usize, id: DomainId) -> bool {
        let now = self.now;
        let Some(daemon) = self.hosts[host].daemon.as_mut() else {
            return false;
        };
        let Some(guest) = daemon.guests.get_mut(&id).filter(|_| !daemon.running.contains_key(&id)) else {
            return false;
        };
        let Some(action) = guest.poll(now) else { return false };
        let record = guest.record().clone();
        self.hosts[host].disk.insert(id, record);
        // After the journal, before the effect.
        if self.dice.chance(self.faults.crash) {
            self.crash(host);
            return false;
        }
        match action {
            Action::Answer { token, answer } => self.answer(host, token, answer),
            Action::Release(lease) => {
                let Some(daemon) = self.hosts[host].daemon.as_mut() else {
                    return false;
                };
                let Some(guest) = daemon.guests.get_mut(&id) else {
                    return false;
                };
                guest.complete(now, Ok(Outcome::Done));
                let record = guest.record().clone();
                daemon.book.release(lease.domain, lease.mac);
                for guest in daemon.guests.values_mut() {
                    guest.handle(now, Event::PoolChanged);
                }
                self.hosts[host].disk.insert(id, record);
            }
            Action::AskDrain { migration, .. } => {
                let until = now + 70_000;
                self.send(1 - host, Body::Drain(id, migration.clone()));
                let running = Running {
                    action: Action::AskDrain {
                        peer: "peer".parse().expect("peer"),
                        migration,
                    },
                    until,
                    applied: true,
                    result: None,
                };
                self.set_running(host, id, running);
            }
            action => {
                let until = now + self.dice.between(0, 400);
                self.set_running(
                    host,
                    id,
                    Running {
                        action,
                        until,
                        applied: false,
                        result: None,
                    },
                );
            }
        }
        true
    }

    fn set_running(&mut self, host: usize, id: DomainId, running: Running) {
        if let Some(daemon) = self.hosts[host].daemon.as_mut() {
            daemon.running.insert(id, running);
        }
    }

    /// Applies the effect of what is being done, and a while later reports it.
    fn finish(&mut self, host: usize, id: DomainId) {
        let now = self.now;
        let running = self.hosts[host]
            .daemon
            .as_ref()
            .and_then(|daemon| daemon.running.get(&id));
        let Some(mut running) = running.cloned() else { return };
        if !running.applied {
            running.applied = true;
            let fails = self.faults.fail;
            running.result = Some(if self.dice.chance(fails) {
                Err(Failure {
                    reason: "chance".into(),
                })
            } else {
                self.apply(host, id, &running.action)
            });
            return self.set_running(host, id, running);
        }
        if now < running.until && !matches!((&running.action, &running.result), (Action::AskDrain { .. }, Some(_))) {
            return;
        }
        let result = running.result.unwrap_or_else(|| {
            Err(Failure {
                reason: "the peer is silent".into(),
            })
        });
        if let Some(daemon) = self.hosts[host].daemon.as_mut() {
            daemon.running.remove(&id);
            if let Some(guest) = daemon.guests.get_mut(&id) {
                guest.complete(now, result);
            }
        }
    }

    fn apply(&mut self, host: usize, id: DomainId, action: &Action) -> Result<Outcome, Failure> {
        let refused = |reason: &str| {
            Err(Failure {
                reason: reason.to_owned(),
            })
        };
        let mac = self.domains[&id];
        let at = &mut self.hosts[host];
        match action {
            Action::Look { libvirt } => Ok(Outcome::Looked(at.look(id, mac, *libvirt))),
            Action::LookAtJob => {
                let (domain, job) = at.libvirt(id);
                Ok(Outcome::Job(domain, job))
            }
            Action::Lease(ask) => {
                let Some(daemon) = &mut at.daemon else {
                    return refused("down");
                };
                Ok(match daemon.book.lease(ask) {
                    Ok(lease) => Outcome::Leased(lease),
                    Err(none) => Outcome::NoVf {
                        reason: none.to_string(),
                        pf: daemon.book.standby_pf(&ask.pool),
                    },
                })
            }
            Action::ChoosePf(ask) => {
                let pf = at.daemon.as_ref().and_then(|daemon| daemon.book.standby_pf(&ask.pool));
                Ok(Outcome::NoVf {
                    reason: String::new(),
                    pf,
                })
            }
            Action::MakeStandby { mac, pf, .. } => {
                let seen = StandbySeen {
                    pf: pf.clone(),
                    up: false,
                };
                at.machine.standby.insert(*mac, seen.clone());
                Ok(Outcome::Standby(seen))
            }
            Action::RaiseStandby(mac) => {
                let Some(standby) = at.machine.standby.get_mut(mac) else {
                    return refused("no macvtap");
                };
                standby.up = true;
                Ok(Outcome::Standby(standby.clone()))
            }
            Action::PrepareVf { lease, .. } => {
                at.machine.dressed.insert(lease.vf.id.clone(), mac);
                Ok(Outcome::Done)
            }
            Action::Plug(lease) => {
                let Some(qemu) = at.machine.qemu.get_mut(&id) else {
                    return refused("no QEMU");
                };
                if qemu.copying || qemu.incoming {
                    return refused("device_add is not allowed during a migration");
                }
                qemu.plugged = Some(lease.vf.id.clone());
                Ok(Outcome::Done)
            }
            Action::Failover(_) | Action::Failback(_) => {
                let to_primary = matches!(action, Action::Failback(_));
                let up = at.machine.standby.get(&mac).is_some_and(|standby| standby.up);
                let Some(qemu) = at.machine.qemu.get_mut(&id).filter(|qemu| qemu.running) else {
                    return refused("gone");
                };
                if to_primary && !qemu.primary_ready || !to_primary && !up {
                    return refused("the other path is not ready");
                }
                qemu.on_primary = to_primary;
                at.agent(id)
                    .map(Outcome::Switched)
                    .ok_or_else(|| Failure { reason: "gone".into() })
            }
            Action::Unplug(_) => {
                let Some(qemu) = at.machine.qemu.get_mut(&id) else {
                    return refused("no QEMU");
                };
                invariants::may_unplug(at.machine.standby.get(&mac), qemu);
                if qemu.plugged.is_none() {
                    return Ok(Outcome::NotPlugged);
                }
                qemu.unplugging = true;
                Ok(Outcome::Done)
            }
            Action::ResetVf(lease) => {
                let plugged = at.machine.qemu.get(&id).is_some_and(|qemu| qemu.plugged.is_some());
                assert!(!plugged, "the VF of {id} is reset while it is plugged");
                at.machine.dressed.remove(&lease.vf.id);
                Ok(Outcome::Done)
            }
            Action::RemoveStandby(mac) => {
                assert!(
                    !at.machine.qemu.contains_key(&id),
                    "the standby of {id} is removed under its QEMU"
                );
                at.machine.standby.remove(mac);
                Ok(Outcome::Done)
            }
            Action::Announce | Action::RepairXml => Ok(Outcome::Done),
            Action::AskDrain { .. } | Action::Release(_) | Action::Answer { .. } => refused("driven elsewhere"),
        }
    }

    fn answer(&mut self, host: usize, token: Token, answer: Answer) {
        let Some(waiter) = self.waiters.remove(&(host, token)) else {
            return;
        };
        let done = matches!(answer, Answer::Done(_));
        if let Answer::Refused(reason) = &answer {
            self.refusals.push(reason.clone());
        }
        match waiter {
            Waiter::Hook { domain } if done => {
                if let Some(migration) = self.migrations.get_mut(&domain) {
                    migration.progress = Progress::Prepare;
                    let to = 1 - migration.from;
                    let request = Request::Prepare(self.spec(domain));
                    if !self.ask(to, domain, request, Waiter::Prepare { domain }) {
                        self.end(domain, false);
                    }
                }
            }
            Waiter::Prepare { domain } if done => self.perform(domain),
            Waiter::Hook { domain } | Waiter::Prepare { domain } => self.end(domain, false),
            Waiter::Peer { domain, migration } => self.send(1 - host, Body::Answer(domain, migration, answer)),
            Waiter::Control => {}
        }
    }

    /// libvirt's Perform: QEMU at the destination, then RAM.
    fn perform(&mut self, id: DomainId) {
        let Some(migration) = self.migrations.get_mut(&id) else {
            return;
        };
        let (from, to) = (migration.from, 1 - migration.from);
        if !self.hosts[to].machine.standby.contains_key(&self.domains[&id]) {
            return self.end(id, false);
        }
        migration.progress = Progress::Copying;
        migration.until = self.now + self.dice.between(500, 30_000);
        self.hosts[to].machine.qemu.insert(id, new_qemu(false));
        let source = self.hosts[from].machine.qemu.get_mut(&id).expect("the domain runs");
        assert!(
            source.plugged.is_none(),
            "the destination's hook let {id} pass with its VF plugged"
        );
        source.copying = true;
        self.hosts[from].tell(self.now, id, Event::Migration(MigrationSeen::Active));
    }

    /// libvirt's part of the migrations.
    fn migrate(&mut self) {
        for id in self.migrations.keys().copied().collect::<Vec<_>>() {
            let Some(migration) = self.migrations.get(&id).cloned() else {
                continue;
            };
            let (from, to) = (migration.from, 1 - migration.from);
            match migration.progress {
                Progress::Hook | Progress::Prepare if self.now >= migration.until => {
                    let waits =
                        |w: &Waiter| matches!(w, Waiter::Hook { domain } | Waiter::Prepare { domain } if *domain == id);
                    let lost: Vec<(usize, Token)> = self
                        .waiters
                        .iter()
                        .filter(|(_, w)| waits(w))
                        .map(|(key, _)| *key)
                        .collect();
                    for (host, token) in lost {
                        self.waiters.remove(&(host, token));
                        self.hosts[host].tell(self.now, id, Event::Abandoned(token));
                    }
                    self.end(id, false);
                }
                Progress::Copying if self.dice.chance(self.faults.abort) => self.end(id, false),
                Progress::Copying if self.now >= migration.until => {
                    let source = self.hosts[from].machine.qemu.get_mut(&id).expect("the domain runs");
                    (source.copying, source.running, source.completed) = (false, false, true);
                    let target = self.hosts[to].machine.qemu.get_mut(&id).expect("QEMU waits");
                    target.completed = true;
                    self.hosts[from].tell(self.now, id, Event::Running(false));
                    self.hosts[from].tell(self.now, id, Event::Migration(MigrationSeen::Completed));
                    self.hosts[to].tell(self.now, id, Event::Migration(MigrationSeen::Completed));
                    let until = self.now + 150;
                    self.migrations.insert(
                        id,
                        Migration {
                            from,
                            progress: Progress::Arrived,
                            until,
                        },
                    );
                }
                Progress::Arrived if self.now >= migration.until => {
                    let target = self.hosts[to].machine.qemu.get_mut(&id).expect("QEMU waits");
                    (target.running, target.incoming) = (true, false);
                    self.hosts[to].tell(self.now, id, Event::Running(true));
                    self.end(id, true);
                }
                _ => {}
            }
        }
    }

    /// A migration ends: one of the two QEMUs goes, and libvirt calls its hooks.
    fn end(&mut self, id: DomainId, succeeded: bool) {
        let Some(Migration { from, progress, .. }) = self.migrations.remove(&id) else {
            return;
        };
        let gone = if succeeded { from } else { 1 - from };
        self.hosts[from].machine.outgoing.remove(&id);
        if succeeded {
            self.ended.0 += 1
        } else {
            self.ended.1 += 1
        }
        if !succeeded {
            let source = self.hosts[from].machine.qemu.get_mut(&id).expect("the domain runs");
            source.copying = false;
            self.hosts[from].tell(self.now, id, Event::Migration(MigrationSeen::Idle));
        }
        self.hosts[gone].machine.qemu.remove(&id);
        // libvirt calls `release` where it had got as far as `prepare`.
        if progress != Progress::Hook {
            self.hosts[gone].tell(self.now, id, Event::Domain(DomainSeen::Absent));
        }
    }

    fn send(&mut self, to: usize, body: Body) {
        if self.dice.chance(self.faults.lose) {
            return;
        }
        let copies = if self.dice.chance(self.faults.repeat) { 2 } else { 1 };
        for _ in 0..copies {
            let slow = if self.faults.lose > 0 { 20_000 } else { 200 };
            let at = self.now + self.dice.between(1, slow);
            self.link.push(Packet {
                at,
                to,
                body: body.clone(),
            });
        }
    }

    fn deliver(&mut self) {
        let (due, later) = std::mem::take(&mut self.link)
            .into_iter()
            .partition(|packet| packet.at <= self.now);
        self.link = later;
        let due: Vec<Packet> = due;
        for Packet { to, body, .. } in due {
            match body {
                Body::Drain(id, migration) => {
                    let waiter = Waiter::Peer {
                        domain: id,
                        migration: migration.clone(),
                    };
                    if !self.ask(to, id, Request::Drain(migration.clone()), waiter) {
                        let answer = Answer::Refused("no such domain".into());
                        self.send(1 - to, Body::Answer(id, migration, answer));
                    }
                }
                Body::Answer(id, migration, answer) => {
                    let running = self.hosts[to]
                        .daemon
                        .as_mut()
                        .and_then(|daemon| daemon.running.get_mut(&id));
                    let Some(running) = running else { continue };
                    if matches!(&running.action, Action::AskDrain { migration: asked, .. } if *asked == migration) {
                        running.result = Some(match answer {
                            Answer::Done(_) => Ok(Outcome::Done),
                            Answer::Refused(reason) => Err(Failure { reason }),
                        });
                    }
                }
            }
        }
    }
}

fn new_qemu(running: bool) -> Qemu {
    Qemu {
        running,
        incoming: !running,
        copying: false,
        completed: false,
        plugged: None,
        unplugging: false,
        on_primary: false,
        primary_ready: false,
        obedient: true,
    }
}
