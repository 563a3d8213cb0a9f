//! How it goes when all goes well, and the failures that are part of every day.

use super::*;

#[test]
fn a_drain_moves_the_traffic_then_unplugs_then_answers() {
    let mut guest = on_vf();
    guest.handle(1, Event::Request(Token(1), Request::Drain(migration())));
    expect(
        &mut guest,
        1,
        Action::LookAtJob,
        Outcome::Job(DomainSeen::Active, Job::Outgoing),
    );
    expect(
        &mut guest,
        2,
        Action::Failover(mac()),
        Outcome::Switched(agent(false, true)),
    );
    expect(&mut guest, 3, Action::Unplug(lease()), Outcome::Done);
    assert_eq!(guest.poll(4), None, "waits for DEVICE_DELETED");
    guest.handle(5, Event::DeviceDeleted(mac()));
    expect(&mut guest, 5, Action::ResetVf(lease()), Outcome::Done);
    assert_eq!(answer(&mut guest, 6), Answer::Done(vec![]));
    assert_eq!(guest.record().stage, Stage::Outgoing { migration: migration() });
}

#[test]
fn a_drain_outside_a_migration_is_refused_and_changes_nothing() {
    let mut guest = on_vf();
    guest.handle(1, Event::Request(Token(1), Request::Drain(migration())));
    expect(
        &mut guest,
        1,
        Action::LookAtJob,
        Outcome::Job(DomainSeen::Active, Job::None),
    );
    assert!(matches!(answer(&mut guest, 1), Answer::Refused(reason) if reason.contains("outgoing migration")));
    assert_eq!(guest.poll(2), None);
    assert!(guest.is_plugged(mac()));
}

#[test]
fn a_guest_that_ignores_the_unplug_gets_its_traffic_back() {
    let mut guest = on_vf();
    guest.handle(0, Event::Request(Token(1), Request::Drain(migration())));
    expect(
        &mut guest,
        0,
        Action::LookAtJob,
        Outcome::Job(DomainSeen::Active, Job::Outgoing),
    );
    expect(
        &mut guest,
        0,
        Action::Failover(mac()),
        Outcome::Switched(agent(false, true)),
    );
    expect(&mut guest, 0, Action::Unplug(lease()), Outcome::Done);
    let until = Settings::default().unplug_within;
    assert_eq!(guest.poll(until - 1), None);
    assert_eq!(
        guest.poll(until),
        Some(Action::Look { libvirt: true }),
        "events may have been lost"
    );
    let still = picture(Job::Outgoing, true, true);
    guest.complete(until, Ok(Outcome::Looked(still)));
    assert!(matches!(answer(&mut guest, until), Answer::Refused(reason) if reason.contains("0000:01:10.0")));
    expect(
        &mut guest,
        until,
        Action::Failback(mac()),
        Outcome::Switched(agent(true, true)),
    );
}

#[test]
fn a_migration_that_fails_brings_the_vf_back() {
    let mut guest = on_vf();
    drained(&mut guest, 2);
    expect(
        &mut guest,
        2,
        Action::LookAtJob,
        Outcome::Job(DomainSeen::Active, Job::Outgoing),
    );
    assert_eq!(guest.poll(3), None);
    let next = guest.next_deadline(3).expect("looks again");
    expect(
        &mut guest,
        next,
        Action::LookAtJob,
        Outcome::Job(DomainSeen::Active, Job::None),
    );
    confirmed(&mut guest, next);
    expect(
        &mut guest,
        next,
        Action::LookAtJob,
        Outcome::Job(DomainSeen::Active, Job::None),
    );
    expect(
        &mut guest,
        next,
        Action::PrepareVf {
            lease: lease(),
            vlan: None,
        },
        Outcome::Done,
    );
    expect(&mut guest, next, Action::Plug(lease()), Outcome::Done);
    guest.handle(next, Event::AgentState(mac(), agent(false, true)));
    expect(
        &mut guest,
        next,
        Action::Failback(mac()),
        Outcome::Switched(agent(true, true)),
    );
    assert_eq!(guest.poll(next), None);
}

