//! What happens inside the guests, and what a daemon notices of its QEMUs: monitors that connect and break, their events,
//! the agents, the guard.

use crate::plant::Plant;
use crate::world::World;
use hybond_core::guest::{Event, MigrationSeen};
use hybond_core::ids::{DomainId, Mac};

impl World {
    /// Drivers come up, devices go.
    pub(crate) fn guests_move(&mut self, host: usize) {
        let now = self.now;
        let mut gone: Vec<(DomainId, Mac)> = Vec::new();
        for (id, qemu) in &mut self.hosts[host].machine.qemu {
            if !qemu.running {
                continue;
            }
            for (mac, nic) in &mut qemu.nics {
                if nic.gone_at.is_some_and(|at| now >= at) && qemu.obedient {
                    gone.push((*id, *mac));
                } else if nic.ready_at.is_some_and(|at| now >= at) {
                    nic.ready_at = None;
                    nic.primary_ready = true;
                }
            }
        }
        for (id, mac) in gone {
            self.lose_primary(host, id, mac);
        }
    }

    /// The device leaves the guest, and QEMU says so.
    pub(crate) fn lose_primary(&mut self, host: usize, id: DomainId, mac: Mac) {
        let qemu = self.hosts[host].machine.qemu.get_mut(&id);
        if let Some(nic) = qemu.and_then(|qemu| qemu.nics.get_mut(&mac)) {
            nic.lose_primary();
        }
        self.log(|| format!("host{host}: {id} lets go of the VF of {mac}"));
        self.qmp_event(host, id, Event::DeviceDeleted(mac));
    }

    /// QEMU's migration changes its status.
    pub(crate) fn migration_is(&mut self, host: usize, id: DomainId, migration: MigrationSeen) {
        if let Some(qemu) = self.hosts[host].machine.qemu.get_mut(&id) {
            qemu.migration = migration;
            qemu.copying &= migration == MigrationSeen::Active;
        }
        self.qmp_event(host, id, Event::Migration(migration));
    }

    /// QEMU's CPUs start or stop.
    pub(crate) fn cpus_run(&mut self, host: usize, id: DomainId, running: bool) {
        if let Some(qemu) = self.hosts[host].machine.qemu.get_mut(&id) {
            qemu.running = running;
        }
        self.log(|| format!("host{host}: {id} runs: {running}"));
        self.qmp_event(host, id, Event::Running(running));
    }

    /// An event of the monitor's, if it is connected. One that is lost is noticed, and looked for.
    fn qmp_event(&mut self, host: usize, id: DomainId, event: Event) {
        if !self.hosts[host].is_linked(id) || self.plant == Some(Plant::EventsVanish) {
            return;
        }
        let event = if self.dice.chance(self.faults.deaf) {
            Event::LookAgain
        } else {
            event
        };
        self.log(|| format!("host{host}: {id} event {event:?}"));
        self.hosts[host].tell(self.now, id, event);
    }

    /// The monitor breaks off.
    pub(crate) fn unlink(&mut self, host: usize, id: DomainId) {
        let again = self.now + self.dice.between(1, 2_000);
        let Some(daemon) = self.hosts[host].daemon.as_mut() else {
            return;
        };
        if daemon.links.remove(&id).is_some() {
            daemon.relink_at.insert(id, again);
            self.hosts[host].tell(self.now, id, Event::QmpLost);
            self.hosts[host].tell(self.now, id, Event::LookAgain);
        }
    }

    /// What the daemon's adapters notice.
    pub(crate) fn observe(&mut self, host: usize) {
        let (now, plant) = (self.now, self.plant);
        for id in self.ids() {
            let at = &mut self.hosts[host];
            let serial = at.machine.qemu.get(&id).map(|qemu| qemu.serial);
            let agent = at.machine.qemu.get(&id).and_then(|qemu| qemu.agent());
            let linked = at.is_linked(id);
            let Some(daemon) = at.daemon.as_mut() else { continue };
            let known = daemon.links.contains_key(&id);
            let Some(guest) = daemon.guests.get_mut(&id) else {
                if serial.is_some() {
                    self.violate(format!("host{host} does not know {id}, which is there"));
                }
                continue;
            };
            if known && !linked {
                // Another QEMU, or none.
                self.unlink(host, id);
                continue;
            }
            if let (Some(serial), false) = (serial, linked) {
                let at = *daemon.relink_at.entry(id).or_insert(now + self.dice.between(1, 300));
                if now >= at {
                    daemon.relink_at.remove(&id);
                    daemon.links.insert(id, serial);
                    guest.handle(now, Event::LookAgain);
                    self.log(|| format!("host{host}: {id}'s monitor is connected"));
                }
                continue;
            }
            match agent {
                Some(pairs) if !guest.has_agent() => guest.handle(now, Event::AgentHello(pairs)),
                Some(pairs) => {
                    for (mac, pair) in pairs {
                        // Who lies about a switch goes on lying.
                        let lies = plant == Some(Plant::FailoverSkipped) && pair.on_primary;
                        if !lies && guest.agent_pair(mac) != Some(&pair) {
                            guest.handle(now, Event::AgentState(mac, pair));
                        }
                    }
                }
                None if guest.has_agent() => guest.handle(now, Event::AgentGone),
                None => {}
            }
        }
        self.guard(host);
    }

    /// The last fence: a migration or a save that nobody announced begins with a VF plugged, and is cancelled before RAM
    /// is copied. It needs nothing of the machine in `hybond-core`.
    pub(crate) fn guard(&mut self, host: usize) {
        for id in self.ids() {
            let qemu = self.hosts[host].machine.qemu.get(&id);
            let begins = qemu.is_some_and(|qemu| {
                qemu.migration == MigrationSeen::Active && !qemu.incoming && !qemu.copying && qemu.has_primary()
            });
            if begins && self.hosts[host].is_linked(id) {
                self.log(|| format!("host{host}: the guard cancels the migration of {id}"));
                self.tally.guarded += 1;
                self.migration_is(host, id, MigrationSeen::Idle);
            }
        }
    }
}
