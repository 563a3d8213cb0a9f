//! libvirt: hooks, starts, saves and stops. Migrations are in [`crate::migration`]. One operation for a domain at a time.
//!
//! A hook is called, and libvirt waits for it; `prepare` with the domain's lock held. `started` follows when QEMU is there,
//! and stops the operation where the daemon is down. `release` follows where libvirt had got as far as `prepare`; nobody
//! calls it again for a daemon that was down.

use crate::link::Waiter;
use crate::world::World;
use hybond_core::Millis;
use hybond_core::guest::StandbySeen;
use hybond_core::guest::{DomainSeen, Event, Job, MigrationSeen, Request};
use hybond_core::ids::{DomainId, IfName, Mac, VfId};
use hybond_core::spec::{PairSpec, StandbyKind};

/// What libvirt asks and waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Migrate,
    Restore,
    Prepare,
    Start,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A start, perhaps from a file.
    Start { host: usize },
    /// A migration to the other host.
    Migrate { from: usize },
    /// A migration to a host without hybond, or to a file.
    Unasked { host: usize, save: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A hook is waited for.
    Hook(Hook),
    /// QEMU is being executed.
    Launch,
    /// QEMU is there; hook `started` is next.
    Started,
    /// QEMU's migration is in `setup`; RAM is next.
    Setup,
    /// RAM is copied.
    Copy,
    /// RAM is copied after the CPUs have moved.
    Postcopy,
    /// Everything has arrived; the CPUs start next.
    Arrived,
    /// The CPUs run at the destination; the source's QEMU is still there.
    Confirm,
    /// The hosts where `stopped` and `release`, and the end of the job, are still to come.
    Cleanup { release: Option<usize>, job: Option<usize> },
}

/// An operation of libvirt's on a domain.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub kind: Kind,
    pub step: Step,
    /// When the step ends, or is given up.
    pub until: Millis,
    /// The leases that the domain had on the source when it began.
    pub had: Vec<(Mac, VfId)>,
    /// The XML that the domain gets on this way; it stays the old one if the operation fails.
    pub pairs: Vec<PairSpec>,
}

impl Operation {
    pub fn is_cleanup(&self) -> bool {
        matches!(self.step, Step::Cleanup { .. })
    }
}

impl World {
    pub(crate) fn operation(&mut self, id: DomainId, kind: Kind) {
        let (step, until, had) = (Step::Launch, self.now, Vec::new());
        let mut pairs = self.domains[&id].pairs.clone();
        for pair in &mut pairs {
            // What a network has chosen is in the running domain's XML only.
            if let StandbyKind::Network { source } = &mut pair.standby {
                *source = None;
            }
        }
        let operation = Operation {
            kind,
            step,
            until,
            had,
            pairs,
        };
        self.log(|| format!("libvirt: {id} {kind:?}"));
        self.operations.insert(id, operation);
    }

    pub(crate) fn step_to(&mut self, id: DomainId, step: Step, from: Millis, to: Millis) {
        let until = self.now + self.dice.between(from, to);
        self.log(|| format!("libvirt: {id} {step:?}"));
        if let Some(operation) = self.operations.get_mut(&id) {
            (operation.step, operation.until) = (step, until);
        }
    }

    /// Starts a domain, from its file if it has one on this host.
    pub fn start_domain(&mut self, host: usize, id: DomainId) {
        self.operation(id, Kind::Start { host });
        let hook = match self.saved.remove(&id) {
            Some(_) => Hook::Restore,
            None => Hook::Prepare,
        };
        let networked = &self.networked;
        if let Some(operation) = self.operations.get_mut(&id).filter(|_| hook == Hook::Prepare) {
            let of_network = operation.pairs.iter_mut().filter(|pair| networked.contains(&pair.mac));
            of_network.for_each(|pair| pair.standby = StandbyKind::Network { source: None });
        }
        self.call_hook(host, id, hook);
    }

    /// A migration that no hook announces: to a host without hybond, or to a file.
    pub fn unasked(&mut self, host: usize, id: DomainId, save: bool) {
        self.operation(id, Kind::Unasked { host, save });
        let job = if save { Job::Other } else { Job::Outgoing };
        self.hosts[host].machine.active.insert(id, job);
        if save {
            self.cpus_run(host, id, false);
        }
        self.migration_is(host, id, MigrationSeen::Active);
        self.guard(host);
        self.step_to(id, Step::Setup, 1, 300);
    }

    /// The guest shuts down, is destroyed, or its QEMU crashes.
    pub fn stop_domain(&mut self, host: usize, id: DomainId) {
        self.log(|| format!("host{host}: {id} stops"));
        self.hosts[host].machine.end_qemu(id);
        self.operation(id, Kind::Start { host });
        let (release, job) = (Some(host), None);
        self.step_to(id, Step::Cleanup { release, job }, 1, 500);
    }

