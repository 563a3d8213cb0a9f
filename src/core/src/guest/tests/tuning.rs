//! The standby beside its primary: what it takes, and how it stands.

use super::*;
use crate::handover::{Handover, HandoverOverride, WhilePrimary};
use crate::paths::{Group, Multicast, MulticastPolicy, PoolPaths, StandbyMode};

fn paths(multicast: MulticastPolicy, standby: WhilePrimary) -> Arc<Paths> {
    let pool = HandoverOverride {
        standby: Some(standby),
        ..HandoverOverride::default()
    };
    let handover = [(pf(), Handover::of(Some("igb"), pool))].into();
    Arc::new(Paths(
        [("lan".parse().expect("name"), PoolPaths { multicast, handover })].into(),
    ))
}

/// The group of an IPv6 neighbour solicitation.
fn solicited() -> Multicast {
    Multicast::asked(false, [[0x33, 0x33, 0xff, 0xaa, 0, 1]])
}

fn tune(mode: StandbyMode, multicast: Multicast) -> Action {
    Action::TuneStandby {
        mac: mac(),
        mode,
        multicast,
    }
}

fn tuned(guest: &mut Guest, now: Millis, mode: StandbyMode, multicast: Multicast) {
    expect(guest, now, tune(mode, multicast), Outcome::Done);
}

fn read(guest: &mut Guest, now: Millis, multicast: Multicast) {
    let filters = [(mac(), multicast)].into();
    expect(guest, now, Action::ReadFilters, Outcome::Filters(filters));
}

/// On its VF, at rest.
fn at_rest(policy: MulticastPolicy) -> Guest {
    let mut guest =
        Guest::new(record(Stage::Running), Settings::default()).with_paths(paths(policy, WhilePrimary::Keep));
    guest.handle(0, Event::AgentHello([(mac(), agent(true, true))].into()));
    expect(
        &mut guest,
        0,
        Action::Look { libvirt: true },
        Outcome::Looked(picture(Job::None, true, true)),
    );
    // The agent's word is no switch of today's.
    guest.not_before.clear();
    guest
}

#[test]
fn a_guest_on_its_vf_has_a_standby_that_leaves_its_frames_to_the_card_and_takes_what_is_asked_for() {
    let mut guest = at_rest(MulticastPolicy::Follow);
    tuned(&mut guest, 0, StandbyMode::Vepa, Multicast::Everything);
    read(&mut guest, 0, solicited());
    tuned(&mut guest, 0, StandbyMode::Vepa, solicited());
    assert_eq!(guest.poll(1), None);
}

#[test]
fn before_the_traffic_is_on_the_standby_it_takes_everything_and_afterwards_it_hears_its_neighbours() {
    let mut guest = at_rest(MulticastPolicy::Follow);
    tuned(&mut guest, 0, StandbyMode::Vepa, Multicast::Everything);
    read(&mut guest, 0, Multicast::asked(false, []));
    tuned(&mut guest, 0, StandbyMode::Vepa, Multicast::asked(false, []));
    guest.handle(1, Event::Request(Token(1), Request::HoldBack));
    tuned(&mut guest, 1, StandbyMode::Vepa, Multicast::Everything);
    let switched = Outcome::Switched(agent(false, true));
    expect(&mut guest, 1, Action::Failover(mac()), switched);
    // The guest's bond has told its groups to the standby with the switch.
    guest.handle(1, Event::FiltersChanged);
    tuned(&mut guest, 1, StandbyMode::Bridge, Multicast::Everything);
    expect(&mut guest, 2, Action::Unplug(lease()), Outcome::Done);
    guest.handle(3, Event::DeviceDeleted(mac()));
    expect(&mut guest, 3, Action::ResetVf(lease()), Outcome::Done);
    expect(&mut guest, 3, Action::Release(lease()), Outcome::Done);
    assert_eq!(answer(&mut guest, 4), Answer::Done(vec![]));
    read(&mut guest, 300, solicited());
    tuned(&mut guest, 300, StandbyMode::Bridge, solicited());
}

