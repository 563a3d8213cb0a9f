//! The agent against a simulated kernel: scripts of what a user would see.

use crate::agent::{Agent, Named, SILENCE};
use crate::model::{Action, Bond, Kind, Link, Saved, View};
use hybond_core::ids::Mac;
use hybond_wire::agent::{FromAgent, PairState, Path, ToAgent};
use std::collections::BTreeSet;

const STANDBY: u32 = 2;
const PRIMARY: u32 = 3;
const BOND: u32 = 10;

fn mac() -> Mac {
    "52:54:00:aa:00:01".parse().expect("a MAC")
}

pub(crate) fn nic(index: u32, name: &str, kind: Kind) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mac: Some(mac()),
        permanent: Some(mac()),
        up: kind == Kind::Virtio,
        carrier: kind == Kind::Virtio,
        mtu: 1500,
        master: None,
        lower: None,
        v6_mode: 0,
        kind,
        bond: None,
    }
}

/// A guest whose time stands still until it is told to go on.
struct Guest {
    view: View,
    agent: Agent,
    now: u64,
    /// What the agent did, by name.
    done: Vec<&'static str>,
    said: Vec<FromAgent>,
    /// Fails the next action of that name.
    failing: Option<&'static str>,
    /// Kills the agent before its action number so-and-so.
    killed_at: Option<usize>,
    announced: u32,
    /// Packets arrive on that link.
    busy: Option<u32>,
}

fn name(action: &Action) -> &'static str {
    match action {
        Action::Save(_) => "save",
        Action::SetUp { up: true, .. } => "up",
        Action::SetUp { .. } => "down",
        Action::Rename { .. } => "rename",
        Action::MakeBond(_) => "bond",
        Action::Join { .. } | Action::SetMaster { master: Some(_), .. } => "join",
        Action::SetMaster { .. } => "leave",
        Action::Enslave { .. } => "enslave",
        Action::Restore { .. } => "restore",
        Action::Flush { .. } => "flush",
        Action::Delete { .. } => "delete",
        Action::Adjust { .. } => "adjust",
        Action::SetActive { .. } => "switch",
        Action::SetAllActive { on: true, .. } => "open",
        Action::SetAllActive { .. } => "close",
        Action::Announce { .. } => "announce",
        Action::Count { .. } => "count",
    }
}

impl Guest {
    /// A guest with a standby.
    fn new() -> Self {
        let mut view = View::default();
        view.links.insert(STANDBY, nic(STANDBY, "eth0", Kind::Virtio));
        Self {
            view,
            agent: Agent::new(Named::default(), None),
            now: 1_000,
            done: Vec::new(),
            said: Vec::new(),
            failing: None,
            killed_at: None,
            announced: 0,
            busy: None,
        }
    }

    /// A guest whose host has said hello, with a primary in the bond.
    fn with_primary() -> Self {
        let mut guest = Self::new();
        guest.hello();
        guest.plug();
        guest.carrier(PRIMARY, true);
        guest.done.clear();
        guest.said.clear();
        guest
    }

    fn link(&mut self, index: u32) -> &mut Link {
        self.view.links.get_mut(&index).expect("the link is there")
    }

    fn options(&mut self) -> &mut Bond {
        self.link(BOND).bond.as_mut().expect("a bond")
    }

    /// What the kernel does by itself: a bond leaves a slave without carrier for one that has it.
    fn kernel(&mut self) {
        if !self.view.links.contains_key(&BOND) {
            return;
        }
        let up = self.link(BOND).up;
        let slaves: Vec<u32> = self
            .view
            .links
            .values()
            .filter(|l| l.master == Some(BOND) && l.carrier)
            .map(|l| l.index)
            .collect();
        let options = self.options();
        if !up || !options.active.is_some_and(|a| slaves.contains(&a)) {
            options.active = slaves.first().copied().filter(|_| up);
        }
    }

