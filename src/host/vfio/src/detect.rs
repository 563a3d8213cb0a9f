//! Which way of plugging this host has.

use crate::bpf;
use crate::cgroup;
use crate::iommufd;
use crate::sysfs::Sysfs;
use hybond_core::ids::InvalidId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File};
use std::path::Path;
use std::str::FromStr;

/// A way of giving a VF to a running QEMU, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlugWay {
    /// Open descriptors of iommufd and of the VF are passed over the monitor.
    Iommufd,
    /// QEMU opens the VF's VFIO group itself, after being granted that one group.
    Group,
    /// libvirt attaches the VF as a `<hostdev>`. libvirt then refuses a plain migration: the VF has to be drained first.
    /// Done by the libvirt adapter; here it is a name only.
    Libvirt,
    /// An emulated NIC on a tap in place of a VF. Only where the configuration asks for it.
    Emulated,
}

impl PlugWay {
    const ALL: [Self; 4] = [Self::Iommufd, Self::Group, Self::Libvirt, Self::Emulated];

    /// As in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Iommufd => "iommufd",
            Self::Group => "group",
            Self::Libvirt => "libvirt",
            Self::Emulated => "emulated",
        }
    }
}

impl fmt::Display for PlugWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PlugWay {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let found = Self::ALL.into_iter().find(|way| way.as_str() == text);
        found.ok_or_else(|| InvalidId {
            text: text.chars().take(64).collect(),
            expected: "a way of plugging: iommufd, group, libvirt or emulated",
        })
    }
}

/// The way that this host has, and why not a better one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detection {
    /// The best way that works.
    pub way: PlugWay,
    /// Why this one, in one sentence for the operator.
    pub reason: String,
    /// What stood in the way of each better one, and the remedy.
    pub rejected: Vec<(PlugWay, String)>,
}

/// Looks at the host. Loads nothing: vfio-pci should be loaded before (`modules-load.d`), or both ways by QMP are rejected
/// with that reason.
#[must_use]
pub fn detect(sys: &Sysfs) -> Detection {
    detect_in(sys, Path::new("/proc"), Path::new("/dev"), device_programs_work)
}

fn detect_in(sys: &Sysfs, proc: &Path, dev: &Path, bpf_works: impl FnOnce() -> Result<(), String>) -> Detection {
    let regions = regions(proc);
    let mut rejected = Vec::new();
    let base = common(sys);
    match base.clone().and_then(|()| iommufd_works(&regions, dev)) {
        Ok(()) => {
            return Detection {
                way: PlugWay::Iommufd,
                reason: "the kernel has iommufd and VFIO's character devices: descriptors are passed to QEMU"
                    .to_owned(),
                rejected,
            };
        }
        Err(why) => rejected.push((PlugWay::Iommufd, why)),
    }
    match base
        .and_then(|()| group_works(&regions, dev))
        .and_then(|()| bpf_works())
    {
        Ok(()) => Detection {
            way: PlugWay::Group,
            reason: format!("{}; QEMU can be granted single VFIO groups instead", rejected[0].1),
            rejected,
        },
        Err(why) => {
            let reason = format!("{}; {why}", rejected[0].1);
            rejected.push((PlugWay::Group, why));
            Detection {
                way: PlugWay::Libvirt,
                reason,
                rejected,
            }
        }
    }
}

fn common(sys: &Sysfs) -> Result<(), String> {
    let groups = crate::sysfs::entries(&sys.path("kernel/iommu_groups")).map_err(|e| e.to_string())?;
    if groups.is_empty() {
        return Err(
            "the host has no IOMMU groups: enable VT-d or AMD-Vi in the firmware, and intel_iommu=on on the kernel \
             command line"
                .to_owned(),
        );
    }
    if !sys.path("bus/pci/drivers/vfio-pci").exists() {
        return Err("driver vfio-pci is not loaded: modprobe vfio-pci".to_owned());
    }
    Ok(())
}

/// Names of the character device regions. VFIO takes `vfio` for groups and `vfio-dev` for devices when it is loaded, so
/// this tells what the kernel was built with before any VF is bound.
fn regions(proc: &Path) -> Vec<String> {
    let text = fs::read_to_string(proc.join("devices")).unwrap_or_default();
    let characters = text.split("Block devices:").next().unwrap_or_default();
    let names = characters.lines().filter_map(|l| l.trim().split_once(' '));
    names.map(|(_, name)| name.trim().to_owned()).collect()
}

fn iommufd_works(regions: &[String], dev: &Path) -> Result<(), String> {
    let node = dev.join("iommu");
    if !node.exists() {
        return Err("the kernel has no iommufd (CONFIG_IOMMUFD), or it is not loaded: modprobe iommufd".to_owned());
    }
    iommufd::open_node(&node).map_err(|e| format!("{} cannot be opened ({e})", node.display()))?;
    if !regions.iter().any(|r| r == "vfio-dev") {
        return Err("the kernel's VFIO has no character devices (CONFIG_VFIO_DEVICE_CDEV)".to_owned());
    }
    Ok(())
}

fn group_works(regions: &[String], dev: &Path) -> Result<(), String> {
    if !regions.iter().any(|r| r == "vfio") {
        return Err("the kernel's VFIO has no groups (CONFIG_VFIO_GROUP)".to_owned());
    }
    let node = dev.join("vfio/vfio");
    if !node.exists() {
        return Err(format!("{} is missing: modprobe vfio", node.display()));
    }
    Ok(())
}

/// Whether programs of the unified hierarchy can be listed: what granting a group begins with.
fn device_programs_work() -> Result<(), String> {
    // libvirt prefers the old hierarchy's device controller where it is mounted, and its rules are not in a map.
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let old = mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(2);
        fields.next() == Some("cgroup") && fields.next().is_some_and(|o| o.split(',').any(|o| o == "devices"))
    });
    if old {
        return Err(
            "the host uses the device controller of cgroup v1; boot with systemd.unified_cgroup_hierarchy=1".to_owned(),
        );
    }
    let point = cgroup::mount_point().map_err(|e| format!("mount points cannot be read ({e})"))?;
    // Without cgroups libvirt restricts nothing.
    let Some(point) = point else { return Ok(()) };
    let root = File::open(&point).map_err(|e| format!("{point} cannot be opened ({e})"))?;
    match bpf::device_programs(&root) {
        Ok(_) => Ok(()),
        Err(e) => Err(format!(
            "device programs of {point} cannot be listed ({e}): hybondd needs CAP_SYS_ADMIN and a kernel with \
             CONFIG_CGROUP_BPF"
        )),
    }
}

#[cfg(test)]
#[path = "detect_tests.rs"]
mod tests;
