//! A pool, as it is written.

use crate::selector::{PciId, Selector, VfRange, many};
use hybond_core::handover::HandoverOverride;
use hybond_core::ids::{Bdf, IfName, PoolName};
use hybond_core::paths::MulticastPolicy;
use hybond_vfio::emulated::EmulatedModel;
use serde::Deserialize;

/// MTUs that IPv6 and Ethernet allow (RFC 8200, `ETH_MAX_MTU`).
const MTU: std::ops::RangeInclusive<u32> = 1280..=65535;

/// One pool. The values of one selector are alternatives; different selectors narrow each other.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its name, the same on every host of the network.
    pub name: PoolName,
    /// Selector: VFs of these PFs.
    #[serde(default, deserialize_with = "many")]
    pub pf: Vec<IfName>,
    /// Selector: VFs at these addresses.
    #[serde(default, deserialize_with = "many")]
    pub vf: Vec<VfRange>,
    /// Selector: VFs of these models.
    #[serde(default, deserialize_with = "many")]
    pub pci_id: Vec<PciId>,
    /// Selector: VFs of PFs on these NUMA nodes.
    #[serde(default, deserialize_with = "many")]
    pub numa_node: Vec<u32>,
    /// Selector: VFs of PFs with these drivers.
    #[serde(default, deserialize_with = "many")]
    pub pf_driver: Vec<String>,
    /// What `host.devices` puts into the pool, beside what is selected.
    #[serde(skip)]
    pub devices: Vec<Bdf>,
    /// Let the guest change what the PF set (`ip link set … vf … trust`). Left as it is where not given.
    pub trust: Option<bool>,
    /// Drop frames of other source addresses. Left as it is where not given.
    pub spoofchk: Option<bool>,
    /// What a VF in use may send at least, in Mbit/s. Left as it is where not given.
    pub min_tx_rate: Option<u32>,
    /// What a VF in use may send at most, in Mbit/s. Left as it is where not given.
    pub max_tx_rate: Option<u32>,
    /// Packets of this size pass both paths. As the PF has it where not given.
    pub mtu: Option<u32>,
    /// Let the standby's macvtap take every multicast frame, or none; what the guest wants where not given.
    pub allmulticast: Option<bool>,
    /// In place of the row of the PF's driver.
    #[serde(default)]
    pub handover: HandoverOverride,
    /// Emulated primaries in place of VFs, for machines without SR-IOV.
    pub emulated: Option<Emulated>,
}

fn igb() -> EmulatedModel {
    EmulatedModel::Igb
}

/// Emulated primaries: QEMU NICs on taps.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
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

impl Pool {
    /// A pool that nothing is said of but its name: one that only `host.devices` has.
    #[must_use]
    pub fn named(name: PoolName) -> Self {
        Self {
            name,
            pf: Vec::new(),
            vf: Vec::new(),
            pci_id: Vec::new(),
            numa_node: Vec::new(),
            pf_driver: Vec::new(),
            devices: Vec::new(),
            trust: None,
            spoofchk: None,
            min_tx_rate: None,
            max_tx_rate: None,
            mtu: None,
            allmulticast: None,
            handover: HandoverOverride::default(),
            emulated: None,
        }
    }

    /// Every value that it selects VFs by, without `host.devices`.
    #[must_use]
    pub fn selectors(&self) -> Vec<Selector> {
        let pf = self.pf.iter().cloned().map(Selector::Pf);
        let vf = self.vf.iter().copied().map(Selector::Vf);
        let pci_id = self.pci_id.iter().copied().map(Selector::PciId);
        let numa_node = self.numa_node.iter().copied().map(Selector::NumaNode);
        let pf_driver = self.pf_driver.iter().cloned().map(Selector::PfDriver);
        pf.chain(vf).chain(pci_id).chain(numa_node).chain(pf_driver).collect()
    }

    /// What standbys take.
    #[must_use]
    pub fn multicast(&self) -> MulticastPolicy {
        match self.allmulticast {
            None => MulticastPolicy::Follow,
            Some(true) => MulticastPolicy::Everything,
            Some(false) => MulticastPolicy::Nothing,
        }
    }

    /// What is wrong with it as a whole, and how to mend it.
    pub(crate) fn problem(&self) -> Option<String> {
        let name = &self.name;
        let selectors = self.selectors();
        if selectors.is_empty() && self.devices.is_empty() {
            return Some(format!(
                "pool {name} selects no VFs: add at least one of pf, vf, pci_id, numa_node and pf_driver, or name it in \
                 host.devices"
            ));
        }
        let only_pf = selectors.iter().all(|selector| matches!(selector, Selector::Pf(_)));
        if self.emulated.is_some() && !(only_pf && self.devices.is_empty()) {
            return Some(format!(
                "pool {name} is emulated, so there are no VFs to select: pf = [\"<name>\"] is all that it may have beside \
                 emulated"
            ));
        }
        if self.mtu.is_some_and(|mtu| !MTU.contains(&mtu)) {
            return Some(format!("pool {name}: mtu is {} to {} bytes", MTU.start(), MTU.end()));
        }
        match (self.min_tx_rate, self.max_tx_rate) {
            (Some(min), Some(max)) if max != 0 && min > max => Some(format!(
                "pool {name}: min_tx_rate, {min}, must not be more than max_tx_rate, {max} (0 is no limit)"
            )),
            _ => None,
        }
    }
}
