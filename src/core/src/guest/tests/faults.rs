//! Crashes, lost events, answers that are late or wrong.

use super::*;

/// A daemon that was restarted while a domain was on its way.
fn coming(answered: Option<Hook>) -> Guest {
    let stage = Stage::Incoming { migration: migration() };
    let record = Record {
        answered,
        ..record(stage)
    };
    Guest::new(record, Settings::default())
}

#[test]
fn a_hook_that_lost_its_daemon_has_refused() {
    let mut guest = coming(None);
    let left = || Outcome::Looked(nothing(Some(standby(false))));
    expect(&mut guest, 0, Action::Look { libvirt: true }, left());
    expect(&mut guest, 0, Action::Look { libvirt: true }, left());
    expect(&mut guest, 0, Action::RemoveStandby(mac()), Outcome::Done);
}

#[test]
fn a_look_that_failed_is_repeated_once_something_says_that_it_may_succeed() {
    let look = Some(Action::Look { libvirt: true });
    let fail = || {
        Err(Failure {
            reason: "no connection to libvirt".to_owned(),
        })
    };
    // A daemon that has just started is a moment ahead of its connection.
    let mut guest = Guest::new(record(Stage::Running), Settings::default());
    assert_eq!(guest.poll(0), look);
    guest.complete(0, fail());
    assert_eq!(guest.poll(1), None, "not for nothing");
    guest.handle(2, Event::LookAgain);
    assert_eq!(guest.poll(2), look);
    // Or the connection is there before the failure is.
    guest.handle(3, Event::LookAgain);
    guest.complete(3, fail());
    assert_eq!(guest.poll(3), look);
    guest.complete(3, fail());
    assert_eq!(guest.poll(4), None);
}

#[test]
fn a_domain_that_came_and_went_while_the_daemon_was_down_leaves_nothing() {
    let mut guest = coming(Some(Hook::Prepare));
    let left = || Outcome::Looked(nothing(Some(standby(false))));
    expect(&mut guest, 0, Action::Look { libvirt: true }, left());
    expect(&mut guest, 0, Action::Look { libvirt: true }, left());
    expect(&mut guest, 0, Action::RemoveStandby(mac()), Outcome::Done);
}

#[test]
fn a_reservation_outlives_a_restart() {
    let mut guest = coming(Some(Hook::Announce));
    let left = || Outcome::Looked(nothing(Some(standby(false))));
    expect(&mut guest, 1_000, Action::Look { libvirt: true }, left());
    assert_eq!(guest.poll(1_000), None, "the domain may still come");
    let expires = guest.next_deadline(1_000).expect("not for ever");
    assert_eq!(expires, 1_000 + Settings::default().reservation);
    expect(
        &mut guest,
        expires,
        Action::LookAtJob,
        Outcome::Job(DomainSeen::Absent, Job::None),
    );
    expect(&mut guest, expires, Action::Look { libvirt: true }, left());
    expect(&mut guest, expires, Action::RemoveStandby(mac()), Outcome::Done);
}

#[test]
fn a_domain_whose_monitor_is_silent_keeps_its_reservation() {
    let mut guest = received(Policy::Prefer);
    guest.complete(1, Ok(Outcome::Done));
    answer(&mut guest, 1);
    let expires = guest.next_deadline(1).expect("not for ever");
    expect(
        &mut guest,
        expires,
        Action::LookAtJob,
        Outcome::Job(DomainSeen::Active, Job::Incoming),
    );
    assert_eq!(guest.poll(expires), None);
    assert!(matches!(guest.record().stage, Stage::Incoming { .. }));
}

#[test]
fn a_drain_that_a_restart_interrupted_ends() {
    let reason = DrainReason::Migration(migration());
    let mut guest = Guest::new(record(Stage::Draining { reason }), Settings::default());
    let there = Outcome::Looked(picture(Job::None, true, true));
    expect(&mut guest, 0, Action::Look { libvirt: true }, there);
    assert_eq!(guest.poll(0), None);
    assert_eq!(guest.record().stage, Stage::Running, "there is no migration any more");
}

#[test]
fn a_look_that_came_too_early_is_repeated() {
    let mut guest = on_vf();
    guest.handle(1, Event::LookAgain);
    assert_eq!(guest.poll(1), Some(Action::Look { libvirt: true }));
    guest.handle(2, Event::LookAgain);
    guest.complete(3, Ok(Outcome::Looked(picture(Job::None, true, true))));
    assert_eq!(guest.poll(3), Some(Action::Look { libvirt: true }));
}

