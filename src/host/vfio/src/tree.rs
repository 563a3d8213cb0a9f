//! A stand-in for `/sys`, also for the tests of other crates.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use tempfile::TempDir;

/// A tree like `/sys`, in a folder that goes with it.
#[derive(Debug)]
pub struct Tree {
    pub(crate) root: TempDir,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// Without any device.
    #[must_use]
    pub fn new() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let tree = Self { root };
        tree.file("bus/pci/drivers_probe", "");
        tree
    }

    /// PF 0000:01:00.0 `ens1` with two VFs, 0000:01:10.0 in group 7 and 0000:01:10.2 in group 8, without drivers; vfio-pci
    /// is loaded.
    #[must_use]
    pub fn with_igb() -> Self {
        let tree = Self::new();
        tree.pf("0000:01:00.0", "ens1", &["0000:01:10.0", "0000:01:10.2"]);
        tree.group("0000:01:00.0", 1);
        tree.group("0000:01:10.0", 7);
        tree.group("0000:01:10.2", 8);
        tree.driver("0000:01:00.0", "igb");
        tree.folder("bus/pci/drivers/vfio-pci");
        tree
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    /// Makes a folder.
    pub fn folder(&self, below: &str) {
        fs::create_dir_all(self.path(below)).expect("a folder");
    }

    /// Makes a file, or writes it anew.
    pub fn file(&self, below: &str, text: &str) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    /// Makes a link, or turns it.
    pub fn link(&self, below: &str, target: &str) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
        let _absent = fs::remove_file(&path);
        symlink(target, path).expect("a link");
    }

    /// A PCI function, on no NUMA node.
    pub fn device(&self, bdf: &str, vendor: &str, device: &str) {
        self.file(&format!("bus/pci/devices/{bdf}/vendor"), &format!("{vendor}\n"));
        self.file(&format!("bus/pci/devices/{bdf}/device"), &format!("{device}\n"));
        self.file(&format!("bus/pci/devices/{bdf}/numa_node"), "-1\n");
        self.file(&format!("bus/pci/devices/{bdf}/driver_override"), "(null)\n");
    }

    /// Takes a PCI function away.
    pub fn remove(&self, bdf: &str) {
        fs::remove_dir_all(self.path(&format!("bus/pci/devices/{bdf}"))).expect("a PCI function");
    }

    /// A PF and its VFs, with the ids of igb.
    pub fn pf(&self, pf: &str, name: &str, vfs: &[&str]) {
        self.device(pf, "0x8086", "0x10c9");
        self.file(
            &format!("bus/pci/devices/{pf}/sriov_numvfs"),
            &format!("{}\n", vfs.len()),
        );
        self.file(&format!("bus/pci/devices/{pf}/sriov_totalvfs"), "7\n");
        self.interface(pf, name, 0, None);
        for (index, vf) in vfs.iter().enumerate() {
            self.device(vf, "0x8086", "0x10ca");
            self.link(&format!("bus/pci/devices/{pf}/virtfn{index}"), &format!("../{vf}"));
            self.link(&format!("bus/pci/devices/{vf}/physfn"), &format!("../{pf}"));
        }
    }

    /// A network interface of a function.
    pub fn interface(&self, pf: &str, name: &str, dev_port: u32, phys_port_name: Option<&str>) {
        let net = format!("bus/pci/devices/{pf}/net/{name}");
        self.file(&format!("{net}/dev_port"), &format!("{dev_port}\n"));
        if let Some(port) = phys_port_name {
            self.file(&format!("{net}/phys_port_name"), &format!("{port}\n"));
        }
        self.link(&format!("class/net/{name}/device"), &format!("../../../{pf}"));
    }

    /// A function's IOMMU group.
    pub fn group(&self, bdf: &str, group: u32) {
        self.link(
            &format!("bus/pci/devices/{bdf}/iommu_group"),
            &format!("../../../kernel/iommu_groups/{group}"),
        );
        self.folder(&format!("kernel/iommu_groups/{group}/devices/{bdf}"));
    }

    /// A function's driver.
    pub fn driver(&self, bdf: &str, driver: &str) {
        self.file(&format!("bus/pci/drivers/{driver}/unbind"), "");
        self.link(
            &format!("bus/pci/devices/{bdf}/driver"),
            &format!("../../drivers/{driver}"),
        );
    }

    /// A function's NUMA node.
    pub fn numa_node(&self, bdf: &str, node: u32) {
        self.file(&format!("bus/pci/devices/{bdf}/numa_node"), &format!("{node}\n"));
    }

    /// The group's node has this device number.
    pub fn group_dev(&self, group: u32, number: &str) {
        self.file(&format!("class/vfio/{group}/dev"), &format!("{number}\n"));
    }
}
