//! What sysfs says of PFs and VFs. Every look is fresh: numbers of VFs, drivers and names change under a running daemon.

use crate::device::DevNumber;
use crate::error::SysfsError;
use hybond_core::ids::{Bdf, IfName};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// An attribute is at most a page (`sysfs_emit()`).
const ATTRIBUTE_MAX: u64 = 4096;
/// TotalVFs is a 16-bit register; a folder of the tree has at most that many entries that concern us.
const ENTRIES_MAX: usize = 65_536;

/// The tree below `/sys`, or a test's copy of one.
#[derive(Debug, Clone)]
pub struct Sysfs {
    root: PathBuf,
    #[cfg(test)]
    pub(crate) kernel: Option<std::sync::Arc<crate::testing::FakeKernel>>,
}

/// A physical function with SR-IOV.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pf {
    /// Its network interface.
    pub name: IfName,
    /// Its address.
    pub bdf: Bdf,
    /// Its driver, such as `igb`.
    pub driver: Option<String>,
    /// PCI vendor and device id.
    pub id: (u16, u16),
    /// NUMA node, where the machine has several.
    pub numa_node: Option<u32>,
    /// VFs that exist.
    pub numvfs: u32,
    /// VFs that the hardware allows.
    pub totalvfs: u32,
}

/// A virtual function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vf {
    /// Its address.
    pub bdf: Bdf,
    /// Its number on the PF, as netlink counts.
    pub index: u32,
    /// Its IOMMU group; `None` where the IOMMU is off.
    pub iommu_group: Option<u32>,
    /// The driver that has it now.
    pub driver: Option<String>,
    /// PCI vendor and device id.
    pub id: (u16, u16),
    /// Its network interface, where a driver of the host has it.
    pub interface: Option<IfName>,
}

