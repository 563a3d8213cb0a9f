//! Two hosts on virtual time, and what binds them together.

use crate::case::{Case, Faults};
use crate::dice::Dice;
use crate::host::Host;
use crate::invariants;
use crate::libvirt::Operation;
use crate::link::{Packet, Waiter};
use crate::machine::{Nic, Qemu};
use crate::plant::Plant;
use hybond_core::Millis;
use hybond_core::guest::{Guest, MigrationSeen, Settings, Token};
use hybond_core::ids::{DomainId, Mac, PoolName};
use hybond_core::paths::{Paths, PoolPaths};
use hybond_core::pool::Vf;
use hybond_core::spec::{DomainSpec, Flavor, PairSpec, Policy, StandbyKind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Longest that anything may take once nothing goes wrong any more: a reservation, and a drain on top.
const CALM: Millis = 600_000;

/// How long all must be quiet to be at rest: longer than anything pauses before it is tried again.
const STAYS: Millis = 20_000;

/// Turns that a calm may have. More would be something that goes round in a circle.
const BUSY: u32 = 20_000;

/// How libvirt's operations went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Migrations that arrived.
    pub migrated: u32,
    /// Migrations that did not.
    pub stayed: u32,
    /// Migrations and saves that the guard called off.
    pub guarded: u32,
    /// Domains that were saved to a file.
    pub saved: u32,
    /// Daemons that crashed.
    pub crashed: u32,
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
    /// The domains. `source_peer` is what their metadata says: `host0`, `host1`, or nothing yet.
    pub domains: BTreeMap<DomainId, DomainSpec>,
    /// What goes wrong.
    pub faults: Faults,
    /// A planted bug.
    pub plant: Option<Plant>,
    /// Crash this daemon at its n-th point.
    pub crash_at: Option<(usize, u64)>,
    /// Points at which each daemon could have crashed, so far.
    pub points: [u64; 2],
    /// When a daemon that has crashed is started again.
    pub restart_at: [Option<Millis>; 2],
    /// How it went.
    pub tally: Tally,
    /// Why hooks were refused.
    pub refusals: Vec<String>,
    /// What must always hold did not.
    pub violation: Option<String>,
    /// What happened, if anybody wants to read it.
    pub trace: Option<Vec<String>>,
    pub(crate) link: Vec<Packet>,
    pub(crate) operations: BTreeMap<DomainId, Operation>,
    pub(crate) waiters: BTreeMap<(usize, Token), Waiter>,
    /// Lifecycle events that libvirt has yet to deliver: they are late, and in no order to its hooks.
    pub(crate) whispers: Vec<(Millis, usize, DomainId)>,
    /// Pairs whose interface is one of a libvirt network in the persistent XML.
    pub(crate) networked: BTreeSet<Mac>,
    /// Domains with a file to restore from, and where it is.
    pub(crate) saved: BTreeMap<DomainId, usize>,
    /// When an administrator last touched a domain.
    pub(crate) touched: BTreeMap<DomainId, Millis>,
    /// Records that a daemon could not read back, as nothing was written before.
    pub(crate) peaceful: bool,
    pub(crate) count: u64,
}

/// The pool of both hosts.
#[must_use]
pub fn pool() -> PoolName {
    "lan".parse().expect("name")
}

/// Standbys follow what their guests ask for.
pub(crate) fn paths() -> Arc<Paths> {
    Arc::new(Paths([(pool(), PoolPaths::default())].into()))
}

fn vfs(host: usize, count: u8) -> Vec<Vf> {
    let vf = |index: u8| Vf {
        id: format!("000{host}:01:10.{index}").parse().expect("vf"),
        pf: format!("pf{}", index % 2).parse().expect("pf"),
        index: index.into(),
        numa_node: None,
    };
    (0..count).map(vf).collect()
}

