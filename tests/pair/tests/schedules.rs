//! Random schedules: whatever is lost, repeated, late or crashed, the invariants hold.

use hybond_core::spec::Flavor;
use hybond_test_pair::case::{Case, Faults};
use hybond_test_pair::invariants;
use hybond_test_pair::world::World;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestError, TestRunner};
use std::cell::Cell;
use std::ops::{Range, RangeInclusive};

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

/// Often none, so that what is rare meets runs in which little else goes wrong.
fn often_none(most: u64) -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..=most]
}

prop_compose! {
    fn faults()(
        crash in often_none(25),
        power in often_none(4),
        lose in often_none(30),
        repeat in often_none(50),
        abort in often_none(12),
        fail in often_none(10),
        disk in often_none(5),
        deaf in often_none(15),
        disobey in often_none(4),
    ) -> Faults {
        Faults { crash, power, lose, repeat, abort, fail, disk, deaf, disobey }
    }
}

prop_compose! {
    fn cases_of(domains: RangeInclusive<u8>, pairs: RangeInclusive<u8>, steps: Range<u32>)(
        seed: u64,
        domains in domains,
        pairs in pairs,
        vfs in 1u8..6,
        policy in 0u8..4,
        direct: bool,
        network: bool,
        flavor in prop_oneof![Just(0u8), 0u8..4],
        steps in steps,
        faults in faults(),
    ) -> Case {
        Case { seed, domains, pairs, vfs, policy, direct, network, flavor, steps, faults }
    }
}

/// Mostly few guests for a short time, which is where most is found for what it costs; some crowded and long.
fn cases() -> impl Strategy<Value = Case> {
    prop_oneof![
        6 => cases_of(1..=1, 1..=2, 20..150),
        3 => cases_of(1..=2, 1..=2, 50..300),
        1 => cases_of(1..=3, 1..=2, 100..900),
    ]
}

/// Schedules in one run of this test, or `PROPTEST_CASES`.
const SCHEDULES: u32 = 100_000;

/// What they are shared out to.
const THREADS: u32 = 4;

/// How much was looked at.
#[derive(Debug, Default, Clone, Copy)]
struct Ran {
    schedules: u32,
    steps: u64,
    migrated: u64,
    crashed: u64,
}

impl Ran {
    fn and(self, other: Self) -> Self {
        Self {
            schedules: self.schedules + other.schedules,
            steps: self.steps + other.steps,
            migrated: self.migrated + other.migrated,
            crashed: self.crashed + other.crashed,
        }
    }
}

