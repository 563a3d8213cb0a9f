//! What is on stable storage of a guest.

use crate::ids::{IfName, Mac, MigrationId};
use crate::pool::Lease;
use crate::spec::{DomainSpec, Flavor, PairSpec, Policy, StandbyKind};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// All that hybond must remember of a guest on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What its XML asks for.
    pub spec: DomainSpec,
    /// Where it stands.
    pub stage: Stage,
    /// What its pairs have here. Boxed: a tree's node has room for eleven, and most domains have one.
    pub pairs: BTreeMap<Mac, Box<PairRecord>>,
    /// While it is on its way: the hook that has had its answer. A daemon that was not there when libvirt gave up knows by
    /// this what to wait for.
    #[serde(default)]
    pub answered: Option<Hook>,
    /// It came by migration, and its addresses are still to be announced from here.
    #[serde(default)]
    pub arrived: bool,
    /// Its metadata may name another host's daemon.
    #[serde(default)]
    pub xml_stale: bool,
    /// Policies that were set while it runs, and that its metadata does not have yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unwritten: BTreeMap<Mac, Policy>,
}

/// A hook of libvirt's that announces a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// `migrate` or `restore`: libvirt takes the domain up next, or never; if it fails before that, nobody is told.
    Announce,
    /// `prepare`: for libvirt the domain is active from right before it (`qemuProcessInit`) until right after `release`.
    Prepare,
}

/// What a pair has on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairRecord {
    /// Its VF.
    pub lease: Option<Lease>,
    /// The PF below its standby.
    pub pf: Option<IfName>,
    /// Why it is to run without its VF.
    pub held_back: Option<HeldBack>,
}

/// Why a pair is to run without its VF for now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldBack {
    /// An administrator has drained it, and may plug it again.
    Drained,
}

/// Where a guest stands on this host. See the diagram in [`crate::guest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "kebab-case")]
pub enum Stage {
    /// libvirt is starting it here.
    Starting,
    /// It is being migrated to this host.
    Incoming {
        /// This migration.
        migration: MigrationId,
    },
    /// It runs here.
    Running,
    /// Its VFs are being unplugged.
    Draining {
        /// What for.
        reason: DrainReason,
    },
    /// Its VFs are unplugged, and it is being migrated away. Its leases are kept in case it stays.
    Outgoing {
        /// This migration.
        migration: MigrationId,
    },
    /// It is not here, and what it had is being taken back.
    Leaving,
}

/// What a drain is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrainReason {
    /// A migration away from here.
    Migration(MigrationId),
    /// `hybondctl drain`.
    Administrator,
    /// `hybondctl set --policy never`: only these pairs.
    Never(BTreeSet<Mac>),
}

impl Record {
    /// The record of a guest that is new on this host.
    #[must_use]
    pub fn new(spec: DomainSpec, stage: Stage) -> Self {
        let pairs = spec.pairs.iter().map(|pair| (pair.mac, Box::default())).collect();
        Self {
            spec,
            stage,
            pairs,
            answered: None,
            arrived: false,
            xml_stale: true,
            unwritten: BTreeMap::new(),
        }
    }

    /// Takes a newer description, as a hook brings it: what was set and did not reach the metadata is overtaken. What pairs
    /// of the same MAC have here is kept; pairs that are no longer described keep what they have until the guest leaves.
    pub fn set_spec(&mut self, spec: DomainSpec) {
        for pair in &spec.pairs {
            self.pairs.entry(pair.mac).or_default();
        }
        self.spec = spec;
        self.unwritten.clear();
    }

    /// Sets a pair's policy, here and, with the next write, in the domain's metadata.
    pub(super) fn set_policy(&mut self, mac: Mac, policy: Policy) {
        if let Some(pair) = self.spec.pairs.iter_mut().find(|pair| pair.mac == mac) {
            pair.policy = policy;
            self.unwritten.insert(mac, policy);
        }
    }

    /// One word for the stage, as `hybondctl status` shows it.
    #[must_use]
    pub fn stage_name(&self) -> &'static str {
        match self.stage {
            Stage::Starting => "starting",
            Stage::Incoming { .. } => "incoming",
            Stage::Running => "running",
            Stage::Draining { .. } => "draining",
            Stage::Outgoing { .. } => "outgoing",
            Stage::Leaving => "leaving",
        }
    }

    pub(super) fn pair_spec(&self, mac: Mac) -> Option<&PairSpec> {
        self.spec.pairs.iter().find(|pair| pair.mac == mac)
    }

    /// MACs of the pairs, in the order of the XML.
    pub(super) fn macs(&self) -> Vec<Mac> {
        self.spec.pairs.iter().map(|pair| pair.mac).collect()
    }

    pub(super) fn pair(&self, mac: Mac) -> PairRecord {
        self.pairs.get(&mac).map(|pair| (**pair).clone()).unwrap_or_default()
    }

    /// `None` for what is no pair of the domain any more.
    pub(super) fn flavor(&self, mac: Mac) -> Option<Flavor> {
        self.pair_spec(mac).map(PairSpec::flavor)
    }

    pub(super) fn is_indirect(&self, mac: Mac) -> bool {
        self.flavor(mac) == Some(Flavor::Indirect)
    }

    /// The guest is to have the VF itself.
    pub(super) fn wants_primary(&self, mac: Mac) -> bool {
        self.flavor(mac) == Some(Flavor::Hybrid) && self.pair(mac).held_back.is_none() && self.barred(mac).is_none()
    }

    /// Why the guest can have no VF for this pair, whatever the pool has.
    pub(super) fn barred(&self, mac: Mac) -> Option<String> {
        self.pair_spec(mac)?.no_vf_because()
    }

    /// The VF that the pair's standby is to be over.
    pub(super) fn vf_below(&self, mac: Mac) -> Option<Lease> {
        self.is_indirect(mac).then(|| self.pair(mac).lease).flatten()
    }

    /// libvirt has yet to choose the PF of the standby.
    pub(super) fn is_unplaced(&self, mac: Mac) -> bool {
        let standby = self.pair_spec(mac).map(|pair| &pair.standby);
        matches!(standby, Some(StandbyKind::Network { source: None }))
    }

    /// The standby is a macvtap of hybond's making, not of libvirt's.
    pub(super) fn owns_standby(&self, mac: Mac) -> bool {
        self.pair_spec(mac)
            .is_none_or(|pair| pair.standby == StandbyKind::Ethernet)
    }
}
