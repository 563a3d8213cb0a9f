//! A host: daemon, disk and machine.

use crate::machine::Machine;
use hybond_core::Millis;
use hybond_core::guest::{Action, DomainSeen, Event, Failure, Guest, Job, Outcome, Record, Settings, Snapshot};
use hybond_core::ids::{DomainId, PoolName};
use hybond_core::pool::{PoolBook, Vf};
use std::collections::BTreeMap;

/// An action that is being carried out.
#[derive(Debug, Clone)]
pub struct Running {
    /// What.
    pub action: Action,
    /// When the machine changes, or is looked at. A crash before that is one before the effect.
    pub effect_at: Millis,
    /// When the daemon learns of it. A crash before that is one after the effect.
    pub until: Millis,
    /// How it ends; known from the effect on.
    pub result: Option<Result<Outcome, Failure>>,
}

/// The daemon's memory.
#[derive(Debug, Clone, Default)]
pub struct Daemon {
    /// Who holds what.
    pub book: PoolBook,
    /// The guests.
    pub guests: BTreeMap<DomainId, Guest>,
    /// Monitors that are connected, with the serial of their QEMU.
    pub links: BTreeMap<DomainId, u64>,
    /// When a monitor is tried again.
    pub relink_at: BTreeMap<DomainId, Millis>,
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
        // An empty disk holds no contradiction.
        drop(host.start());
        host
    }

    /// Starts the daemon from what is on the disk.
    ///
    /// # Errors
    /// Two records claim one VF.
    pub fn start(&mut self) -> Result<(), String> {
        let mut daemon = Daemon::default();
        daemon.book.set_pools(self.pools.clone());
        for record in self.disk.values() {
            for lease in record.pairs.values().filter_map(|pair| pair.lease.as_ref()) {
                daemon.book.restore(lease).map_err(|error| error.to_string())?;
            }
            let guest = Guest::new(record.clone(), self.settings).with_paths(crate::world::paths());
            daemon.guests.insert(record.spec.id, guest);
        }
        self.daemon = Some(daemon);
        Ok(())
    }

    /// A guest of the daemon's.
    #[must_use]
    pub fn guest(&self, id: DomainId) -> Option<&Guest> {
        self.daemon.as_ref()?.guests.get(&id)
    }

    /// Tells a guest of the daemon's, if there is one.
    pub fn tell(&mut self, now: Millis, id: DomainId, event: Event) {
        if let Some(guest) = self.daemon.as_mut().and_then(|daemon| daemon.guests.get_mut(&id)) {
            guest.handle(now, event);
        }
    }

    /// The monitor of a domain is connected.
    #[must_use]
    pub fn is_linked(&self, id: DomainId) -> bool {
        let Some(qemu) = self.machine.qemu.get(&id) else {
            return false;
        };
        let link = self.daemon.as_ref().and_then(|daemon| daemon.links.get(&id));
        link == Some(&qemu.serial)
    }

    /// What libvirt says of a domain.
    #[must_use]
    pub fn libvirt(&self, id: DomainId) -> (DomainSeen, Job) {
        match self.machine.active.get(&id) {
            Some(job) => (DomainSeen::Active, *job),
            None => (DomainSeen::Absent, Job::None),
        }
    }

    /// All that a look shows.
    #[must_use]
    pub fn look(&self, id: DomainId, libvirt: bool) -> Snapshot {
        let Some(guest) = self.guest(id) else {
            return Snapshot::default();
        };
        let qemu = self.machine.qemu.get(&id).filter(|_| self.is_linked(id));
        let macs = guest.record().pairs.keys();
        Snapshot {
            libvirt: libvirt.then(|| self.libvirt(id)),
            qmp: qemu.map(|qemu| qemu.monitor()),
            standby: macs
                .filter_map(|mac| Some((*mac, self.machine.standby.get(mac)?.clone())))
                .collect(),
        }
    }
}
