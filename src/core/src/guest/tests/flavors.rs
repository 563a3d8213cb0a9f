//! What a pair of each flavor goes through, and a standby whose PF libvirt's network chooses.

use super::*;
use crate::paths::{Multicast, Paths, PoolPaths, StandbyMode};
use crate::spec::Flavor;

fn indirect(policy: Policy) -> DomainSpec {
    let mut spec = spec(policy);
    spec.pairs[0].flavor = Flavor::Indirect;
    spec
}

fn of_network(source: Option<&str>) -> DomainSpec {
    let mut spec = spec(Policy::Require);
    let source = source.map(|name| name.parse().expect("name"));
    spec.pairs[0].standby = StandbyKind::Network { source };
    spec
}

fn over_vf(up: bool) -> StandbySeen {
    StandbySeen {
        vf: Some(lease().vf.id),
        mode: StandbyMode::Passthru,
        ..standby(up)
    }
}

fn make_over_vf() -> Action {
    Action::MakeStandby {
        mac: mac(),
        pf: pf(),
        vlan: None,
        vf: Some(lease()),
    }
}

fn told(spec: &DomainSpec, request: Request) -> Guest {
    let mut guest = Guest::new(Record::new(spec.clone(), Stage::Leaving), Settings::default());
    guest.handle(0, Event::Request(Token(1), request));
    let nothing = Outcome::Looked(Snapshot::default());
    expect(&mut guest, 0, Action::Look { libvirt: false }, nothing);
    guest
}

/// An indirect guest that has come by migration and runs on its VF's macvtap.
fn arrived() -> (Guest, Millis) {
    let spec = indirect(Policy::Require);
    let mut guest = told(&spec, Request::Receive(spec.clone(), migration()));
    assert!(matches!(guest.poll(0), Some(Action::Lease(ask)) if ask.pf.is_none()));
    guest.complete(0, Ok(Outcome::Leased(lease())));
    expect(&mut guest, 0, prepare_vf(), Outcome::Done);
    expect(&mut guest, 0, make_over_vf(), Outcome::Standby(over_vf(false)));
    assert!(matches!(guest.poll(0), Some(Action::AskDrain { .. })));
    guest.complete(0, Ok(Outcome::Done));
    assert_eq!(answer(&mut guest, 0), Answer::Done(vec![]));
    guest.handle(1, Event::Request(Token(2), Request::Prepare(spec)));
    assert_eq!(answer(&mut guest, 1), Answer::Done(vec![]));
    guest.handle(2, Event::QmpConnected(QmpSeen::default()));
    assert_eq!(guest.poll(2), None, "the macvtap stays down while the source runs");
    guest.handle(3, Event::Migration(MigrationSeen::Completed));
    expect(
        &mut guest,
        3,
        Action::RaiseStandby(mac()),
        Outcome::Standby(over_vf(true)),
    );
    guest.handle(4, Event::Running(true));
    let now = after_its_first_moments(&mut guest, 4);
    expect(&mut guest, now, Action::Announce, Outcome::Done);
    guest.handle(now, Event::AgentHello([(mac(), agent(false, false))].into()));
    assert_eq!(guest.poll(now), None, "there is nothing to plug");
    let later = guest.next_deadline(now).expect("the repair's");
    expect(&mut guest, later, repair_xml(), Outcome::Done);
    assert!(guest.is_settled());
    (guest, later)
}

#[test]
fn an_indirect_pair_migrates_without_an_unplug_and_leaves_nothing() {
    let (mut guest, now) = arrived();
    guest.handle(now, Event::Request(Token(3), Request::Drain(migration())));
    let outgoing = Outcome::Job(DomainSeen::Active, Job::Outgoing);
    expect(&mut guest, now, Action::LookAtJob, outgoing);
    assert_eq!(
        answer(&mut guest, now),
        Answer::Done(vec![]),
        "its VF is under its traffic"
    );
    guest.handle(now, Event::Domain(DomainSeen::Absent));
    expect(
        &mut guest,
        now,
        Action::Look { libvirt: true },
        Outcome::Looked(nothing(Some(over_vf(true)))),
    );
    expect(&mut guest, now, Action::RemoveStandby(mac()), Outcome::Done);
    expect(&mut guest, now, Action::ResetVf(lease()), Outcome::Done);
    expect(&mut guest, now, Action::Release(lease()), Outcome::Done);
    assert_eq!(guest.poll(now), None);
    assert!(guest.is_forgotten());
}

