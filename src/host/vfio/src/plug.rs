//! Plugging a VF over QMP, and taking every grant back.
//!
//! The device carries a `failover_pair_id` that names nothing: QEMU then adds no migration blocker, so that libvirt lets a
//! domain with a primary begin to migrate and the destination's hook can have it drained
//! (`vfio_migration_realize()`, `qemuMigrationSrcIsAllowed()`). The price is that QEMU would copy RAM with the VF still
//! plugged; the guard in the QMP adapter and the drain see to it that it never does.

use crate::bind::is_vfio;
use crate::cgroup::DeviceMaps;
use crate::device::DevNumber;
use crate::error::{GrantError, PlugError, SysfsError};
use crate::iommufd::{self, Counting};
use crate::memlock::{HEADROOM, Ledger};
use crate::nodes::{CONTAINER, Nodes};
use crate::process::Process;
use crate::sysfs::Sysfs;
use crate::{Change, PlugWay};
use hybond_core::ids::Bdf;
use hybond_qmp::{QUICK, Qmp, QmpError};
use serde_json::json;
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Names no device, on purpose.
const NO_PAIR: &str = "hybond-none";
/// The iommufd object, one for all primaries of a QEMU, so that they share one mapping of the guest's memory. It stays until
/// QEMU ends: `iommufd_backend_finalize()` does not close a descriptor that was passed in, so that each `object-del` would
/// leave one behind (seen with QEMU 10.0). Without a device it maps nothing and gives nothing. Its id tells a daemon that
/// was restarted whom it counts for.
const CONTEXTS: [(&str, Counting); 2] = [("hbiom", Counting::PerProcess), ("hbiom-user", Counting::PerUser)];
/// A VF to be plugged.
#[derive(Debug, Clone)]
pub struct PlugRequest {
    /// QEMU's process.
    pub pid: u32,
    /// The VF, bound to vfio-pci.
    pub vf: Bdf,
    /// QEMU's id for it: `Mac::primary_id`.
    pub id: String,
    /// The root port: `Mac::root_port_id`.
    pub bus: String,
    /// All of the guest's memory, that of memory devices included: VFIO pins it.
    pub guest_ram_bytes: u64,
}

/// State of an unplug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unplug {
    /// The guest has been asked; DEVICE_DELETED will tell.
    Pending,
    /// There is no such device (any more).
    Gone,
}

/// Asks the guest to let a primary go. To be repeated at will.
///
/// # Errors
/// QEMU refuses, or the monitor is gone.
pub async fn request_unplug(qmp: &Qmp, id: &str) -> Result<Unplug, PlugError> {
    match qmp.device_del(id).await {
        Ok(()) => Ok(Unplug::Pending),
        Err(e) if e.is_not_found() => Ok(Unplug::Gone),
        // `qmp_device_del()`: "Device %s is already in the process of unplug".
        Err(QmpError::Refused { ref desc, .. }) if desc.contains("already in the process of unplug") => {
            Ok(Unplug::Pending)
        }
        Err(source) => Err(qmp_failed("device_del", id)(source)),
    }
}

pub(crate) fn qmp_failed(command: &'static str, id: &str) -> impl FnOnce(QmpError) -> PlugError {
    let id = id.to_owned();
    move |source| PlugError::Qmp { command, id, source }
}

/// Plugs VFs into QEMUs of this host, and remembers what was granted. One per daemon; calls for one domain must not
/// overlap, calls for several may.
#[derive(Debug)]
pub struct Plugger {
    pub(crate) sys: Sysfs,
    dev: PathBuf,
    /// What VFIO pins beside the guest's RAM.
    headroom: u64,
    granted: Mutex<Granted>,
}

#[derive(Debug, Default)]
pub(crate) struct Granted {
    pub(crate) memlock: Ledger,
    /// At most one entry for each VF of the host.
    pub(crate) groups: HashMap<Bdf, GroupGrant>,
}

/// What [`Plugger::revoke`] cannot look up once the VF's driver has changed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupGrant {
    pub(crate) group: u32,
    pub(crate) device: DevNumber,
    /// Whom the host's node belonged to; `None` where QEMU has a /dev of its own.
    pub(crate) owner: Option<(u32, u32)>,
}

impl Plugger {
    /// With the host's sysfs, and `/dev`.
    #[must_use]
    pub fn new(sys: Sysfs) -> Self {
        Self {
            sys,
            dev: PathBuf::from("/dev"),
            headroom: HEADROOM,
            granted: Mutex::default(),
        }
    }

