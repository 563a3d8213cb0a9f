//! What a guest's machine is asked, what it wants done, and how that can end.

use super::seen::{Job, Snapshot, StandbySeen};
use crate::ids::{IfName, Mac, MigrationId, PeerAddr, VfId};
use crate::paths::{Multicast, StandbyMode};
use crate::pool::{Ask, Lease};
use crate::spec::{DomainSpec, Policy};
use std::collections::{BTreeMap, BTreeSet};

/// Names somebody who waits for an answer. Given out by the driver, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What somebody asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Hook `prepare`: libvirt starts the domain here, with this very XML.
    Prepare(DomainSpec),
    /// Hook `start`: libvirt has chosen the PFs of standbys whose network says which there are. It can still be refused.
    Place(DomainSpec),
    /// Hook `restore`: libvirt is about to start the domain here from a file, and still takes another XML.
    Restore(DomainSpec),
    /// Hook `migrate`: the domain is about to come here.
    Receive(DomainSpec, MigrationId),
    /// The peer that the domain is about to go to.
    Drain(MigrationId),
    /// `hybondctl drain`.
    HoldBack,
    /// `hybondctl plug`.
    Plug,
    /// `hybondctl set`: another policy, for these pairs.
    SetPolicy(BTreeSet<Mac>, Policy),
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is done. To a hook that may change the XML: the lower devices of standbys that libvirt makes itself.
    Done(Vec<(Mac, IfName)>),
    /// It was not done, and why.
    Refused(String),
}

/// Something to be done. Each is idempotent and verified by reading back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Look at libvirt, the monitor and the network devices.
    Look {
        /// Also at libvirt. Not while its hook waits for us, for it holds the domain's lock then and any call about it would
        /// wait for the hook; nor in an arrival, where libvirt is busy and the monitor knows all that matters.
        libvirt: bool,
    },
    /// Ask libvirt whether the domain is there and which job it is in.
    LookAtJob,
    /// Take a VF from the pool.
    Lease(Ask),
    /// Find a PF for a standby that is to have no VF.
    ChoosePf(Ask),
    /// Make the macvtap of a pair, down.
    MakeStandby {
        /// The pair.
        mac: Mac,
        /// On this PF.
        pf: IfName,
        /// On this VLAN of it.
        vlan: Option<u16>,
        /// Not on the PF itself, but in passthru mode over this VF of it, whose VLAN is in the hardware.
        vf: Option<Lease>,
    },
    /// Set the macvtap of a pair up.
    RaiseStandby(Mac),
    /// Set the macvtap of a pair down, while its VF carries the traffic on a card that needs it so.
    LowerStandby(Mac),
    /// Ask QEMU which multicast frames the guest wants of its standbys. From then on QEMU tells once of the next change.
    ReadFilters,
    /// Have the macvtap of a pair stand so beside the others, and take these multicast frames. Done: it has been read back so.
    TuneStandby {
        /// The pair.
        mac: Mac,
        /// How it stands.
        mode: StandbyMode,
        /// What it takes.
        multicast: Multicast,
    },
    /// Ask the source to drain.
    AskDrain {
        /// The daemon of the source.
        peer: PeerAddr,
        /// This migration.
        migration: MigrationId,
    },
    /// Give the VF its MAC, VLAN, trust, and to VFIO; one that stays the host's, to the host's driver.
    PrepareVf {
        /// VF and pair.
        lease: Lease,
        /// VLAN of the pair.
        vlan: Option<u16>,
    },
    /// Grant the VF to QEMU and plug it.
    Plug(Lease),
    /// Have the agent move the traffic to the standby.
    Failover(Mac),
    /// Have the agent move the traffic to the primary.
    Failback(Mac),
    /// Send `device_del`; DEVICE_DELETED comes as an event.
    Unplug(Lease),
    /// Take back every grant, and clear the VF's MAC and VLAN.
    ResetVf(Lease),
    /// Give the VF back to the pool.
    Release(Lease),
    /// Remove the macvtap of a pair, and its VLAN sub-interface.
    RemoveStandby(Mac),
    /// Have QEMU and the agent announce the guest's addresses.
    Announce,
    /// Put this host's peer address into the domain's metadata, and the persistent XML right.
    RepairXml {
        /// The lower devices of standbys that libvirt makes, for where the persistent XML names none of this host's.
        sources: Vec<(Mac, IfName)>,
    },
    /// Put these policies into the domain's metadata, running and persistent.
    WritePolicies(BTreeMap<Mac, Policy>),
    /// Tell who asked.
    Answer {
        /// Who.
        token: Token,
        /// What.
        answer: Answer,
    },
}

