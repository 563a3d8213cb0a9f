//! What else happens to a guest: it reboots, is paused, crashes, is renamed.

use super::*;

fn look(guest: &mut Guest, now: Millis, snapshot: Snapshot) {
    expect(guest, now, Action::Look { libvirt: true }, Outcome::Looked(snapshot));
}

#[test]
fn a_guest_that_reboots_comes_back_on_its_vf() {
    let mut guest = on_vf();
    guest.handle(1, Event::AgentGone);
    assert_eq!(guest.poll(1), None, "the VF stays plugged over a reset");
    // The new agent has no bond yet, then the bond without the VF's driver, then all of it.
    guest.handle(2, Event::AgentHello([(mac(), AgentPair::default())].into()));
    guest.handle(3, Event::AgentState(mac(), agent(false, false)));
    assert_eq!(guest.poll(3), None);
    guest.handle(4, Event::AgentState(mac(), agent(false, true)));
    let on_primary = Outcome::Switched(agent(true, true));
    expect(&mut guest, 4, Action::Failback(mac()), on_primary);
    assert_eq!(guest.poll(4), None);
    assert!(guest.is_settled());
}

#[test]
fn a_reset_that_ends_an_unplug_ends_the_drain() {
    let mut guest = on_vf();
    guest.handle(1, Event::Request(Token(1), Request::HoldBack));
    let on_standby = Outcome::Switched(agent(false, true));
    expect(&mut guest, 1, Action::Failover(mac()), on_standby);
    expect(&mut guest, 1, Action::Unplug(lease()), Outcome::Done);
    guest.handle(2, Event::AgentGone);
    assert_eq!(guest.poll(2), None, "the guest has not let go");
    // QEMU carries a pending unplug out when the machine is reset.
    guest.handle(3, Event::DeviceDeleted(mac()));
    expect(&mut guest, 3, Action::ResetVf(lease()), Outcome::Done);
    expect(&mut guest, 3, Action::Release(lease()), Outcome::Done);
    assert_eq!(answer(&mut guest, 3), Answer::Done(vec![]));
    guest.handle(4, Event::AgentHello([(mac(), agent(false, false))].into()));
    assert_eq!(guest.poll(4), None, "it stays drained over a reboot");
}

#[test]
fn a_guest_that_waits_for_a_vf_gets_one_after_its_reboot() {
    let mut record = record(Stage::Running);
    record.pairs.entry(mac()).or_default().lease = None;
    let mut guest = Guest::new(record, Settings::default());
    look(&mut guest, 0, picture(Job::None, true, false));
    confirmed(&mut guest, 0);
    assert_eq!(guest.poll(0), None, "not into a guest whose agent is not there");
    guest.handle(1, Event::AgentHello([(mac(), agent(false, false))].into()));
    assert_eq!(guest.poll(1), Some(prepare_vf()));
}

#[test]
fn a_paused_guest_keeps_its_vf_and_cannot_be_drained() {
    let mut guest = on_vf();
    guest.handle(1, Event::Running(false));
    guest.handle(1, Event::LookAgain);
    look(&mut guest, 1, picture(Job::None, false, true));
    assert_eq!(guest.poll(1), None);
    guest.handle(2, Event::Request(Token(1), Request::HoldBack));
    assert_eq!(guest.poll(2), Some(Action::Failover(mac())));
    guest.complete(17_000, Err(failure("the agent did not fail over within 15s")));
    assert!(matches!(answer(&mut guest, 17_000), Answer::Refused(reason) if reason.contains("did not fail over")));
    assert_eq!(guest.poll(17_000), None);
    guest.handle(18_000, Event::Running(true));
    guest.handle(18_000, Event::AgentState(mac(), agent(true, true)));
    assert_eq!(guest.poll(18_000), None);
    assert!(guest.is_plugged(mac()) && guest.is_settled());
}

#[test]
fn a_guest_that_was_paused_during_a_failover_is_moved_back() {
    let mut guest = on_vf();
    guest.handle(1, Event::Request(Token(1), Request::HoldBack));
    assert_eq!(guest.poll(1), Some(Action::Failover(mac())));
    guest.handle(2, Event::Running(false));
    guest.complete(17_000, Err(failure("the agent did not fail over within 15s")));
    assert!(matches!(answer(&mut guest, 17_000), Answer::Refused(_)));
    guest.handle(18_000, Event::Running(true));
    // It had read the request, and obeys when it wakes.
    guest.handle(18_001, Event::AgentState(mac(), agent(false, true)));
    let back = Outcome::Switched(agent(true, true));
    expect(&mut guest, 18_001, Action::Failback(mac()), back);
}