impl Sysfs {
    /// Takes the tree at `root`: `/sys`, or a copy in a test.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            #[cfg(test)]
            kernel: None,
        }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    pub(crate) fn device(&self, bdf: Bdf) -> PathBuf {
        self.root.join(format!("bus/pci/devices/{bdf}"))
    }

    /// Whether there is such a function: VFs come and go with what is written to their PF's `sriov_numvfs`.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn is_there(&self, bdf: Bdf) -> Result<bool, SysfsError> {
        match self.existing(bdf) {
            Ok(_) => Ok(true),
            Err(SysfsError::NoDevice(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Refuses functions that are not there, so that later "missing" errors mean the attribute.
    pub(crate) fn existing(&self, bdf: Bdf) -> Result<PathBuf, SysfsError> {
        let path = self.device(bdf);
        match is_path(&path)? {
            true => Ok(path),
            false => Err(SysfsError::NoDevice(bdf)),
        }
    }

    fn net(&self, name: &IfName) -> PathBuf {
        self.root.join("class/net").join(name.as_str())
    }

    /// Whether there is such a network interface, of whatever kind. Reading sysfs takes no lock of the kernel's for network
    /// devices (RTNL), which somebody may hold for seconds.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn has_interface(&self, name: &IfName) -> Result<bool, SysfsError> {
        is_path(&self.net(name))
    }

    /// The PCI address of a network interface.
    ///
    /// # Errors
    /// The interface does not exist or is not a PCI function.
    pub fn bdf_of(&self, name: &IfName) -> Result<Bdf, SysfsError> {
        let net = self.net(name);
        if net.symlink_metadata().is_err() {
            return Err(SysfsError::NoInterface(name.clone()));
        }
        let target = link_name(&net.join("device"))?;
        target
            .and_then(|t| t.parse().ok())
            .ok_or_else(|| SysfsError::NotPci(name.clone()))
    }

    /// The VFs of a PF, by index.
    ///
    /// # Errors
    /// The PF does not exist, has no SR-IOV, or sysfs cannot be read.
    pub fn vfs_of(&self, pf: &IfName) -> Result<Vec<Vf>, SysfsError> {
        let bdf = self.bdf_of(pf)?;
        let count = self.numvfs(bdf)?;
        let mut vfs = Vec::new();
        for index in 0..count {
            let link = self.device(bdf).join(format!("virtfn{index}"));
            // Between the write to sriov_numvfs and the links there is a moment without them.
            let Some(target) = link_name(&link)? else { continue };
            let vf: Bdf = parse(&link, &target, "a PCI address")?;
            match self.vf(vf, index) {
                Ok(vf) => vfs.push(vf),
                // As above, the other way round.
                Err(SysfsError::NoDevice(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(vfs)
    }

    fn vf(&self, bdf: Bdf, index: u32) -> Result<Vf, SysfsError> {
        Ok(Vf {
            bdf,
            index,
            iommu_group: self.iommu_group(bdf)?,
            driver: self.driver(bdf)?,
            id: self.id(bdf)?,
            interface: self.interface_of(bdf)?,
        })
    }

    /// The PF's network interface, and the VF's number on it.
    ///
    /// # Errors
    /// The device is no VF, or its PF has no network interface.
    pub fn pf_of(&self, vf: Bdf) -> Result<(IfName, u32), SysfsError> {
        let link = self.existing(vf)?.join("physfn");
        let target = link_name(&link)?.ok_or(SysfsError::NotAVf(vf))?;
        let pf: Bdf = parse(&link, &target, "a PCI address")?;
        let name = self.interface_of(pf)?.ok_or(SysfsError::NoPfInterface { vf, pf })?;
        let wanted = vf.to_string();
        for index in 0..self.numvfs(pf)? {
            let link = self.device(pf).join(format!("virtfn{index}"));
            if link_name(&link)?.is_some_and(|t| t == wanted) {
                return Ok((name, index));
            }
        }
        Err(SysfsError::NotAVf(vf))
    }

    /// The network interface that the host's driver has made of a function; `None` while it has not.
    ///
    /// # Errors
    /// The device is missing or unreadable.
    pub fn interface(&self, bdf: Bdf) -> Result<Option<IfName>, SysfsError> {
        self.existing(bdf)?;
        self.interface_of(bdf)
    }

    /// The network interface of a function. In switchdev mode a PF also carries its VFs' representors
    /// (`phys_port_name` such as `pf0vf1`), and a card may drive two ports from one function (`dev_port`).
    fn interface_of(&self, function: Bdf) -> Result<Option<IfName>, SysfsError> {
        let net = self.device(function).join("net");
        let mut candidates = Vec::new();
        for name in entries(&net)? {
            // EOPNOTSUPP where the driver names no ports: then it is the only interface.
            let port_name = attribute(&net.join(&name).join("phys_port_name")).unwrap_or_default();
            let uplink = port_name.is_none_or(|p| is_uplink(&p));
            let dev_port: u32 = match attribute(&net.join(&name).join("dev_port"))? {
                Some(text) => parse(&net.join(&name).join("dev_port"), &text, "a number")?,
                None => 0,
            };
            if uplink {
                candidates.push((dev_port, name));
            }
        }
        candidates.sort();
        let Some((_, name)) = candidates.into_iter().next() else {
            return Ok(None);
        };
        parse(&net, &name, "an interface name").map(Some)
    }

    /// VFs that exist now.
    ///
    /// # Errors
    /// The device has no SR-IOV.
    pub fn numvfs(&self, pf: Bdf) -> Result<u32, SysfsError> {
        self.sriov(pf, "sriov_numvfs")
    }

    /// VFs that the hardware allows.
    ///
    /// # Errors
    /// The device has no SR-IOV.
    pub fn totalvfs(&self, pf: Bdf) -> Result<u32, SysfsError> {
        self.sriov(pf, "sriov_totalvfs")
    }

    fn sriov(&self, pf: Bdf, file: &str) -> Result<u32, SysfsError> {
        let path = self.existing(pf)?.join(file);
        let text = attribute(&path)?.ok_or(SysfsError::NoSriov(pf))?;
        // Registers of 16 bits: a larger figure is not the kernel's.
        let count: u16 = parse(&path, &text, "a number of VFs")?;
        Ok(u32::from(count))
    }

    /// The driver that has a function, if any.
    ///
    /// # Errors
    /// The device is missing or unreadable.
    pub fn driver(&self, bdf: Bdf) -> Result<Option<String>, SysfsError> {
        link_name(&self.existing(bdf)?.join("driver"))
    }

    /// The IOMMU group of a function; `None` where the IOMMU is off.
    ///
    /// # Errors
    /// The device is missing or unreadable.
    pub fn iommu_group(&self, bdf: Bdf) -> Result<Option<u32>, SysfsError> {
        let link = self.existing(bdf)?.join("iommu_group");
        link_name(&link)?
            .map(|t| parse(&link, &t, "an IOMMU group"))
            .transpose()
    }

    /// Vendor and device id of a function. Of a VF too, though its config space reads 0xffff.
    ///
    /// # Errors
    /// The device is missing or unreadable.
    pub fn id(&self, bdf: Bdf) -> Result<(u16, u16), SysfsError> {
        let device = self.existing(bdf)?;
        let hex = |file: &str| {
            let path = device.join(file);
            let text = attribute(&path)?.unwrap_or_default();
            let digits = text.strip_prefix("0x").unwrap_or(&text);
            u16::from_str_radix(digits, 16).map_err(|_| malformed(&path, &text, "a PCI id such as 0x8086"))
        };
        Ok((hex("vendor")?, hex("device")?))
    }

    /// The NUMA node of a function; `None` where the machine has one node only (the kernel says -1).
    ///
    /// # Errors
    /// The device is missing or unreadable.
    pub fn numa_node(&self, bdf: Bdf) -> Result<Option<u32>, SysfsError> {
        let path = self.existing(bdf)?.join("numa_node");
        let node: i32 = match attribute(&path)? {
            Some(text) => parse(&path, &text, "a NUMA node")?,
            None => -1,
        };
        Ok(u32::try_from(node).ok())
    }

    /// Every PF of this host that can have VFs and has a network interface, by name; and of which functions that cannot be
    /// said. One that vanishes meanwhile is left out.
    ///
    /// # Errors
    /// The functions cannot be listed.
    pub fn pfs(&self) -> Result<(Vec<Pf>, Vec<SysfsError>), SysfsError> {
        let mut pfs = Vec::new();
        let mut faults = Vec::new();
        for name in entries(&self.root.join("bus/pci/devices"))? {
            let Ok(bdf) = name.parse::<Bdf>() else { continue };
            match self.pf(bdf) {
                Ok(pf) => pfs.extend(pf),
                Err(SysfsError::NoDevice(_) | SysfsError::NoSriov(_)) => {}
                Err(e) => faults.push(e),
            }
        }
        pfs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((pfs, faults))
    }

    fn pf(&self, bdf: Bdf) -> Result<Option<Pf>, SysfsError> {
        let totalvfs = self.totalvfs(bdf)?;
        let Some(name) = self.interface_of(bdf)? else {
            return Ok(None);
        };
        Ok(Some(Pf {
            name,
            bdf,
            driver: self.driver(bdf)?,
            id: self.id(bdf)?,
            numa_node: self.numa_node(bdf)?,
            numvfs: self.numvfs(bdf)?,
            totalvfs,
        }))
    }

    /// The other functions of an IOMMU group.
    pub(crate) fn group_members(&self, group: u32) -> Result<Vec<Bdf>, SysfsError> {
        let folder = self.root.join(format!("kernel/iommu_groups/{group}/devices"));
        let names = entries(&folder)?;
        Ok(names.iter().filter_map(|n| n.parse().ok()).collect())
    }

    /// Device number of a group's node `/dev/vfio/<group>`; `None` while nothing of the group is bound to VFIO.
    pub(crate) fn group_dev(&self, group: u32) -> Result<Option<DevNumber>, SysfsError> {
        dev_number(&self.root.join(format!("class/vfio/{group}/dev")))
    }

    /// Name and device number of the VF's character device `/dev/vfio/devices/<name>`. The class device is there on
    /// kernels without the character devices too; its `dev` file is not.
    pub(crate) fn cdev(&self, vf: Bdf) -> Result<Option<(String, DevNumber)>, SysfsError> {
        let folder = self.existing(vf)?.join("vfio-dev");
        let Some(name) = entries(&folder)?.into_iter().next() else {
            return Ok(None);
        };
        Ok(dev_number(&folder.join(&name).join("dev"))?.map(|dev| (name, dev)))
    }
}

fn is_path(path: &Path) -> Result<bool, SysfsError> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(SysfsError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// An uplink is unnamed (legacy mode) or `p<number>`, possibly with a controller in front; `pf0`, `pf0vf1` and the like are
/// representors (`Documentation/networking/switchdev.rst`).
fn is_uplink(port_name: &str) -> bool {
    let port = port_name.split_once('p').map_or(port_name, |(_, digits)| digits);
    port.bytes().all(|b| b.is_ascii_digit())
}

fn dev_number(path: &Path) -> Result<Option<DevNumber>, SysfsError> {
    attribute(path)?
        .map(|text| parse(path, &text, "a device number such as 242:0"))
        .transpose()
}

fn malformed(path: &Path, text: &str, expected: &'static str) -> SysfsError {
    SysfsError::Malformed {
        path: path.to_owned(),
        text: text.chars().take(64).collect(),
        expected,
    }
}

fn parse<T: std::str::FromStr>(path: &Path, text: &str, expected: &'static str) -> Result<T, SysfsError> {
    text.parse().map_err(|_| malformed(path, text, expected))
}

/// An attribute's text without its newline; `None` where it does not exist.
pub(crate) fn attribute(path: &Path) -> Result<Option<String>, SysfsError> {
    let read = || -> io::Result<String> {
        let mut text = String::new();
        File::open(path)?.take(ATTRIBUTE_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    match read() {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SysfsError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The last component of a link's target; `None` where there is no link.
fn link_name(path: &Path) -> Result<Option<String>, SysfsError> {
    match fs::read_link(path) {
        Ok(target) => Ok(target.file_name().map(|n| n.to_string_lossy().into_owned())),
        // EINVAL: not a link.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => Ok(None),
        Err(source) => Err(SysfsError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Names in a folder, sorted; none where it does not exist.
pub(crate) fn entries(path: &Path) -> Result<Vec<String>, SysfsError> {
    let failed = |source| SysfsError::Read {
        path: path.to_owned(),
        source,
    };
    let folder = match fs::read_dir(path) {
        Ok(folder) => folder,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut names = Vec::new();
    for entry in folder.take(ENTRIES_MAX) {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
#[path = "sysfs_tests.rs"]
mod tests;