    fn apply(&mut self, action: &Action) {
        match action.clone() {
            Action::Save(saved) => drop(self.view.saved.insert(saved.mac, saved)),
            Action::SetUp { index, up } => self.link(index).up = up,
            Action::Rename { index, name } => {
                assert!(
                    self.view.links.values().all(|l| l.name != name),
                    "the name {name} is free"
                );
                self.link(index).name = name;
            }
            Action::MakeBond(saved) => {
                assert!(
                    self.view.links.values().all(|l| l.name != saved.name),
                    "the name is free"
                );
                let bond = Bond {
                    mode: 1,
                    miimon: 100,
                    reselect: 2,
                    ..Bond::default()
                };
                let link = Link {
                    up: false,
                    permanent: None,
                    bond: Some(bond),
                    ..nic(BOND, &saved.name, Kind::Bond)
                };
                self.view.links.insert(BOND, link);
            }
            Action::SetMaster { index, master } => {
                assert!(
                    master.is_none() || !self.link(index).up,
                    "a slave is enslaved while it is down"
                );
                let link = self.link(index);
                link.master = master;
                link.up = master.is_some();
            }
            Action::Enslave { index, bond }
            | Action::Join {
                bond,
                saved: Saved { index, .. },
            } => {
                let link = self.link(index);
                link.master = Some(bond);
                link.up = true;
            }
            Action::Restore { saved, to } => {
                assert_eq!(self.link(to).up, saved.up, "routes are put on a link that is up");
                self.view.saved.remove(&saved.mac);
            }
            Action::Delete { index } => drop(self.view.links.remove(&index)),
            Action::Adjust { .. } => (self.options().reselect, self.options().miimon) = (2, 100),
            Action::SetActive { slave, .. } => {
                assert!(self.link(slave).carrier);
                self.options().active = Some(slave);
            }
            Action::SetAllActive { on, .. } => self.options().all_active = on,
            Action::Flush { index } => drop(self.view.addressed.remove(&index)),
            Action::Announce { .. } => self.announced += 1,
            Action::Count { slave } => {
                *self.view.received.entry(slave).or_default() += u64::from(self.busy == Some(slave));
            }
        }
        self.kernel();
    }

    /// Lets the agent do what there is to do.
    fn settle(&mut self) {
        for _ in 0..100 {
            let Some(action) = self.agent.next(&self.view, self.now) else {
                while let Some(message) = self.agent.output().pop() {
                    self.said.push(message);
                }
                return;
            };
            if self.killed_at == Some(self.done.len()) {
                self.killed_at = None;
                self.agent = Agent::new(Named::default(), self.agent.host_pairs().map(<[Mac]>::to_vec));
                continue;
            }
            self.done.push(name(&action));
            let result = if self.failing == Some(name(&action)) {
                self.failing = None;
                Err(format!("cannot {}", name(&action)))
            } else {
                self.apply(&action);
                Ok(())
            };
            self.agent.done(&action, result, self.now);
        }
        panic!("no end: {:?}", self.done);
    }

    /// Lets time pass, deadline by deadline.
    fn pass(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds;
        while let Some(at) = self.agent.deadline().filter(|at| *at <= end) {
            assert!(at > self.now || self.now == at, "no deadline in the past");
            self.now = at.max(self.now);
            let before = self.now;
            self.settle();
            assert_ne!(self.agent.deadline(), Some(before), "the agent would spin");
        }
        self.now = end;
        self.settle();
    }

    fn hear(&mut self, message: ToAgent) {
        self.agent.host(message, self.now);
        self.settle();
    }

    fn hello(&mut self) {
        self.hear(ToAgent::Hello {
            id: 1,
            version: 1,
            pairs: vec![mac()],
        });
    }

    fn failover(&mut self, id: u64, overlap_ms: u32) {
        self.hear(ToAgent::Failover {
            id,
            mac: mac(),
            overlap_ms,
        });
    }

    fn failback(&mut self, id: u64, overlap_ms: u32) {
        self.hear(ToAgent::Failback {
            id,
            mac: mac(),
            overlap_ms,
        });
    }

    fn plug(&mut self) {
        self.view.links.insert(PRIMARY, nic(PRIMARY, "eth1", Kind::Nic));
        self.settle();
    }

    fn carrier(&mut self, index: u32, carrier: bool) {
        self.link(index).carrier = carrier;
        self.kernel();
        self.settle();
    }

    fn unplug(&mut self) {
        self.view.links.remove(&PRIMARY);
        self.kernel();
        self.settle();
    }

    /// What the agent did since it was last asked, but for what it only looked at.
    fn done(&mut self) -> String {
        let mut done = std::mem::take(&mut self.done);
        done.retain(|name| *name != "count");
        done.join(" ")
    }

    /// What it said since.
    fn said(&mut self) -> Vec<FromAgent> {
        std::mem::take(&mut self.said)
    }
}

fn on(path: Path, primary: bool) -> PairState {
    PairState {
        mac: mac(),
        bond: Some("eth0".to_owned()),
        standby: Some("eth0nsby".to_owned()),
        primary: primary.then(|| "eth1".to_owned()),
        primary_up: primary,
        active: path,
    }
}