/// A share of the schedules, and how many there were; or what must not be, of the smallest schedule that shows it.
fn share(schedules: u32, rng_seed: RngSeed) -> Result<Ran, String> {
    let ran = Cell::new(Ran::default());
    let config = ProptestConfig {
        cases: schedules,
        rng_seed,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let result = TestRunner::new(config).run(&cases(), |case| {
        let world = run(case).map_err(TestCaseError::fail)?;
        ran.set(ran.get().and(Ran {
            schedules: 1,
            steps: case.steps.into(),
            migrated: world.tally.migrated.into(),
            crashed: world.tally.crashed.into(),
        }));
        Ok(())
    });
    match result {
        Ok(()) => Ok(ran.get()),
        Err(TestError::Fail(why, case)) => Err(format!("{why}; HYBOND_PAIR_CASE={case}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Where the schedules of a thread begin. The same in each run, so that what fails is what was changed; with
/// `HYBOND_PAIR_SEED=random` others each time, to find what nobody has thought of, and with a number those of that number.
fn seed(thread: u64) -> RngSeed {
    match std::env::var("HYBOND_PAIR_SEED").as_deref() {
        Ok("random") => RngSeed::Random,
        Ok(number) => RngSeed::Fixed(number.parse::<u64>().expect("HYBOND_PAIR_SEED") + thread),
        Err(_) => RngSeed::Fixed(thread),
    }
}

#[test]
fn the_invariants_hold_whatever_happens() {
    let of_environment = std::env::var("PROPTEST_CASES");
    let schedules = of_environment.map_or(SCHEDULES, |text| text.parse().expect("PROPTEST_CASES"));
    // Not what the machine has, or it would be other schedules on another one.
    let each = schedules.div_ceil(THREADS);
    let results: Vec<Result<Ran, String>> = std::thread::scope(|scope| {
        let begin = |thread: u32| scope.spawn(move || share(each, seed(thread.into())));
        let threads: Vec<_> = (0..THREADS).map(begin).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|result| result.expect("proptest catches the panics of a schedule"))
            .collect()
    });
    let ran: Result<Vec<Ran>, String> = results.into_iter().collect();
    let ran = ran.map(|shares| shares.into_iter().fold(Ran::default(), Ran::and));
    for (number, words) in invariants::ALL {
        match &ran {
            Ok(Ran {
                schedules,
                steps,
                migrated,
                crashed,
            }) => eprintln!(
                "invariant {number}, {words}: held after each of {steps} steps of {schedules} schedules, with {migrated} \
                 migrations and {crashed} crashes"
            ),
            // Which of them it is the sentence says.
            Err(why) => eprintln!("invariant {number}, {words}: FALLS SHORT, or another does: {why}"),
        }
    }
    let ran = ran.unwrap_or_else(|why| panic!("{why}"));
    assert!(ran.schedules >= schedules, "only {ran:?}");
}

#[test]
fn without_faults_guests_of_every_flavor_migrate() {
    for flavor in 1..4 {
        let mut migrated = 0;
        for seed in 0..20 {
            let case = Case {
                pairs: 2,
                vfs: 8,
                direct: seed % 2 == 0,
                network: seed % 4 == 0,
                flavor,
                ..Case::peaceful(seed)
            };
            let world = run(case).unwrap_or_else(|why| panic!("case {case}: {why}"));
            assert_eq!(world.tally.stayed, 0, "case {case}: {:?}", world.refusals);
            let machines = world.hosts.iter().map(|host| &host.machine);
            for (id, qemu) in machines.clone().flat_map(|machine| &machine.qemu) {
                for pair in &world.domains[id].pairs {
                    let over_vf = machines
                        .clone()
                        .any(|m| m.standby.get(&pair.mac).is_some_and(|s| s.vf.is_some()));
                    let flavor = pair.flavor();
                    let expected = (flavor == Flavor::Indirect, flavor == Flavor::Hybrid);
                    let held_back = world.hosts.iter().any(|host| {
                        let record = host.disk.get(id).and_then(|record| record.pairs.get(&pair.mac));
                        record.is_some_and(|pair| pair.held_back.is_some())
                    });
                    let on_vf = qemu.nics[&pair.mac].on_primary || held_back && expected.1;
                    assert_eq!((over_vf, on_vf), expected, "case {case}: pair {}", pair.mac);
                }
            }
            migrated += world.tally.migrated;
        }
        assert!(migrated > 40, "flavor {flavor}: {migrated} migrations test nothing");
    }
}

#[test]
fn the_schedules_have_everything_in_them() {
    let mut sum = [0; 5];
    for seed in 0..60 {
        let faults = Faults {
            crash: 2,
            power: 1,
            lose: 2,
            repeat: 10,
            abort: 3,
            fail: 1,
            disk: 1,
            deaf: 5,
            disobey: 1,
        };
        let case = Case {
            faults,
            policy: 3,
            direct: true,
            ..Case::peaceful(seed)
        };
        let tally = run(case).unwrap_or_else(|why| panic!("case {case}: {why}")).tally;
        let of = [tally.migrated, tally.stayed, tally.guarded, tally.saved, tally.crashed];
        sum.iter_mut().zip(of).for_each(|(sum, of)| *sum += of);
    }
    assert!(
        sum.iter().all(|sum| *sum > 30),
        "migrated, stayed, guarded, saved, crashed: {sum:?}"
    );
}