    /// Plugs a VF that is bound to vfio-pci. [`Change::AlreadyThere`] where QEMU has it under that id.
    ///
    /// When QEMU refuses, what was granted has been taken back. When its answer does not come, the grants stay, for it may
    /// still do it: look at its devices, and [`Plugger::revoke`] if the VF is not among them.
    ///
    /// # Errors
    /// A grant fails, or QEMU refuses.
    pub async fn plug(&self, way: PlugWay, qmp: &Qmp, request: &PlugRequest) -> Result<Change, PlugError> {
        if !matches!(way, PlugWay::Iommufd | PlugWay::Group) {
            return Err(PlugError::OtherWay(way));
        }
        if self.is_plugged(way, qmp, request).await? {
            return Ok(Change::AlreadyThere);
        }
        let plugged = match way {
            PlugWay::Group => self.plug_by_group(qmp, request).await,
            _ => self.plug_by_descriptors(qmp, request).await,
        };
        match plugged {
            Ok(()) => Ok(Change::Made),
            Err(e) => {
                if !may_still_happen(&e) {
                    self.roll_back(way, qmp, request).await;
                }
                Err(e)
            }
        }
    }

    async fn roll_back(&self, way: PlugWay, qmp: &Qmp, request: &PlugRequest) {
        let revoked = self.revoke(way, Some(request.pid), request.vf, Some(qmp)).await;
        // The caller gets the error that caused this; what stays granted is worth a line of its own.
        for e in revoked.err().unwrap_or_default() {
            let cause = std::error::Error::source(&e).map(ToString::to_string);
            tracing::warn!(vf = %request.vf, cause, "{e}");
        }
    }

    async fn is_plugged(&self, way: PlugWay, qmp: &Qmp, request: &PlugRequest) -> Result<bool, PlugError> {
        let (vf, id) = (request.vf, &request.id);
        let devices = qmp.devices().await.map_err(qmp_failed("qom-list", id))?;
        if !devices.contains(id) {
            return Ok(false);
        }
        let device = self.device_of(way, vf)?;
        let process = Process::open(request.pid).map_err(|source| PlugError::Grant { vf, source })?;
        match device.map(|d| process.holds(d)).transpose() {
            Ok(Some(true)) => Ok(true),
            Ok(_) => Err(PlugError::IdInUse { id: id.clone(), vf }),
            Err(source) => Err(PlugError::Grant { vf, source }),
        }
    }

    /// The character device by which QEMU has a VF.
    pub(crate) fn device_of(&self, way: PlugWay, vf: Bdf) -> Result<Option<DevNumber>, PlugError> {
        if way == PlugWay::Iommufd {
            return if_there(vf, self.sys.cdev(vf).map(|found| found.map(|(_, device)| device)));
        }
        Ok(self.group_of(vf)?.map(|(_, device)| device))
    }

    /// The IOMMU group of a VF that is a VFIO device, and the group's character device.
    pub(crate) fn group_of(&self, vf: Bdf) -> Result<Option<(u32, DevNumber)>, PlugError> {
        let Some(group) = if_there(vf, self.sys.iommu_group(vf))? else {
            return Ok(None);
        };
        let device = if_there(vf, self.sys.group_dev(group))?;
        Ok(device.map(|device| (group, device)))
    }

    fn needs_vfio(&self, way: PlugWay, vf: Bdf) -> Result<(), PlugError> {
        let driver = self.sys.driver(vf).map_err(|source| PlugError::Sysfs { vf, source })?;
        if driver.as_deref().is_some_and(is_vfio) {
            return Ok(());
        }
        let why = "it is not bound to vfio-pci";
        Err(PlugError::NotPossible { vf, way, why })
    }

    async fn plug_by_group(&self, qmp: &Qmp, request: &PlugRequest) -> Result<(), PlugError> {
        let (vf, way) = (request.vf, PlugWay::Group);
        self.needs_vfio(way, vf)?;
        let found = |source| PlugError::Sysfs { vf, source };
        let group = self.sys.iommu_group(vf).map_err(found)?;
        let group = group.ok_or(PlugError::NotPossible {
            vf,
            way,
            why: "it has no IOMMU group; enable the IOMMU",
        })?;
        let device = self.sys.group_dev(group).map_err(found)?;
        let device = device.ok_or(PlugError::NotPossible {
            vf,
            way,
            why: "the kernel's VFIO has no groups (CONFIG_VFIO_GROUP)",
        })?;
        self.grant_group(request, group, device)
            .map_err(|source| PlugError::Grant { vf, source })?;
        let device = json!({
            "driver": "vfio-pci", "host": vf.to_string(), "id": request.id, "bus": request.bus,
            "failover_pair_id": NO_PAIR,
        });
        qmp.device_add(device, patience(request.guest_ram_bytes))
            .await
            .map_err(qmp_failed("device_add", &request.id))
    }