    pub(crate) fn call_hook(&mut self, host: usize, id: DomainId, hook: Hook) {
        let limit = if hook == Hook::Migrate { 120_000 } else { 30_000 };
        self.step_to(id, Step::Hook(hook), limit, limit);
        let mut spec = self.domains[&id].clone();
        if let Some(operation) = self.operations.get(&id) {
            spec.pairs.clone_from(&operation.pairs);
        }
        let request = match hook {
            Hook::Migrate => {
                let migration = format!("m{}", self.number());
                Request::Receive(spec, migration.parse().expect("id"))
            }
            Hook::Restore => Request::Restore(spec),
            Hook::Prepare => {
                self.hosts[host].machine.active.entry(id).or_insert(Job::None);
                Request::Prepare(spec)
            }
            Hook::Start => Request::Place(spec),
        };
        if !self.ask(host, id, request, Waiter::Hook { id, hook }) {
            self.fail(id);
        }
    }

    /// libvirt holds the domain's lock on this host while a hook waits.
    pub(crate) fn is_locked(&self, host: usize, id: DomainId) -> bool {
        let holds =
            |waiter: &Waiter| matches!(waiter, Waiter::Hook { id: of, hook } if *of == id && *hook != Hook::Migrate);
        self.waiters
            .iter()
            .any(|((at, _), waiter)| *at == host && holds(waiter))
    }

    /// A hook has ended: with the lower devices for the XML, or with a refusal.
    pub(crate) fn hooked(&mut self, id: DomainId, hook: Hook, edits: Option<Vec<(Mac, IfName)>>) {
        let Some(operation) = self.operations.get(&id).cloned() else {
            return;
        };
        if operation.step != Step::Hook(hook) {
            return;
        }
        let Some(edits) = edits.filter(|_| !self.dice.chance(self.faults.abort)) else {
            return self.fail(id);
        };
        self.edit(id, hook, edits);
        let host = match operation.kind {
            Kind::Start { host } | Kind::Unasked { host, .. } => host,
            Kind::Migrate { from } => 1 - from,
        };
        match hook {
            // Only now does libvirt look whether it has the domain already.
            Hook::Migrate if self.hosts[host].machine.active.contains_key(&id) => self.fail(id),
            Hook::Migrate => {
                self.hosts[host].machine.active.insert(id, Job::Incoming);
                self.call_hook(host, id, Hook::Prepare);
            }
            Hook::Restore => self.call_hook(host, id, Hook::Prepare),
            Hook::Prepare => {
                self.check_standbys(host, id, &operation.pairs);
                if self.place(id) {
                    self.call_hook(host, id, Hook::Start);
                } else {
                    self.step_to(id, Step::Launch, 10, 300);
                }
            }
            Hook::Start => self.step_to(id, Step::Launch, 10, 300),
        }
    }

    fn edit(&mut self, id: DomainId, hook: Hook, edits: Vec<(Mac, IfName)>) {
        if matches!(hook, Hook::Prepare | Hook::Start) && !edits.is_empty() {
            self.violate(format!(
                "{id} is prepared with another XML, which libvirt does not take"
            ));
        }
        let Some(operation) = self.operations.get_mut(&id) else {
            return;
        };
        for (mac, source) in edits {
            let of = operation.pairs.iter_mut().find(|pair| pair.mac == mac);
            if let Some(pair) = of {
                pair.standby = StandbyKind::Direct { source };
            }
        }
    }

    /// libvirt's networks choose PFs, which their interfaces keep until the domain stops. Whether there are any.
    fn place(&mut self, id: DomainId) -> bool {
        let Some(operation) = self.operations.get_mut(&id) else {
            return false;
        };
        let mut any = false;
        for pair in &mut operation.pairs {
            if let StandbyKind::Network { source } = &mut pair.standby {
                any = true;
                let chosen = format!("pf{}", self.dice.pick(2));
                *source = Some(chosen.parse().expect("pf"));
            }
        }
        any
    }

    fn check_standbys(&mut self, host: usize, id: DomainId, pairs: &[PairSpec]) {
        let machine = &self.hosts[host].machine;
        let mut ethernet = pairs.iter().filter(|pair| pair.standby == StandbyKind::Ethernet);
        if !ethernet.all(|pair| machine.standby.contains_key(&pair.mac)) {
            self.violate(format!("host{host}: the hook let {id} pass without its macvtaps"));
        }
    }

    /// libvirt makes the macvtaps of `type='direct'` where the XML says.
    pub(crate) fn make_direct(&mut self, host: usize, id: DomainId) {
        let Some(operation) = self.operations.get(&id) else {
            return;
        };
        for pair in &operation.pairs {
            if let Some(source) = pair.standby.source() {
                let direct = &mut self.hosts[host].machine.direct;
                direct.insert(pair.mac, StandbySeen::made(source.clone(), false));
            }
        }
    }

