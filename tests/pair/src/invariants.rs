//! What must hold. The numbers are those of `docs/design.md`.

use crate::machine::Qemu;
use crate::world::World;
use hybond_core::guest::{Stage, StandbySeen};
use std::collections::BTreeMap;

/// 2: a VF is unplugged only once the guest runs on a standby that is up.
pub fn may_unplug(standby: Option<&StandbySeen>, qemu: &Qemu) {
    assert!(!qemu.on_primary, "a VF is unplugged that carries the guest's traffic");
    assert!(
        standby.is_some_and(|standby| standby.up),
        "a VF is unplugged, and the standby is not up"
    );
}

/// After every step.
pub fn always(world: &World) {
    for host in &world.hosts {
        for (id, qemu) in &host.machine.qemu {
            // 1: no VF is plugged while RAM is copied.
            assert!(
                !(qemu.copying && qemu.plugged.is_some()),
                "RAM of {id} is copied with a VF plugged"
            );
            // 2: a guest that runs has a path.
            let mac = world.domains[id];
            let standby_up = host.machine.standby.get(&mac).is_some_and(|standby| standby.up);
            let primary = qemu.on_primary && qemu.plugged.is_some();
            // In the moment of its arrival the macvtap may still be on its way up, if the daemon was just restarted.
            let settled = host.daemon.as_ref().is_some_and(|daemon| {
                daemon
                    .guests
                    .get(id)
                    .is_some_and(|guest| guest.record().stage == Stage::Running)
            });
            assert!(
                !qemu.running || primary || standby_up || !settled,
                "{id} runs without a path"
            );
        }
        // 3: a VF has one lease, on the disk and in the machine.
        let mut holders = BTreeMap::new();
        for record in host.disk.values() {
            for lease in record.pairs.values().filter_map(|pair| pair.lease.as_ref()) {
                let other = holders.insert(&lease.vf.id, record.spec.id);
                assert!(
                    other.is_none(),
                    "{} is leased to {} and {other:?}",
                    lease.vf.id,
                    record.spec.id
                );
            }
        }
        for (id, qemu) in &host.machine.qemu {
            if let Some(vf) = &qemu.plugged {
                assert_eq!(
                    holders.get(vf),
                    Some(id),
                    "{vf} is plugged into {id} without a lease of its"
                );
            }
        }
    }
}

/// When all is quiet.
pub fn at_rest(world: &World) {
    for (n, host) in world.hosts.iter().enumerate() {
        for (id, mac) in &world.domains {
            if host.machine.qemu.contains_key(id) {
                continue;
            }
            // 4: nothing is left of a domain that is not here.
            assert!(
                !host.machine.standby.contains_key(mac),
                "host {n} still has the macvtap of {id}"
            );
            assert!(
                !host.disk.contains_key(id),
                "host {n} still has a record of {id}: {:?}",
                host.disk[id]
            );
            let dressed = host.machine.dressed.values().any(|of| of == mac);
            assert!(!dressed, "host {n} still has a VF with the MAC of {id}");
            let daemon = host.daemon.as_ref().expect("up");
            assert!(
                daemon.book.leases().all(|lease| lease.domain != *id),
                "host {n} still has a lease of {id}"
            );
        }
        // 5: a guest that is here has its VF, if it wants one and one is free on its PF.
        for (id, qemu) in &host.machine.qemu {
            assert!(qemu.running, "{id} does not run on host {n}");
            let record = host.disk.get(id).expect("a record");
            let pair = &record.pairs[&world.domains[id]];
            let daemon = host.daemon.as_ref().expect("up");
            let free = host
                .pools
                .values()
                .flatten()
                .any(|vf| Some(&vf.pf) == pair.pf.as_ref() && daemon.book.holder(&vf.id).is_none());
            let wanted = pair.held_back.is_none() && (pair.lease.is_some() || free);
            assert!(
                !wanted || qemu.on_primary && qemu.plugged.is_some(),
                "{id} is not on a VF on host {n}: {record:?}"
            );
        }
    }
}