#[test]
fn the_hosts_hello_makes_the_bond_and_is_answered_with_it() {
    let mut guest = Guest::new();
    guest.settle();
    assert_eq!(guest.done(), "", "a lone virtio NIC is left alone");
    guest.hello();
    assert_eq!(guest.done(), "save rename bond join up restore");
    let said = guest.said();
    let [FromAgent::Hello { id: 1, pairs, .. }] = said.as_slice() else {
        panic!("{said:?}")
    };
    assert_eq!(pairs, &[on(Path::Standby, false)]);
    guest.hello();
    assert_eq!(guest.done(), "", "again changes nothing");
}

#[test]
fn an_agent_killed_anywhere_in_the_takeover_completes_it_when_it_is_back() {
    for step in 0..6 {
        let mut guest = Guest::new();
        guest.killed_at = Some(step);
        guest.hello();
        assert_eq!(
            guest.done(),
            "save rename bond join up restore",
            "killed before step {step}"
        );
        assert!(guest.view.saved.is_empty());
    }
}

#[test]
fn a_takeover_that_fails_is_taken_back_told_and_tried_again() {
    for (step, back) in [
        ("rename", "restore"),
        ("bond", "rename restore"),
        ("join", "delete rename restore"),
        ("up", "leave delete rename up restore"),
        ("restore", "leave delete rename up restore"),
    ] {
        let mut guest = Guest::new();
        guest.failing = Some(step);
        guest.hello();
        let done = guest.done();
        assert!(done.ends_with(&format!("{step} {back}")), "{done}");
        let standby = guest.link(STANDBY).clone();
        assert_eq!(
            (standby.name.as_str(), standby.up, standby.master),
            ("eth0", true, None)
        );
        let said = guest.said();
        let [FromAgent::Hello { pairs, .. }] = said.as_slice() else {
            panic!("{said:?}")
        };
        assert_eq!(pairs[0].bond, None);
        guest.pass(10_000);
        assert_eq!(guest.done(), "save rename bond join up restore");
        assert_eq!(
            guest.said(),
            [FromAgent::State {
                state: on(Path::Standby, false)
            }]
        );
    }
}

#[test]
fn a_fresh_primary_is_enslaved_and_told_of_but_waits_for_the_failback() {
    let mut guest = Guest::new();
    guest.hello();
    guest.said();
    guest.done();
    guest.plug();
    guest.carrier(PRIMARY, true);
    guest.pass(60_000);
    assert_eq!(guest.done(), "enslave");
    let said = guest.said();
    assert_eq!(
        said.last(),
        Some(&FromAgent::State {
            state: on(Path::Standby, true)
        })
    );
    guest.failback(7, 300);
    assert_eq!(guest.said(), [], "the overlap first");
    guest.pass(300);
    assert_eq!(
        guest.said(),
        [FromAgent::Done {
            id: 7,
            state: on(Path::Primary, true)
        }]
    );
    assert_eq!(guest.done(), "open switch announce announce announce close");
}

#[test]
fn the_overlap_ends_once_the_new_path_is_seen_to_receive_and_not_before() {
    for (busy, ends) in [(None, 300), (Some(STANDBY), 300), (Some(PRIMARY), 50)] {
        let mut guest = Guest::with_primary();
        guest.busy = busy;
        guest.failback(7, 300);
        guest.pass(ends - 1);
        assert_eq!(guest.said(), [], "{busy:?}");
        guest.pass(1);
        assert_eq!(guest.said().len(), 1, "{busy:?}");
        assert!(!guest.options().all_active);
    }
}

#[test]
fn what_cannot_be_counted_has_the_whole_overlap() {
    let mut guest = Guest::with_primary();
    guest.busy = Some(PRIMARY);
    guest.failing = Some("count");
    guest.failback(7, 300);
    guest.pass(299);
    assert_eq!(guest.said(), []);
    guest.pass(1);
    assert_eq!(guest.said().len(), 1);
}

#[test]
fn requests_for_what_is_done_or_under_way_are_answered_and_repeat_nothing() {
    let mut guest = Guest::with_primary();
    guest.failback(7, 300);
    guest.failback(8, 300);
    guest.pass(1_000);
    let state = on(Path::Primary, true);
    assert_eq!(
        guest.said(),
        [
            FromAgent::Done {
                id: 7,
                state: state.clone()
            },
            FromAgent::Done {
                id: 8,
                state: state.clone()
            },
        ]
    );
    guest.done();
    guest.failback(9, 300);
    assert_eq!(guest.said(), [FromAgent::Done { id: 9, state }]);
    assert!(!guest.done().contains("switch"));
}

