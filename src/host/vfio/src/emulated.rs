//! An emulated NIC on a tap in the place of a VF: what the tests without SR-IOV hardware plug. The guest sees the same
//! hotplug, unplug and MAC as with a VF. It has no `failover_pair_id`, since only PCIe NICs of some models take one and an
//! emulated NIC blocks no migration anyway.

use crate::Change;
use crate::error::PlugError;
use hybond_core::ids::Mac;
use hybond_qmp::{QUICK, Qmp, QmpError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::os::fd::BorrowedFd;

/// A NIC that QEMU emulates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EmulatedModel {
    /// Intel 82576, QEMU 8.0 and later.
    #[serde(rename = "igb")]
    Igb,
    /// Intel 82574.
    #[serde(rename = "e1000e")]
    E1000e,
    /// virtio-net.
    #[serde(rename = "virtio-net")]
    VirtioNet,
}

impl EmulatedModel {
    fn driver(self) -> &'static str {
        match self {
            Self::Igb => "igb",
            Self::E1000e => "e1000e",
            Self::VirtioNet => "virtio-net-pci",
        }
    }
}

/// Plugs an emulated primary: the pair's `primary_id` on its `root_port_id`, behind it `tap`, an open tap or macvtap, of
/// which QEMU gets a duplicate.
///
/// # Errors
/// QEMU refuses; what was made up to then has been removed.
pub async fn plug(qmp: &Qmp, mac: Mac, model: EmulatedModel, tap: BorrowedFd<'_>) -> Result<Change, PlugError> {
    let id = mac.primary_id();
    let devices = qmp.devices().await.map_err(failed("qom-list", &id))?;
    if devices.contains(&id) {
        return Ok(Change::AlreadyThere);
    }
    let netdev = netdev(mac);
    // One that a failed removal left would hold the old tap.
    revoke(qmp, mac).await?;
    let fd = format!("{id}-fd");
    qmp.getfd(&fd, tap).await.map_err(failed("getfd", &id))?;
    qmp.netdev_add(json!({"type": "tap", "id": netdev, "fd": fd}))
        .await
        .map_err(failed("netdev_add", &id))?;
    let device = json!({
        "driver": model.driver(), "netdev": netdev, "mac": mac.to_string(), "id": id, "bus": mac.root_port_id(),
    });
    match qmp.device_add(device, QUICK).await {
        Ok(()) => Ok(Change::Made),
        Err(e) => {
            if matches!(e, QmpError::Refused { .. }) {
                // The refusal is what the caller has to know; the next plug removes what this leaves.
                if let Err(left) = revoke(qmp, mac).await {
                    tracing::debug!(error = %left, "ignoring");
                }
            }
            Err(failed("device_add", &id)(e))
        }
    }
}

/// Removes the back end of an emulated primary, after DEVICE_DELETED. To be repeated at will.
///
/// # Errors
/// QEMU refuses, or the monitor is gone.
pub async fn revoke(qmp: &Qmp, mac: Mac) -> Result<Change, PlugError> {
    match qmp.netdev_del(&netdev(mac)).await {
        Ok(()) => Ok(Change::Made),
        Err(e) if e.is_not_found() => Ok(Change::AlreadyThere),
        Err(source) => Err(failed("netdev_del", &mac.primary_id())(source)),
    }
}

fn netdev(mac: Mac) -> String {
    format!("{}-net", mac.primary_id())
}

fn failed(command: &'static str, id: &str) -> impl FnOnce(QmpError) -> PlugError {
    let id = id.to_owned();
    move |source| PlugError::Qmp { command, id, source }
}
