//! Each action, as it changes the machine. As `hybondd`'s adapters do it, and as Linux, QEMU and the guest's agent answer.

use crate::driver::failure;
use crate::plant::Plant;
use crate::world::World;
use hybond_core::Millis;
use hybond_core::guest::{Action, Event, Failure, MigrationSeen, Outcome, StandbySeen};
use hybond_core::ids::{DomainId, Mac, VfId};
use hybond_core::paths::{Multicast, StandbyMode};
use hybond_core::pool::Lease;

const NO_MONITOR: &str = "QEMU's monitor is not connected";

impl World {
    pub(crate) fn apply(&mut self, host: usize, id: DomainId, action: &Action) -> Result<Outcome, Failure> {
        let linked = self.hosts[host].is_linked(id);
        let now = self.now;
        let at = &mut self.hosts[host];
        match action {
            Action::Look { libvirt } => Ok(Outcome::Looked(at.look(id, *libvirt))),
            Action::LookAtJob => {
                let (domain, job) = at.libvirt(id);
                Ok(Outcome::Job(domain, job))
            }
            Action::Lease(ask) => {
                let patience = at.settings.retry_after * 2;
                let daemon = at.daemon.as_mut().ok_or_else(|| failure("down"))?;
                Ok(match daemon.book.lease_in_turn(ask, now, patience) {
                    Ok(lease) => Outcome::Leased(lease),
                    Err(none) => {
                        let (reason, pf) = (none.to_string(), daemon.book.standby_pf(ask));
                        match daemon.book.will_lease(ask, now, patience) {
                            true => Outcome::NotYet { reason, pf },
                            false => Outcome::NoVf { reason, pf },
                        }
                    }
                })
            }
            Action::ChoosePf(ask) => {
                let daemon = at.daemon.as_ref().ok_or_else(|| failure("down"))?;
                let pf = daemon.book.standby_pf(ask);
                let reason = String::new();
                Ok(Outcome::NoVf { reason, pf })
            }
            Action::MakeStandby { mac, pf, vf, .. } => {
                if at.machine.qemu.contains_key(&id) {
                    self.violate(format!("the standby of {id} is replaced under its QEMU"));
                }
                let vf = vf.as_ref().map(|lease| lease.vf.id.clone());
                if let Some(vf) = &vf {
                    self.check_below(host, *mac, vf);
                }
                let mode = match vf {
                    Some(_) => StandbyMode::Passthru,
                    None => StandbyMode::Bridge,
                };
                let made = StandbySeen::made(pf.clone(), false);
                let seen = StandbySeen { vf, mode, ..made };
                self.hosts[host].machine.standby.insert(*mac, seen.clone());
                Ok(Outcome::Standby(seen))
            }
            Action::RaiseStandby(mac) => self.raise_standby(host, id, *mac),
            Action::LowerStandby(mac) => {
                let Some(standby) = at.machine.standby.get_mut(mac) else {
                    return Err(failure("there is no such macvtap"));
                };
                standby.up = false;
                Ok(Outcome::Standby(standby.clone()))
            }
            Action::TuneStandby { mac, mode, multicast } => {
                let Some(standby) = at.machine.standby.get_mut(mac) else {
                    return Err(failure("there is no such macvtap"));
                };
                if self.plant != Some(Plant::TuneSkipped) {
                    (standby.mode, standby.multicast) = (*mode, multicast.clone());
                }
                Ok(Outcome::Done)
            }
            Action::ReadFilters if linked => {
                let qemu = at.machine.qemu.get(&id).ok_or_else(|| failure("no QEMU"))?;
                let wants = |(mac, nic): (&Mac, &crate::machine::Nic)| (*mac, nic.wants());
                Ok(Outcome::Filters(qemu.nics.iter().map(wants).collect()))
            }
            Action::RemoveStandby(mac) => {
                let used = at.machine.qemu.contains_key(&id);
                at.machine.standby.remove(mac);
                if used {
                    self.violate(format!("the standby of {id} is removed under its QEMU"));
                }
                Ok(Outcome::Done)
            }
            Action::PrepareVf { lease, .. } => {
                let below = at.machine.qemu.contains_key(&id) && at.machine.is_below_standby(&lease.vf.id);
                if below {
                    self.violate(format!("{} is bound anew under the standby of {id}", lease.vf.id));
                }
                let at = &mut self.hosts[host];
                at.machine.dressed.insert(lease.vf.id.clone(), lease.mac);
                Ok(Outcome::Done)
            }
            Action::Plug(lease) if linked => self.plug(host, id, lease),
            Action::Unplug(lease) if linked => self.unplug(host, id, lease),
            Action::Announce if linked => Ok(Outcome::Done),
            Action::Plug(_) | Action::Unplug(_) | Action::Announce | Action::ReadFilters => Err(failure(NO_MONITOR)),
            Action::Failover(mac) => self.switch(host, id, *mac, false),
            Action::Failback(mac) => self.switch(host, id, *mac, true),
            Action::ResetVf(lease) => {
                let plugged = at.machine.qemu.get(&id).and_then(|qemu| qemu.nics.get(&lease.mac));
                if plugged.is_some_and(|nic| nic.plugged.is_some()) {
                    self.violate(format!("the VF of {id} is reset while it is plugged"));
                }
                if self.hosts[host].machine.is_below_standby(&lease.vf.id) {
                    self.violate(format!("the VF of {id} is reset under its standby"));
                }
                self.hosts[host].machine.dressed.remove(&lease.vf.id);
                Ok(Outcome::Done)
            }
            Action::RepairXml { .. } => {
                let spec = self.domains.get_mut(&id).ok_or_else(|| failure("no such domain"))?;
                spec.source_peer = format!("host{host}").parse().ok();
                Ok(Outcome::Done)
            }
            Action::WritePolicies(policies) => {
                let spec = self.domains.get_mut(&id).ok_or_else(|| failure("no such domain"))?;
                for pair in &mut spec.pairs {
                    pair.policy = policies.get(&pair.mac).copied().unwrap_or(pair.policy);
                }
                Ok(Outcome::Done)
            }
            Action::Release(_) => Ok(Outcome::Done),
            Action::AskDrain { .. } | Action::Answer { .. } => Err(failure("driven elsewhere")),
        }
    }

