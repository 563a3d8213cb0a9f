//! The VFs of a host, for schedulers and those who look for a free one.

use crate::control::LeaseStatus;
use hybond_core::ids::{Bdf, IfName, PoolName, VfId};
use serde::{Deserialize, Serialize};

/// A VF of a host. What is not known is left `null`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfRow {
    /// What peers reach the host as.
    pub host: String,
    /// The pools that offer it, by name.
    pub pools: Vec<PoolName>,
    /// What hybond calls it: its PCI address, or the name of an emulated primary.
    pub name: VfId,
    /// Its PCI address in parts; none of an emulated primary.
    pub address: Option<Address>,
    /// Its PF.
    pub pf: IfName,
    /// Driver of the PF.
    pub pf_driver: Option<String>,
    /// Its number at the PF (`ip link set PF vf N`).
    pub index: u32,
    /// Its driver now.
    pub driver: Option<String>,
    /// Its network interface on the host, where it has one now.
    pub interface: Option<IfName>,
    /// Vendor and device, as `lspci -nn` prints them.
    pub pci_id: Option<String>,
    /// NUMA node of the PF.
    pub numa_node: Option<u32>,
    /// What can be done with it.
    pub state: VfState,
    /// The lease on it.
    pub lease: Option<VfLease>,
}

/// The parts of a PCI address, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// PCI domain (segment).
    pub domain: u16,
    /// Bus.
    pub bus: u8,
    /// Slot (device).
    pub slot: u8,
    /// Function.
    pub function: u8,
}

impl From<Bdf> for Address {
    fn from(bdf: Bdf) -> Self {
        let (domain, bus, slot, function) = bdf.parts();
        Self {
            domain,
            bus,
            slot,
            function,
        }
    }
}

/// What can be done with a VF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VfState {
    /// A pool offers it, and nobody has it.
    Free,
    /// A pool offers it, and it is reserved for a guest that is to come.
    Reserved,
    /// It is held for a pair, and not plugged: the guest is on its way, or on its standby.
    Leased,
    /// It is in a guest.
    Plugged,
    /// No pool offers it.
    NoPool,
    /// It is leased, and the machine has it no more.
    Missing,
}

impl VfState {
    /// As in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Reserved => "reserved",
            Self::Leased => "leased",
            Self::Plugged => "plugged",
            Self::NoPool => "no-pool",
            Self::Missing => "missing",
        }
    }
}

/// A lease, seen from the VF.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfLease {
    /// The pool that it was taken from.
    pub pool: Option<PoolName>,
    /// Who has it.
    pub owner: LeaseStatus,
}