#[test]
fn a_guest_arrives_on_its_standby_and_is_upgraded() {
    let mut guest = received(Policy::Require);
    guest.complete(9, Ok(Outcome::Done));
    assert_eq!(answer(&mut guest, 9), Answer::Done(vec![]));
    guest.handle(10, Event::Request(Token(2), Request::Prepare(spec(Policy::Require))));
    assert_eq!(answer(&mut guest, 10), Answer::Done(vec![]));
    guest.handle(20, Event::QmpConnected(QmpSeen::default()));
    assert_eq!(guest.poll(20), None, "the macvtap stays down while the source runs");
    guest.handle(30, Event::Migration(MigrationSeen::Completed));
    expect(
        &mut guest,
        30,
        Action::RaiseStandby(mac()),
        Outcome::Standby(standby(true)),
    );
    guest.handle(31, Event::Running(true));
    let now = after_its_first_moments(&mut guest, 31);
    expect(&mut guest, now, Action::Announce, Outcome::Done);
    let mut deaf = guest.clone();
    assert_eq!(guest.poll(now), None, "the agent has not said hello yet");
    guest.handle(now, Event::AgentHello([(mac(), agent(false, false))].into()));
    expect(
        &mut guest,
        now,
        Action::LookAtJob,
        Outcome::Job(DomainSeen::Active, Job::Incoming),
    );
    expect(
        &mut guest,
        now,
        Action::PrepareVf {
            lease: lease(),
            vlan: None,
        },
        Outcome::Done,
    );
    expect(&mut guest, now, Action::Plug(lease()), Outcome::Done);
    guest.handle(now, Event::AgentState(mac(), agent(false, true)));
    expect(
        &mut guest,
        now,
        Action::Failback(mac()),
        Outcome::Switched(agent(true, true)),
    );
    // What counts at its next start only, once it has all that it wants now; or after a while, where it gets nothing.
    expect(&mut guest, now, repair_xml(), Outcome::Done);
    let later = deaf.next_deadline(now).expect("the repair's");
    assert_eq!(later, now + Settings::default().retry_after);
    expect(&mut deaf, later, repair_xml(), Outcome::Done);
}

#[test]
fn a_guest_that_has_just_come_is_left_alone_but_for_a_standby() {
    let mut guest = awaited();
    // QEMU's event of the end was lost, and with it the moment to raise the standby.
    guest.handle(3, Event::Running(true));
    let raised = Outcome::Standby(standby(true));
    expect(&mut guest, 3, Action::RaiseStandby(mac()), raised);
    let moments = Settings::default().first_moments;
    assert_eq!(guest.left_alone_for(3), moments);
    guest.handle(4, Event::AgentHello([(mac(), agent(false, false))].into()));
    let now = after_its_first_moments(&mut guest, 3);
    assert_eq!(guest.left_alone_for(now), 0);
    assert_eq!(guest.poll(now), Some(Action::Announce));
}

#[test]
fn a_guest_that_leaves_in_its_first_moments_is_drained_at_once() {
    let mut guest = awaited();
    guest.handle(3, Event::Migration(MigrationSeen::Completed));
    let raised = Outcome::Standby(standby(true));
    expect(&mut guest, 3, Action::RaiseStandby(mac()), raised);
    guest.handle(4, Event::Running(true));
    guest.handle(5, Event::Request(Token(7), Request::Drain(migration())));
    let leaves = Outcome::Job(DomainSeen::Active, Job::Outgoing);
    expect(&mut guest, 5, Action::LookAtJob, leaves);
    expect(&mut guest, 5, Action::ResetVf(lease()), Outcome::Done);
    assert_eq!(answer(&mut guest, 5), Answer::Done(vec![]));
}

#[test]
fn require_refuses_where_no_vf_is_free_and_leaves_nothing() {
    let mut guest = Guest::new(Record::new(spec(Policy::Require), Stage::Leaving), Settings::default());
    guest.handle(
        0,
        Event::Request(Token(1), Request::Receive(spec(Policy::Require), migration())),
    );
    expect(
        &mut guest,
        0,
        Action::Look { libvirt: false },
        Outcome::Looked(Snapshot::default()),
    );
    assert!(matches!(guest.poll(0), Some(Action::Lease(_))));
    let none = Outcome::NoVf {
        reason: "every VF of pool lan is leased".into(),
        pf: Some(pf()),
    };
    guest.complete(0, Ok(none));
    assert!(matches!(answer(&mut guest, 0), Answer::Refused(reason) if reason.contains("require")));
    expect(
        &mut guest,
        0,
        Action::Look { libvirt: true },
        Outcome::Looked(nothing(None)),
    );
    assert_eq!(guest.poll(0), None);
    assert!(guest.is_forgotten());
}

