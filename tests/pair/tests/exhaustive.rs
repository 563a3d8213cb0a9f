//! One guest, started and migrated between two hosts with a VF each: everything that can happen, in every order, with one
//! misfortune at any point. Each test says how much there was to see.

use hybond_test_pair::case::{Case, Faults};
use hybond_test_pair::moment::Wish;
use hybond_test_pair::plant::Plant;
use hybond_test_pair::search::{Search, Seen};

fn one_migration(faults: Faults, plant: Option<Plant>) -> Search {
    Search {
        case: Case {
            domains: 1,
            vfs: 1,
            ..Case::peaceful(0)
        },
        wishes: vec![(Wish::Migrate, 1)],
        hasty: false,
        faults,
        slow: false,
        misfortunes: 1,
        plant,
    }
}

/// Messages are lost or come twice, libvirt fails or gives up at any step.
fn link_and_libvirt() -> Faults {
    Faults {
        lose: 1,
        repeat: 1,
        abort: 1,
        ..Faults::default()
    }
}

/// Either daemon crashes: before and after its journal is written, before and after an effect, or while it waits.
fn crashes() -> Faults {
    Faults {
        crash: 1,
        ..Faults::default()
    }
}

/// Everything, or how it came to what must not be.
fn see_all(search: &Search) -> Seen {
    let seen = search.run().unwrap_or_else(|found| panic!("{found}"));
    eprintln!("{:?}: {seen:?}", search.faults);
    assert!(
        seen.migrated > 100 && seen.rests > 10,
        "{seen:?}: the search searches nothing"
    );
    seen
}

#[test]
fn whatever_message_is_lost_or_repeated_and_wherever_libvirt_fails_the_invariants_hold() {
    let seen = see_all(&one_migration(link_and_libvirt(), None));
    assert!(seen.states > 20_000, "{seen:?}");
}

#[test]
fn wherever_either_daemon_crashes_the_invariants_hold() {
    let seen = see_all(&one_migration(crashes(), None));
    assert!(seen.states > 100_000, "{seen:?}");
}

/// As small a search as finds it. `None`: only the random schedules do.
fn search_for(plant: Plant) -> Option<Search> {
    let planted = Some(plant);
    Some(match plant {
        // Who waits for the VF of another.
        Plant::ReleaseEarly => Search {
            case: Case {
                vfs: 1,
                ..Case::peaceful(0)
            },
            wishes: vec![(Wish::Drain, 1)],
            misfortunes: 0,
            ..one_migration(Faults::default(), planted)
        },
        // An event that is lost is only late here, where everybody is told to look sooner or later and time costs nothing.
        Plant::EventsVanish => return None,
        Plant::JournalLate => one_migration(crashes(), planted),
        _ => one_migration(link_and_libvirt(), planted),
    })
}

#[test]
fn the_planted_bugs_are_found() {
    for (plant, search) in Plant::ALL
        .into_iter()
        .rev()
        .filter_map(|plant| Some((plant, search_for(plant)?)))
    {
        match search.run() {
            Ok(seen) => panic!("{plant:?} was not found: {seen:?}"),
            Err(found) => eprintln!("{plant:?}: {} (after {})", found.why, found.misfortunes),
        }
    }
}
