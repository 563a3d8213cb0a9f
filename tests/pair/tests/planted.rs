//! The harness finds what it is there to find: each planted bug, and the right invariant for it.

use hybond_test_pair::case::{Case, Faults};
use hybond_test_pair::invariants;
use hybond_test_pair::plant::Plant;
use hybond_test_pair::world::World;

/// Cases in which a planted bug is looked for.
const CASES: u64 = 200;

/// Cases in which it must be found at least: what is found by luck is not found.
const FOUND: usize = 10;

/// Every other one without faults, where even what is late by a moment is noticed.
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
        pairs: 1 + (seed / 2 % 2) as u8,
        vfs: 3,
        steps: 300,
        faults: if seed % 2 == 0 { faults } else { Faults::default() },
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

/// What is found of it, whichever of its consequences is seen first.
fn consequences(plant: Plant) -> &'static [&'static str] {
    match plant {
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
    }
}

fn is_expected(plant: Plant, what: &str) -> bool {
    consequences(plant).iter().any(|part| what.contains(part))
}

#[test]
fn every_planted_bug_is_found_and_not_by_luck() {
    for plant in Plant::ALL {
        let found: Vec<String> = (0..CASES).filter_map(|seed| run(seed, Some(plant)).err()).collect();
        eprintln!("{plant:?}: found in {} of {CASES} cases", found.len());
        assert!(
            found.len() >= FOUND,
            "{plant:?} is found in {} of {CASES} cases",
            found.len()
        );
        for what in found {
            assert!(is_expected(plant, &what), "{plant:?}: {what}");
        }
    }
}

#[test]
fn every_invariant_of_the_protocol_has_a_bug_that_breaks_it() {
    for (number, words) in invariants::ALL {
        let broken: Vec<Plant> = Plant::ALL
            .into_iter()
            .filter(|plant| plant.breaks() == number)
            .collect();
        assert!(!broken.is_empty(), "{number}");
        eprintln!("to break invariant {number}, {words}: {broken:?}");
    }
}

#[test]
fn nothing_is_found_where_nothing_is_planted() {
    for seed in 0..CASES {
        assert_eq!(run(seed, None), Ok(()), "case {}", case(seed));
    }
}
