//! Scripts of a guest's life. The two-host tests are in `tests/pair`.

mod clock;
mod events;
mod faults;
mod flavors;
mod hooks;
mod lives;
mod policy;
mod ports;
mod tuning;

use super::*;
use crate::ids::{IfName, MigrationId};
use crate::pool::{Lease, Vf};
use crate::spec::{DomainSpec, PairSpec, Policy, StandbyKind};

const MAC: &str = "52:54:00:aa:00:01";

fn mac() -> Mac {
    MAC.parse().expect("mac")
}

fn pf() -> IfName {
    "pf0".parse().expect("name")
}

fn migration() -> MigrationId {
    "m1".parse().expect("id")
}

fn spec(policy: Policy) -> DomainSpec {
    let pair = PairSpec {
        policy,
        ..PairSpec::new(mac(), "lan".parse().expect("name"))
    };
    DomainSpec {
        id: DomainId::from_bytes([7; 16]),
        name: "g".into(),
        pairs: vec![pair],
        source_peer: Some("src:16515".parse().expect("peer")),
        numa_nodes: Vec::new(),
    }
}

fn lease() -> Lease {
    let vf = Vf {
        id: "0000:01:10.0".parse().expect("vf"),
        pf: pf(),
        index: 0,
        numa_node: None,
    };
    Lease {
        vf,
        domain: DomainId::from_bytes([7; 16]),
        mac: mac(),
    }
}

fn agent(on_primary: bool, primary_ready: bool) -> AgentPair {
    AgentPair {
        bonded: true,
        primary_ready,
        on_primary,
    }
}

/// A guest that runs on its VF.
fn on_vf() -> Guest {
    let mut guest = Guest::new(record(Stage::Running), Settings::default());
    expect(
        &mut guest,
        0,
        Action::Look { libvirt: true },
        Outcome::Looked(picture(Job::None, true, true)),
    );
    guest.handle(0, Event::AgentHello([(mac(), agent(true, true))].into()));
    assert_eq!(guest.poll(0), None);
    guest
}

/// Carries one action out and expects it to be the one given.
fn expect(guest: &mut Guest, now: Millis, action: Action, outcome: Outcome) {
    assert_eq!(guest.poll(now), Some(action));
    guest.complete(now, Ok(outcome));
}

/// A guest that is on its way here: its hook has its answer, and its QEMU waits for what the source sends.
fn awaited() -> Guest {
    let mut guest = received(Policy::Prefer);
    guest.complete(1, Ok(Outcome::Done));
    answer(&mut guest, 1);
    guest.handle(2, Event::QmpConnected(QmpSeen::default()));
    guest
}

/// Sees a guest that went on at `resumed` left alone for a while, and when that ends.
fn after_its_first_moments(guest: &mut Guest, resumed: Millis) -> Millis {
    let until = resumed + Settings::default().first_moments;
    assert_eq!(guest.poll(until - 1), None, "its first moments are its own");
    assert_eq!(guest.next_deadline(until - 1), Some(until));
    until
}

fn answer(guest: &mut Guest, now: Millis) -> Answer {
    match guest.poll(now) {
        Some(Action::Answer { answer, .. }) => answer,
        other => panic!("expected an answer, got {other:?}"),
    }
}

/// What a look shows of a guest that is here.
fn picture(job: Job, running: bool, plugged: bool) -> Snapshot {
    Snapshot {
        libvirt: Some((DomainSeen::Active, job)),
        qmp: Some(qmp(running, plugged)),
        standby: [(mac(), standby(true))].into(),
    }
}

/// What a look shows where the domain is not.
fn nothing(standby: Option<StandbySeen>) -> Snapshot {
    Snapshot {
        libvirt: Some((DomainSeen::Absent, Job::None)),
        qmp: None,
        standby: standby.map(|seen| (mac(), seen)).into_iter().collect(),
    }
}

fn qmp(running: bool, plugged: bool) -> QmpSeen {
    QmpSeen {
        running,
        migration: MigrationSeen::Idle,
        plugged: plugged.then(mac).into_iter().collect(),
    }
}

fn standby(up: bool) -> StandbySeen {
    StandbySeen::made(pf(), up)
}

fn failure(reason: &str) -> Failure {
    Failure { reason: reason.into() }
}

fn repair_xml() -> Action {
    Action::RepairXml { sources: vec![] }
}

fn prepare_vf() -> Action {
    Action::PrepareVf {
        lease: lease(),
        vlan: None,
    }
}

/// A record of a guest with a VF.
fn record(stage: Stage) -> Record {
    let mut record = Record::new(spec(Policy::Prefer), stage);
    let pair = PairRecord {
        lease: Some(lease()),
        pf: Some(pf()),
        held_back: None,
    };
    record.pairs.insert(mac(), Box::new(pair));
    record.xml_stale = false;
    record
}

/// Drains for a migration, as far as the answer.
fn drained(guest: &mut Guest, now: Millis) {
    guest.handle(now, Event::Request(Token(1), Request::Drain(migration())));
    expect(
        guest,
        now,
        Action::LookAtJob,
        Outcome::Job(DomainSeen::Active, Job::Outgoing),
    );
    expect(
        guest,
        now,
        Action::Failover(mac()),
        Outcome::Switched(agent(false, true)),
    );
    expect(guest, now, Action::Unplug(lease()), Outcome::Done);
    guest.handle(now, Event::DeviceDeleted(mac()));
    expect(guest, now, Action::ResetVf(lease()), Outcome::Done);
    assert_eq!(answer(guest, now), Answer::Done(vec![]));
}

/// A guest that was drained for a migration that did not come, as far as the VF's preparation.
fn stayed() -> Guest {
    let mut guest = on_vf();
    drained(&mut guest, 0);
    expect(&mut guest, 0, Action::LookAtJob, no_job());
    confirmed(&mut guest, 0);
    expect(&mut guest, 0, Action::LookAtJob, no_job());
    guest
}

fn no_job() -> Outcome {
    Outcome::Job(DomainSeen::Active, Job::None)
}

/// Receives a domain, as far as the question to its source.
fn received(policy: Policy) -> Guest {
    let mut guest = Guest::new(Record::new(spec(policy), Stage::Leaving), Settings::default());
    guest.handle(0, Event::Request(Token(1), Request::Receive(spec(policy), migration())));
    expect(
        &mut guest,
        0,
        Action::Look { libvirt: false },
        Outcome::Looked(Snapshot::default()),
    );
    assert!(matches!(guest.poll(0), Some(Action::Lease(_))));
    guest.complete(0, Ok(Outcome::Leased(lease())));
    assert!(matches!(guest.poll(0), Some(Action::MakeStandby { .. })));
    guest.complete(0, Ok(Outcome::Standby(standby(false))));
    assert!(matches!(guest.poll(0), Some(Action::AskDrain { .. })));
    guest
}

/// After a restart the pool is asked whether it still has the VF.
fn confirmed(guest: &mut Guest, now: Millis) {
    assert!(matches!(guest.poll(now), Some(Action::Lease(_))));
    guest.complete(now, Ok(Outcome::Leased(lease())));
}
