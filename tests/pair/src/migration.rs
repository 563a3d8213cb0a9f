//! A migration, as libvirt and two QEMUs do it.

use crate::libvirt::{Hook, Kind, Step};
use crate::world::World;
use hybond_core::Millis;
use hybond_core::guest::{Event, Job, MigrationSeen};
use hybond_core::ids::{DomainId, Mac};
use hybond_core::pool::Lease;
use hybond_core::spec::Policy;

/// Within which an administrator's word may still be the reason for a missing lease.
const TOUCHED: Millis = 200_000;

impl World {
    /// Begin: the domain is in the job; then the destination's hook.
    pub fn migrate(&mut self, from: usize, id: DomainId) {
        self.operation(id, Kind::Migrate { from });
        self.hosts[from].machine.active.insert(id, Job::Outgoing);
        let leases = self.hosts[from]
            .disk
            .get(&id)
            .into_iter()
            .flat_map(|record| &record.pairs);
        let machine = &self.hosts[from].machine;
        // One of another PF than the standby's is of no use to the pair: libvirt's network has chosen, and the VF is to be
        // given back.
        let fits = |lease: &&Lease| {
            machine
                .standby_of(lease.mac)
                .is_some_and(|standby| standby.pf == lease.vf.pf)
        };
        let had = leases
            .filter_map(|(mac, pair)| Some((*mac, pair.lease.as_ref().filter(fits)?.vf.id.clone())))
            .collect();
        if let Some(operation) = self.operations.get_mut(&id) {
            operation.had = had;
        }
        self.call_hook(1 - from, id, Hook::Migrate);
    }

    pub(crate) fn advance_migration(&mut self, from: usize, id: DomainId, step: Step) {
        let to = 1 - from;
        if !matches!(step, Step::Postcopy | Step::Confirm) && self.dice.chance(self.faults.abort) {
            return self.fail(id);
        }
        match step {
            Step::Launch => {
                self.launch(to, id, true);
                self.make_direct(to, id);
                self.step_to(id, Step::Started, 10, 500);
            }
            // Hook `started`, which stops it all where the daemon is down.
            Step::Started if self.hosts[to].daemon.is_none() => self.fail(id),
            Step::Started => {
                self.hosts[to].tell(self.now, id, Event::LookAgain);
                self.perform(from, id);
            }
            Step::Copy if self.dice.chance(25) => {
                self.cpus_run(from, id, false);
                self.hosts[to].machine.raise_direct(id);
                self.cpus_run(to, id, true);
                self.step_to(id, Step::Postcopy, 500, 5_000);
            }
            Step::Copy => {
                self.cpus_run(from, id, false);
                self.migration_is(from, id, MigrationSeen::Completed);
                self.migration_is(to, id, MigrationSeen::Completed);
                self.step_to(id, Step::Arrived, 70, 180);
            }
            Step::Arrived | Step::Postcopy => {
                if step == Step::Postcopy {
                    self.migration_is(from, id, MigrationSeen::Completed);
                    self.migration_is(to, id, MigrationSeen::Completed);
                } else {
                    self.arrived(to, id);
                }
                if let Some(qemu) = self.hosts[to].machine.qemu.get_mut(&id) {
                    qemu.incoming = false;
                }
                self.takes_xml(id);
                self.tally.migrated += 1;
                self.step_to(id, Step::Confirm, 1, 2_000);
            }
            Step::Confirm => {
                self.hosts[from].machine.end_qemu(id);
                let (release, job) = (Some(from), Some(to));
                self.step_to(id, Step::Cleanup { release, job }, 1, 500);
            }
            Step::Hook(_) | Step::Setup | Step::Cleanup { .. } => {}
        }
    }

    /// The destination's CPUs start: its macvtap was set up before, where nothing was in the way.
    fn arrived(&mut self, to: usize, id: DomainId) {
        self.hosts[to].machine.raise_direct(id);
        let up = |world: &Self| {
            let mut pairs = world.domains[&id].pairs.iter();
            pairs.all(|pair| world.hosts[to].machine.standby_up(pair.mac))
        };
        if self.peaceful && self.crash_at.is_none() && !up(self) {
            self.violate(format!("{id} starts on host{to} before its standby is up"));
        }
        self.cpus_run(to, id, true);
    }

    /// Perform: RAM. The hook has let the domain pass, so its VFs must be gone.
    fn perform(&mut self, from: usize, id: DomainId) {
        let to = 1 - from;
        let Some(source) = self.hosts[from].machine.qemu.get_mut(&id) else {
            return self.fail(id);
        };
        source.copying = true;
        if source.has_primary() {
            self.violate(format!("the destination's hook let {id} pass with its VF plugged"));
        }
        self.migration_is(from, id, MigrationSeen::Active);
        self.migration_is(to, id, MigrationSeen::Active);
        self.step_to(id, Step::Copy, 300, 6_000);
    }

    /// The operation fails where it is: what it has begun is taken down.
    pub(crate) fn fail(&mut self, id: DomainId) {
        let Some(operation) = self.operations.get(&id).cloned() else {
            return;
        };
        self.log(|| format!("libvirt: {id} fails in {:?}", operation.step));
        let prepared = !matches!(operation.step, Step::Hook(Hook::Migrate | Hook::Restore));
        match operation.kind {
            Kind::Start { host } => {
                self.hosts[host].machine.end_qemu(id);
                let release = prepared.then_some(host);
                self.step_to(id, Step::Cleanup { release, job: None }, 1, 500);
            }
            Kind::Migrate { from } => {
                self.tally.stayed += 1;
                let to = 1 - from;
                self.hosts[to].machine.end_qemu(id);
                if operation.step == Step::Copy {
                    self.migration_is(from, id, MigrationSeen::Idle);
                } else if operation.step == Step::Arrived {
                    // QEMU goes on saying "completed"; libvirt starts the CPUs again.
                    self.cpus_run(from, id, true);
                }
                let (release, job) = (prepared.then_some(to), Some(from));
                self.step_to(id, Step::Cleanup { release, job }, 1, 500);
            }
            Kind::Unasked { .. } => {}
        }
    }

    /// What fails ends with the VFs kept for the source.
    pub(crate) fn check_leases(&mut self, host: usize, id: DomainId) {
        let Some(operation) = self.operations.get(&id) else {
            return;
        };
        let touched = self.touched.get(&id).is_some_and(|at| self.now < at + TOUCHED);
        let here = self.hosts[host].machine.qemu.contains_key(&id);
        if operation.kind != (Kind::Migrate { from: host }) || touched || !here {
            return;
        }
        let record = self.hosts[host].disk.get(&id);
        let has = |mac| record.and_then(|record| record.pairs.get(mac)?.lease.as_ref());
        // With policy "never", a lease from before the policy was set goes back as soon as it is found, migration or not.
        let gives_back = |mac: &Mac| {
            let mut pairs = record.into_iter().flat_map(|record| &record.spec.pairs);
            pairs.any(|pair| pair.mac == *mac && pair.policy == Policy::Never)
        };
        let lost = operation
            .had
            .iter()
            .find(|(mac, vf)| !gives_back(mac) && has(mac).is_none_or(|lease| lease.vf.id != *vf));
        if let Some((_, vf)) = lost {
            let text = format!("{id} stays on host{host}, and has lost {vf}");
            self.violate(text);
        }
    }
}