/// A guest that must have a VF, and for which there is none but one that is on its way back.
fn waits_for_vf() -> Guest {
    let mut guest = Guest::new(Record::new(spec(Policy::Require), Stage::Leaving), Settings::default());
    guest.handle(0, Event::Request(Token(1), Request::Prepare(spec(Policy::Require))));
    let nothing = Outcome::Looked(Snapshot::default());
    expect(&mut guest, 0, Action::Look { libvirt: false }, nothing);
    not_yet(&mut guest, 0);
    guest
}

fn not_yet(guest: &mut Guest, now: Millis) {
    assert!(matches!(guest.poll(now), Some(Action::Lease(_))));
    let reason = "every VF of pool lan is leased".into();
    guest.complete(now, Ok(Outcome::NotYet { reason, pf: Some(pf()) }));
}

#[test]
fn require_waits_for_a_vf_that_is_on_its_way_back() {
    let mut guest = waits_for_vf();
    assert_eq!(guest.poll(0), None, "its standby is not made, and no hook answered");
    guest.handle(90, Event::PoolChanged);
    assert!(matches!(guest.poll(90), Some(Action::Lease(_))));
    guest.complete(90, Ok(Outcome::Leased(lease())));
    assert!(matches!(guest.poll(90), Some(Action::MakeStandby { .. })));
}

#[test]
fn require_refuses_once_the_vf_does_not_come_back_or_not_in_time() {
    let mut guest = waits_for_vf();
    let within = Settings::default().vf_within;
    let mut now = guest.next_deadline(0).expect("asks again");
    while now < within {
        not_yet(&mut guest, now);
        assert_eq!(guest.poll(now), None);
        now = guest.next_deadline(now).expect("asks again");
    }
    assert_eq!(now, within);
    not_yet(&mut guest, now);
    let expected = "every VF of pool lan is leased, and the policy of pair 52:54:00:aa:00:01 is \"require\"";
    assert_eq!(answer(&mut guest, now), Answer::Refused(expected.into()));

    let mut guest = waits_for_vf();
    let now = guest.next_deadline(0).expect("asks again");
    assert!(matches!(guest.poll(now), Some(Action::Lease(_))));
    let reason = "every VF of pool lan is leased".into();
    guest.complete(now, Ok(Outcome::NoVf { reason, pf: Some(pf()) }));
    assert_eq!(
        answer(&mut guest, now),
        Answer::Refused(expected.into()),
        "it is kept after all"
    );
}

#[test]
fn a_vf_is_on_its_way_back_from_libvirts_word_on_and_while_it_is_drained_for_good() {
    let mut guest = on_vf();
    assert!(guest.returning(None).is_empty());
    guest.handle(0, Event::LookAgain);
    assert_eq!(guest.poll(0), Some(Action::Look { libvirt: true }));
    guest.handle(0, Event::Domain(DomainSeen::Absent));
    assert_eq!(guest.returning(None), [mac()].into(), "whatever is under way");

    let mut guest = on_vf();
    guest.handle(0, Event::Request(Token(1), Request::HoldBack));
    assert_eq!(guest.returning(None), [mac()].into());

    let mut guest = on_vf();
    drained(&mut guest, 0);
    assert!(
        guest.returning(None).is_empty(),
        "it has it again if the migration fails"
    );
    guest.handle(0, Event::Domain(DomainSeen::Absent));
    assert_eq!(guest.returning(None), [mac()].into());
    guest.handle(1, Event::Request(Token(2), Request::Prepare(spec(Policy::Prefer))));
    assert!(
        guest.returning(None).is_empty(),
        "the domain starts again, with that VF"
    );
}

