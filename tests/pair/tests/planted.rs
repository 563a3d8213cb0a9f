//! The harness finds what it is there to find: each planted bug, and the right invariant for it.

use hybond_test_pair::case::{Case, Faults};
use hybond_test_pair::plant::Plant;
use hybond_test_pair::world::World;

/// Cases that a planted bug may survive.
const CASES: u64 = 400;

fn case(seed: u64) -> Case {
    let faults = Faults {
        crash: 5,
        abort: 5,
        fail: 2,
        disobey: 1,
        ..Faults::default()
    };
    Case {
        seed,
        domains: 3,
        pairs: 1 + (seed % 2) as u8,
        vfs: 3,
        steps: 300,
        faults,
        ..Case::peaceful(seed)
    }
}

fn run(seed: u64, plant: Option<Plant>) -> Result<(), String> {
    let case = case(seed);
    let mut world = World::new(case);
    world.plant = plant;
    for _ in 0..case.steps {
        world.step();
    }
    world.calm();
    world.verdict()
}

/// What is found of a planted bug.
fn found(plant: Plant) -> String {
    let caught = (0..CASES).find_map(|seed| run(seed, Some(plant)).err());
    caught.unwrap_or_else(|| panic!("{plant:?} was not found in {CASES} cases"))
}

#[test]
fn every_planted_bug_is_found() {
    for plant in Plant::ALL {
        let what = found(plant);
        let expected: &[&str] = match plant {
            Plant::DrainedEarly => &["with its VF plugged"],
            Plant::HookPasses => &["with its VF plugged", "without its macvtaps", "claims the address"],
            Plant::DeletedEarly => &["with its VF plugged", "reset while it is plugged"],
            Plant::FailoverSkipped => &["carries the traffic"],
            Plant::TuneSkipped => &["does not take its groups", "is in mode", "takes"],
            Plant::RaiseSkipped => &["standby", "path"],
            Plant::ResetSkipped => &["still has the MAC"],
            Plant::RemoveSkipped => &["still has a macvtap"],
            Plant::JournalLate => &["still has", "leased", "does not know"],
            Plant::ReleaseEarly => &["leased", "claim", "on the disk"],
            Plant::JobForEver => &["outgoing", "not on a VF"],
            Plant::EventsVanish => &["standby", "is incoming", "is starting", "not on a VF", "not run"],
        };
        assert!(expected.iter().any(|part| what.contains(part)), "{plant:?}: {what}");
    }
}

#[test]
fn nothing_is_found_where_nothing_is_planted() {
    for seed in 0..CASES {
        assert_eq!(run(seed, None), Ok(()), "case {}", case(seed));
    }
}