#[test]
fn the_opposite_request_overtakes_the_one_under_way() {
    let mut guest = Guest::with_primary();
    guest.failback(7, 300);
    guest.failover(8, 300);
    guest.pass(1_000);
    let said = guest.said();
    let [FromAgent::Failed { id: 7, .. }, FromAgent::Done { id: 8, state }] = said.as_slice() else {
        panic!("{said:?}")
    };
    assert_eq!(state.active, Path::Standby);
    assert!(!guest.options().all_active);
}

#[test]
fn without_a_primary_that_has_carrier_the_traffic_stays_and_the_host_is_told_why() {
    let mut guest = Guest::new();
    guest.hello();
    guest.said();
    guest.failback(7, 0);
    guest.plug();
    guest.failback(8, 0);
    let failed: Vec<u64> = guest
        .said()
        .iter()
        .filter_map(|m| {
            if let FromAgent::Failed { id, .. } = m {
                Some(*id)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(failed, [7, 8]);
    assert_eq!(guest.options().active, Some(STANDBY));
}

#[test]
fn a_switch_that_fails_closes_the_gate_and_leaves_the_traffic_where_it_was() {
    let mut guest = Guest::with_primary();
    guest.failing = Some("switch");
    guest.failback(7, 300);
    assert_eq!(guest.done(), "open switch close");
    let said = guest.said();
    let [FromAgent::Failed { id: 7, .. }] = said.as_slice() else {
        panic!("{said:?}")
    };
    assert_eq!(guest.options().active, Some(STANDBY));
}

#[test]
fn a_primary_that_dies_within_the_overlap_is_no_failback() {
    let mut guest = Guest::with_primary();
    guest.failback(7, 300);
    guest.pass(50);
    guest.carrier(PRIMARY, false);
    let said = guest.said();
    assert!(
        matches!(
            said.as_slice(),
            [FromAgent::Failed { id: 7, .. }, FromAgent::State { .. }]
        ),
        "{said:?}"
    );
    assert!(!guest.options().all_active);
}

#[test]
fn a_primary_that_vanishes_leaves_the_standby_announced() {
    let mut guest = Guest::with_primary();
    guest.failback(7, 0);
    guest.pass(1_000);
    guest.done();
    guest.said();
    guest.unplug();
    guest.pass(1_000);
    assert_eq!(guest.done(), "announce announce announce");
    assert_eq!(
        guest.said(),
        [FromAgent::State {
            state: on(Path::Standby, false)
        }]
    );
}

#[test]
fn where_no_host_speaks_two_nics_of_one_mac_become_a_pair_and_fail_back_by_themselves() {
    let mut guest = Guest::new();
    guest.plug();
    assert_eq!(guest.done(), "", "a host may yet speak");
    guest.pass(SILENCE);
    assert_eq!(guest.done(), "save rename bond join up restore enslave");
    guest.carrier(PRIMARY, true);
    guest.pass(SILENCE + 1_000);
    assert!(guest.done().starts_with("open switch announce"));
    assert_eq!(guest.options().active, Some(PRIMARY));
    assert_eq!(guest.said(), []);
    assert_eq!(guest.agent.deadline(), None, "nothing is pending: no wake-up");
}

#[test]
fn a_host_that_has_spoken_once_decides_even_when_it_is_gone_and_the_agent_started_anew() {
    let mut guest = Guest::with_primary();
    guest.agent.host_gone();
    guest.pass(60_000);
    guest.agent = Agent::new(Named::default(), guest.agent.host_pairs().map(<[Mac]>::to_vec));
    guest.pass(60_000);
    assert_eq!(guest.done(), "");
    assert_eq!(guest.options().active, Some(STANDBY));
}

#[test]
fn a_standby_that_somebody_takes_out_of_the_bond_is_put_back_but_not_raced_for() {
    let mut guest = Guest::with_primary();
    for _ in 0..3 {
        let standby = guest.link(STANDBY);
        standby.master = None;
        standby.up = false;
        guest.kernel();
        guest.settle();
    }
    assert_eq!(guest.done().matches("enslave").count(), 1);
    guest.pass(1_000);
    assert_eq!(guest.done().matches("enslave").count(), 1);
    assert_eq!(guest.link(STANDBY).master, Some(BOND));
    assert_eq!(guest.link(STANDBY).name, "eth0nsby");
}

#[test]
fn addresses_that_somebody_gives_to_a_slave_are_deleted() {
    let mut guest = Guest::with_primary();
    for slave in [STANDBY, PRIMARY] {
        guest.view.has_address(slave);
        guest.settle();
        assert_eq!(guest.done(), "flush");
    }
    guest.view.has_address(BOND);
    guest.settle();
    assert_eq!(guest.done(), "", "the bond's are its own");
}

#[test]
fn a_gate_left_open_by_a_killed_agent_is_closed() {
    let mut guest = Guest::with_primary();
    guest.failback(7, 300);
    guest.agent = Agent::new(Named::default(), Some(vec![mac()]));
    guest.done();
    guest.settle();
    assert_eq!(guest.done(), "close");
}

#[test]
fn a_bond_of_the_users_own_is_used_as_it_is() {
    let mut guest = Guest::new();
    let bond = Bond {
        mode: 1,
        ..Bond::default()
    };
    guest.view.links.insert(
        BOND,
        Link {
            name: "bond0".to_owned(),
            bond: Some(bond),
            ..nic(BOND, "bond0", Kind::Bond)
        },
    );
    guest.link(STANDBY).master = Some(BOND);
    guest.kernel();
    guest.hello();
    assert_eq!(guest.done(), "adjust");
    let said = guest.said();
    let [FromAgent::Hello { pairs, .. }] = said.as_slice() else {
        panic!("{said:?}")
    };
    assert_eq!(pairs[0].bond.as_deref(), Some("bond0"));
    assert_eq!(pairs[0].standby.as_deref(), Some("eth0"));
}

#[test]
fn a_standby_below_a_vlan_is_refused_untouched_with_the_remedy() {
    let mut guest = Guest::new();
    let vlan = Link {
        lower: Some(STANDBY),
        permanent: None,
        ..nic(5, "eth0.7", Kind::Stacked)
    };
    guest.view.links.insert(5, vlan);
    guest.hello();
    assert_eq!(guest.done(), "");
    guest.said();
    guest.failover(7, 0);
    let said = guest.said();
    let [FromAgent::Failed { id: 7, reason }] = said.as_slice() else {
        panic!("{said:?}")
    };
    assert!(reason.contains("eth0.7"), "{reason}");
}

#[test]
fn a_host_that_does_not_read_costs_no_memory_and_loses_the_oldest_states_first() {
    let mut guest = Guest::with_primary();
    for id in 0..1_000 {
        guest.agent.host(
            ToAgent::Failover {
                id,
                mac: mac(),
                overlap_ms: 0,
            },
            guest.now,
        );
        assert!(
            guest
                .agent
                .next(&guest.view, guest.now)
                .is_none_or(|a| matches!(a, Action::Announce { .. }))
        );
    }
    let mut waiting = 0;
    while guest.agent.output().pop().is_some() {
        waiting += 1;
    }
    assert!(waiting <= 64, "{waiting}");
}

#[test]
fn a_pair_that_was_not_named_is_refused() {
    let mut guest = Guest::new();
    guest.hello();
    guest.said();
    let other = "52:54:00:aa:00:09".parse().expect("a MAC");
    guest.hear(ToAgent::Failover {
        id: 3,
        mac: other,
        overlap_ms: 0,
    });
    guest.hear(ToAgent::Hello {
        id: 4,
        version: 1,
        pairs: vec![other],
    });
    guest.hear(ToAgent::Announce { id: 5, mac: other });
    let said = guest.said();
    let [
        FromAgent::Failed { id: 3, .. },
        FromAgent::Hello { id: 4, pairs, .. },
        FromAgent::Failed { id: 5, .. },
    ] = said.as_slice()
    else {
        panic!("{said:?}")
    };
    assert!(pairs.is_empty());
}

#[test]
fn announcements_are_made_at_once_and_answered() {
    let mut guest = Guest::with_primary();
    guest.hear(ToAgent::Announce { id: 5, mac: mac() });
    assert_eq!(
        guest.said(),
        [FromAgent::Done {
            id: 5,
            state: on(Path::Standby, true)
        }]
    );
    guest.pass(1_000);
    assert_eq!(guest.announced, 3);
}

#[test]
fn a_standby_that_qemu_announces_has_its_bond_announced_as_often() {
    let mut guest = Guest::with_primary();
    let (standby, primary) = (BTreeSet::from([STANDBY]), BTreeSet::from([PRIMARY]));
    for rounds in 1..=3 {
        guest.agent.announced(&guest.view, &standby, guest.now);
        guest.settle();
        guest.pass(1_000);
        assert_eq!(guest.announced, rounds);
    }
    // The traffic is not on this one.
    guest.agent.announced(&guest.view, &primary, guest.now);
    guest.pass(1_000);
    assert_eq!(guest.announced, 3);
}
