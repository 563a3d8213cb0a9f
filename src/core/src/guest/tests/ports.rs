//! Pairs whose interface has a port profile: a VF that no switch would let anything pass of is not plugged, and that is told.

use super::*;
use crate::port::PortProfile;

const WHY: &str = "it has an 802.1Qbg port profile, and no VF can be associated by that type";

/// On an interface that libvirt makes a macvtap of, and associates.
fn kept(policy: Policy, port: PortProfile) -> DomainSpec {
    let mut spec = spec(policy);
    spec.pairs[0].standby = StandbyKind::Direct { source: pf() };
    spec.pairs[0].port = Some(port);
    spec
}

/// libvirt starts it, up to what hybond wants of the pool.
fn asked(spec: &DomainSpec) -> (Guest, Action) {
    let mut guest = Guest::new(Record::new(spec.clone(), Stage::Leaving), Settings::default());
    guest.handle(0, Event::Request(Token(1), Request::Prepare(spec.clone())));
    let nothing = Outcome::Looked(Snapshot::default());
    expect(&mut guest, 0, Action::Look { libvirt: false }, nothing);
    let asks = guest.poll(0).expect("something");
    (guest, asks)
}

fn no_vf_wanted() -> Outcome {
    Outcome::NoVf {
        reason: String::new(),
        pf: Some(pf()),
    }
}

/// Nothing is plugged, and libvirt's standby has no name of hybond's.
fn runs() -> Snapshot {
    Snapshot {
        standby: Default::default(),
        ..picture(Job::None, true, false)
    }
}

#[test]
fn a_guest_whose_port_profile_no_vf_can_have_runs_on_its_standby_and_that_is_told() {
    let (mut guest, asks) = asked(&kept(Policy::Prefer, PortProfile::Qbg {}));
    assert!(
        matches!(&asks, Action::ChoosePf(_)),
        "no VF is taken from others: {asks:?}"
    );
    guest.complete(0, Ok(no_vf_wanted()));
    assert_eq!(answer(&mut guest, 0), Answer::Done(vec![]));
    guest.handle(1, Event::LookAgain);
    expect(&mut guest, 1, Action::Look { libvirt: true }, Outcome::Looked(runs()));
    guest.handle(1, Event::AgentHello([(mac(), agent(false, false))].into()));
    let sources = vec![(mac(), pf())];
    while let Some(action) = guest.poll(1) {
        let repair = Action::RepairXml {
            sources: sources.clone(),
        };
        let look = matches!(action, Action::Look { .. });
        assert!(look || action == repair, "{action:?}");
        guest.complete(1, Ok(if look { Outcome::Looked(runs()) } else { Outcome::Done }));
    }
    assert!(guest.degraded(mac()).is_some_and(|why| why.contains(WHY)));
    assert!(guest.is_settled(), "which is the outcome of the start in the journal");

    guest.handle(2, Event::Request(Token(2), Request::Plug));
    let refused = answer(&mut guest, 2);
    assert!(
        matches!(&refused, Answer::Refused(why) if why.contains(WHY)),
        "{refused:?}"
    );
    assert_eq!(guest.poll(2), None, "and nothing is tried");
}

#[test]
fn one_that_must_have_its_vf_is_refused_with_the_reason() {
    let (mut guest, asks) = asked(&kept(Policy::Require, PortProfile::Qbg {}));
    assert!(matches!(asks, Action::ChoosePf(_)));
    guest.complete(0, Ok(no_vf_wanted()));
    let refused = answer(&mut guest, 0);
    assert!(
        matches!(&refused, Answer::Refused(why) if why.contains(WHY) && why.ends_with("is \"require\"")),
        "{refused:?}"
    );
}

#[test]
fn one_whose_vf_can_be_associated_gets_it_as_any_other() {
    let profile = "web".parse().expect("a profile");
    let (_, asks) = asked(&kept(Policy::Prefer, PortProfile::Qbh { profile }));
    assert!(matches!(asks, Action::Lease(ask) if ask.pf == Some(pf())));
}

#[test]
fn a_guest_that_is_found_on_its_standby_after_a_restart_is_told_of_too() {
    let mut record = record(Stage::Running);
    record.spec = kept(Policy::Prefer, PortProfile::Qbg {});
    let mut guest = Guest::new(record, Settings::default());
    expect(&mut guest, 0, Action::Look { libvirt: true }, Outcome::Looked(runs()));
    // A VF that it had been given goes back, clean.
    expect(&mut guest, 0, Action::ResetVf(lease()), Outcome::Done);
    expect(&mut guest, 0, Action::Release(lease()), Outcome::Done);
    assert_eq!(guest.poll(0), None);
    assert!(guest.degraded(mac()).is_some_and(|why| why.contains(WHY)));
}

#[test]
fn a_vf_that_the_card_or_the_switch_does_not_associate_is_not_plugged_and_the_reason_is_told() {
    let profile = "web".parse().expect("a profile");
    let mut record = record(Stage::Running);
    record.spec = kept(Policy::Prefer, PortProfile::Qbh { profile });
    let mut guest = Guest::new(record, Settings::default());
    expect(&mut guest, 0, Action::Look { libvirt: true }, Outcome::Looked(runs()));
    guest.handle(0, Event::AgentHello([(mac(), agent(false, false))].into()));
    confirmed(&mut guest, 0);
    assert_eq!(guest.poll(0), Some(prepare_vf()));
    let why = "VF 0 of pf0 cannot be associated by port profile \"web\": its driver knows none";
    guest.complete(0, Err(failure(why)));
    // What was begun is taken back: an association that the switch may have made all the same, too.
    expect(&mut guest, 0, Action::ResetVf(lease()), Outcome::Done);
    assert_eq!(guest.degraded(mac()), Some(why));
    assert!(guest.is_settled() && !guest.is_plugged(mac()));
    guest.handle(1, Event::Request(Token(1), Request::Plug));
    let mut asked = 0;
    let refused = loop {
        match guest.poll(1) {
            Some(Action::Answer { answer, .. }) => break answer,
            Some(Action::PrepareVf { .. }) => {
                asked += 1;
                guest.complete(1, Err(failure(why)));
            }
            Some(Action::Lease(_)) => guest.complete(1, Ok(Outcome::Leased(lease()))),
            Some(Action::LookAtJob) => guest.complete(1, Ok(Outcome::Job(DomainSeen::Active, Job::None))),
            Some(Action::ResetVf(_)) => guest.complete(1, Ok(Outcome::Done)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        (asked, refused),
        (1, Answer::Refused(why.into())),
        "tried once, and told"
    );
}