    fn raise_standby(&mut self, host: usize, id: DomainId, mac: Mac) -> Result<Outcome, Failure> {
        // Two hosts must not claim one address: the source's CPUs have stopped before the destination's macvtap goes up.
        let arrived = |qemu: &crate::machine::Qemu| qemu.running || qemu.migration == MigrationSeen::Completed;
        let here = self.hosts[host].machine.qemu.get(&id).is_some_and(arrived);
        let there = self.hosts[1 - host]
            .machine
            .qemu
            .get(&id)
            .is_some_and(|qemu| qemu.running);
        let fell_back = self.operations.get(&id).is_some_and(|operation| operation.is_cleanup());
        if there && !here && !fell_back {
            self.violate(format!(
                "host{host} claims the address of {id}, which runs on the other"
            ));
        }
        let Some(standby) = self.hosts[host].machine.standby.get_mut(&mac) else {
            return Err(failure("there is no such macvtap"));
        };
        standby.up |= self.plant != Some(Plant::RaiseSkipped);
        let up = true;
        Ok(Outcome::Standby(StandbySeen { up, ..standby.clone() }))
    }

    /// A VF goes below a standby: it has the pair's MAC, and nobody else has the VF.
    fn check_below(&mut self, host: usize, mac: Mac, vf: &VfId) {
        let machine = &self.hosts[host].machine;
        let dressed = machine.dressed.get(vf) == Some(&mac);
        let mut others = machine.standby.iter().filter(|(other, _)| **other != mac);
        let shared = others.any(|(_, standby)| standby.vf.as_ref() == Some(vf));
        let mut nics = machine.qemu.values().flat_map(|qemu| qemu.nics.values());
        let plugged = nics.any(|nic| nic.plugged.as_ref() == Some(vf));
        if !dressed {
            self.violate(format!("the standby of {mac} is put over {vf}, which has not its MAC"));
        }
        if shared || plugged {
            self.violate(format!("the standby of {mac} is put over {vf}, which is in use"));
        }
    }

