//! libvirt's hooks: what they are told, and what becomes of it when they are not waited for.

use super::*;

fn direct(source: &str) -> DomainSpec {
    let mut spec = spec(Policy::Prefer);
    spec.pairs[0].standby = StandbyKind::Direct {
        source: source.parse().expect("name"),
    };
    spec
}

fn direct_guest(request: Request) -> Guest {
    let mut guest = Guest::new(Record::new(direct("pf0"), Stage::Leaving), Settings::default());
    guest.handle(0, Event::Request(Token(1), request));
    expect(
        &mut guest,
        0,
        Action::Look { libvirt: false },
        Outcome::Looked(Snapshot::default()),
    );
    guest
}

#[test]
fn a_standby_that_libvirt_makes_is_told_where_to_be_while_libvirt_still_listens() {
    let mut guest = direct_guest(Request::Restore(direct("pf7")));
    assert!(matches!(guest.poll(0), Some(Action::Lease(ask)) if ask.pf.is_none()));
    guest.complete(0, Ok(Outcome::Leased(lease())));
    assert_eq!(answer(&mut guest, 0), Answer::Done(vec![(mac(), pf())]));
    guest.handle(1, Event::Request(Token(2), Request::Prepare(direct("pf0"))));
    assert_eq!(answer(&mut guest, 1), Answer::Done(vec![]), "prepare takes no XML");
}

#[test]
fn a_standby_that_libvirt_makes_is_where_the_xml_says_when_the_domain_is_started() {
    let mut guest = direct_guest(Request::Prepare(direct("pf7")));
    assert!(matches!(guest.poll(0), Some(Action::Lease(ask)) if ask.pf == Some("pf7".parse().expect("name"))));
    let none = Outcome::NoVf {
        reason: "pool lan has no VF on PF pf7".into(),
        pf: Some(pf()),
    };
    guest.complete(0, Ok(none));
    assert_eq!(answer(&mut guest, 0), Answer::Done(vec![]));
    assert_eq!(guest.record().pairs[&mac()].pf, Some("pf7".parse().expect("name")));
}

#[test]
fn an_answer_for_a_migration_that_was_given_up_lets_no_other_pass() {
    let mut guest = received(Policy::Prefer);
    guest.handle(5, Event::Abandoned(Token(1)));
    let again: MigrationId = "m2".parse().expect("id");
    guest.handle(
        6,
        Event::Request(Token(2), Request::Receive(spec(Policy::Prefer), again.clone())),
    );
    // The first question is still open with the source; its answer is no longer this guest's.
    assert_eq!(guest.in_flight(), None);
    guest.complete(7, Ok(Outcome::Done));
    expect(
        &mut guest,
        7,
        Action::Look { libvirt: false },
        Outcome::Looked(Snapshot::default()),
    );
    assert!(matches!(guest.poll(7), Some(Action::MakeStandby { .. })));
    guest.complete(7, Ok(Outcome::Standby(standby(false))));
    assert!(matches!(guest.poll(7), Some(Action::AskDrain { migration, .. }) if migration == again));
}

#[test]
fn a_hook_that_is_given_up_leaves_nothing_reserved() {
    let mut guest = received(Policy::Prefer);
    guest.handle(5, Event::Abandoned(Token(1)));
    assert_eq!(guest.record().stage, Stage::Leaving);
    let left = nothing(Some(standby(false)));
    expect(&mut guest, 5, Action::Look { libvirt: true }, Outcome::Looked(left));
    expect(&mut guest, 5, Action::RemoveStandby(mac()), Outcome::Done);
    expect(&mut guest, 5, Action::ResetVf(lease()), Outcome::Done);
    expect(&mut guest, 5, Action::Release(lease()), Outcome::Done);
    assert_eq!(guest.poll(5), None);
    assert!(guest.is_forgotten());
}

#[test]
fn a_hook_is_not_kept_waiting_by_a_question_that_waits_for_the_hook() {
    let mut guest = received(Policy::Prefer);
    guest.complete(1, Ok(Outcome::Done));
    assert_eq!(answer(&mut guest, 1), Answer::Done(vec![]));
    guest.handle(2, Event::LookAgain);
    assert_eq!(guest.poll(2), Some(Action::Look { libvirt: true }));
    guest.handle(3, Event::Request(Token(2), Request::Prepare(spec(Policy::Prefer))));
    expect(&mut guest, 3, Action::Look { libvirt: false }, {
        let standby = [(mac(), standby(false))].into();
        Outcome::Looked(Snapshot {
            standby,
            ..Snapshot::default()
        })
    });
    assert_eq!(answer(&mut guest, 3), Answer::Done(vec![]));
}

#[test]
fn a_failure_for_the_former_life_does_not_refuse_the_next() {
    let mut guest = on_vf();
    guest.handle(0, Event::Request(Token(1), Request::Drain(migration())));
    expect(
        &mut guest,
        0,
        Action::LookAtJob,
        Outcome::Job(DomainSeen::Active, Job::Outgoing),
    );
    assert_eq!(guest.poll(0), Some(Action::Failover(mac())));
    // The guest is shut down and started again, faster than its agent fails to answer.
    guest.handle(1, Event::Domain(DomainSeen::Absent));
    guest.handle(2, Event::Request(Token(2), Request::Prepare(spec(Policy::Prefer))));
    guest.complete(3, Err(failure("the agent is gone")));
    assert_eq!(guest.record().stage, Stage::Starting);
    assert!(matches!(answer(&mut guest, 3), Answer::Refused(_)), "the drain");
    expect(
        &mut guest,
        3,
        Action::Look { libvirt: false },
        Outcome::Looked(nothing(Some(standby(true)))),
    );
    assert_eq!(answer(&mut guest, 3), Answer::Done(vec![]));
}

