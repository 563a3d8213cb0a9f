//! Two guests that want the same thing at once. Each for many seeds: the order of everything is chance.

use hybond_core::ids::DomainId;
use hybond_core::spec::Policy;
use hybond_test_pair::case::{Case, Faults};
use hybond_test_pair::world::{World, pool};

const SEEDS: u64 = 30;

fn world(case: Case) -> (World, DomainId, DomainId) {
    let mut world = World::new(case);
    let ids = world.ids();
    let [a, b] = ids[..] else { panic!("two domains") };
    assert!(settles(&mut world), "case {case}: they start");
    (world, a, b)
}

/// Until libvirt is done, and every guest is as its policy would have it or it is known why not.
fn settles(world: &mut World) -> bool {
    let done = world.until(|world| {
        let mut guests = world.hosts.iter().filter_map(|host| host.daemon.as_ref());
        let settled = guests.all(|daemon| daemon.guests.values().all(|guest| guest.is_settled()));
        settled && world.ids().iter().all(|id| !world.is_busy(*id))
    });
    world.verdict().expect("the invariants hold");
    done
}

fn on_vf(world: &World, id: DomainId) -> bool {
    let qemu = world.hosts.iter().find_map(|host| host.machine.qemu.get(&id));
    qemu.is_some_and(|qemu| qemu.nics.values().all(|nic| nic.on_primary))
}

fn case(seed: u64, vfs: u8, policy: u8) -> Case {
    Case {
        vfs,
        policy,
        ..Case::peaceful(seed)
    }
}

#[test]
fn of_two_that_come_for_the_last_vf_one_runs_on_its_standby() {
    for seed in 0..SEEDS {
        let (mut world, a, b) = world(case(seed, 1, 0));
        assert!(on_vf(&world, a) != on_vf(&world, b), "seed {seed}");
        world.migrate(0, a);
        world.migrate(0, b);
        assert!(settles(&mut world), "seed {seed}");
        assert_eq!((world.home(a), world.home(b)), (Some(1), Some(1)), "seed {seed}");
        assert!(on_vf(&world, a) != on_vf(&world, b), "seed {seed}");
    }
}

#[test]
fn of_two_that_require_the_last_vf_one_stays_where_it_has_one() {
    for seed in 0..SEEDS {
        let (mut world, a, b) = world(case(seed, 2, 1));
        // The other host has lost one of its two.
        for vfs in world.hosts[1].pools.values_mut() {
            vfs.truncate(1);
        }
        world.crash(1);
        world.until(|world| world.hosts[1].daemon.is_some());
        world.migrate(0, a);
        world.migrate(0, b);
        assert!(settles(&mut world), "seed {seed}");
        assert_ne!(world.home(a), world.home(b), "seed {seed}: {:?}", world.refusals);
        assert!(on_vf(&world, a) && on_vf(&world, b), "seed {seed}");
        assert!(world.refusals.iter().any(|why| why.contains("require")), "seed {seed}");
    }
}

#[test]
fn a_guest_on_its_standby_takes_the_vf_that_another_gives_back() {
    for seed in 0..SEEDS {
        let (mut world, a, b) = world(case(seed, 1, 0));
        let (has, waits) = if on_vf(&world, a) { (a, b) } else { (b, a) };
        if seed % 2 == 0 {
            world.migrate(0, has);
        } else {
            world.hold_back(0, has, true);
        }
        assert!(world.until(|world| on_vf(world, waits)), "seed {seed}");
        assert_eq!(world.home(waits), Some(0), "seed {seed}");
    }
}

#[test]
fn freed_vfs_go_to_who_has_waited_longest() {
    for seed in 0..SEEDS {
        let mut world = World::new(Case {
            domains: 4,
            ..case(seed, 1, 0)
        });
        assert!(settles(&mut world), "seed {seed}: they start");
        let has = |world: &World| world.ids().into_iter().find(|id| on_vf(world, *id));
        let queue = |world: &World| -> Vec<DomainId> {
            let daemon = world.hosts[0].daemon.as_ref().expect("it is up");
            daemon.book.waiting(&pool()).map(|ask| ask.domain).collect()
        };
        let mut order = queue(&world);
        assert_eq!(order.len(), 3, "seed {seed}");
        order.insert(0, has(&world).expect("one of them"));
        // Each in turn gives the VF back; who was given it before does not wait for it again.
        for turn in order.windows(2) {
            world.hold_back(0, turn[0], true);
            let next = world.until(|world| on_vf(world, turn[1]) && !world.is_busy(turn[0]));
            assert!(next, "seed {seed}: {} after {}", turn[1], turn[0]);
        }
        world.verdict().expect("the invariants hold");
    }
}

