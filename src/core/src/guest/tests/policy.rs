//! `hybondctl set`: another policy while the guest runs.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

fn set(guest: &mut Guest, token: u64, policy: Policy) {
    let request = Request::SetPolicy(BTreeSet::new(), policy);
    guest.handle(1, Event::Request(Token(token), request));
}

fn write(policy: Policy) -> Action {
    Action::WritePolicies([(mac(), policy)].into())
}

fn policy(guest: &Guest) -> Policy {
    guest.record().spec.pairs[0].policy
}

/// A guest that was set to `never`, up to the answer.
fn on_standby() -> Guest {
    let mut guest = on_vf();
    set(&mut guest, 1, Policy::Never);
    let on_standby = Outcome::Switched(agent(false, true));
    expect(&mut guest, 1, Action::Failover(mac()), on_standby);
    assert_eq!(policy(&guest), Policy::Prefer, "not before the VF is out");
    expect(&mut guest, 1, Action::Unplug(lease()), Outcome::Done);
    guest.handle(2, Event::DeviceDeleted(mac()));
    guest.handle(2, Event::AgentState(mac(), agent(false, false)));
    expect(&mut guest, 2, Action::ResetVf(lease()), Outcome::Done);
    expect(&mut guest, 2, Action::Release(lease()), Outcome::Done);
    assert_eq!(guest.poll(2), Some(write(Policy::Never)));
    assert_eq!(guest.record().unwritten, BTreeMap::from([(mac(), Policy::Never)]));
    guest.complete(3, Ok(Outcome::Done));
    assert_eq!(answer(&mut guest, 3), Answer::Done(vec![]));
    guest
}

#[test]
fn never_takes_the_vf_out_and_is_written_down() {
    let mut guest = on_standby();
    assert_eq!(guest.poll(3), None, "and stays out");
    assert_eq!(guest.next_deadline(3), None);
    assert!(guest.record().unwritten.is_empty());
    assert!(guest.is_settled());
}

#[test]
fn prefer_brings_it_back() {
    let mut guest = on_standby();
    set(&mut guest, 2, Policy::Prefer);
    expect(&mut guest, 4, write(Policy::Prefer), Outcome::Done);
    assert!(matches!(guest.poll(4), Some(Action::Lease(ask)) if ask.pf == Some(pf())));
    guest.complete(4, Ok(Outcome::Leased(lease())));
    let none = Outcome::Job(DomainSeen::Active, Job::None);
    expect(&mut guest, 4, Action::LookAtJob, none);
    expect(&mut guest, 4, prepare_vf(), Outcome::Done);
    expect(&mut guest, 4, Action::Plug(lease()), Outcome::Done);
    assert_eq!(guest.poll(4), None, "the guest's driver comes up");
    guest.handle(5, Event::AgentState(mac(), agent(false, true)));
    expect(
        &mut guest,
        5,
        Action::Failback(mac()),
        Outcome::Switched(agent(true, true)),
    );
    assert_eq!(answer(&mut guest, 5), Answer::Done(vec![]));
}

#[test]
fn a_policy_that_no_vf_is_free_for_is_set_all_the_same() {
    let mut guest = on_standby();
    set(&mut guest, 2, Policy::Require);
    expect(&mut guest, 4, write(Policy::Require), Outcome::Done);
    assert!(matches!(guest.poll(4), Some(Action::Lease(_))));
    let none = Outcome::NoVf {
        reason: "every VF of pool lan is leased".into(),
        pf: None,
    };
    guest.complete(4, Ok(none));
    assert_eq!(answer(&mut guest, 4), Answer::Done(vec![]));
    assert_eq!(guest.record().stage, Stage::Running);
    assert_eq!(guest.degraded(mac()), Some("every VF of pool lan is leased"));
}

#[test]
fn a_guest_that_keeps_its_vf_keeps_its_policy() {
    let mut guest = on_vf();
    set(&mut guest, 1, Policy::Never);
    assert_eq!(guest.poll(1), Some(Action::Failover(mac())));
    guest.complete(1, Err(failure("the agent refuses")));
    assert_eq!(answer(&mut guest, 1), Answer::Refused("the agent refuses".into()));
    assert_eq!((policy(&guest), guest.record().unwritten.len()), (Policy::Prefer, 0));
    assert!(guest.is_plugged(mac()));
}

#[test]
fn a_policy_that_libvirt_does_not_take_is_told_and_tried_again() {
    let mut guest = on_vf();
    set(&mut guest, 1, Policy::Require);
    assert_eq!(guest.poll(1), Some(write(Policy::Require)));
    guest.complete(1, Err(failure("libvirt is busy")));
    assert!(matches!(answer(&mut guest, 1), Answer::Refused(reason) if reason.contains("libvirt is busy")));
    assert_eq!(policy(&guest), Policy::Require);
    let again = guest.next_deadline(1).expect("tried again");
    expect(&mut guest, again, write(Policy::Require), Outcome::Done);
    assert!(guest.is_settled());
}

