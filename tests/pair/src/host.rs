//! A host: daemon, disk and machine.

use crate::machine::Machine;
use hybond_core::Millis;
use hybond_core::guest::{
    Action, AgentPair, DomainSeen, Event, Failure, Guest, Job, MigrationSeen, Outcome, QmpSeen, Record, Settings,
    Snapshot,
};
use hybond_core::ids::{DomainId, Mac, PoolName};
use hybond_core::pool::{PoolBook, Vf};
use std::collections::{BTreeMap, BTreeSet};

/// An action that is being carried out.
#[derive(Debug, Clone)]
pub struct Running {
    /// What.
    pub action: Action,
    /// When it is over.
    pub until: Millis,
    /// The machine has been changed: a crash now comes after the effect.
    pub applied: bool,
    /// How it ends.
    pub result: Option<Result<Outcome, Failure>>,
}

/// The daemon's memory.
#[derive(Debug, Clone, Default)]
pub struct Daemon {
    /// Who holds what.
    pub book: PoolBook,
    /// The guests.
    pub guests: BTreeMap<DomainId, Guest>,
    /// Guests whose monitor is connected.
    pub linked: BTreeSet<DomainId>,
    /// What is being done.
    pub running: BTreeMap<DomainId, Running>,
}

/// One host.
#[derive(Debug, Clone)]
pub struct Host {
    /// `None` while it is down.
    pub daemon: Option<Daemon>,
    /// Records.
    pub disk: BTreeMap<DomainId, Record>,
    /// The rest.
    pub machine: Machine,
    /// What the pools have.
    pub pools: BTreeMap<PoolName, Vec<Vf>>,
    /// Times.
    pub settings: Settings,
}

impl Host {
    /// With a pool, and a daemon that has just started.
    #[must_use]
    pub fn new(pool: PoolName, vfs: Vec<Vf>, settings: Settings) -> Self {
        let pools = BTreeMap::from([(pool, vfs)]);
        let mut host = Self {
            daemon: None,
            disk: BTreeMap::new(),
            machine: Machine::default(),
            pools,
            settings,
        };
        host.start();
        host
    }

    /// Starts the daemon from what is on the disk.
    pub fn start(&mut self) {
        let mut daemon = Daemon::default();
        daemon.book.set_pools(self.pools.clone());
        for record in self.disk.values() {
            for pair in record.pairs.values() {
                if let Some(lease) = &pair.lease {
                    daemon
                        .book
                        .restore(lease)
                        .expect("two records on the disk claim one VF");
                }
            }
            daemon
                .guests
                .insert(record.spec.id, Guest::new(record.clone(), self.settings));
        }
        self.daemon = Some(daemon);
    }

    /// Tells a guest of the daemon's, if there is one.
    pub fn tell(&mut self, now: Millis, id: DomainId, event: Event) {
        if let Some(guest) = self.daemon.as_mut().and_then(|daemon| daemon.guests.get_mut(&id)) {
            guest.handle(now, event);
        }
    }

    /// What libvirt says of a domain.
    #[must_use]
    pub fn libvirt(&self, id: DomainId) -> (DomainSeen, Job) {
        let Some(qemu) = self.machine.qemu.get(&id) else {
            return (DomainSeen::Absent, Job::None);
        };
        let job = match (self.machine.outgoing.contains(&id), qemu.incoming) {
            (true, _) => Job::Outgoing,
            (_, true) => Job::Incoming,
            _ => Job::None,
        };
        (DomainSeen::Active, job)
    }

    /// What the monitor says.
    #[must_use]
    pub fn monitor(&self, id: DomainId, mac: Mac) -> Option<QmpSeen> {
        let qemu = self.machine.qemu.get(&id)?;
        let migration = match (qemu.copying, qemu.completed) {
            (true, _) => MigrationSeen::Active,
            (_, true) => MigrationSeen::Completed,
            _ => MigrationSeen::Idle,
        };
        let plugged = qemu.plugged.iter().map(|_| mac).collect();
        Some(QmpSeen {
            running: qemu.running,
            migration,
            plugged,
        })
    }

    /// What the guest's agent says; it speaks while the CPUs run.
    #[must_use]
    pub fn agent(&self, id: DomainId) -> Option<AgentPair> {
        let qemu = self.machine.qemu.get(&id).filter(|qemu| qemu.running)?;
        Some(AgentPair {
            bonded: true,
            primary_ready: qemu.primary_ready,
            on_primary: qemu.on_primary,
        })
    }

    /// All of it.
    #[must_use]
    pub fn look(&self, id: DomainId, mac: Mac, libvirt: bool) -> Snapshot {
        Snapshot {
            libvirt: libvirt.then(|| self.libvirt(id)),
            qmp: self.monitor(id, mac),
            standby: self
                .machine
                .standby
                .get(&mac)
                .map(|seen| (mac, seen.clone()))
                .into_iter()
                .collect(),
        }
    }
}
