//! Several pairs in one guest, whose primaries appear at once: which is whose is what the host says, by MAC.

use crate::agent::{Agent, Named};
use crate::model::{Action, Bond, Kind, Link, View};
use crate::scripts;
use hybond_core::ids::Mac;
use hybond_wire::agent::ToAgent;
use std::collections::BTreeMap;

fn mac(n: u8) -> Mac {
    format!("52:54:00:aa:00:{n:02x}").parse().expect("a MAC")
}

fn nic(index: u32, of: u8, kind: Kind) -> Link {
    Link {
        mac: Some(mac(of)),
        permanent: Some(mac(of)),
        carrier: true,
        ..scripts::nic(index, &format!("eth{index}"), kind)
    }
}

/// A kernel that does what it is asked.
struct Kernel {
    view: View,
    agent: Agent,
}

impl Kernel {
    fn with(links: impl IntoIterator<Item = Link>) -> Self {
        let mut view = View::default();
        view.links.extend(links.into_iter().map(|link| (link.index, link)));
        Self {
            view,
            agent: Agent::new(Named::default(), None),
        }
    }

    fn link(&mut self, index: u32) -> &mut Link {
        self.view.links.get_mut(&index).expect("the link is there")
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::Save(saved) => drop(self.view.saved.insert(saved.mac, saved)),
            Action::SetUp { index, up } => self.link(index).up = up,
            Action::Rename { index, name } => self.link(index).name = name,
            Action::MakeBond(saved) => {
                let bond = Link {
                    name: saved.name.clone(),
                    permanent: None,
                    up: false,
                    mac: Some(saved.mac),
                    bond: Some(Bond {
                        mode: 1,
                        miimon: 100,
                        reselect: 2,
                        ..Bond::default()
                    }),
                    ..nic(100 + saved.index, 1, Kind::Bond)
                };
                self.view.links.insert(bond.index, bond);
            }
            Action::Join { saved, bond } => self.link(saved.index).master = Some(bond),
            Action::Enslave { index, bond } => self.link(index).master = Some(bond),
            Action::Restore { saved, .. } => drop(self.view.saved.remove(&saved.mac)),
            Action::Announce { .. } => {}
            other => panic!("nobody asked for {other:?}"),
        }
    }

    fn hello(&mut self, pairs: Vec<Mac>) {
        let (id, version) = (1, 1);
        self.agent.host(ToAgent::Hello { id, version, pairs }, 0);
        self.settle();
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            let Some(action) = self.agent.next(&self.view, 0) else {
                return;
            };
            self.apply(action.clone());
            self.agent.done(&action, Ok(()), 0);
        }
        panic!("no end");
    }

    /// Which MAC each slave and its bond have.
    fn bonds(&self) -> BTreeMap<u32, (Option<Mac>, Option<Mac>)> {
        let slaves = self.view.links.values().filter_map(|link| {
            let bond = self.view.links.get(&link.master?)?;
            Some((link.index, (link.permanent, bond.mac)))
        });
        slaves.collect()
    }
}

#[test]
fn primaries_that_appear_at_once_each_join_the_bond_of_their_pair() {
    // In every order in which the guest may number them.
    for [first, second, third] in [[1, 2, 3], [3, 1, 2], [2, 3, 1], [3, 2, 1]] {
        let standbys = [(2, 1), (3, 2), (4, 3)].map(|(index, of)| nic(index, of, Kind::Virtio));
        let mut kernel = Kernel::with(standbys);
        kernel.hello(vec![mac(1), mac(2), mac(3)]);
        for (index, of) in [(10, first), (11, second), (12, third)] {
            kernel.view.links.insert(index, nic(index, of, Kind::Nic));
        }
        kernel.settle();
        let bonds = kernel.bonds();
        assert_eq!(bonds.len(), 6, "{bonds:?}");
        assert!(bonds.values().all(|(slave, bond)| slave == bond), "{bonds:?}");
    }
}

#[test]
fn nics_that_the_host_does_not_name_are_in_no_bond() {
    let links = [
        nic(2, 1, Kind::Virtio),
        nic(3, 2, Kind::Virtio),
        nic(10, 1, Kind::Nic),
        // A passed-through NIC of the user's own, and one of the MAC of a standby that is no pair.
        nic(11, 7, Kind::Nic),
        nic(12, 2, Kind::Nic),
    ];
    let mut kernel = Kernel::with(links);
    kernel.hello(vec![mac(1)]);
    let bonds = kernel.bonds();
    assert_eq!(bonds.keys().copied().collect::<Vec<_>>(), [2, 10], "{bonds:?}");
}

#[test]
fn pairs_without_a_vf_in_the_guest_have_their_bond_beside_those_with_one() {
    // Flavors 'virtual' and 'indirect' are a standby alone for the guest.
    let mut kernel = Kernel::with([nic(2, 1, Kind::Virtio), nic(3, 2, Kind::Virtio)]);
    kernel.hello(vec![mac(1), mac(2)]);
    kernel.view.links.insert(10, nic(10, 2, Kind::Nic));
    kernel.settle();
    let bonds = kernel.bonds();
    assert_eq!(bonds.keys().copied().collect::<Vec<_>>(), [2, 3, 10], "{bonds:?}");
    assert!(bonds.values().all(|(slave, bond)| slave == bond), "{bonds:?}");
}