    fn grant_group(&self, request: &PlugRequest, group: u32, device: DevNumber) -> Result<(), GrantError> {
        let process = Process::open(request.pid)?;
        let nodes = Nodes::of(&process)?;
        let maps = DeviceMaps::of(&process)?;
        let user = process.owner()?;
        // A node that is QEMU's already is so by a grant that was not taken back: no one to give it back to.
        let owner = nodes.owner_before(group, device)?.filter(|before| *before != user);
        // Recorded before the first grant, so that a failing one is taken back.
        self.granted()
            .groups
            .entry(request.vf)
            .and_modify(|known| {
                let owner = owner.or(known.owner);
                *known = GroupGrant { group, device, owner };
            })
            .or_insert(GroupGrant { group, device, owner });
        nodes.grant_container()?;
        nodes.grant_group(group, device, user)?;
        maps.allow(CONTAINER)?;
        maps.allow(device)?;
        tracing::debug!(vf = %request.vf, group, %device, private = nodes.private(), maps = maps.len(), "group granted");
        self.granted().memlock.raise(
            &process,
            request.vf,
            request.guest_ram_bytes.saturating_add(self.headroom),
        )
    }

    async fn plug_by_descriptors(&self, qmp: &Qmp, request: &PlugRequest) -> Result<(), PlugError> {
        let (vf, way, id) = (request.vf, PlugWay::Iommufd, request.id.as_str());
        self.needs_vfio(way, vf)?;
        let cdev = self.sys.cdev(vf).map_err(|source| PlugError::Sysfs { vf, source })?;
        let (name, _) = cdev.ok_or(PlugError::NotPossible {
            vf,
            way,
            why: "the kernel's VFIO has no character device for it (CONFIG_VFIO_DEVICE_CDEV)",
        })?;
        let path = self.dev.join("vfio/devices").join(name);
        let device = iommufd::open_node(&path).map_err(|source| PlugError::Open { path, source })?;
        let (context, counting) = self.context(qmp, id).await?;
        let pinned = match counting {
            Counting::PerProcess => request.guest_ram_bytes.saturating_add(self.headroom),
            // All QEMUs of the user count as one, so no figure for this one is enough.
            Counting::PerUser => u64::MAX,
        };
        Process::open(request.pid)
            .and_then(|process| self.granted().memlock.raise(&process, vf, pinned))
            .map_err(|source| PlugError::Grant { vf, source })?;
        let fd = fd_name(vf);
        qmp.getfd(&fd, device.as_fd()).await.map_err(qmp_failed("getfd", id))?;
        let arguments = json!({
            "driver": "vfio-pci", "fd": fd, "iommufd": context, "id": id, "bus": request.bus,
            "failover_pair_id": NO_PAIR,
        });
        qmp.device_add(arguments, patience(request.guest_ram_bytes))
            .await
            .map_err(qmp_failed("device_add", id))
    }

    /// QEMU's iommufd context: that of an earlier primary, or a fresh one.
    async fn context(&self, qmp: &Qmp, id: &str) -> Result<(&'static str, Counting), PlugError> {
        let objects = qmp
            .command("qom-list", json!({"path": "/objects"}), None, QUICK)
            .await
            .map_err(qmp_failed("qom-list", id))?;
        let there = |name: &str| {
            let mut objects = objects.as_array().into_iter().flatten();
            objects.any(|object| object["name"] == name)
        };
        if let Some(known) = CONTEXTS.into_iter().find(|(name, _)| there(name)) {
            return Ok(known);
        }
        let path = self.dev.join("iommu");
        let (context, counting) = iommufd::open_context(&path).map_err(|source| PlugError::Open { path, source })?;
        let (name, _) = CONTEXTS[usize::from(counting == Counting::PerUser)];
        let fd = format!("{name}-fd");
        qmp.getfd(&fd, context.as_fd())
            .await
            .map_err(qmp_failed("getfd", name))?;
        qmp.object_add(json!({"qom-type": "iommufd", "id": name, "fd": fd}))
            .await
            .map_err(qmp_failed("object-add", name))?;
        Ok((name, counting))
    }

    pub(crate) fn granted(&self) -> MutexGuard<'_, Granted> {
        // No panic leaves it half changed: it is a record of single inserts and removals.
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of a VF that somebody has taken off its PF there is nothing.
fn if_there<T>(vf: Bdf, found: Result<Option<T>, SysfsError>) -> Result<Option<T>, PlugError> {
    match found {
        Err(SysfsError::NoDevice(_)) => Ok(None),
        found => found.map_err(|source| PlugError::Sysfs { vf, source }),
    }
}

/// Name of a VF's descriptor in QEMU, between `getfd` and the `device_add` that uses it up, even if it fails.
pub(crate) fn fd_name(vf: Bdf) -> String {
    format!("hbfd-{vf}")
}

/// QEMU may yet do what it has not answered.
fn may_still_happen(e: &PlugError) -> bool {
    let PlugError::Qmp { command, source, .. } = e else {
        return false;
    };
    *command == "device_add" && matches!(source, QmpError::Timeout { sent: true, .. } | QmpError::Gone { .. })
}

/// Pinning costs about 0.25 s per GiB where pages have still to be cleared; four times that, and what emulation costs.
fn patience(guest_ram: u64) -> Duration {
    Duration::from_secs(30 + (guest_ram >> 30).min(16 * 1024))
}

#[cfg(test)]
#[path = "plug_tests.rs"]
mod tests;
