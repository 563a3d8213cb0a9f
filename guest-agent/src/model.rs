//! What the agent knows of the guest's links, and what it can do to them. No I/O.

use hybond_core::ids::Mac;
use std::collections::{BTreeMap, BTreeSet};

/// What drives a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// virtio_net: a standby, if its MAC is a pair's.
    Virtio,
    /// Another NIC with a device below it: a primary, if its permanent MAC is a pair's.
    Nic,
    /// A NIC that udev has not named yet.
    Fresh,
    /// A bond.
    Bond,
    /// A VLAN, macvlan or ipvlan, which cannot be moved to another lower link.
    Stacked,
    /// Anything else.
    Other,
}

/// A bond's options, as the kernel reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bond {
    /// 1 is active-backup.
    pub mode: u8,
    /// The slave that sends.
    pub active: Option<u32>,
    /// Takes what arrives on inactive slaves, too.
    pub all_active: bool,
    /// Milliseconds between looks at the carrier; 0 is never.
    pub miimon: u32,
    /// 2 is failure.
    pub reselect: u8,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number; a link keeps it when it is renamed.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its address.
    pub mac: Option<Mac>,
    /// The address it was born with; kernels before 5.6 do not report it.
    pub permanent: Option<Mac>,
    /// Administratively up.
    pub up: bool,
    /// Has carrier, and where it is a bond's slave the bond has seen it.
    pub carrier: bool,
    /// Its MTU.
    pub mtu: u32,
    /// The bond or bridge it is a port of.
    pub master: Option<u32>,
    /// The link it is stacked on.
    pub lower: Option<u32>,
    /// `IN6_ADDR_GEN_MODE_*`: how it makes its link-local address.
    pub v6_mode: u8,
    /// What drives it.
    pub kind: Kind,
    /// Where it is a bond.
    pub bond: Option<Bond>,
}

/// All links, by index.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// By index.
    pub links: BTreeMap<u32, Link>,
    /// Packets that a link had received when they were counted last.
    pub received: BTreeMap<u32, u64>,
    /// Takeovers begun and not ended.
    pub saved: BTreeMap<Mac, Saved>,
    /// Slaves that have got an IPv4 address: a manager that has not heard of the bond configures them.
    pub addressed: BTreeSet<u32>,
    /// Links that the kernel has announced, or been told to announce by the host (virtio's GUEST_ANNOUNCE), since the agent
    /// last looked.
    pub announced: BTreeSet<u32>,
}

impl View {
    /// The link of that index.
    pub fn get(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// Notes that a link has an IPv4 address.
    pub fn has_address(&mut self, index: u32) {
        let slave = |l: &Link| l.master.is_some() && matches!(l.kind, Kind::Virtio | Kind::Nic);
        if self.get(index).is_some_and(slave) {
            self.addressed.insert(index);
        }
    }

    /// The standby of a pair: the virtio NIC of that MAC.
    pub fn standby(&self, mac: Mac) -> Option<&Link> {
        self.links
            .values()
            .find(|l| l.kind == Kind::Virtio && l.permanent.or(l.mac) == Some(mac))
    }

    /// The primary of a pair: the NIC of that permanent MAC that is not virtio. A slave in the bond comes first: while a
    /// VF is unplugged and the next one plugged there may be two.
    pub fn primary(&self, mac: Mac, bond: Option<u32>) -> Option<&Link> {
        let mut found: Vec<&Link> = self
            .links
            .values()
            .filter(|l| l.kind == Kind::Nic && l.permanent.or(l.mac) == Some(mac))
            .collect();
        found.sort_by_key(|l| bond.is_none() || l.master != bond);
        found.first().copied()
    }

    /// The bond above the standby of a pair.
    pub fn bond(&self, mac: Mac) -> Option<(&Link, Bond)> {
        let bond = self.get(self.standby(mac)?.master?)?;
        bond.bond.map(|options| (bond, options))
    }
}

/// What was on the standby before the bond took its place; kept in a file until the bond has it all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The pair.
    pub mac: Mac,
    /// The standby's index.
    pub index: u32,
    /// The standby's name, which the bond takes.
    pub name: String,
    /// It was up.
    pub up: bool,
    /// Its MTU.
    pub mtu: u32,
    /// The bridge it was a port of.
    pub master: Option<u32>,
    /// Its `v6_mode`.
    pub v6_mode: u8,
}

/// One thing to do to the kernel. Each can be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write down the standby's addresses, neighbours and routes.
    Save(Saved),
    /// Set a link up or down.
    SetUp {
        /// The link.
        index: u32,
        /// Up.
        up: bool,
    },
    /// Rename a link: while it is up where the kernel can (6.2 and later), else down first.
    Rename {
        /// The link.
        index: u32,
        /// Its new name.
        name: String,
    },
    /// Make the bond, down, with the standby's name, MAC and MTU.
    MakeBond(Saved),
    /// Give the bond the standby's sysctls, and it the standby, which is down for that.
    Join {
        /// What was saved.
        saved: Saved,
        /// The bond.
        bond: u32,
    },
    /// Make a link a port of a master, or of none.
    SetMaster {
        /// The link.
        index: u32,
        /// The master.
        master: Option<u32>,
    },
    /// Bring the primary into the bond: down, without addresses, then enslaved.
    Enslave {
        /// The primary.
        index: u32,
        /// The bond.
        bond: u32,
    },
    /// Delete the addresses of a slave: their routes would go around the bond.
    Flush {
        /// The slave.
        index: u32,
    },
    /// Put what was saved on a link (the bond; the standby when undoing), take it from the other, forget the file.
    Restore {
        /// What was saved.
        saved: Saved,
        /// Who gets it.
        to: u32,
    },
    /// Delete a bond of the agent's.
    Delete {
        /// The bond.
        index: u32,
    },
    /// Count what a slave has received.
    Count {
        /// The slave.
        slave: u32,
    },
    /// Make a bond that is there do as the agent's own: look at carriers, and never switch back by itself.
    Adjust {
        /// The bond.
        bond: u32,
    },
    /// Let one slave send.
    SetActive {
        /// The bond.
        bond: u32,
        /// The slave.
        slave: u32,
    },
    /// Take, or drop, what arrives on inactive slaves.
    SetAllActive {
        /// The bond.
        bond: u32,
        /// Take it.
        on: bool,
    },
    /// Tell the network where the bond's addresses are.
    Announce {
        /// The bond.
        bond: u32,
    },
}