#[test]
fn a_guest_that_came_by_migration_gets_its_vf_back_after_one_that_never_began() {
    let mut guest = on_vf();
    // QEMU says so ever after on the host where a migration ended.
    guest.handle(0, Event::Migration(MigrationSeen::Completed));
    drained(&mut guest, 1);
    expect(
        &mut guest,
        1,
        Action::LookAtJob,
        Outcome::Job(DomainSeen::Active, Job::None),
    );
    confirmed(&mut guest, 1);
    assert_eq!(guest.poll(1), Some(Action::LookAtJob));
    assert_eq!(guest.record().stage, Stage::Running);
}

#[test]
fn a_standby_that_is_down_is_raised_before_the_vf_goes() {
    let mut guest = Guest::new(record(Stage::Running), Settings::default());
    let mut seen = picture(Job::None, true, true);
    seen.standby.insert(mac(), standby(false));
    expect(&mut guest, 0, Action::Look { libvirt: true }, Outcome::Looked(seen));
    guest.handle(0, Event::AgentHello([(mac(), agent(true, true))].into()));
    assert_eq!(guest.poll(0), Some(Action::RaiseStandby(mac())));
    guest.complete(0, Err(failure("the PF is down")));
    guest.handle(0, Event::Request(Token(1), Request::HoldBack));
    assert_eq!(guest.poll(0), Some(Action::RaiseStandby(mac())));
    guest.complete(0, Err(failure("the PF is down")));
    assert_eq!(guest.poll(0), None, "no failover, no unplug");
    let again = guest.next_deadline(0).expect("tried again");
    expect(
        &mut guest,
        again,
        Action::RaiseStandby(mac()),
        Outcome::Standby(standby(true)),
    );
    assert_eq!(guest.poll(again), Some(Action::Failover(mac())));
}

#[test]
fn in_postcopy_the_standby_is_raised_when_the_cpus_start() {
    let mut guest = awaited();
    guest.handle(3, Event::Migration(MigrationSeen::Active));
    assert_eq!(guest.poll(3), None);
    guest.handle(4, Event::Running(true));
    expect(
        &mut guest,
        4,
        Action::RaiseStandby(mac()),
        Outcome::Standby(standby(true)),
    );
    assert_eq!(guest.poll(4), None, "pages are still on their way");
    guest.handle(5, Event::Migration(MigrationSeen::Completed));
    let now = after_its_first_moments(&mut guest, 5);
    assert_eq!(guest.poll(now), Some(Action::Announce));
}

#[test]
fn a_failback_that_seemed_to_fail_is_taken_back_before_the_unplug() {
    let mut guest = on_vf();
    guest.handle(1, Event::AgentState(mac(), agent(false, true)));
    assert_eq!(guest.poll(1), Some(Action::Failback(mac())));
    guest.handle(2, Event::Request(Token(1), Request::HoldBack));
    // The guest's bond may have switched all the same, and its answer been lost.
    guest.complete(3, Err(failure("the agent does not answer")));
    let switched = Outcome::Switched(agent(false, true));
    expect(&mut guest, 3, Action::Failover(mac()), switched);
    assert_eq!(guest.poll(3), Some(Action::Unplug(lease())));
}

#[test]
fn a_plug_that_seemed_to_fail_is_looked_at_before_anything_is_undone() {
    let mut guest = stayed();
    expect(&mut guest, 0, prepare_vf(), Outcome::Done);
    assert_eq!(guest.poll(0), Some(Action::Plug(lease())));
    guest.complete(0, Err(failure("the monitor was lost")));
    let there = Outcome::Looked(picture(Job::None, true, true));
    expect(&mut guest, 0, Action::Look { libvirt: true }, there);
    guest.handle(1, Event::AgentState(mac(), agent(false, true)));
    assert_eq!(guest.poll(1), Some(Action::Failback(mac())));
}