#[test]
fn an_administrators_drain_leaves_an_indirect_pair_where_it_is() {
    let (mut guest, now) = arrived();
    guest.handle(now, Event::Request(Token(3), Request::HoldBack));
    assert_eq!(answer(&mut guest, now), Answer::Done(vec![]));
    assert_eq!(guest.poll(now), None);
    assert_eq!(guest.record().pairs[&mac()].lease, Some(lease()));
    assert_eq!(guest.record().pairs[&mac()].held_back, None);
}

#[test]
fn the_vf_of_an_indirect_pair_cannot_be_set_aside_while_it_runs() {
    let (mut guest, now) = arrived();
    let set = |policy| Request::SetPolicy([].into(), policy);
    guest.handle(now, Event::Request(Token(3), set(Policy::Never)));
    let refused = answer(&mut guest, now);
    assert!(matches!(refused, Answer::Refused(why) if why.contains("--flavor virtual")));
    guest.handle(now, Event::Request(Token(4), set(Policy::Prefer)));
    let written = Action::WritePolicies([(mac(), Policy::Prefer)].into());
    expect(&mut guest, now, written, Outcome::Done);
    assert_eq!(answer(&mut guest, now), Answer::Done(vec![]));
    assert_eq!(guest.poll(now), None);
    assert_eq!(guest.record().pairs[&mac()].lease, Some(lease()));
}

#[test]
fn a_pair_that_is_indirect_again_says_that_it_waits_for_its_next_start() {
    let mut record = record(Stage::Running);
    record.spec = indirect(Policy::Never);
    record.xml_stale = false;
    record.pairs.insert(
        mac(),
        Box::new(PairRecord {
            pf: Some(pf()),
            ..PairRecord::default()
        }),
    );
    let mut guest = Guest::new(record, Settings::default());
    let seen = Outcome::Looked(picture(Job::None, true, false));
    expect(&mut guest, 0, Action::Look { libvirt: true }, seen);
    assert_eq!(guest.degraded(mac()), None, "it is as its policy would have it");
    let set = Request::SetPolicy([].into(), Policy::Prefer);
    guest.handle(1, Event::Request(Token(1), set));
    let written = Action::WritePolicies([(mac(), Policy::Prefer)].into());
    expect(&mut guest, 1, written, Outcome::Done);
    assert_eq!(answer(&mut guest, 1), Answer::Done(vec![]));
    assert_eq!(guest.poll(1), None, "its macvtap cannot be moved under QEMU");
    assert!(
        guest
            .degraded(mac())
            .is_some_and(|why| why.contains("until its next start"))
    );
}

#[test]
fn an_indirect_standby_takes_what_its_guest_asks_for_and_keeps_its_mode() {
    let pools = [("lan".parse().expect("name"), PoolPaths::default())];
    let paths = std::sync::Arc::new(Paths(pools.into()));
    let (guest, now) = arrived();
    let mut guest = guest.with_paths(paths);
    let groups = Multicast::asked(false, [[0x33, 0x33, 0, 0, 0, 1]]);
    let filters = [(mac(), groups.clone())].into();
    expect(&mut guest, now, Action::ReadFilters, Outcome::Filters(filters));
    let (multicast, mode) = (groups, StandbyMode::Passthru);
    let tune = Action::TuneStandby {
        mac: mac(),
        mode,
        multicast,
    };
    expect(&mut guest, now, tune, Outcome::Done);
    assert_eq!(guest.poll(now), None);
}

