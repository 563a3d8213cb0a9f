//! A host's machine: what survives the crash of its daemon.

use hybond_core::guest::StandbySeen;
use hybond_core::ids::{DomainId, Mac, VfId};
use std::collections::{BTreeMap, BTreeSet};

/// A QEMU.
#[derive(Debug, Clone)]
pub struct Qemu {
    /// CPUs run.
    pub running: bool,
    /// It waits for a migration to arrive.
    pub incoming: bool,
    /// RAM is being copied out of it.
    pub copying: bool,
    /// Everything has been sent, or has arrived.
    pub completed: bool,
    /// The primary.
    pub plugged: Option<VfId>,
    /// device_del has been sent, and the guest has not let go yet.
    pub unplugging: bool,
    /// The guest's bond.
    pub on_primary: bool,
    /// The guest's driver has the primary up.
    pub primary_ready: bool,
    /// The guest lets devices go.
    pub obedient: bool,
}

/// Network devices, VFs and QEMUs.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Macvtaps of hybond's.
    pub standby: BTreeMap<Mac, StandbySeen>,
    /// VFs that carry a pair's MAC.
    pub dressed: BTreeMap<VfId, Mac>,
    /// One for each domain.
    pub qemu: BTreeMap<DomainId, Qemu>,
    /// Domains in an outgoing job.
    pub outgoing: BTreeSet<DomainId>,
}
