//! Taking grants back. Goes on past errors and collects them: one grant that stays is no reason to leave the others.

use crate::PlugWay;
use crate::cgroup::DeviceMaps;
use crate::device::DevNumber;
use crate::error::{GrantError, PlugError};
use crate::nodes::{CONTAINER, Nodes};
use crate::plug::{GroupGrant, Plugger, fd_name, qmp_failed};
use crate::process::Process;
use hybond_core::ids::Bdf;
use hybond_qmp::{Qmp, QmpError};
use std::time::Duration;

/// QEMU closes a VFIO device some milliseconds after DEVICE_DELETED, when the last reference to its memory regions has
/// gone (RCU).
const CLOSING: Duration = Duration::from_secs(5);
const CLOSING_STEP: Duration = Duration::from_millis(20);

impl Plugger {
    /// Takes back every grant of a VF, after DEVICE_DELETED, or after QEMU has ended (`pid` is `None`, or that of no process).
    /// To be called before the VF is unbound from vfio-pci, and at will again. Goes on past errors. `way` is the way of now:
    /// what an earlier daemon granted by another is taken back as well.
    ///
    /// # Errors
    /// All that stays granted, and why.
    pub async fn revoke(
        &self,
        way: PlugWay,
        pid: Option<u32>,
        vf: Bdf,
        qmp: Option<&Qmp>,
    ) -> Result<(), Vec<PlugError>> {
        if !matches!(way, PlugWay::Iommufd | PlugWay::Group) {
            return Err(vec![PlugError::OtherWay(way)]);
        }
        let process = match pid.map(Process::open).transpose() {
            Ok(process) => process,
            Err(GrantError::Gone(_)) => None,
            Err(source) => return Err(vec![PlugError::Revoke { vf, source }]),
        };
        let mut errors = Vec::new();
        let group = self.group_grant(vf, &mut errors);
        match process {
            Some(process) => {
                if let (PlugWay::Iommufd, Some(qmp)) = (way, qmp) {
                    keep(&mut errors, close_unused(qmp, vf).await);
                }
                self.revoke_from(way, &process, vf, group, &mut errors).await;
                let restored = self.granted().memlock.restore(&process, vf);
                keep_grant(&mut errors, vf, restored);
            }
            None => {
                // Its /dev, its cgroup and its limits went with it; the host's node did not.
                if let Some(g) = group {
                    let given = Nodes::host().and_then(|n| n.revoke_group(g.group, g.device, g.owner));
                    keep_grant(&mut errors, vf, given);
                }
                self.granted().memlock.forget(vf);
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        self.granted().groups.remove(&vf);
        Ok(())
    }

    async fn revoke_from(
        &self,
        way: PlugWay,
        process: &Process,
        vf: Bdf,
        group: Option<GroupGrant>,
        errors: &mut Vec<PlugError>,
    ) {
        if group.is_some_and(|g| self.shares(vf, g)) {
            return;
        }
        let cdev = keep(errors, self.device_of(PlugWay::Iommufd, vf)).flatten();
        for device in cdev.into_iter().chain(group.map(|g| g.device)) {
            keep_grant(errors, vf, closed(process, vf, device).await);
        }
        if let Some(group) = group {
            let granted = |nodes: Nodes| nodes.is_granted(group.group, group.device);
            // What was never granted is not looked for further: the device program may be anyone's.
            if way == PlugWay::Group || keep_grant(errors, vf, Nodes::of(process).and_then(granted)) == Some(true) {
                revoke_group(process, vf, group, errors);
            }
        }
    }

    /// Another VF of the group is plugged. A group goes to one QEMU as a whole, and stays as long as one of it is there.
    fn shares(&self, vf: Bdf, granted: GroupGrant) -> bool {
        let granted_now = self.granted();
        let mut others = granted_now.groups.iter().filter(|(other, _)| **other != vf);
        others.any(|(_, other)| other.group == granted.group)
    }

    /// From memory, or after a restart of the daemon from sysfs. `None`: the VF is no VFIO device or is not there any more, so
    /// there is no number to grant.
    fn group_grant(&self, vf: Bdf, errors: &mut Vec<PlugError>) -> Option<GroupGrant> {
        if let Some(granted) = self.granted().groups.get(&vf) {
            return Some(*granted);
        }
        let (group, device) = keep(errors, self.group_of(vf)).flatten()?;
        Some(GroupGrant {
            group,
            device,
            owner: None,
        })
    }
}

fn revoke_group(process: &Process, vf: Bdf, granted: GroupGrant, errors: &mut Vec<PlugError>) {
    let GroupGrant { group, device, owner } = granted;
    let nodes = keep_grant(errors, vf, Nodes::of(process));
    let maps = keep_grant(errors, vf, DeviceMaps::of(process));
    if let Some(maps) = &maps {
        keep_grant(errors, vf, maps.deny(device));
    }
    if let Some(nodes) = &nodes {
        keep_grant(errors, vf, nodes.revoke_group(group, device, owner));
    }
    // The container is shared by all groups of a QEMU, those of libvirt's <hostdev> included. One that is in use has it
    // open; one that is just being granted has a node or an entry in the map.
    let needed = || -> Result<bool, GrantError> {
        let node = nodes.as_ref().map(|n| n.other_groups(group)).transpose()?;
        let entry = maps.as_ref().map(|m| m.allowed_of(device.major)).transpose()?;
        Ok(process.holds(CONTAINER)? || node == Some(true) || entry.is_some_and(|e| !e.is_empty()))
    };
    if keep_grant(errors, vf, needed()) == Some(false) {
        if let Some(maps) = &maps {
            keep_grant(errors, vf, maps.deny(CONTAINER));
        }
        if let Some(nodes) = &nodes {
            keep_grant(errors, vf, nodes.revoke_container());
        }
    }
}

/// Waits until QEMU has closed a device. There is no event for it.
async fn closed(process: &Process, vf: Bdf, device: DevNumber) -> Result<(), GrantError> {
    let wait = async {
        while process.holds(device)? {
            tokio::time::sleep(CLOSING_STEP).await;
        }
        Ok(())
    };
    match tokio::time::timeout(CLOSING, wait).await {
        Ok(Err(GrantError::Gone(_))) => Ok(()),
        Ok(result) => result,
        Err(_) => Err(GrantError::StillOpen {
            pid: process.pid,
            vf,
            seconds: CLOSING.as_secs(),
        }),
    }
}

/// Closes the descriptor of a plug that was interrupted: a monitor keeps it when its client goes.
async fn close_unused(qmp: &Qmp, vf: Bdf) -> Result<(), PlugError> {
    let name = fd_name(vf);
    match qmp.closefd(&name).await {
        Ok(()) => Ok(()),
        Err(e) if e.is_not_found() => Ok(()),
        // QEMU went meanwhile, and all its descriptors.
        Err(QmpError::Gone { .. }) => Ok(()),
        Err(source) => Err(qmp_failed("closefd", &name)(source)),
    }
}

fn keep<T>(errors: &mut Vec<PlugError>, result: Result<T, PlugError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(e) => {
            errors.push(e);
            None
        }
    }
}

fn keep_grant<T>(errors: &mut Vec<PlugError>, vf: Bdf, result: Result<T, GrantError>) -> Option<T> {
    match result {
        // It ended meanwhile, and its grants with it.
        Err(GrantError::Gone(_)) => None,
        result => keep(errors, result.map_err(|source| PlugError::Revoke { vf, source })),
    }
}