#[test]
fn an_indirect_pair_without_a_vf_is_on_a_pf_and_says_so_or_is_refused() {
    let none = || Outcome::NoVf {
        reason: "every VF of pool lan is leased".into(),
        pf: Some(pf()),
    };
    let spec = indirect(Policy::Require);
    let mut guest = told(&spec, Request::Prepare(spec.clone()));
    assert!(matches!(guest.poll(0), Some(Action::Lease(_))));
    guest.complete(0, Ok(none()));
    assert!(matches!(answer(&mut guest, 0), Answer::Refused(why) if why.contains("require")));

    let spec = indirect(Policy::Prefer);
    let mut guest = told(&spec, Request::Prepare(spec.clone()));
    assert!(matches!(guest.poll(0), Some(Action::Lease(_))));
    guest.complete(0, Ok(none()));
    let on_pf = Action::MakeStandby {
        mac: mac(),
        pf: pf(),
        vlan: None,
        vf: None,
    };
    expect(&mut guest, 0, on_pf, Outcome::Standby(standby(false)));
    expect(
        &mut guest,
        0,
        Action::RaiseStandby(mac()),
        Outcome::Standby(standby(true)),
    );
    assert_eq!(answer(&mut guest, 0), Answer::Done(vec![]));
    guest.handle(1, Event::QmpConnected(qmp(true, false)));
    expect(&mut guest, 1, repair_xml(), Outcome::Done);
    let why = guest.degraded(mac()).expect("it says so");
    assert!(why.contains("bridge-mode macvtap of PF pf0"), "{why}");
    guest.handle(2, Event::PoolChanged);
    assert_eq!(guest.poll(2), None, "its macvtap cannot be moved under QEMU");

    // After a restart of the daemon it still says so.
    let mut guest = Guest::new(guest.record().clone(), Settings::default());
    let seen = Outcome::Looked(picture(Job::None, true, false));
    expect(&mut guest, 3, Action::Look { libvirt: true }, seen);
    assert!(guest.degraded(mac()).is_some_and(|why| why.contains("PF pf0")));
}

#[test]
fn an_indirect_pair_without_a_vf_says_so_though_the_daemon_has_started_again_before_it_ran() {
    let mut record = record(Stage::Starting);
    record.spec = indirect(Policy::Prefer);
    record.pairs.get_mut(&mac()).expect("pair").lease = None;
    let mut guest = Guest::new(record, Settings::default());
    let seen = Outcome::Looked(picture(Job::None, true, false));
    expect(&mut guest, 0, Action::Look { libvirt: true }, seen);
    guest.poll(0);
    assert!(guest.degraded(mac()).is_some_and(|why| why.contains("without a VF")));
}

/// An indirect guest that is started where an earlier life of its has left the macvtap and the VF below.
fn started_over_what_was_left() -> Guest {
    let spec = indirect(Policy::Prefer);
    let mut left = record(Stage::Incoming { migration: migration() });
    left.spec = spec.clone();
    let mut guest = Guest::new(left, Settings::default());
    guest.handle(0, Event::Request(Token(1), Request::Prepare(spec)));
    let seen = Snapshot {
        standby: [(mac(), over_vf(true))].into(),
        ..Snapshot::default()
    };
    expect(&mut guest, 0, Action::Look { libvirt: false }, Outcome::Looked(seen));
    guest
}

#[test]
fn a_vf_that_an_earlier_life_left_below_a_standby_is_cleaned_before_it_serves_again() {
    let mut guest = started_over_what_was_left();
    expect(&mut guest, 0, Action::RemoveStandby(mac()), Outcome::Done);
    expect(&mut guest, 0, Action::ResetVf(lease()), Outcome::Done);
    expect(&mut guest, 0, Action::Release(lease()), Outcome::Done);
    assert!(matches!(guest.poll(0), Some(Action::Lease(_))));
}

#[test]
fn a_start_is_refused_where_what_an_earlier_life_left_cannot_be_removed() {
    let mut guest = started_over_what_was_left();
    assert_eq!(guest.poll(0), Some(Action::RemoveStandby(mac())));
    guest.complete(0, Err(failure("busy")));
    assert_eq!(answer(&mut guest, 0), Answer::Refused("busy".into()));
}

#[test]
fn a_virtual_pair_asks_for_no_vf_whichever_release_has_written_it_down() {
    let mut new = spec(Policy::Require);
    new.pairs[0].flavor = Flavor::Virtual;
    for spec in [new, spec(Policy::Never)] {
        let mut guest = told(&spec, Request::Prepare(spec.clone()));
        assert!(matches!(guest.poll(0), Some(Action::ChoosePf(_))));
        let chosen = Outcome::NoVf {
            reason: String::new(),
            pf: Some(pf()),
        };
        guest.complete(0, Ok(chosen));
        assert!(matches!(guest.poll(0), Some(Action::MakeStandby { vf: None, .. })));
    }
}