#[test]
fn a_policy_that_is_set_counts_at_once_and_on_the_next_host() {
    for seed in 0..SEEDS {
        let (mut world, a, b) = world(case(seed, 1, 0));
        let (has, waits) = if on_vf(&world, a) { (a, b) } else { (b, a) };
        world.set_policy(0, has, Policy::Never);
        assert!(world.until(|world| on_vf(world, waits)), "seed {seed}");
        assert!(settles(&mut world), "seed {seed}");
        world.migrate(0, has);
        assert!(settles(&mut world), "seed {seed}");
        assert_eq!(world.home(has), Some(1), "seed {seed}");
        assert!(
            !on_vf(&world, has),
            "seed {seed}: the other host has a VF, and knows better"
        );
        world.set_policy(1, has, Policy::Require);
        assert!(world.until(|world| on_vf(world, has)), "seed {seed}");
        world.calm();
        world.verdict().expect("nothing is left");
    }
}

#[test]
fn who_requires_a_vf_waits_for_one_that_is_on_its_way_back() {
    for seed in 0..SEEDS {
        let (mut world, a, b) = world(case(seed, 1, 1));
        let (has, other) = if world.home(a).is_some() { (a, b) } else { (b, a) };
        assert_eq!(world.home(other), None, "seed {seed}: there is one VF");
        if seed % 2 == 0 {
            // It has to come from the other host, whose VF is free.
            world.start_domain(1, other);
            assert!(settles(&mut world) && on_vf(&world, other), "seed {seed}");
        }
        world.refusals.clear();
        world.stop_domain(0, has);
        assert!(
            world.until(|world| !world.is_busy(has)),
            "seed {seed}: libvirt has ended it"
        );
        if seed % 2 == 0 {
            world.migrate(1, other);
        } else {
            world.start_domain(0, other);
        }
        assert!(settles(&mut world), "seed {seed}");
        assert_eq!(world.refusals, Vec::<String>::new(), "seed {seed}");
        assert_eq!(world.home(other), Some(0), "seed {seed}");
        assert!(on_vf(&world, other), "seed {seed}");
        world.calm();
        world.verdict().expect("nothing is left");
    }
}

#[test]
fn guests_cross_in_both_directions_at_once() {
    for seed in 0..SEEDS {
        let (mut world, a, b) = world(case(seed, 1, 0));
        world.migrate(0, a);
        let each = world.until(|world| on_vf(world, a) && on_vf(world, b) && !world.is_busy(a));
        assert!(each && settles(&mut world), "seed {seed}: a VF for each");
        world.migrate(1, a);
        world.migrate(0, b);
        assert!(settles(&mut world), "seed {seed}");
        assert_eq!((world.home(a), world.home(b)), (Some(0), Some(1)), "seed {seed}");
        assert_eq!(world.tally.stayed, 0, "seed {seed}: {:?}", world.refusals);
        world.calm();
        world.verdict().expect("nothing is left");
    }
}

#[test]
fn answers_of_an_earlier_migration_let_no_later_one_pass() {
    let mut migrated = 0;
    for seed in 0..SEEDS {
        let (mut world, a, _) = world(case(seed, 4, 0));
        // Every message comes twice, the second time when it will; every other operation is given up.
        world.faults = Faults {
            repeat: 100,
            lose: 1,
            abort: 15,
            ..Faults::default()
        };
        for _ in 0..12 {
            if let Some(home) = world.home(a).filter(|_| !world.is_busy(a)) {
                world.migrate(home, a);
            }
            for _ in 0..20 {
                world.turn();
            }
        }
        world.calm();
        world.verdict().expect("the invariants hold");
        migrated += world.tally.migrated;
    }
    assert!(migrated > 20, "{migrated}");
}

#[test]
fn a_migration_that_no_hook_announces_leaves_the_vf_where_it_is() {
    for seed in 0..SEEDS {
        let (mut world, a, b) = world(case(seed, 4, 0));
        world.unasked(0, a, true);
        world.unasked(0, b, false);
        assert!(settles(&mut world), "seed {seed}");
        assert_eq!(world.tally.guarded, 2, "seed {seed}");
        assert!(on_vf(&world, a) && on_vf(&world, b), "seed {seed}");
        assert_eq!((world.home(a), world.home(b)), (Some(0), Some(0)), "seed {seed}");
    }
}

#[test]
fn a_drained_guest_is_saved_and_comes_back_on_a_vf() {
    for seed in 0..SEEDS {
        let (mut world, a, _) = world(case(seed, 4, 0));
        world.hold_back(0, a, true);
        assert!(settles(&mut world), "seed {seed}");
        assert!(!on_vf(&world, a), "seed {seed}");
        world.unasked(0, a, true);
        assert!(settles(&mut world), "seed {seed}");
        assert_eq!((world.home(a), world.tally.saved), (None, 1), "seed {seed}");
        // From its file, on this host or on the other.
        let there = usize::from(seed % 2 == 1);
        world.start_domain(there, a);
        assert!(settles(&mut world), "seed {seed}");
        assert_eq!(world.home(a), Some(there), "seed {seed}");
        assert!(on_vf(&world, a), "seed {seed}");
    }
}