#[test]
fn a_domain_that_is_here_is_not_received() {
    let mut guest = on_vf();
    guest.handle(
        1,
        Event::Request(Token(1), Request::Receive(spec(Policy::Prefer), migration())),
    );
    assert!(matches!(answer(&mut guest, 1), Answer::Refused(reason) if reason.contains("already")));
    assert_eq!(guest.record().stage, Stage::Running);
}

#[test]
fn a_drain_for_a_migration_takes_over_from_an_administrators() {
    let mut guest = on_vf();
    guest.handle(0, Event::Request(Token(1), Request::HoldBack));
    expect(
        &mut guest,
        0,
        Action::Failover(mac()),
        Outcome::Switched(agent(false, true)),
    );
    expect(&mut guest, 0, Action::Unplug(lease()), Outcome::Done);
    guest.handle(1, Event::Request(Token(2), Request::Drain(migration())));
    assert!(matches!(
        guest.poll(1),
        Some(Action::Answer {
            token: Token(1),
            answer: Answer::Refused(_)
        })
    ));
    expect(
        &mut guest,
        1,
        Action::LookAtJob,
        Outcome::Job(DomainSeen::Active, Job::Outgoing),
    );
    guest.handle(2, Event::Request(Token(3), Request::HoldBack));
    assert!(matches!(
        guest.poll(2),
        Some(Action::Answer {
            token: Token(3),
            answer: Answer::Refused(_)
        })
    ));
    guest.handle(2, Event::DeviceDeleted(mac()));
    expect(&mut guest, 2, Action::ResetVf(lease()), Outcome::Done);
    assert_eq!(answer(&mut guest, 2), Answer::Done(vec![]));
    assert_eq!(guest.record().stage, Stage::Outgoing { migration: migration() });
    assert_eq!(
        guest.record().pairs[&mac()].held_back,
        None,
        "the administrator was told so"
    );
}

#[test]
fn a_start_after_a_migration_that_never_came_is_a_start() {
    let incoming = Stage::Incoming { migration: migration() };
    let mut guest = Guest::new(record(incoming), Settings::default());
    assert_eq!(guest.poll(0), Some(Action::Look { libvirt: true }));
    // Nobody has had an answer for that migration, so this is not what follows it.
    guest.handle(0, Event::Request(Token(1), Request::Prepare(direct("pf7"))));
    assert_eq!(guest.record().stage, Stage::Starting);
    let left = Outcome::Looked(Snapshot::default());
    expect(&mut guest, 0, Action::Look { libvirt: false }, left);
    expect(&mut guest, 0, Action::ResetVf(lease()), Outcome::Done);
    expect(&mut guest, 0, Action::Release(lease()), Outcome::Done);
    assert!(matches!(guest.poll(0), Some(Action::Lease(ask)) if ask.pf == Some("pf7".parse().expect("name"))));
}

#[test]
fn what_a_pair_had_that_the_domain_no_longer_has_is_taken_back() {
    let mut guest = Guest::new(record(Stage::Running), Settings::default());
    let mut other = spec(Policy::Never);
    other.pairs[0].mac = "52:54:00:aa:00:02".parse().expect("mac");
    guest.handle(0, Event::Request(Token(1), Request::Prepare(other)));
    expect(
        &mut guest,
        0,
        Action::Look { libvirt: false },
        Outcome::Looked(Snapshot::default()),
    );
    expect(&mut guest, 0, Action::RemoveStandby(mac()), Outcome::Done);
    expect(&mut guest, 0, Action::ResetVf(lease()), Outcome::Done);
    expect(&mut guest, 0, Action::Release(lease()), Outcome::Done);
    assert!(matches!(guest.poll(0), Some(Action::ChoosePf(ask)) if ask.mac != mac()));
    assert!(!guest.record().pairs.contains_key(&mac()));
}

#[test]
fn who_asks_gets_an_answer_while_an_action_is_under_way() {
    let mut record = Record::new(spec(Policy::Never), Stage::Leaving);
    record.spec.source_peer = Some("here:1".parse().expect("address"));
    let mut guest = Guest::new(record.clone(), Settings::default());
    guest.handle(0, Event::Request(Token(1), Request::Receive(record.spec, migration())));
    expect(
        &mut guest,
        0,
        Action::Look { libvirt: false },
        Outcome::Looked(Snapshot::default()),
    );
    let chosen = Outcome::NoVf {
        reason: String::new(),
        pf: Some(pf()),
    };
    assert!(matches!(guest.poll(0), Some(Action::ChoosePf(_))));
    guest.complete(0, Ok(chosen));
    assert!(matches!(guest.poll(0), Some(Action::MakeStandby { .. })));
    guest.complete(0, Ok(Outcome::Standby(standby(false))));
    assert!(matches!(guest.poll(0), Some(Action::AskDrain { .. })));
    // The metadata names this very host as the source: it asks itself.
    guest.handle(0, Event::Request(Token(2), Request::Drain(migration())));
    let refused = Answer::Refused("the domain does not run on this host".to_owned());
    let answer = Action::Answer {
        token: Token(2),
        answer: refused,
    };
    assert_eq!(guest.poll(0), Some(answer));
    assert_eq!(guest.poll(0), None);
    assert!(matches!(guest.in_flight(), Some(Action::AskDrain { .. })));
}
