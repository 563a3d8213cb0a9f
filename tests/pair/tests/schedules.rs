//! Random schedules: whatever is lost, repeated, late or crashed, the invariants hold.

use hybond_core::spec::Policy;
use hybond_test_pair::world::{Faults, World};
use proptest::prelude::*;

fn run(seed: u64, domains: u8, vfs: u32, policy: Policy, faults: Faults) -> World {
    let mut world = World::new(seed, domains, vfs, policy, faults);
    for _ in 0..1500 {
        world.step();
    }
    world.calm();
    world
}

#[test]
fn without_faults_every_migration_succeeds_and_ends_on_a_vf() {
    let mut succeeded = 0;
    for seed in 0..20 {
        let world = run(seed, 2, 4, Policy::Prefer, Faults::default());
        assert_eq!(world.ended.1, 0, "seed {seed}: {:?}", world.refusals);
        succeeded += world.ended.0;
    }
    assert!(
        succeeded > 20,
        "only {succeeded} migrations in all: the test tests nothing"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold_whatever_happens(
        seed: u64,
        domains in 1u8..4,
        vfs in 1u32..5,
        require: bool,
        crash in 0u64..4,
        lose in 0u64..30,
        repeat in 0u64..30,
        abort in 0u64..3,
        fail in 0u64..10,
        disobey in 0u64..3,
    ) {
        let policy = if require { Policy::Require } else { Policy::Prefer };
        let faults = Faults { crash, lose, repeat, abort, fail, disobey };
        run(seed, domains, vfs, policy, faults);
    }
}