    fn plug(&mut self, host: usize, id: DomainId, lease: &Lease) -> Result<Outcome, Failure> {
        let ready_at = Some(self.now + self.dice.between(50, 3_000));
        let machine = &mut self.hosts[host].machine;
        let standby = machine.standby_of(lease.mac);
        let on_its_pf = standby.is_some_and(|standby| standby.pf == lease.vf.pf);
        let dressed = machine.dressed.get(&lease.vf.id) == Some(&lease.mac);
        let held = machine.qemu.iter().any(|(other, qemu)| {
            other != &id && qemu.nics.values().any(|nic| nic.plugged.as_ref() == Some(&lease.vf.id))
        });
        let held = held || machine.is_below_standby(&lease.vf.id);
        let Some(qemu) = machine.qemu.get_mut(&id) else {
            return Err(failure("no QEMU"));
        };
        if qemu.incoming || qemu.migration == MigrationSeen::Active {
            return Err(failure("device_add is not allowed during a migration"));
        }
        let Some(nic) = qemu.nics.get_mut(&lease.mac) else {
            return Err(failure("no such pair"));
        };
        if nic.plugged.is_none() {
            nic.plugged = Some(lease.vf.id.clone());
            nic.ready_at = ready_at;
        }
        if !on_its_pf {
            self.violate(format!("{id} gets a VF on another PF than its standby's"));
        }
        if held {
            self.violate(format!("{} is plugged into two guests", lease.vf.id));
        }
        if !dressed {
            self.violate(format!("{} is plugged into {id} without its MAC", lease.vf.id));
        }
        Ok(Outcome::Done)
    }

    fn unplug(&mut self, host: usize, id: DomainId, lease: &Lease) -> Result<Outcome, Failure> {
        let gone_at = self.now + self.dice.between(20, 6_000);
        let now: Millis = self.now;
        let up = self.hosts[host].machine.standby_up(lease.mac);
        let qemu = self.hosts[host].machine.qemu.get_mut(&id);
        let Some(nic) = qemu.and_then(|qemu| qemu.nics.get_mut(&lease.mac)) else {
            return Err(failure("no QEMU"));
        };
        if nic.plugged.is_none() {
            return Ok(Outcome::NotPlugged);
        }
        nic.gone_at.get_or_insert(gone_at);
        let on_primary = nic.on_primary;
        if on_primary {
            self.violate(format!(
                "{} is unplugged while it carries the traffic of {id}",
                lease.vf.id
            ));
        }
        if !up {
            self.violate(format!(
                "{} is unplugged from {id}, whose standby is not up",
                lease.vf.id
            ));
        }
        if self.plant == Some(Plant::DeletedEarly) {
            self.hosts[host].tell(now, id, Event::DeviceDeleted(lease.mac));
        }
        Ok(Outcome::Done)
    }

    fn switch(&mut self, host: usize, id: DomainId, mac: Mac, to_primary: bool) -> Result<Outcome, Failure> {
        let machine = &mut self.hosts[host].machine;
        let up = machine.standby_up(mac);
        let qemu = machine.qemu.get_mut(&id).filter(|qemu| qemu.running && qemu.agent);
        let nic = qemu.and_then(|qemu| qemu.nics.get_mut(&mac));
        let nic = nic.ok_or_else(|| failure("the agent does not answer"))?;
        // The agent proves the path before it takes it.
        if to_primary && !nic.primary_ready || !to_primary && !up {
            return Err(failure("the other path is not ready"));
        }
        let deaf = !to_primary
            && nic.on_primary
            && machine
                .standby
                .get(&mac)
                .is_some_and(|standby| standby.multicast != Multicast::Everything);
        nic.on_primary = to_primary;
        if deaf {
            self.violate(format!(
                "the traffic of {id} goes to a standby that does not take its groups"
            ));
        }
        let machine = &self.hosts[host].machine;
        let pairs = machine.qemu.get(&id).and_then(crate::machine::Qemu::agent);
        let pair = pairs.and_then(|pairs| pairs.get(&mac).copied());
        pair.map(Outcome::Switched).ok_or_else(|| failure("gone"))
    }
}