#[test]
fn a_guest_that_turns_to_its_standby_by_itself_gets_everything_until_it_is_known_what_it_wants() {
    let mut guest = at_rest(MulticastPolicy::Follow);
    tuned(&mut guest, 0, StandbyMode::Vepa, Multicast::Everything);
    read(&mut guest, 0, Multicast::asked(false, []));
    tuned(&mut guest, 0, StandbyMode::Vepa, Multicast::asked(false, []));
    // Its VF has lost its link.
    guest.handle(10, Event::AgentState(mac(), agent(false, false)));
    tuned(&mut guest, 10, StandbyMode::Bridge, Multicast::Everything);
    assert_eq!(guest.poll(10), None);
    guest.handle(400, Event::AgentState(mac(), agent(true, true)));
    tuned(&mut guest, 400, StandbyMode::Vepa, Multicast::Everything);
    assert_eq!(guest.next_deadline(400), Some(1_400));
    read(&mut guest, 1_400, solicited());
    tuned(&mut guest, 1_400, StandbyMode::Vepa, solicited());
}

#[test]
fn a_drain_fails_where_the_standby_cannot_be_made_ready_and_the_guest_stays_on_its_vf() {
    let mut guest = at_rest(MulticastPolicy::Follow);
    tuned(&mut guest, 0, StandbyMode::Vepa, Multicast::Everything);
    read(&mut guest, 0, solicited());
    tuned(&mut guest, 0, StandbyMode::Vepa, solicited());
    guest.handle(1, Event::Request(Token(1), Request::HoldBack));
    assert_eq!(guest.poll(1), Some(tune(StandbyMode::Vepa, Multicast::Everything)));
    guest.complete(1, Err(failure("the kernel refuses")));
    assert_eq!(answer(&mut guest, 1), Answer::Refused("the kernel refuses".into()));
    assert_eq!(guest.record().stage, Stage::Running);
    assert_eq!(
        guest.poll(1),
        Some(Action::Look { libvirt: true }),
        "part of it may have been done"
    );
    assert!(guest.agent_pair(mac()).is_some_and(|pair| pair.on_primary));
}

#[test]
fn a_guest_that_changes_its_groups_without_end_is_asked_five_times_a_second() {
    let mut guest = at_rest(MulticastPolicy::Follow);
    tuned(&mut guest, 0, StandbyMode::Vepa, Multicast::Everything);
    let mut asked = 0;
    for now in 0..1_000 {
        guest.handle(now, Event::FiltersChanged);
        while let Some(action) = guest.poll(now) {
            let outcome = match action {
                Action::ReadFilters => {
                    asked += 1;
                    // Told before the answer is here: not in the answer.
                    guest.handle(now, Event::FiltersChanged);
                    let group = [1, 0, 0x5e, 0, 0, asked];
                    Outcome::Filters([(mac(), Multicast::asked(false, [group]))].into())
                }
                Action::TuneStandby { .. } => Outcome::Done,
                other => panic!("{other:?}"),
            };
            guest.complete(now, Ok(outcome));
        }
    }
    assert_eq!(asked, 5);
    let last = Group::from_octets([1, 0, 0x5e, 0, 0, 5]).expect("a group");
    let taken = &guest.seen.standby[&mac()].multicast;
    assert_eq!(*taken, Multicast::Groups([last].into()));
    assert_eq!(
        guest.next_deadline(999),
        Some(1_000),
        "the last change is not forgotten"
    );
}

#[test]
fn what_cannot_be_had_is_made_up_for_by_taking_everything() {
    let mut guest = at_rest(MulticastPolicy::Follow);
    tuned(&mut guest, 0, StandbyMode::Vepa, Multicast::Everything);
    read(&mut guest, 0, solicited());
    tuned(&mut guest, 0, StandbyMode::Vepa, solicited());
    guest.handle(500, Event::FiltersChanged);
    assert_eq!(guest.poll(500), Some(Action::ReadFilters));
    guest.complete(500, Err(failure("QEMU is too old")));
    tuned(&mut guest, 500, StandbyMode::Vepa, Multicast::Everything);
    assert_eq!(guest.poll(501), None);
    let again = 500 + Settings::default().retry_after;
    read(&mut guest, again, solicited());
    tuned(&mut guest, again, StandbyMode::Vepa, solicited());
    // The monitor goes: so does the word of changes.
    guest.handle(again, Event::QmpLost);
    tuned(&mut guest, again, StandbyMode::Vepa, Multicast::Everything);
}

