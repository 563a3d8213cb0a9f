//! Random schedules: whatever is lost, repeated, late or crashed, the invariants hold.

use hybond_test_pair::case::{Case, Faults};
use hybond_test_pair::world::World;
use proptest::prelude::*;

fn run(case: Case) -> Result<World, String> {
    let mut world = World::new(case);
    for _ in 0..case.steps {
        world.step();
    }
    world.calm();
    world.verdict().map(|()| world)
}

#[test]
fn without_faults_every_migration_succeeds_and_ends_on_a_vf() {
    let mut migrated = 0;
    for seed in 0..40 {
        let case = Case::peaceful(seed);
        let world = run(case).unwrap_or_else(|why| panic!("case {case}: {why}"));
        assert_eq!(world.tally.stayed, 0, "case {case}: {:?}", world.refusals);
        migrated += world.tally.migrated;
    }
    assert!(
        migrated > 100,
        "only {migrated} migrations in all: the test tests nothing"
    );
}

/// Runs one case again, as another test has printed it, and prints what happened.
#[test]
fn replay() {
    let Ok(text) = std::env::var("HYBOND_PAIR_CASE") else {
        return;
    };
    let case: Case = text.parse().expect("HYBOND_PAIR_CASE");
    let mut world = World::new(case);
    world.trace = Some(Vec::new());
    for _ in 0..case.steps {
        world.step();
    }
    world.calm();
    for line in world.trace.iter().flatten() {
        eprintln!("{line}");
    }
    eprintln!("{:?}", world.tally);
    world.verdict().expect("the invariants hold");
}

prop_compose! {
    fn faults()(
        crash in 0u64..4,
        power in 0u64..4,
        lose in 0u64..30,
        repeat in 0u64..30,
        abort in 0u64..15,
        fail in 0u64..10,
        disk in 0u64..5,
        deaf in 0u64..15,
        disobey in 0u64..4,
    ) -> Faults {
        Faults { crash, power, lose, repeat, abort, fail, disk, deaf, disobey }
    }
}

prop_compose! {
    fn cases()(
        seed: u64,
        domains in 1u8..4,
        pairs in 1u8..3,
        vfs in 1u8..6,
        policy in 0u8..4,
        steps in 50u32..400,
        faults in faults(),
    ) -> Case {
        Case { seed, domains, pairs, vfs, policy, steps, faults }
    }
}

/// A thousand, or `PROPTEST_CASES`.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(1000),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_invariants_hold_whatever_happens(case in cases()) {
        if let Err(why) = run(case) {
            return Err(TestCaseError::fail(format!("{why}; HYBOND_PAIR_CASE={case}")));
        }
    }
}
