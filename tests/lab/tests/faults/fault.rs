//! What is known of a fault: a row of the table, and of the page.

use crate::scene::Scene;
use anyhow::Result;

/// Has a fault happen, and answers a figure. What every scenario must end with is looked at afterwards.
pub type Play = fn(&mut Scene<'_>) -> Result<String>;

/// What a user reads. "…" stands for what differs. Scenarios fail where it was not there to be read.
#[derive(Debug, Clone, Copy)]
pub enum Sight {
    /// From `virsh migrate`, with libvirt's words around it.
    Virsh(&'static str),
    /// From hybondctl.
    Hybondctl(&'static str),
    /// Of the pair, in `hybondctl status`.
    Status(&'static str),
    /// Something else, which the test sees to by itself.
    Otherwise(&'static str),
}

/// Which table of the page a fault is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It refuses, or cannot.
    Destination,
    /// Until the VF is out of the guest.
    Drain,
    /// While QEMU copies memory.
    Memory,
    /// Inside the guest.
    Guest,
    /// `virsh migrate` with other words.
    Ways,
    /// On one host, whether or not anything migrates.
    Host,
    /// Several at a time.
    Several,
    /// Between the daemons.
    Peers,
}

impl Part {
    /// In the page's order.
    pub const ALL: [Self; 8] = [
        Self::Destination,
        Self::Drain,
        Self::Memory,
        Self::Guest,
        Self::Ways,
        Self::Host,
        Self::Several,
        Self::Peers,
    ];

    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Destination => "The destination does not take the guest",
            Self::Drain => "Before memory is copied: the drain",
            Self::Memory => "While memory is copied",
            Self::Guest => "In the guest",
            Self::Ways => "Other ways to migrate",
            Self::Host => "On a host",
            Self::Several => "Several guests at a time",
            Self::Peers => "Between the hosts' daemons",
        }
    }
}

/// A row.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Its table.
    pub part: Part,
    /// Short.
    pub name: &'static str,
    /// What goes wrong, as a user would say it.
    pub what: &'static str,
    /// What hybond does about it.
    pub happens: &'static str,
    /// What is read, and where.
    pub sees: &'static [Sight],
    /// What is tried again, and by whom.
    pub retried: &'static str,
    /// Of this test.
    pub play: Option<Play>,
    /// Tests elsewhere, as `program::test`.
    pub tests: &'static [&'static str],
    /// Played in every run.
    pub short: bool,
}

/// Where nothing is tried again.
pub const NOTHING: &str = "nothing";

/// Of this test.
pub const fn here(part: Part, name: &'static str, play: Play) -> Fault {
    row(part, name, Some(play), &[])
}

/// Of tests elsewhere.
pub const fn elsewhere(part: Part, name: &'static str, tests: &'static [&'static str]) -> Fault {
    row(part, name, None, tests)
}

/// What is to be said of it is still to be filled in.
const fn row(part: Part, name: &'static str, play: Option<Play>, tests: &'static [&'static str]) -> Fault {
    Fault {
        part,
        name,
        what: "",
        happens: "",
        sees: &[],
        retried: NOTHING,
        play,
        tests,
        short: false,
    }
}