#[test]
fn a_guest_that_leaves_its_vf_time_and_again_is_switched_at_our_pace() {
    let mut guest = on_vf();
    let mut switched = Vec::new();
    // Ten changes a second are as many as the channel lets through.
    for now in (100..60_000).step_by(100) {
        guest.handle(now, Event::AgentState(mac(), agent(false, true)));
        while let Some(action) = guest.poll(now) {
            let outcome = match action {
                Action::Failback(_) => {
                    switched.push(now);
                    Outcome::Switched(agent(true, true))
                }
                Action::ReadFilters => Outcome::Filters(Default::default()),
                other => panic!("{other:?}"),
            };
            guest.complete(now, Ok(outcome));
        }
    }
    assert_eq!(switched.first(), Some(&100), "once at once");
    assert_eq!(switched.len(), 12, "{switched:?}");
}

#[test]
fn a_crashed_guest_that_libvirt_keeps_keeps_what_it_has() {
    let mut guest = on_vf();
    guest.handle(1, Event::Running(false));
    guest.handle(1, Event::LookAgain);
    look(&mut guest, 1, picture(Job::None, false, true));
    assert_eq!((guest.poll(1), guest.is_plugged(mac())), (None, true));
    // `virsh destroy`, after somebody has dumped its core.
    guest.handle(2, Event::Domain(DomainSeen::Absent));
    look(&mut guest, 2, nothing(Some(standby(true))));
    expect(&mut guest, 2, Action::RemoveStandby(mac()), Outcome::Done);
    expect(&mut guest, 2, Action::ResetVf(lease()), Outcome::Done);
    expect(&mut guest, 2, Action::Release(lease()), Outcome::Done);
    assert_eq!(guest.poll(2), None);
    assert!(guest.is_forgotten());
}

#[test]
fn a_restart_of_libvirt_changes_nothing() {
    let mut guest = on_vf();
    guest.handle(1, Event::LookAgain);
    assert_eq!(guest.poll(1), Some(Action::Look { libvirt: true }));
    guest.complete(1, Err(failure("libvirt cannot be reached")));
    let again = guest.next_deadline(1).expect("tried again");
    look(&mut guest, again, picture(Job::None, true, true));
    assert_eq!(guest.poll(again), None);
    assert!(guest.is_settled());
}

#[test]
fn a_renamed_domain_has_its_new_name() {
    let mut guest = on_vf();
    guest.handle(1, Event::Renamed("h".into()));
    assert_eq!(guest.record().spec.name, "h");
    assert_eq!(guest.poll(1), None);
}

#[test]
fn every_phase_is_in_the_list_of_them() {
    let (ask, standby) = (
        crate::pool::Ask {
            pool: "lan".parse().expect("name"),
            domain: lease().domain,
            mac: mac(),
            pf: None,
            numa_nodes: Vec::new(),
        },
        standby(true),
    );
    let peer = "src:16515".parse().expect("peer");
    let actions = [
        Action::Lease(ask.clone()),
        Action::ChoosePf(ask),
        Action::MakeStandby {
            mac: mac(),
            pf: pf(),
            vlan: None,
            vf: None,
        },
        Action::RaiseStandby(mac()),
        Action::LowerStandby(mac()),
        Action::TuneStandby {
            mac: mac(),
            mode: standby.mode,
            multicast: standby.multicast,
        },
        Action::AskDrain {
            peer,
            migration: migration(),
        },
        prepare_vf(),
        Action::Plug(lease()),
        Action::Failover(mac()),
        Action::Failback(mac()),
        Action::Unplug(lease()),
        Action::ResetVf(lease()),
        Action::Release(lease()),
        Action::RemoveStandby(mac()),
        Action::Announce,
        Action::RepairXml { sources: Vec::new() },
        Action::WritePolicies(BTreeMap::default()),
    ];
    let phases: BTreeSet<_> = actions.iter().filter_map(Action::phase).collect();
    assert_eq!(phases, Action::PHASES.into_iter().collect());
}
