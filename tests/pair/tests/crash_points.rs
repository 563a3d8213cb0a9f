//! A migration there and back, with either daemon crashing at each point where it can: before and after the journal is
//! written, after the effect, before it is told, before the record is removed.

use hybond_core::guest::Stage;
use hybond_core::ids::DomainId;
use hybond_test_pair::case::Case;
use hybond_test_pair::world::World;

/// A drain by the administrator, a plug, a migration there, one back, and a stop. Steps that a crash has spoilt are left out.
fn script(world: &mut World) {
    let Some(id) = world.ids().first().copied() else {
        return;
    };
    settle(world, id);
    for held_back in [true, false] {
        if let Some(home) = world.home(id) {
            world.hold_back(home, id, held_back);
            settle(world, id);
        }
    }
    for _ in 0..2 {
        if let Some(home) = world.home(id) {
            world.migrate(home, id);
            settle(world, id);
        }
    }
    if let Some(home) = world.home(id) {
        world.stop_domain(home, id);
    }
}

/// Until nothing is under way with the domain, and every daemon is up again.
fn settle(world: &mut World, id: DomainId) {
    world.until(|world| {
        let settled = |host: &hybond_test_pair::host::Host| {
            let Some(daemon) = &host.daemon else { return false };
            let guest = daemon.guests.get(&id);
            guest.is_none_or(|guest| guest.record().stage == Stage::Running && guest.in_flight().is_none())
        };
        !world.is_busy(id) && world.hosts.iter().all(settled)
    });
}

fn run(case: Case, crash_at: Option<(usize, u64)>) -> World {
    let mut world = World::new(case);
    world.crash_at = crash_at;
    script(&mut world);
    world.calm();
    if let Err(why) = world.verdict() {
        panic!("case {case}, crash at {crash_at:?}: {why}");
    }
    world
}

#[test]
fn a_crash_at_any_point_harms_nothing() {
    let mut crashes = 0;
    for seed in 0..2 {
        let case = Case {
            domains: 1,
            pairs: 1 + seed as u8,
            ..Case::peaceful(seed)
        };
        let points = run(case, None).points;
        for (host, count) in points.into_iter().enumerate() {
            assert!(count > 50, "host {host} has only {count} points to crash at");
            for point in 1..=count {
                crashes += run(case, Some((host, point))).tally.crashed;
            }
        }
    }
    assert!(crashes > 400, "only {crashes} crashes");
}