fn domain(n: u8, case: &Case, policy: impl Fn(u8) -> Policy) -> DomainSpec {
    let standby = |p: u8| match case.direct && (n + p) % 2 == 0 {
        true if case.network => StandbyKind::Network { source: None },
        true => StandbyKind::Direct {
            source: format!("pf{}", n % 2).parse().expect("pf"),
        },
        false => StandbyKind::Ethernet,
    };
    let flavors = [Flavor::Hybrid, Flavor::Indirect, Flavor::Virtual];
    let flavor = |p: u8| match flavors.get(usize::from(case.flavor)) {
        Some(flavor) => *flavor,
        None => flavors[(case.seed as usize / 3 + usize::from(n + p)) % flavors.len()],
    };
    let pair = |p: u8| PairSpec {
        policy: policy(p),
        standby: standby(p),
        flavor: match (flavor(p), standby(p)) {
            // Its macvtap is hybond's; `hybondctl enable` and the hook refuse another.
            (Flavor::Indirect, StandbyKind::Direct { .. } | StandbyKind::Network { .. }) => Flavor::Hybrid,
            (flavor, _) => flavor,
        },
        ..PairSpec::new(Mac::from_octets([0x52, 0x54, 0, 0, p, n]).expect("mac"), pool())
    };
    DomainSpec {
        id: DomainId::from_bytes([n; 16]),
        name: format!("g{n}"),
        pairs: (0..case.pairs).map(pair).collect(),
        source_peer: None,
        numa_nodes: Vec::new(),
    }
}

impl World {
    /// Two hosts, and domains that are started on the first.
    #[must_use]
    pub fn new(case: Case) -> Self {
        let settings = Settings::default();
        let host = |n| Host::new(pool(), vfs(n, case.vfs), settings);
        let policies = [Policy::Prefer, Policy::Require, Policy::Never];
        let policy = |n: u8, p: u8| match policies.get(usize::from(case.policy)) {
            Some(policy) => *policy,
            None => policies[(case.seed as usize + usize::from(n + p)) % policies.len()],
        };
        let domains = (1..=case.domains).map(|n| domain(n, &case, |p| policy(n, p)));
        let mut world = Self {
            now: 1,
            dice: Dice::new(case.seed),
            hosts: [host(0), host(1)],
            domains: domains.map(|spec| (spec.id, spec)).collect(),
            faults: case.faults,
            plant: None,
            crash_at: None,
            points: [0, 0],
            restart_at: [None, None],
            tally: Tally::default(),
            refusals: Vec::new(),
            violation: None,
            trace: None,
            link: Vec::new(),
            operations: BTreeMap::new(),
            waiters: BTreeMap::new(),
            whispers: Vec::new(),
            networked: BTreeSet::new(),
            saved: BTreeMap::new(),
            touched: BTreeMap::new(),
            peaceful: case.faults == Faults::default(),
            count: 0,
        };
        let pairs = world.domains.values().flat_map(|spec| &spec.pairs);
        let networked = pairs.filter(|pair| matches!(pair.standby, StandbyKind::Network { .. }));
        world.networked = networked.map(|pair| pair.mac).collect();
        for id in world.ids() {
            world.start_domain(0, id);
        }
        world
    }

    /// The domains.
    #[must_use]
    pub fn ids(&self) -> Vec<DomainId> {
        self.domains.keys().copied().collect()
    }