    /// The domain is there with the XML that it came with.
    pub(crate) fn takes_xml(&mut self, id: DomainId) {
        let pairs = self.operations.get(&id).map(|operation| operation.pairs.clone());
        if let (Some(pairs), Some(spec)) = (pairs, self.domains.get_mut(&id)) {
            spec.pairs = pairs;
        }
    }

    pub(crate) fn operate(&mut self) {
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.whispers)
            .into_iter()
            .partition(|(at, ..)| *at <= now);
        self.whispers = later;
        let due: Vec<(Millis, usize, DomainId)> = due;
        for (_, host, id) in due {
            self.hosts[host].tell(now, id, Event::LookAgain);
        }
        for id in self.ids() {
            if self.operations.get(&id).is_some_and(|operation| now >= operation.until) {
                self.advance(id);
            }
        }
    }

    /// A lifecycle event, late.
    pub(crate) fn whisper(&mut self, host: usize, id: DomainId) {
        let at = self.now + self.dice.between(1, 3_000);
        self.whispers.push((at, host, id));
    }

    fn advance(&mut self, id: DomainId) {
        let Some(operation) = self.operations.get(&id).cloned() else {
            return;
        };
        match (operation.kind, operation.step) {
            (_, Step::Hook(_)) => {
                self.abandon(|waiter| matches!(waiter, Waiter::Hook { id: of, .. } if *of == id));
                self.fail(id);
            }
            (_, Step::Cleanup { release, job }) => self.clean_up(id, release, job),
            (Kind::Start { host }, step) => self.advance_start(host, id, step),
            (Kind::Unasked { host, save }, _) => self.advance_unasked(host, id, save),
            (Kind::Migrate { from }, step) => self.advance_migration(from, id, step),
        }
    }

    fn advance_start(&mut self, host: usize, id: DomainId, step: Step) {
        if self.dice.chance(self.faults.abort) {
            return self.fail(id);
        }
        if step == Step::Launch {
            self.launch(host, id, false);
            self.make_direct(host, id);
            return self.step_to(id, Step::Started, 10, 300);
        }
        if self.hosts[host].daemon.is_none() {
            return self.fail(id);
        }
        self.hosts[host].tell(self.now, id, Event::LookAgain);
        self.hosts[host].machine.raise_direct(id);
        self.cpus_run(host, id, true);
        self.takes_xml(id);
        self.whisper(host, id);
        self.operations.remove(&id);
    }

    /// The guard has had its time.
    fn advance_unasked(&mut self, host: usize, id: DomainId, save: bool) {
        let qemu = self.hosts[host].machine.qemu.get_mut(&id);
        let cancelled = qemu.as_ref().is_none_or(|qemu| qemu.migration != MigrationSeen::Active);
        if !cancelled && save {
            // Nothing was plugged: RAM goes to the file, and QEMU ends.
            if qemu.is_some_and(|qemu| qemu.has_primary()) {
                self.violate(format!("{id} is saved with a VF plugged"));
            }
            self.tally.saved += 1;
            self.saved.insert(id, host);
            self.hosts[host].machine.end_qemu(id);
            let (release, job) = (Some(host), None);
            return self.step_to(id, Step::Cleanup { release, job }, 1, 500);
        }
        // Cancelled; or the destination has no macvtap to give it.
        self.migration_is(host, id, MigrationSeen::Idle);
        if save {
            self.cpus_run(host, id, true);
        }
        let (release, job) = (None, Some(host));
        self.step_to(id, Step::Cleanup { release, job }, 1, 500);
    }

    fn clean_up(&mut self, id: DomainId, release: Option<usize>, job: Option<usize>) {
        match (release, job) {
            // In no fixed order: they are two hosts.
            (Some(host), None) => {
                self.released(host, id);
                self.operations.remove(&id);
            }
            (Some(host), _) if self.dice.chance(50) => {
                self.released(host, id);
                self.step_to(id, Step::Cleanup { release: None, job }, 1, 800);
            }
            (_, Some(host)) => {
                if let Some(of) = self.hosts[host].machine.active.get_mut(&id) {
                    *of = Job::None;
                }
                self.whisper(host, id);
                self.check_leases(host, id);
                self.step_to(id, Step::Cleanup { release, job: None }, 1, 800);
            }
            (None, None) => drop(self.operations.remove(&id)),
        }
    }

    /// Hooks `stopped` and `release`: the domain is not active any more.
    fn released(&mut self, host: usize, id: DomainId) {
        self.log(|| format!("libvirt: host{host} releases {id}"));
        self.hosts[host].machine.active.remove(&id);
        self.hosts[host].tell(self.now, id, Event::Domain(DomainSeen::Absent));
        self.whisper(host, id);
    }
}
