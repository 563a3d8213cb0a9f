//! Time is read as differences only: a guest whose clock is set does what it would have done, just as much later.

use super::*;

const LATER: Millis = 10_000_000;

/// What a guest does next, and when it has something to do if nothing happens; times as of `now`.
fn next(guest: &mut Guest, now: Millis) -> (Option<Action>, Option<Millis>) {
    let action = guest.poll(now);
    (action, guest.next_deadline(now).map(|at| at - now))
}

/// The guest with its clock set to [`LATER`], and that of `now`, on which nothing has been set.
fn both(guest: &Guest, now: Millis) -> (Guest, Guest) {
    let mut set = guest.clone();
    set.set_clock(now, LATER);
    (guest.clone(), set)
}

#[test]
fn a_pause_is_as_long_as_it_was() {
    let mut guest = on_vf();
    drained(&mut guest, 1_000);
    let outgoing = Outcome::Job(DomainSeen::Active, Job::Outgoing);
    expect(&mut guest, 1_000, Action::LookAtJob, outgoing);
    let (mut left, mut set) = both(&guest, 1_200);
    assert_eq!(next(&mut left, 1_200), (None, Some(300)));
    assert_eq!(next(&mut set, LATER), (None, Some(300)));
    assert_eq!(next(&mut left, 1_500).0, Some(Action::LookAtJob));
    assert_eq!(next(&mut set, LATER + 300).0, Some(Action::LookAtJob));
}

#[test]
fn a_guest_that_ignores_the_unplug_has_no_more_time_for_it() {
    let mut guest = on_vf();
    guest.handle(0, Event::Request(Token(1), Request::HoldBack));
    let on_standby = Outcome::Switched(agent(false, true));
    expect(&mut guest, 0, Action::Failover(mac()), on_standby);
    expect(&mut guest, 0, Action::Unplug(lease()), Outcome::Done);
    let (mut left, mut set) = both(&guest, 12_000);
    assert_eq!(next(&mut left, 12_000), (None, Some(8_000)));
    assert_eq!(next(&mut set, LATER), (None, Some(8_000)));
    assert_eq!(next(&mut set, LATER + 8_000).0, Some(Action::Look { libvirt: true }));
}

#[test]
fn libvirts_word_before_a_plug_stays_as_old_as_it_is() {
    let guest = stayed();
    for (age, action) in [(500, prepare_vf()), (501, Action::LookAtJob)] {
        let (mut left, mut set) = both(&guest, age);
        assert_eq!(next(&mut left, age).0, Some(action.clone()));
        assert_eq!(next(&mut set, LATER).0, Some(action));
    }
}

#[test]
fn a_reservation_that_has_ended_is_not_given_up_on_an_older_word() {
    let answered = Some(Hook::Announce);
    let stage = Stage::Incoming { migration: migration() };
    let mut guest = Guest::new(
        Record {
            answered,
            ..record(stage)
        },
        Settings::default(),
    );
    let left = Outcome::Looked(nothing(Some(standby(false))));
    expect(&mut guest, 0, Action::Look { libvirt: true }, left);
    let ends = guest.next_deadline(0).expect("not for ever");
    let (mut left, mut set) = both(&guest, ends + 1);
    assert_eq!(next(&mut left, ends + 1).0, Some(Action::LookAtJob));
    assert_eq!(next(&mut set, LATER).0, Some(Action::LookAtJob));
    let (_, mut set) = both(&left, ends + 2);
    set.complete(LATER, Ok(Outcome::Job(DomainSeen::Absent, Job::None)));
    assert_eq!(set.record().stage, Stage::Leaving);
}

#[test]
fn guests_that_will_do_the_same_are_the_same() {
    let mut early = on_vf();
    let mut late = on_vf();
    for (guest, now) in [(&mut early, 10_000), (&mut late, 50_000)] {
        guest.set_clock(now, LATER);
    }
    assert_eq!(format!("{early:?}"), format!("{late:?}"));
}