#[test]
fn a_restart_in_the_middle_goes_on() {
    let reason = DrainReason::Never([mac()].into());
    let mut guest = Guest::new(record(Stage::Draining { reason }), Settings::default());
    let gone = Outcome::Looked(picture(Job::None, true, false));
    expect(&mut guest, 0, Action::Look { libvirt: true }, gone);
    expect(&mut guest, 0, Action::ResetVf(lease()), Outcome::Done);
    expect(&mut guest, 0, Action::Release(lease()), Outcome::Done);
    expect(&mut guest, 0, write(Policy::Never), Outcome::Done);
    assert_eq!(guest.poll(0), None);
    assert_eq!(policy(&guest), Policy::Never);
}

#[test]
fn never_waits_for_a_monitor_that_is_away() {
    let mut guest = on_vf();
    guest.handle(1, Event::QmpLost);
    guest.handle(1, Event::AgentGone);
    set(&mut guest, 1, Policy::Never);
    assert_eq!(guest.poll(1), None, "what is plugged is not known");
    assert_eq!(policy(&guest), Policy::Prefer);
    guest.handle(2, Event::QmpConnected(qmp(true, true)));
    guest.handle(2, Event::AgentHello([(mac(), agent(true, true))].into()));
    assert_eq!(guest.poll(2), Some(Action::Failover(mac())));
}

#[test]
fn only_the_pair_that_is_meant_is_drained() {
    let other: Mac = "52:54:00:aa:00:02".parse().expect("mac");
    let vf = Vf {
        id: "0000:01:10.2".parse().expect("vf"),
        index: 1,
        ..lease().vf
    };
    let second = Lease {
        vf,
        mac: other,
        ..lease()
    };
    let mut record = record(Stage::Running);
    record.spec.pairs.push(PairSpec {
        mac: other,
        ..record.spec.pairs[0].clone()
    });
    let pair = PairRecord {
        lease: Some(second.clone()),
        pf: Some(pf()),
        held_back: None,
    };
    record.pairs.insert(other, Box::new(pair));
    let mut guest = Guest::new(record, Settings::default());
    let mut seen = picture(Job::None, true, true);
    seen.standby.insert(other, standby(true));
    if let Some(qmp) = &mut seen.qmp {
        qmp.plugged.insert(other);
    }
    expect(&mut guest, 0, Action::Look { libvirt: true }, Outcome::Looked(seen));
    let both = [(mac(), agent(true, true)), (other, agent(true, true))].into();
    guest.handle(0, Event::AgentHello(both));
    let request = Request::SetPolicy([other].into(), Policy::Never);
    guest.handle(0, Event::Request(Token(1), request));
    expect(
        &mut guest,
        0,
        Action::Failover(other),
        Outcome::Switched(agent(false, true)),
    );
    expect(&mut guest, 0, Action::Unplug(second.clone()), Outcome::Done);
    guest.handle(0, Event::DeviceDeleted(other));
    expect(&mut guest, 0, Action::ResetVf(second.clone()), Outcome::Done);
    expect(&mut guest, 0, Action::Release(second), Outcome::Done);
    let written = Action::WritePolicies([(other, Policy::Never)].into());
    expect(&mut guest, 0, written, Outcome::Done);
    assert_eq!(answer(&mut guest, 0), Answer::Done(vec![]));
    assert!(guest.is_plugged(mac()) && guest.poll(0).is_none());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut guest = on_vf();
    let other = "52:54:00:aa:00:09".parse().expect("mac");
    let request = Request::SetPolicy([other].into(), Policy::Never);
    guest.handle(0, Event::Request(Token(1), request));
    assert!(matches!(answer(&mut guest, 0), Answer::Refused(reason) if reason.contains("no pair 52:54:00:aa:00:09")));
    let mut coming = received(Policy::Prefer);
    coming.handle(
        0,
        Event::Request(Token(2), Request::SetPolicy(BTreeSet::new(), Policy::Never)),
    );
    assert!(matches!(answer(&mut coming, 0), Answer::Refused(reason) if reason.contains("incoming")));
}

#[test]
fn a_record_of_before_is_read() {
    let mut json = serde_json::to_value(record(Stage::Running)).expect("JSON");
    assert_eq!(json.get("unwritten"), None);
    json["stage"] = serde_json::json!({"stage": "draining", "reason": "administrator"});
    let read: Record = serde_json::from_value(json).expect("a record");
    assert_eq!(
        read.stage,
        Stage::Draining {
            reason: DrainReason::Administrator
        }
    );
}

#[test]
fn a_guest_that_comes_back_without_a_vf_while_its_last_one_is_taken_back_leaves_none_behind() {
    let mut guest = Guest::new(record(Stage::Leaving), Settings::default());
    let gone = nothing(Some(standby(true)));
    expect(&mut guest, 0, Action::Look { libvirt: true }, Outcome::Looked(gone));
    assert_eq!(guest.poll(0), Some(Action::RemoveStandby(mac())));
    let receive = Request::Receive(spec(Policy::Never), migration());
    guest.handle(1, Event::Request(Token(1), receive));
    guest.complete(2, Ok(Outcome::Done));

    let look = Action::Look { libvirt: false };
    let mut empty = nothing(None);
    empty.libvirt = None;
    expect(&mut guest, 2, look, Outcome::Looked(empty));
    expect(&mut guest, 3, Action::ResetVf(lease()), Outcome::Done);
    expect(&mut guest, 4, Action::Release(lease()), Outcome::Done);
    assert!(
        matches!(guest.poll(5), Some(Action::ChoosePf(_))),
        "only then is its standby's place looked for"
    );
}
