//! A pool, as it is written.

use hybond_core::ids::{Bdf, IfName, PoolName};
use hybond_vfio::emulated::EmulatedModel;
use serde::Deserialize;

/// One pool.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its name, the same on every host of the network.
    pub name: PoolName,
    /// PFs by name: all their VFs.
    #[serde(default)]
    pub pf: Vec<IfName>,
    /// Only these VFs of them; all where empty.
    #[serde(default)]
    pub vf: Vec<Bdf>,
    /// Let the guest change what the PF set (`ip link set … vf … trust`). Left as it is where not given.
    pub trust: Option<bool>,
    /// Drop frames of other source addresses. Left as it is where not given.
    pub spoofchk: Option<bool>,
    /// Let the standby's macvtap take every multicast frame. IPv6 neighbour discovery needs the guest's groups.
    #[serde(default = "yes")]
    pub allmulticast: bool,
    /// Emulated primaries in place of VFs, for machines without SR-IOV.
    pub emulated: Option<Emulated>,
}

fn igb() -> EmulatedModel {
    EmulatedModel::Igb
}

fn yes() -> bool {
    true
}

/// Emulated primaries: QEMU NICs on taps.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emulated {
    /// Bridge that the taps join; on the same network as the PF.
    pub bridge: IfName,
    /// How many there are of each PF.
    pub count: u32,
    /// Which NIC.
    #[serde(default = "igb")]
    pub model: EmulatedModel,
}