#[test]
fn a_vf_is_on_its_way_back_until_the_record_without_it_is_written() {
    let mut guest = on_vf();
    let written = guest.record().clone();
    guest.handle(0, Event::Domain(DomainSeen::Absent));
    let gone = Outcome::Looked(nothing(None));
    expect(&mut guest, 0, Action::Look { libvirt: true }, gone);
    expect(&mut guest, 0, Action::ResetVf(lease()), Outcome::Done);
    expect(&mut guest, 0, Action::Release(lease()), Outcome::Done);
    assert_eq!(guest.poll(0), None);
    assert!(guest.is_forgotten());
    assert_eq!(
        guest.returning(Some(&written)),
        [mac()].into(),
        "until then nobody else may have it"
    );
    assert!(guest.returning(Some(guest.record())).is_empty());
}

#[test]
fn a_guest_that_has_gone_leaves_nothing() {
    let mut guest = on_vf();
    guest.handle(0, Event::Domain(DomainSeen::Absent));
    expect(
        &mut guest,
        0,
        Action::Look { libvirt: true },
        Outcome::Looked(nothing(Some(standby(true)))),
    );
    expect(&mut guest, 0, Action::RemoveStandby(mac()), Outcome::Done);
    assert_eq!(guest.poll(0), Some(Action::ResetVf(lease())));
    guest.complete(
        0,
        Err(Failure {
            reason: "VF 0 of pf0 still has its MAC".into(),
        }),
    );
    assert_eq!(guest.poll(0), None, "tried again later");
    let later = guest.next_deadline(0).expect("later");
    expect(&mut guest, later, Action::ResetVf(lease()), Outcome::Done);
    expect(&mut guest, later, Action::Release(lease()), Outcome::Done);
    assert_eq!(guest.poll(later), None);
    assert!(guest.is_forgotten());
}

#[test]
fn a_vf_on_another_pf_than_the_standby_that_libvirt_made_is_given_back() {
    // Its VF was leased for a hook; libvirt then made the standby elsewhere.
    let elsewhere: IfName = "pf7".parse().expect("name");
    let mut record = record(Stage::Running);
    record.spec.pairs[0].standby = StandbyKind::Direct {
        source: elsewhere.clone(),
    };
    let mut guest = Guest::new(record, Settings::default());
    let seen = Outcome::Looked(picture(Job::None, true, false));
    expect(&mut guest, 0, Action::Look { libvirt: true }, seen);
    guest.handle(0, Event::AgentHello([(mac(), agent(false, false))].into()));
    expect(&mut guest, 0, Action::ResetVf(lease()), Outcome::Done);
    expect(&mut guest, 0, Action::Release(lease()), Outcome::Done);
    assert_eq!(guest.record().pairs[&mac()].lease, None);
    assert_eq!(guest.record().pairs[&mac()].pf, Some(elsewhere.clone()));
    // Another of the right PF, and no other.
    assert!(matches!(guest.poll(0), Some(Action::Lease(ask)) if ask.pf == Some(elsewhere.clone())));
    let vf = Vf {
        id: "0000:07:10.0".parse().expect("vf"),
        pf: elsewhere,
        ..lease().vf
    };
    let there = Lease { vf, ..lease() };
    guest.complete(0, Ok(Outcome::Leased(there.clone())));
    let prepare = Action::PrepareVf {
        lease: there.clone(),
        vlan: None,
    };
    expect(&mut guest, 0, prepare, Outcome::Done);
    assert_eq!(guest.poll(0), Some(Action::Plug(there)));
}

#[test]
fn a_vf_on_another_pf_that_is_plugged_all_the_same_is_left_in_the_guest() {
    let mut record = record(Stage::Running);
    record.spec.pairs[0].standby = StandbyKind::Direct {
        source: "pf7".parse().expect("name"),
    };
    let mut guest = Guest::new(record, Settings::default());
    let seen = Outcome::Looked(picture(Job::None, true, true));
    expect(&mut guest, 0, Action::Look { libvirt: true }, seen);
    guest.handle(0, Event::AgentHello([(mac(), agent(true, true))].into()));
    assert_eq!(guest.poll(0), None, "it carries the traffic");
}