#[test]
fn a_network_chooses_the_pf_at_a_start_and_the_vf_follows() {
    let spec = of_network(None);
    let mut guest = told(&spec, Request::Prepare(spec.clone()));
    assert_eq!(answer(&mut guest, 0), Answer::Done(vec![]), "nothing can be leased yet");
    let placed = of_network(Some("pf7"));
    guest.handle(1, Event::Request(Token(2), Request::Place(placed)));
    let asked = guest.poll(1);
    assert!(matches!(asked, Some(Action::Lease(ask)) if ask.pf == Some("pf7".parse().expect("name"))));
    let none = Outcome::NoVf {
        reason: "every VF of pool lan is leased on PF pf7".into(),
        pf: None,
    };
    guest.complete(1, Ok(none));
    let refused = answer(&mut guest, 1);
    assert!(
        matches!(refused, Answer::Refused(why) if why.contains("require")),
        "QEMU does not run yet"
    );
}

/// A start after which a VF of PF pf0 was left over, and whose network chooses pf7. Cleaning the VF fails.
fn placed_beside_its_vf(policy: Policy) -> Guest {
    let of_network = |source| {
        let mut spec = of_network(source);
        spec.pairs[0].policy = policy;
        spec
    };
    let mut left = record(Stage::Leaving);
    left.spec = of_network(None);
    let mut guest = Guest::new(left, Settings::default());
    guest.handle(0, Event::Request(Token(1), Request::Prepare(of_network(None))));
    let nothing = Outcome::Looked(Snapshot::default());
    expect(&mut guest, 0, Action::Look { libvirt: false }, nothing);
    assert_eq!(answer(&mut guest, 0), Answer::Done(vec![]));
    guest.handle(1, Event::Request(Token(2), Request::Place(of_network(Some("pf7")))));
    assert_eq!(guest.poll(1), Some(Action::ResetVf(lease())));
    guest.complete(1, Err(failure("VF 0 of pf0 still has its MAC")));
    guest
}

#[test]
fn a_pair_is_on_the_pf_that_its_network_has_chosen_though_a_vf_of_another_could_not_be_given_back() {
    let mut guest = placed_beside_its_vf(Policy::Prefer);
    assert_eq!(answer(&mut guest, 1), Answer::Done(vec![]));
    guest.handle(2, Event::QmpConnected(qmp(true, false)));
    assert_eq!(guest.poll(2), Some(Action::ResetVf(lease())));
    let chosen: IfName = "pf7".parse().expect("name");
    assert_eq!(guest.record().pairs[&mac()].pf, Some(chosen.clone()));
    guest.complete(2, Ok(Outcome::Done));
    expect(&mut guest, 2, Action::Release(lease()), Outcome::Done);
    assert!(matches!(guest.poll(2), Some(Action::Lease(ask)) if ask.pf == Some(chosen.clone())));
    let none = Outcome::NoVf {
        reason: "every VF of pool lan is leased on PF pf7".into(),
        pf: Some(pf()),
    };
    guest.complete(2, Ok(none));
    let sources = vec![(mac(), chosen.clone())];
    expect(&mut guest, 2, Action::RepairXml { sources }, Outcome::Done);
    assert_eq!(guest.record().pairs[&mac()].pf, Some(chosen));
}

#[test]
fn require_refuses_where_a_vf_of_another_pf_cannot_be_given_back() {
    let mut guest = placed_beside_its_vf(Policy::Require);
    let refused = answer(&mut guest, 1);
    assert!(
        matches!(&refused, Answer::Refused(why) if why.contains("still has its MAC")),
        "{refused:?}"
    );
}

#[test]
fn a_network_is_told_where_to_be_while_libvirt_still_listens() {
    let spec = of_network(None);
    let mut guest = told(&spec, Request::Restore(spec.clone()));
    assert!(matches!(guest.poll(0), Some(Action::Lease(ask)) if ask.pf.is_none()));
    guest.complete(0, Ok(Outcome::Leased(lease())));
    assert_eq!(answer(&mut guest, 0), Answer::Done(vec![(mac(), pf())]));
    // libvirt has it as `type='direct'` from then on.
    let mut direct = spec;
    direct.pairs[0].standby = StandbyKind::Direct { source: pf() };
    guest.handle(1, Event::Request(Token(2), Request::Prepare(direct)));
    assert_eq!(answer(&mut guest, 1), Answer::Done(vec![]));
}

#[test]
fn a_place_that_nobody_prepared_for_is_refused() {
    let spec = of_network(Some("pf0"));
    let mut guest = Guest::new(Record::new(spec.clone(), Stage::Leaving), Settings::default());
    guest.handle(0, Event::Request(Token(1), Request::Place(spec)));
    assert!(matches!(answer(&mut guest, 0), Answer::Refused(_)));
}
