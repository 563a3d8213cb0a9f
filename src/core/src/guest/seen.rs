//! What is seen of a guest: from events, and from looking. Lost in a crash, and looked up again.

use super::act::{Request, Token};
use crate::ids::{IfName, Mac, VfId};
use crate::paths::{Multicast, StandbyMode};
use std::collections::{BTreeMap, BTreeSet};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody asks for something and waits.
    Request(Token, Request),
    /// Who asked waits no longer.
    Abandoned(Token),
    /// libvirt says whether the domain is there.
    Domain(DomainSeen),
    /// The monitor is connected, and this is what it shows.
    QmpConnected(QmpSeen),
    /// The monitor is gone.
    QmpLost,
    /// QEMU's CPUs run (RESUME) or have stopped (STOP).
    Running(bool),
    /// QEMU's MIGRATION event.
    Migration(MigrationSeen),
    /// The guest wants other multicast frames than before. QEMU says so once, until it is asked for them.
    FiltersChanged,
    /// DEVICE_DELETED of a primary of ours.
    DeviceDeleted(Mac),
    /// The agent has said hello: its pairs.
    AgentHello(BTreeMap<Mac, AgentPair>),
    /// The agent reports a pair.
    AgentState(Mac, AgentPair),
    /// The agent is gone.
    AgentGone,
    /// Something may have changed unseen: libvirt or the monitor was away, or events were lost.
    LookAgain,
    /// A VF was freed, or the pools have changed.
    PoolChanged,
    /// libvirt has another name for the domain.
    Renamed(String),
}

/// Whether libvirt has the domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DomainSeen {
    /// Not looked yet.
    #[default]
    Unknown,
    /// It is not active here.
    Absent,
    /// It is active here; its CPUs need not run.
    Active,
}

/// libvirt's job on the domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Job {
    /// None.
    #[default]
    None,
    /// An outgoing migration.
    Outgoing,
    /// An incoming migration.
    Incoming,
    /// Something else: save, dump, snapshot.
    Other,
}

/// State of QEMU's migration, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MigrationSeen {
    /// None, or it failed or was cancelled.
    #[default]
    Idle,
    /// Under way, from `setup` on.
    Active,
    /// Completed. On the destination the CPUs start next; on the source they will not start again by themselves.
    Completed,
}

/// What the monitor shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QmpSeen {
    /// The CPUs run.
    pub running: bool,
    /// The migration.
    pub migration: MigrationSeen,
    /// Primaries that are plugged.
    pub plugged: BTreeSet<Mac>,
}

/// A pair, as the guest's agent describes it. Believed as far as it concerns the guest's own traffic, and no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AgentPair {
    /// The bond is there and has the standby.
    pub bonded: bool,
    /// The primary is in the bond and has carrier.
    pub primary_ready: bool,
    /// The primary carries the traffic.
    pub on_primary: bool,
}

/// A standby's macvtap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandbySeen {
    /// The PF below it, or that of the VF below it.
    pub pf: IfName,
    /// The VF that it is over, in passthru mode.
    pub vf: Option<VfId>,
    /// It is up: its address is in the PF's filter.
    pub up: bool,
    /// The VLAN whose sub-interface of the PF it is over. That of a VF below it is in the hardware.
    pub vlan: Option<u16>,
    /// How it stands beside the others of its PF.
    pub mode: StandbyMode,
    /// Which multicast frames it takes.
    pub multicast: Multicast,
}

impl StandbySeen {
    /// One as hybond makes it, untagged.
    #[must_use]
    pub fn made(pf: IfName, up: bool) -> Self {
        Self {
            pf,
            vf: None,
            up,
            vlan: None,
            mode: StandbyMode::Bridge,
            multicast: Multicast::Everything,
        }
    }
}

/// All that a look shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// libvirt's word, where it was asked.
    pub libvirt: Option<(DomainSeen, Job)>,
    /// The monitor, where it answers.
    pub qmp: Option<QmpSeen>,
    /// Macvtaps of the pairs that exist.
    pub standby: BTreeMap<Mac, StandbySeen>,
}

/// The present picture.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub looked: bool,
    pub domain: DomainSeen,
    pub job: Job,
    pub qmp: Option<QmpSeen>,
    pub agent: Option<BTreeMap<Mac, AgentPair>>,
    /// Boxed: a tree's node has room for eleven.
    pub standby: BTreeMap<Mac, Box<StandbySeen>>,
    /// VFs that were set up for their pair since the last look.
    pub prepared: BTreeSet<Mac>,
    /// What the guest wanted of its standbys when it was last asked for; `None`: not known.
    pub filters: Option<BTreeMap<Mac, Multicast>>,
    /// They were asked for, or are being, and no change was told since.
    pub filters_fresh: bool,
    /// The traffic has changed its path since they were asked for.
    pub filters_void: bool,
}

impl Seen {
    pub fn plugged(&self, mac: Mac) -> bool {
        self.qmp.as_ref().is_some_and(|qmp| qmp.plugged.contains(&mac))
    }

    pub fn running(&self) -> bool {
        self.qmp.as_ref().is_some_and(|qmp| qmp.running)
    }

    pub fn migration(&self) -> MigrationSeen {
        self.qmp.as_ref().map(|qmp| qmp.migration).unwrap_or_default()
    }

    pub fn agent_pair(&self, mac: Mac) -> Option<AgentPair> {
        self.agent.as_ref()?.get(&mac).copied()
    }

    pub fn standby_up(&self, mac: Mac) -> bool {
        self.standby.get(&mac).is_some_and(|standby| standby.up)
    }

    pub fn take(&mut self, snapshot: Snapshot) {
        self.looked = true;
        if let Some((domain, job)) = snapshot.libvirt {
            self.domain = domain;
            self.job = job;
        }
        if snapshot.qmp.is_some() {
            // QEMU answers, so it is there, whatever libvirt will make of it.
            self.domain = DomainSeen::Active;
        }
        self.qmp = snapshot.qmp;
        let standby = snapshot.standby.into_iter();
        self.standby = standby.map(|(mac, seen)| (mac, Box::new(seen))).collect();
        self.prepared.clear();
        self.filters_fresh = false;
    }

    /// Takes an event into the picture.
    pub fn note(&mut self, event: Event) {
        match event {
            Event::Domain(domain) => {
                self.domain = domain;
                if domain == DomainSeen::Absent {
                    self.qmp = None;
                    self.agent = None;
                    self.filters = None;
                    self.job = Job::None;
                }
            }
            Event::FiltersChanged => self.filters_fresh = false,
            Event::QmpConnected(qmp) => {
                self.domain = DomainSeen::Active;
                self.filters_fresh = false;
                self.qmp = Some(qmp);
            }
            Event::QmpLost => self.qmp = None,
            Event::Running(running) => {
                if let Some(qmp) = &mut self.qmp {
                    qmp.running = running;
                }
            }
            Event::Migration(migration) => {
                if let Some(qmp) = &mut self.qmp {
                    qmp.migration = migration;
                }
            }
            Event::DeviceDeleted(mac) => {
                if let Some(qmp) = &mut self.qmp {
                    qmp.plugged.remove(&mac);
                }
            }
            Event::AgentHello(pairs) => self.agent = Some(pairs),
            Event::AgentState(mac, pair) => {
                if let Some(agent) = &mut self.agent {
                    agent.insert(mac, pair);
                }
            }
            Event::AgentGone => self.agent = None,
            Event::Request(..) | Event::Abandoned(_) | Event::LookAgain | Event::PoolChanged | Event::Renamed(_) => {}
        }
    }
}