#[test]
fn a_vf_whose_reset_seemed_to_fail_is_prepared_again_before_it_is_plugged() {
    let mut guest = stayed();
    assert_eq!(guest.poll(0), Some(prepare_vf()));
    guest.handle(0, Event::Request(Token(2), Request::HoldBack));
    guest.complete(0, Ok(Outcome::Done));
    assert_eq!(guest.poll(0), Some(Action::ResetVf(lease())));
    // The MAC may be off it all the same.
    guest.complete(0, Err(failure("the answer was lost")));
    // A drain that is not asked to the end brings the guest back to where it gets its VF.
    guest.handle(1, Event::Request(Token(3), Request::Drain(migration())));
    assert!(matches!(answer(&mut guest, 1), Answer::Refused(_)));
    assert_eq!(guest.poll(1), Some(Action::LookAtJob));
    guest.complete(1, Err(failure("libvirt is away")));
    assert!(matches!(answer(&mut guest, 1), Answer::Refused(_)));
    expect(&mut guest, 1, Action::LookAtJob, no_job());
    assert_eq!(guest.poll(1), Some(prepare_vf()));
}

#[test]
fn without_a_standby_a_guest_keeps_its_vf_and_nothing_is_tried_for_ever() {
    let mut guest = on_vf();
    guest.handle(0, Event::LookAgain);
    let without = Snapshot {
        standby: BTreeMap::new(),
        ..picture(Job::None, true, true)
    };
    expect(&mut guest, 0, Action::Look { libvirt: true }, Outcome::Looked(without));
    assert_eq!(guest.poll(0), None);
    assert_eq!(guest.next_deadline(0), None);
    assert!(guest.standby_is_gone(mac()));
    let why = guest.degraded(mac()).expect("a reason").to_owned();
    guest.handle(1, Event::Request(Token(1), Request::Drain(migration())));
    let outgoing = Outcome::Job(DomainSeen::Active, Job::Outgoing);
    expect(&mut guest, 1, Action::LookAtJob, outgoing);
    match answer(&mut guest, 1) {
        Answer::Refused(reason) => assert!(reason.contains(&why), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_vf_that_the_guest_throws_out_is_cleaned_and_comes_back_later() {
    let mut guest = on_vf();
    guest.handle(0, Event::DeviceDeleted(mac()));
    guest.handle(0, Event::AgentState(mac(), agent(false, false)));
    expect(&mut guest, 0, Action::ResetVf(lease()), Outcome::Done);
    confirmed(&mut guest, 0);
    assert_eq!(guest.poll(0), None, "not at once");
    let later = guest.next_deadline(0).expect("later");
    expect(
        &mut guest,
        later,
        Action::LookAtJob,
        Outcome::Job(DomainSeen::Active, Job::None),
    );
    expect(&mut guest, later, prepare_vf(), Outcome::Done);
    assert_eq!(guest.poll(later), Some(Action::Plug(lease())));
}

#[test]
fn a_vf_that_goes_before_its_plug_has_returned_is_looked_for() {
    let mut guest = stayed();
    expect(&mut guest, 0, prepare_vf(), Outcome::Done);
    assert_eq!(guest.poll(0), Some(Action::Plug(lease())));
    guest.handle(1, Event::DeviceDeleted(mac()));
    guest.complete(2, Ok(Outcome::Done));
    let gone = Outcome::Looked(picture(Job::None, true, false));
    expect(&mut guest, 2, Action::Look { libvirt: true }, gone);
    expect(&mut guest, 2, Action::ResetVf(lease()), Outcome::Done);
    assert_eq!(guest.poll(2), None, "not at once");
}

#[test]
fn a_vf_that_cannot_be_prepared_is_asked_for_again() {
    let mut guest = stayed();
    assert_eq!(guest.poll(0), Some(prepare_vf()));
    guest.complete(0, Err(failure("PF pf0 has no VF 0")));
    expect(&mut guest, 0, Action::ResetVf(lease()), Outcome::Done);
    assert!(matches!(guest.poll(0), Some(Action::Lease(ask)) if ask.pf == Some(pf())));
    let gone = Outcome::NoVf {
        reason: "pool lan has no VF on PF pf0".into(),
        pf: None,
    };
    guest.complete(0, Ok(gone));
    assert_eq!(guest.record().pairs[&mac()].lease, None);
    assert_eq!(guest.degraded(mac()), Some("pool lan has no VF on PF pf0"));
}

#[test]
fn a_release_that_cannot_be_written_down_is_not_repeated_at_once() {
    let mut guest = on_vf();
    guest.handle(0, Event::Request(Token(1), Request::HoldBack));
    expect(
        &mut guest,
        0,
        Action::Failover(mac()),
        Outcome::Switched(agent(false, true)),
    );
    expect(&mut guest, 0, Action::Unplug(lease()), Outcome::Done);
    guest.handle(0, Event::DeviceDeleted(mac()));
    expect(&mut guest, 0, Action::ResetVf(lease()), Outcome::Done);
    assert_eq!(guest.poll(0), Some(Action::Release(lease())));
    guest.complete(0, Err(failure("the disk is full")));
    assert_eq!(guest.poll(0), None);
    let later = guest.next_deadline(0).expect("later");
    expect(&mut guest, later, Action::Release(lease()), Outcome::Done);
    assert_eq!(answer(&mut guest, later), Answer::Done(vec![]));
}

#[test]
fn a_macvtap_whose_making_seemed_to_fail_is_removed() {
    let mut guest = Guest::new(Record::new(spec(Policy::Prefer), Stage::Leaving), Settings::default());
    guest.handle(0, Event::Request(Token(1), Request::Prepare(spec(Policy::Prefer))));
    expect(
        &mut guest,
        0,
        Action::Look { libvirt: false },
        Outcome::Looked(Snapshot::default()),
    );
    assert!(matches!(guest.poll(0), Some(Action::Lease(_))));
    guest.complete(0, Ok(Outcome::Leased(lease())));
    assert!(matches!(guest.poll(0), Some(Action::MakeStandby { .. })));
    guest.complete(0, Err(failure("netlink did not answer")));
    assert!(matches!(answer(&mut guest, 0), Answer::Refused(_)));
    let left = Outcome::Looked(nothing(Some(standby(false))));
    expect(&mut guest, 0, Action::Look { libvirt: true }, left);
    assert_eq!(guest.poll(0), Some(Action::RemoveStandby(mac())));
}

#[test]
fn a_domain_that_libvirt_says_is_gone_while_its_monitor_answers_keeps_its_macvtap() {
    let mut guest = on_vf();
    guest.handle(0, Event::LookAgain);
    let torn = Snapshot {
        libvirt: Some((DomainSeen::Absent, Job::None)),
        ..picture(Job::None, true, true)
    };
    expect(&mut guest, 0, Action::Look { libvirt: true }, Outcome::Looked(torn));
    assert_eq!(guest.poll(0), None);
    assert_eq!(guest.record().stage, Stage::Running);
}

#[test]
fn a_failback_that_seemed_to_fail_and_comes_late_is_well() {
    let mut guest = Guest::new(record(Stage::Running), Settings::default());
    let seen = Outcome::Looked(picture(Job::None, true, true));
    expect(&mut guest, 0, Action::Look { libvirt: true }, seen);
    guest.handle(0, Event::AgentHello([(mac(), agent(false, true))].into()));
    assert_eq!(guest.poll(0), Some(Action::Failback(mac())));
    guest.complete(15_000, Err(failure("the agent did not fail back within 15s")));
    assert_eq!(guest.degraded(mac()), Some("the agent did not fail back within 15s"));
    guest.handle(16_000, Event::AgentState(mac(), agent(true, true)));
    assert_eq!(guest.degraded(mac()), None);
}

/// A guest that has come by migration and is on its VF, but for its XML.
fn arrived_on_vf() -> Guest {
    let mut stale = record(Stage::Running);
    stale.xml_stale = true;
    let mut guest = Guest::new(stale, Settings::default());
    let seen = Outcome::Looked(picture(Job::None, true, true));
    expect(&mut guest, 0, Action::Look { libvirt: true }, seen);
    guest.handle(0, Event::AgentHello([(mac(), agent(true, true))].into()));
    guest
}

/// Fails to put the XML right, until that is given up; the pauses between.
fn repair_fails(guest: &mut Guest, mut now: Millis) -> (Millis, Vec<Millis>) {
    let mut pauses = Vec::new();
    loop {
        assert_eq!(guest.poll(now), Some(repair_xml()));
        guest.complete(now, Err(failure("libvirt: the PF is not in the domain's network")));
        assert_eq!(guest.poll(now), None, "not at once");
        if guest.is_settled() {
            return (now, pauses);
        }
        assert_eq!(guest.degraded(mac()), None, "it may still come right");
        let next = guest.next_deadline(now).expect("tried again");
        pauses.push(next - now);
        now = next;
    }
}

#[test]
fn an_xml_that_cannot_be_put_right_is_left_at_last_and_that_is_said() {
    let mut guest = arrived_on_vf();
    let (now, pauses) = repair_fails(&mut guest, 0);
    assert_eq!(pauses, [5_000, 10_000, 20_000, 40_000]);
    let why = guest.degraded(mac()).expect("degraded").to_owned();
    assert!(
        why.contains("the PF is not in the domain's network") && why.contains("hybondctl plug g"),
        "{why}"
    );
    assert!(guest.record().xml_stale, "known after a restart");
    assert_eq!(guest.poll(now + 1_000_000), None, "and not tried for ever");
}

#[test]
fn what_happens_to_a_domain_has_its_xml_put_right_again() {
    let again = |guest: &mut Guest, now: Millis| {
        expect(guest, now, repair_xml(), Outcome::Done);
        assert_eq!(guest.degraded(mac()), None);
        assert!(guest.is_settled() && !guest.record().xml_stale);
    };
    let mut guest = arrived_on_vf();
    let (now, _) = repair_fails(&mut guest, 0);
    guest.handle(now + 1, Event::LookAgain);
    let seen = Outcome::Looked(picture(Job::None, true, true));
    expect(&mut guest, now + 1, Action::Look { libvirt: true }, seen);
    again(&mut guest, now + 1);

    let mut guest = arrived_on_vf();
    let (now, _) = repair_fails(&mut guest, 0);
    guest.handle(now + 1, Event::Request(Token(1), Request::Plug));
    expect(&mut guest, now + 1, repair_xml(), Outcome::Done);
    assert_eq!(answer(&mut guest, now + 1), Answer::Done(vec![]));
    assert!(guest.is_settled());
}

#[test]
fn an_xml_that_comes_right_late_is_no_matter() {
    let mut guest = arrived_on_vf();
    assert_eq!(guest.poll(0), Some(repair_xml()));
    guest.complete(0, Err(failure("the domain is locked")));
    let later = guest.next_deadline(0).expect("tried again");
    expect(&mut guest, later, repair_xml(), Outcome::Done);
    assert!(guest.is_settled() && guest.degraded(mac()).is_none());
}

#[test]
fn a_drain_that_cannot_be_written_down_is_refused_at_once_with_the_reason() {
    let mut guest = on_vf();
    guest.handle(0, Event::Request(Token(1), Request::Drain(migration())));
    assert_eq!(guest.poll(0), Some(Action::LookAtJob));
    guest.complete(0, Err(failure("the file system is full")));
    assert!(matches!(answer(&mut guest, 0), Answer::Refused(reason) if reason.contains("is full")));
    assert_eq!(guest.record().stage, Stage::Running, "nothing was done to the guest");
}

#[test]
fn nothing_is_asked_of_libvirt_while_qemu_copies_the_guest() {
    let mut guest = on_vf();
    drained(&mut guest, 1);
    let outgoing = || Outcome::Job(DomainSeen::Active, Job::Outgoing);
    expect(&mut guest, 1, Action::LookAtJob, outgoing());
    guest.handle(200, Event::Migration(MigrationSeen::Active));
    assert_eq!(guest.poll(5_000), None, "QEMU tells how it ends");
    assert_eq!(guest.next_deadline(5_000), None);
    guest.handle(6_000, Event::Running(false));
    guest.handle(6_200, Event::Migration(MigrationSeen::Completed));
    assert_eq!(guest.poll(6_200), None, "the guest is about to run elsewhere");
    // It was lost on the way: libvirt has it run here again, and ends its job.
    guest.handle(6_300, Event::Running(true));
    let again = guest.next_deadline(6_300).expect("not for ever");
    expect(&mut guest, again, Action::LookAtJob, no_job());
    assert_eq!(guest.record().stage, Stage::Running);
}

#[test]
fn a_migration_that_qemu_gives_up_brings_the_vf_back_at_once() {
    let mut guest = on_vf();
    drained(&mut guest, 1);
    let outgoing = Outcome::Job(DomainSeen::Active, Job::Outgoing);
    expect(&mut guest, 1, Action::LookAtJob, outgoing);
    guest.handle(200, Event::Migration(MigrationSeen::Active));
    guest.handle(5_000, Event::Migration(MigrationSeen::Idle));
    expect(&mut guest, 5_000, Action::LookAtJob, no_job());
    assert_eq!(guest.record().stage, Stage::Running);
}