impl Action {
    /// Every name that [`Action::phase`] answers.
    pub const PHASES: [&'static str; 17] = [
        "lease",
        "make-standby",
        "raise-standby",
        "lower-standby",
        "tune-standby",
        "drain-source",
        "prepare-vf",
        "plug",
        "failover",
        "failback",
        "unplug",
        "reset-vf",
        "release",
        "remove-standby",
        "announce",
        "repair-xml",
        "write-policy",
    ];

    /// Name of the phase that this action is, in the timeline and in the journal. `None`: not worth telling.
    #[must_use]
    pub fn phase(&self) -> Option<&'static str> {
        Some(match self {
            Self::Look { .. } | Self::LookAtJob | Self::ReadFilters | Self::Answer { .. } => return None,
            Self::Lease(_) | Self::ChoosePf(_) => "lease",
            Self::MakeStandby { .. } => "make-standby",
            Self::RaiseStandby(_) => "raise-standby",
            Self::LowerStandby(_) => "lower-standby",
            Self::TuneStandby { .. } => "tune-standby",
            Self::AskDrain { .. } => "drain-source",
            Self::PrepareVf { .. } => "prepare-vf",
            Self::Plug(_) => "plug",
            Self::Failover(_) => "failover",
            Self::Failback(_) => "failback",
            Self::Unplug(_) => "unplug",
            Self::ResetVf(_) => "reset-vf",
            Self::Release(_) => "release",
            Self::RemoveStandby(_) => "remove-standby",
            Self::Announce => "announce",
            Self::RepairXml { .. } => "repair-xml",
            Self::WritePolicies(_) => "write-policy",
        })
    }

    /// The pair that the action is for.
    #[must_use]
    pub fn mac(&self) -> Option<Mac> {
        match self {
            Self::MakeStandby { mac, .. }
            | Self::RaiseStandby(mac)
            | Self::LowerStandby(mac)
            | Self::TuneStandby { mac, .. }
            | Self::Failover(mac)
            | Self::Failback(mac)
            | Self::RemoveStandby(mac) => Some(*mac),
            Self::Lease(ask) | Self::ChoosePf(ask) => Some(ask.mac),
            Self::PrepareVf { lease, .. }
            | Self::Plug(lease)
            | Self::Unplug(lease)
            | Self::ResetVf(lease)
            | Self::Release(lease) => Some(lease.mac),
            Self::Look { .. }
            | Self::LookAtJob
            | Self::ReadFilters
            | Self::AskDrain { .. }
            | Self::Announce
            | Self::RepairXml { .. }
            | Self::WritePolicies(_)
            | Self::Answer { .. } => None,
        }
    }

    /// The VF that the action is about.
    #[must_use]
    pub fn vf(&self) -> Option<&VfId> {
        match self {
            Self::PrepareVf { lease, .. }
            | Self::Plug(lease)
            | Self::Unplug(lease)
            | Self::ResetVf(lease)
            | Self::Release(lease) => Some(&lease.vf.id),
            _ => None,
        }
    }
}

/// How an action went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done, or it was done already.
    Done,
    /// Answer to [`Action::Look`].
    Looked(Snapshot),
    /// Answer to [`Action::LookAtJob`].
    Job(super::DomainSeen, Job),
    /// Answer to [`Action::Lease`].
    Leased(Lease),
    /// Answer to [`Action::Lease`] and [`Action::ChoosePf`]: no VF; where a standby would best be, if the pool is known.
    NoVf {
        /// A sentence.
        reason: String,
        /// A PF of the pool.
        pf: Option<IfName>,
    },
    /// Answer to [`Action::Lease`]: none now, and one that would do is on its way back to the pool; else as [`Self::NoVf`].
    NotYet {
        /// A sentence, for if it does not come.
        reason: String,
        /// A PF of the pool.
        pf: Option<IfName>,
    },
    /// Answer to [`Action::ReadFilters`]: what the guest wants, for each pair that QEMU tells of.
    Filters(BTreeMap<Mac, Multicast>),
    /// Answer to [`Action::MakeStandby`], [`Action::RaiseStandby`] and [`Action::LowerStandby`]: what is there now.
    Standby(StandbySeen),
    /// Answer to [`Action::Failover`] and [`Action::Failback`]: the pair now.
    Switched(super::AgentPair),
    /// Answer to [`Action::Unplug`]: the device was not there any more.
    NotPlugged,
}

/// How an action went wrong. The driver has logged the cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A sentence that names object, cause and remedy.
    pub reason: String,
}