#[test]
fn what_was_asked_before_a_switch_and_answered_after_it_does_not_count() {
    let mut guest = at_rest(MulticastPolicy::Follow);
    tuned(&mut guest, 0, StandbyMode::Vepa, Multicast::Everything);
    assert_eq!(guest.poll(0), Some(Action::ReadFilters));
    guest.handle(10, Event::AgentState(mac(), agent(false, false)));
    guest.complete(11, Ok(Outcome::Filters([(mac(), Multicast::asked(false, []))].into())));
    tuned(&mut guest, 11, StandbyMode::Bridge, Multicast::Everything);
    assert_eq!(guest.poll(12), None);
    assert_eq!(guest.next_deadline(12), Some(1_010));
}

#[test]
fn why_a_guest_is_on_its_standby_is_not_forgotten_when_that_takes_another_group() {
    let mut record = record(Stage::Running);
    record.pairs.insert(
        mac(),
        Box::new(PairRecord {
            pf: Some(pf()),
            ..PairRecord::default()
        }),
    );
    let mut guest =
        Guest::new(record, Settings::default()).with_paths(paths(MulticastPolicy::Follow, WhilePrimary::Keep));
    expect(
        &mut guest,
        0,
        Action::Look { libvirt: true },
        Outcome::Looked(picture(Job::None, true, false)),
    );
    assert!(matches!(guest.poll(0), Some(Action::Lease(_))));
    guest.complete(
        0,
        Ok(Outcome::NoVf {
            reason: "every VF is leased".into(),
            pf: None,
        }),
    );
    read(&mut guest, 0, solicited());
    tuned(&mut guest, 0, StandbyMode::Bridge, solicited());
    assert_eq!(guest.degraded(mac()), Some("every VF is leased"));
}

#[test]
fn a_pool_may_want_everything_or_nothing_whatever_the_guest_asks_for() {
    let mut guest = at_rest(MulticastPolicy::Everything);
    tuned(&mut guest, 0, StandbyMode::Vepa, Multicast::Everything);
    guest.handle(1, Event::FiltersChanged);
    assert_eq!(guest.poll(1), None);
    let mut guest = at_rest(MulticastPolicy::Nothing);
    tuned(&mut guest, 0, StandbyMode::Vepa, Multicast::asked(false, []));
    assert_eq!(guest.poll(1), None);
}

#[test]
fn a_card_that_needs_it_has_its_standby_down_while_the_vf_carries_and_up_before_the_traffic_comes_back() {
    let mut guest = Guest::new(record(Stage::Running), Settings::default())
        .with_paths(paths(MulticastPolicy::Everything, WhilePrimary::Drop));
    guest.handle(0, Event::AgentHello([(mac(), agent(true, true))].into()));
    expect(
        &mut guest,
        0,
        Action::Look { libvirt: true },
        Outcome::Looked(picture(Job::None, true, true)),
    );
    expect(
        &mut guest,
        0,
        Action::LowerStandby(mac()),
        Outcome::Standby(standby(false)),
    );
    expect(
        &mut guest,
        0,
        tune(StandbyMode::Vepa, Multicast::Everything),
        Outcome::Done,
    );
    assert_eq!(guest.poll(1), None);
    // The VF has lost its link, and the guest's bond has turned to the standby.
    guest.handle(2, Event::AgentState(mac(), agent(false, false)));
    expect(
        &mut guest,
        2,
        Action::RaiseStandby(mac()),
        Outcome::Standby(standby(true)),
    );
    guest.handle(3, Event::AgentState(mac(), agent(true, true)));
    expect(
        &mut guest,
        3,
        Action::LowerStandby(mac()),
        Outcome::Standby(standby(false)),
    );
    guest.handle(4, Event::Request(Token(1), Request::HoldBack));
    expect(
        &mut guest,
        4,
        Action::RaiseStandby(mac()),
        Outcome::Standby(standby(true)),
    );
}
