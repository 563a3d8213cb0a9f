//! What must hold. The numbers are those of `docs/design.md`.

use crate::world::World;
use hybond_core::paths::StandbyMode;
use hybond_core::spec::Flavor;
use std::collections::BTreeMap;

/// Those that are looked at here, by their numbers.
pub const ALL: [(u8, &str); 5] = [
    (1, "no VF is plugged while QEMU copies or saves RAM"),
    (2, "the guest always has a working path"),
    (3, "a VF has one lease, also after a crash"),
    (4, "nothing is left behind"),
    (
        5,
        "whatever fails before QEMU's migrate ends with the VF in the guest on the source",
    ),
];

/// After every step.
pub fn always(world: &mut World) {
    if let Some(text) = broken(world) {
        world.violate(text);
    }
    // A guest that arrives has its path a moment later at the latest; from then on it has one.
    for host in &mut world.hosts {
        let machine = &mut host.machine;
        for qemu in machine.qemu.values_mut() {
            for (mac, nic) in &mut qemu.nics {
                let standby = machine.standby.get(mac).or_else(|| machine.direct.get(mac));
                let standby = standby.is_some_and(|standby| standby.up);
                nic.pathed |= qemu.running && (standby || nic.on_primary && nic.plugged.is_some());
            }
        }
    }
}

fn broken(world: &World) -> Option<String> {
    for (n, host) in world.hosts.iter().enumerate() {
        let machine = &host.machine;
        // 3: a VF has one lease, on the disk as in the machine.
        let mut holders = BTreeMap::new();
        for record in host.disk.values() {
            for (mac, pair) in &record.pairs {
                let Some(lease) = &pair.lease else { continue };
                if let Some(other) = holders.insert(&lease.vf.id, (record.spec.id, *mac)) {
                    return Some(format!("{} is leased to {} and {other:?}", lease.vf.id, record.spec.id));
                }
            }
        }
        for (id, qemu) in &machine.qemu {
            // 1: no VF is plugged while RAM is copied.
            if qemu.copying && qemu.has_primary() {
                return Some(format!("RAM of {id} is copied with a VF plugged"));
            }
            for (mac, nic) in &qemu.nics {
                // 2: a guest that runs has a path.
                let path = machine.standby_up(*mac) || nic.on_primary && nic.plugged.is_some();
                if qemu.running && nic.pathed && !path {
                    return Some(format!("pair {mac} of {id} has lost its path on host{n}"));
                }
                // 3, of the machine.
                let holder = nic.plugged.as_ref().map(|vf| (vf, holders.get(vf)));
                if let Some((vf, holder)) = holder.filter(|(_, holder)| *holder != Some(&(*id, *mac))) {
                    return Some(format!("{vf} is plugged into {id}, and leased to {holder:?}"));
                }
            }
        }
        // 3, of VFs below standbys.
        for (mac, standby) in &machine.standby {
            let Some(vf) = &standby.vf else { continue };
            let holder = holders.get(vf).map(|(_, of)| *of);
            if holder != Some(*mac) {
                return Some(format!(
                    "the standby of {mac} is over {vf}, which is leased to {holder:?}"
                ));
            }
        }
        // 3, of the pool: what a record names is nobody else's.
        let book = host.daemon.as_ref().map(|daemon| &daemon.book);
        for (vf, (id, mac)) in holders {
            let Some(book) = book else { continue };
            let other = book.holder(vf).filter(|lease| (lease.domain, lease.mac) != (id, mac));
            if let Some(other) = other {
                return Some(format!("{vf} is {id}'s on the disk and {}'s in the pool", other.domain));
            }
        }
    }
    None
}

