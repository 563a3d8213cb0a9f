//! How the bond takes the standby's place, as the next step from whatever is there. The agent may be killed between any
//! two steps: the next one is found by looking, never from memory.
//!
//! ```text
//!            eth0 (virtio, up, addresses, routes)
//!   Save       addresses, neighbours, routes of eth0 written to /run
//!   Rename     eth0 → eth0nsby; kernels before 6.2 need it down for that
//!   MakeBond   eth0, a bond of the same MAC and MTU, down                   traffic flows
//!   Join       eth0 gets the sysctls of eth0nsby; eth0nsby is set down      ─┐
//!              (the kernel drops its routes and IPv6 addresses), goes into   │ the interruption
//!              the bond, and is set up by it                                 │
//!   SetUp      eth0 up, if eth0nsby was                                      │
//!   Restore    addresses (no DAD: they are ours), neighbours, routes        ─┘
//!              the slave's own addresses deleted, the file deleted          traffic flows through the bond
//! ```
//!
//! Managers that do not know the bond may pull the standby out again (networkd does so with a link whose configuration
//! names no bond). It is put back: the bond is known by its name, of which the standby's is made.
//!
//! The bond is born with its final name, so that udev, networkd and ifupdown, which look at the name of a link when it is
//! added, see `eth0` come back. Undoing goes the same way backwards.

use crate::model::{Action, Bond, Kind, Link, Saved, View};
use hybond_core::ids::Mac;

/// Longest name: IFNAMSIZ less its terminator.
const NAME_MAX: usize = 15;
/// As net_failover names its standby.
const SUFFIX: &str = "nsby";
/// `BOND_MODE_ACTIVEBACKUP`.
pub const ACTIVE_BACKUP: u8 = 1;
/// `BOND_PRI_RESELECT_FAILURE`.
pub const RESELECT_FAILURE: u8 = 2;

/// Where a pair is on the way to its bond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The guest has no standby of that MAC.
    Absent,
    /// Do this, then ask again.
    Do(Action),
    /// The bond is there, complete.
    Complete {
        /// Its index.
        bond: u32,
    },
    /// Not possible, and nothing was touched.
    Refused(String),
}

/// The name of the standby below a bond of that name.
pub fn standby_name(name: &str, mac: Mac) -> String {
    if name.len() + SUFFIX.len() <= NAME_MAX {
        return format!("{name}{SUFFIX}");
    }
    // Cut names can collide with one another; the MAC cannot.
    format!("nsb{}", mac.compact())
}

/// The next step towards the bond.
pub fn next(view: &View, saved: Option<&Saved>, mac: Mac) -> Step {
    let Some(standby) = view.standby(mac) else {
        return Step::Absent;
    };
    // A file of a standby that has gone (unplugged, or another machine's /run) says nothing about this one.
    let saved = saved.filter(|s| s.index == standby.index);
    if let Some((bond, options)) = view.bond(mac) {
        return join(standby, bond, options, saved);
    }
    let Some(saved) = saved else {
        return match former_bond(view, standby, mac) {
            Some(bond) => Step::Do(Action::Enslave {
                index: standby.index,
                bond: bond.index,
            }),
            None => begin(view, standby, mac),
        };
    };
    if standby.master.is_some() {
        return Step::Do(Action::SetMaster {
            index: standby.index,
            master: None,
        });
    }
    if standby.name == saved.name {
        let name = standby_name(&saved.name, mac);
        return Step::Do(Action::Rename {
            index: standby.index,
            name,
        });
    }
    match own_bond(view, saved) {
        Some(bond) => Step::Do(Action::Join {
            saved: saved.clone(),
            bond: bond.index,
        }),
        None => Step::Do(Action::MakeBond(saved.clone())),
    }
}

/// The standby is in a bond: bring it to its end.
fn join(standby: &Link, bond: &Link, options: Bond, saved: Option<&Saved>) -> Step {
    if options.mode != ACTIVE_BACKUP {
        return Step::Refused(format!(
            "{} is in {}, a bond that is not active-backup: set its mode to active-backup, or take {} out of it",
            standby.name, bond.name, standby.name
        ));
    }
    if options.reselect != RESELECT_FAILURE || options.miimon == 0 {
        return Step::Do(Action::Adjust { bond: bond.index });
    }
    let Some(saved) = saved else {
        return Step::Complete { bond: bond.index };
    };
    if saved.up && !bond.up {
        return Step::Do(Action::SetUp {
            index: bond.index,
            up: true,
        });
    }
    if saved.master.is_some() && bond.master != saved.master {
        return Step::Do(Action::SetMaster {
            index: bond.index,
            master: saved.master,
        });
    }
    Step::Do(Action::Restore {
        saved: saved.clone(),
        to: bond.index,
    })
}

/// Nothing has been done yet.
fn begin(view: &View, standby: &Link, mac: Mac) -> Step {
    let stacked = view
        .links
        .values()
        .find(|l| l.kind == Kind::Stacked && l.lower == Some(standby.index));
    if let Some(upper) = stacked {
        return Step::Refused(format!(
            "{} is stacked on {}, and the kernel cannot move it to a bond: delete {}, let the agent make the bond, and \
             make {} again on it; it will have the name {}",
            upper.name, standby.name, upper.name, upper.name, standby.name
        ));
    }
    Step::Do(Action::Save(Saved {
        mac,
        index: standby.index,
        name: standby.name.clone(),
        up: standby.up,
        mtu: standby.mtu,
        master: standby.master,
        v6_mode: standby.v6_mode,
    }))
}

/// The bond that an earlier step made.
fn own_bond<'a>(view: &'a View, saved: &Saved) -> Option<&'a Link> {
    view.links
        .values()
        .find(|l| l.kind == Kind::Bond && l.name == saved.name && l.mac == Some(saved.mac))
}

/// The bond that the standby was taken out of. Without slaves it has a random MAC.
fn former_bond<'a>(view: &'a View, standby: &Link, mac: Mac) -> Option<&'a Link> {
    view.links
        .values()
        .find(|l| l.kind == Kind::Bond && standby.name == standby_name(&l.name, mac))
}

/// The next step back to a standby without a bond; `None` once it is as it was, or was never touched.
pub fn undo(view: &View, saved: Option<&Saved>, mac: Mac) -> Option<Action> {
    let standby = view.standby(mac)?;
    let saved = saved.filter(|s| s.index == standby.index)?;
    let bond = own_bond(view, saved);
    if let Some(bond) = bond {
        if standby.master == Some(bond.index) {
            return Some(Action::SetMaster {
                index: standby.index,
                master: None,
            });
        }
        return Some(Action::Delete { index: bond.index });
    }
    if standby.name != saved.name {
        return Some(Action::Rename {
            index: standby.index,
            name: saved.name.clone(),
        });
    }
    if saved.up && !standby.up {
        return Some(Action::SetUp {
            index: standby.index,
            up: true,
        });
    }
    if saved.master.is_some() && standby.master != saved.master {
        return Some(Action::SetMaster {
            index: standby.index,
            master: saved.master,
        });
    }
    Some(Action::Restore {
        saved: saved.clone(),
        to: standby.index,
    })
}