    /// A number that was not given out before.
    pub(crate) fn number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    pub(crate) fn log(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:07} {}", self.now, text()));
        }
    }

    pub(crate) fn violate(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.log(|| format!("VIOLATION {text}"));
        self.violation.get_or_insert(text);
    }

    /// Until now, or until something must not be.
    ///
    /// # Errors
    /// What must not be.
    pub fn verdict(&self) -> Result<(), String> {
        self.violation.clone().map_or(Ok(()), Err)
    }

    /// Where a domain's CPUs run.
    #[must_use]
    pub fn home(&self, id: DomainId) -> Option<usize> {
        (0..2).find(|host| self.hosts[*host].machine.qemu.get(&id).is_some_and(|qemu| qemu.running))
    }

    /// libvirt is doing something with a domain, or somebody waits for `hybondctl`.
    #[must_use]
    pub fn is_busy(&self, id: DomainId) -> bool {
        let waits = |waiter: &Waiter| matches!(waiter, Waiter::Control { id: of, .. } if *of == id);
        self.operations.contains_key(&id) || self.waiters.values().any(waits)
    }

    /// One step: to the next moment at which something is due, or to one before it; then chance.
    pub fn step(&mut self) {
        self.turn();
        self.misfortune();
        self.intend();
    }

    /// A step in which nothing new goes wrong and nobody wants anything new.
    pub fn turn(&mut self) {
        if self.violation.is_some() {
            return;
        }
        // What somebody has asked for since the last turn.
        self.react();
        let next = self.due().unwrap_or(self.now + 1_000).max(self.now + 1);
        self.now = if self.dice.chance(70) {
            next
        } else {
            self.dice.between(self.now + 1, next)
        };
        self.happen();
    }

    /// All that is due by now.
    pub(crate) fn happen(&mut self) {
        for host in 0..2 {
            if self.restart_at[host].is_some_and(|at| self.now >= at) {
                self.start_daemon(host);
            }
        }
        self.deliver();
        self.operate();
        for host in 0..2 {
            self.guests_move(host);
            self.observe(host);
        }
        self.react();
    }

    /// The daemons do what can be done in this very moment.
    fn react(&mut self) {
        while self.violation.is_none() && (0..2).map(|host| self.drive(host)).sum::<usize>() > 0 {}
        invariants::always(self);
    }

    /// Turns until `done`, or until it is sure that it will not be.
    pub fn until(&mut self, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + CALM;
        while self.now < end && self.violation.is_none() {
            if done(self) {
                return true;
            }
            self.turn();
        }
        false
    }

    /// Nothing goes wrong any more, for as long as anything may take; then nothing may be left to do.
    pub fn calm(&mut self) {
        self.faults = Faults::default();
        self.crash_at = None;
        for host in 0..2 {
            if self.hosts[host].daemon.is_none() {
                self.start_daemon(host);
            }
            for qemu in self.hosts[host].machine.qemu.values_mut() {
                (qemu.obedient, qemu.agent) = (true, true);
            }
        }
        self.log(|| "calm".to_owned());
        // At rest once, and still a while later; or never.
        let mut rests_since = None;
        let mut still = 0;
        let end = self.now + CALM;
        let mut turns = 0;
        while self.now < end && self.violation.is_none() {
            self.turn();
            turns += 1;
            if turns > BUSY {
                self.violate("somebody is busy for ever");
            }
            still = if self.due().is_none() { still + 1 } else { 0 };
            if still > 1 {
                // Time brings nothing any more, and the last turn has left nothing.
                break;
            }
            if invariants::restless(self).is_some() {
                rests_since = None;
            } else if *rests_since.get_or_insert(self.now) + STAYS < self.now {
                return;
            }
        }
        if let Some(text) = invariants::restless(self) {
            self.violate(text);
        }
    }

    pub(crate) fn start_daemon(&mut self, host: usize) {
        self.restart_at[host] = None;
        self.log(|| format!("host{host}: the daemon starts"));
        if let Err(error) = self.hosts[host].start() {
            self.violate(error);
        }
    }

    /// A new QEMU, its guest with its agent and without primaries.
    pub(crate) fn launch(&mut self, host: usize, id: DomainId, incoming: bool) {
        let nics = self.domains[&id].pairs.iter().map(|pair| (pair.mac, Nic::default()));
        let qemu = Qemu {
            serial: self.count + 1,
            running: false,
            incoming,
            migration: MigrationSeen::Idle,
            copying: false,
            obedient: true,
            agent: true,
            nics: nics.collect(),
        };
        self.count += 1;
        self.hosts[host].machine.qemu.insert(id, qemu);
    }

    /// The next moment at which something is due.
    fn due(&self) -> Option<Millis> {
        let mut times: BTreeSet<Millis> = self.link.iter().map(|packet| packet.at).collect();
        times.extend(self.restart_at.iter().flatten());
        times.extend(self.operations.values().map(|operation| operation.until));
        times.extend(self.waiters.values().filter_map(Waiter::until));
        times.extend(self.whispers.iter().map(|(at, ..)| *at));
        for host in &self.hosts {
            for qemu in host.machine.qemu.values().filter(|qemu| qemu.running) {
                let gone = qemu
                    .nics
                    .values()
                    .filter_map(|nic| nic.gone_at.filter(|_| qemu.obedient));
                times.extend(gone.chain(qemu.nics.values().filter_map(|nic| nic.ready_at)));
            }
            let Some(daemon) = &host.daemon else { continue };
            times.extend(daemon.relink_at.values().copied());
            for (id, guest) in &daemon.guests {
                match daemon.running.get(id) {
                    Some(running) if running.result.is_none() => times.insert(running.effect_at.min(running.until)),
                    Some(running) => times.insert(running.until),
                    None => guest.next_deadline(self.now).is_some_and(|at| times.insert(at)),
                };
            }
        }
        times.into_iter().find(|at| *at > self.now)
    }

    /// A guest's machine, for a domain that a daemon hears of for the first time.
    pub(crate) fn new_guest(&self, host: usize, id: DomainId) -> Guest {
        let spec = self.domains[&id].clone();
        let record = hybond_core::guest::Record::new(spec, hybond_core::guest::Stage::Leaving);
        Guest::new(record, self.hosts[host].settings).with_paths(paths())
    }
}
