//! Misfortune, and what people want.

use crate::libvirt::{Kind, Step};
use crate::link::Waiter;
use crate::world::World;
use hybond_core::guest::Request;
use hybond_core::ids::{DomainId, Mac};
use hybond_core::spec::Policy;
use std::collections::BTreeSet;

impl World {
    pub(crate) fn misfortune(&mut self) {
        let faults = self.faults;
        for host in 0..2 {
            if self.dice.rarely(faults.crash) {
                self.crash(host);
            }
            if self.dice.rarely(faults.power) {
                self.power_cut(host);
            }
            let ids: Vec<DomainId> = self.hosts[host].machine.qemu.keys().copied().collect();
            for id in ids {
                if self.dice.chance(faults.deaf) && self.dice.chance(20) {
                    self.unlink(host, id);
                }
                if self.dice.chance(faults.disobey) {
                    self.disobey(host, id);
                }
            }
        }
    }

    fn disobey(&mut self, host: usize, id: DomainId) {
        let what = self.dice.pick(5);
        let machine = &mut self.hosts[host].machine;
        let Some(qemu) = machine.qemu.get_mut(&id) else {
            return;
        };
        match what {
            0 | 1 => qemu.obedient = !qemu.obedient,
            2 | 3 => qemu.agent = !qemu.agent,
            _ => {
                let plugged = qemu.nics.iter().filter(|(_, nic)| nic.plugged.is_some());
                let macs: Vec<Mac> = plugged.map(|(mac, _)| *mac).filter(|_| qemu.running).collect();
                // A guest that throws its VF out while its standby is down has cut itself off.
                if let Some(mac) = macs.into_iter().find(|mac| machine.standby_up(*mac)) {
                    self.lose_primary(host, id, mac);
                }
            }
        }
    }

    /// The host's memory is gone, and every QEMU; the disk stays.
    pub fn power_cut(&mut self, host: usize) {
        self.log(|| format!("host{host}: the power is cut"));
        let lost: Vec<DomainId> = self.hosts[host].machine.qemu.keys().copied().collect();
        self.crash(host);
        for id in self.ids() {
            if let Some(operation) = self.operations.get(&id) {
                let (kind, step) = (operation.kind, operation.step);
                self.cut_off(host, id, kind, step);
            }
        }
        self.hosts[host].machine = crate::machine::Machine::default();
        self.whispers.retain(|(_, at, _)| *at != host);
        for id in lost {
            self.log(|| format!("host{host}: {id} is lost"));
        }
    }

    /// An operation that has lost one of its hosts: until the CPUs have moved, the guest stays where it was.
    fn cut_off(&mut self, host: usize, id: DomainId, kind: Kind, step: Step) {
        match (kind, step) {
            (_, Step::Cleanup { .. }) => {}
            (Kind::Migrate { from }, Step::Confirm) if host == from => {
                let (release, job) = (None, Some(1 - from));
                self.step_to(id, Step::Cleanup { release, job }, 1, 500);
            }
            // What is left of it is half a guest.
            (Kind::Migrate { .. }, Step::Confirm | Step::Postcopy) => self.stop_domain(1 - host, id),
            _ => {
                self.abandon(|waiter| matches!(waiter, Waiter::Hook { id: of, .. } if *of == id));
                self.fail(id);
            }
        }
    }

    /// Somebody wants something of libvirt or of hybondctl.
    pub(crate) fn intend(&mut self) {
        let ids = self.ids();
        let id = ids[self.dice.pick(ids.len())];
        let host = (0..2).find(|host| self.hosts[*host].machine.qemu.contains_key(&id));
        if self.dice.chance(3) {
            if let Some(host) = host {
                self.control(host, id);
            }
        }
        if self.operations.contains_key(&id) || !self.dice.chance(15) {
            return;
        }
        let Some(home) = self.home(id) else {
            // In a QEMU that does not run it waits for a power that is gone; otherwise it is started somewhere.
            if host.is_none() {
                let host = self.saved.get(&id).copied().unwrap_or(self.dice.pick(2));
                self.start_domain(host, id);
            }
            return;
        };
        let settled = self.hosts[home].guest(id).is_some_and(|guest| guest.is_settled());
        if self.peaceful && !settled {
            return;
        }
        // A guard that is not there guards nothing: see docs.
        let guarded = self.hosts[home].is_linked(id);
        match self.dice.pick(100) {
            0..10 if guarded => self.unasked(home, id, true),
            10..20 if guarded => self.unasked(home, id, false),
            20..26 => self.stop_domain(home, id),
            _ => self.migrate(home, id),
        }
    }

    fn control(&mut self, host: usize, id: DomainId) {
        if self.dice.chance(25) {
            let policies = [Policy::Prefer, Policy::Require, Policy::Never];
            let policy = policies[self.dice.pick(policies.len())];
            return self.set_policy(host, id, policy);
        }
        let back = self.dice.chance(40);
        self.hold_back(host, id, back);
    }

    /// `hybondctl set`.
    pub fn set_policy(&mut self, host: usize, id: DomainId, policy: Policy) {
        self.wish(host, id, Request::SetPolicy(BTreeSet::new(), policy));
    }

    /// `hybondctl drain`, `hybondctl plug`.
    pub fn hold_back(&mut self, host: usize, id: DomainId, back: bool) {
        self.wish(host, id, if back { Request::HoldBack } else { Request::Plug });
    }

    fn wish(&mut self, host: usize, id: DomainId, request: Request) {
        self.touched.insert(id, self.now);
        let until = self.now + 150_000;
        self.ask(host, id, request, Waiter::Control { id, until });
    }
}