/// What is still to be done; `None` when all is quiet and as it should be.
#[must_use]
pub fn restless(world: &World) -> Option<String> {
    if let Some(id) = world.operations.keys().next() {
        return Some(format!("libvirt never ends with {id}"));
    }
    for (n, host) in world.hosts.iter().enumerate() {
        let Some(daemon) = &host.daemon else {
            return Some(format!("host{n} is down"));
        };
        for (id, spec) in &world.domains {
            let Some(qemu) = host.machine.qemu.get(id) else {
                // 4: nothing is left of a domain that is not here.
                let standby = spec
                    .pairs
                    .iter()
                    .any(|pair| host.machine.standby_of(pair.mac).is_some());
                let left = [
                    (standby, "a macvtap"),
                    (host.disk.contains_key(id), "a record"),
                    (daemon.guests.contains_key(id), "a task"),
                    (daemon.book.leases().any(|lease| lease.domain == *id), "a lease"),
                ];
                if let Some((_, what)) = left.iter().find(|(left, _)| *left) {
                    let record = host.disk.get(id);
                    return Some(format!("host{n} still has {what} of {id}: {record:?}"));
                }
                continue;
            };
            if !qemu.running {
                return Some(format!("{id} does not run on host{n}"));
            }
            let (Some(record), Some(guest)) = (host.disk.get(id), daemon.guests.get(id)) else {
                return Some(format!("host{n} has no record of {id}"));
            };
            if record.stage != hybond_core::guest::Stage::Running {
                return Some(format!("{id} is {} on host{n}", record.stage_name()));
            }
            // An XML that cannot be put right is left as it is at last, and that is said.
            let stale = record.xml_stale && spec.pairs.iter().any(|pair| guest.degraded(pair.mac).is_none());
            if record != guest.record().as_ref() || record.arrived || stale || !record.unwritten.is_empty() {
                return Some(format!("something is still to be done for {id} on host{n}: {record:?}"));
            }
            for pair in &spec.pairs {
                let (nic, has) = (&qemu.nics[&pair.mac], &record.pairs[&pair.mac]);
                let on_primary = nic.on_primary && nic.plugged.is_some();
                // 2.
                if !host.machine.standby_up(pair.mac) {
                    return Some(format!("pair {} of {id} has no standby on host{n}", pair.mac));
                }
                if let Some(standby) = host.machine.standby.get(&pair.mac) {
                    let mode = match &standby.vf {
                        Some(_) => StandbyMode::Passthru,
                        None if on_primary => StandbyMode::Vepa,
                        None => StandbyMode::Bridge,
                    };
                    if standby.mode != mode {
                        return Some(format!("the standby of {id} is in mode {:?} on host{n}", standby.mode));
                    }
                    let at_rest = on_primary || has.lease.is_none() || standby.vf.is_some();
                    if at_rest && standby.multicast != nic.wants() {
                        return Some(format!("the standby of {id} takes {:?} on host{n}", standby.multicast));
                    }
                }
                // 5: it has its VF, if it wants one and one is free on its PF.
                let mut of_pf = host
                    .pools
                    .values()
                    .flatten()
                    .filter(|vf| Some(&vf.pf) == has.pf.as_ref());
                let free = of_pf.any(|vf| daemon.book.holder(&vf.id).is_none());
                let indirect = pair.flavor() == Flavor::Indirect;
                let wanted = pair.flavor() == Flavor::Hybrid && has.held_back.is_none();
                let below = host
                    .machine
                    .standby
                    .get(&pair.mac)
                    .and_then(|standby| standby.vf.as_ref());
                if indirect && below != has.lease.as_ref().map(|lease| &lease.vf.id) {
                    return Some(format!(
                        "pair {} of {id} is over {below:?} on host{n}: {record:?}",
                        pair.mac
                    ));
                }
                if indirect && below.is_none() && guest.degraded(pair.mac).is_none() {
                    return Some(format!(
                        "pair {} of {id} does not say that it is on a PF on host{n}",
                        pair.mac
                    ));
                }
                if wanted && (free || has.lease.is_some()) && !on_primary {
                    return Some(format!(
                        "pair {} of {id} is not on a VF on host{n}: {record:?}",
                        pair.mac
                    ));
                }
                if !wanted && (has.lease.is_some() && !indirect || nic.plugged.is_some()) {
                    return Some(format!("pair {} of {id} has a VF on host{n}: {record:?}", pair.mac));
                }
            }
        }
        // 4: only a VF that is plugged has a guest's MAC; only what a record names is leased.
        for (vf, mac) in &host.machine.dressed {
            let plugged = |qemu: &crate::machine::Qemu| {
                let nic = qemu.nics.get(mac);
                nic.is_some_and(|nic| nic.plugged.as_ref() == Some(vf))
            };
            if !host.machine.qemu.values().any(plugged) && !host.machine.is_below_standby(vf) {
                return Some(format!("{vf} of host{n} still has the MAC {mac}"));
            }
        }
        for lease in daemon.book.leases() {
            let record = host
                .disk
                .get(&lease.domain)
                .and_then(|record| record.pairs.get(&lease.mac));
            if record.and_then(|pair| pair.lease.as_ref()) != Some(lease) {
                return Some(format!("{} of host{n} is leased to no record", lease.vf.id));
            }
        }
    }
    None
}
