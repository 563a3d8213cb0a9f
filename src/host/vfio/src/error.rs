//! Errors: each names the object, the cause and what to do.

use hybond_core::ids::{Bdf, IfName};
use std::io;
use std::path::PathBuf;

/// What sysfs could not tell.
#[derive(Debug, thiserror::Error)]
pub enum SysfsError {
    /// A file or link that should be readable is not.
    #[error("cannot read {}", path.display())]
    Read {
        /// File or link.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that the kernel writes holds something else than it should.
    #[error("{} holds {text:?}, not {expected}", path.display())]
    Malformed {
        /// File or link.
        path: PathBuf,
        /// What it holds, cut.
        text: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// No such network interface.
    #[error("there is no network interface {0} on this host; see the names in /sys/class/net")]
    NoInterface(IfName),
    /// A network interface that is not a PCI function: a bridge, a macvtap.
    #[error("network interface {0} is not a PCI device; a pool needs the PF itself, not what is built on it")]
    NotPci(IfName),
    /// No such PCI function.
    #[error("there is no PCI device {0} on this host; see lspci -D")]
    NoDevice(Bdf),
    /// A function without `physfn`.
    #[error("PCI device {0} is not a VF (it has no PF)")]
    NotAVf(Bdf),
    /// A PF whose driver made no network interface.
    #[error("PF {pf} of VF {vf} has no network interface; is its driver loaded?")]
    NoPfInterface {
        /// The VF asked for.
        vf: Bdf,
        /// Its PF.
        pf: Bdf,
    },
    /// A device without SR-IOV.
    #[error("PCI device {0} has no SR-IOV; choose a NIC that has, and enable it in the firmware")]
    NoSriov(Bdf),
}

/// Why a VF was not bound to vfio-pci, or not given back.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Reading failed.
    #[error("cannot look at VF {vf}")]
    Sysfs {
        /// The VF.
        vf: Bdf,
        /// Why.
        #[source]
        source: SysfsError,
    },
    /// vfio-pci is not loaded.
    #[error("driver vfio-pci is not loaded, so VF {0} cannot be bound to it: modprobe vfio-pci")]
    NoDriver(Bdf),
    /// The host has no IOMMU, or it is off.
    #[error(
        "VF {0} has no IOMMU group: enable VT-d or AMD-Vi in the firmware, and intel_iommu=on on the kernel command line"
    )]
    NoGroup(Bdf),
    /// Another device of the group belongs to the host.
    #[error(
        "VF {vf} shares IOMMU group {group} with {others}, used by the host: a group goes to a guest as a whole; take a \
         VF with a group of its own (a slot or firmware with ACS gives one)"
    )]
    SharedGroup {
        /// The VF.
        vf: Bdf,
        /// Its group.
        group: u32,
        /// Devices and their drivers.
        others: String,
    },
    /// A write was refused.
    #[error("cannot write {text:?} to {}", path.display())]
    Write {
        /// File.
        path: PathBuf,
        /// What was to be written.
        text: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The write passed, the result is another.
    #[error(
        "VF {vf} is bound to {found} after it was to go to {wanted}; see the kernel's log for what the driver's probe said"
    )]
    ReadBack {
        /// The VF.
        vf: Bdf,
        /// Driver wanted.
        wanted: &'static str,
        /// Driver found.
        found: String,
    },
    /// No driver took it that is not VFIO's.
    #[error("no driver of the host takes VF {vf}: {}", if *.autoprobe {
        "load the module of the driver for its card's VFs with modprobe (igbvf, iavf, …); a blacklist keeps it from being loaded by itself"
    } else {
        "sriov_drivers_autoprobe of its PF is 0, write 1 to it"
    })]
    NoHostDriver {
        /// The VF.
        vf: Bdf,
        /// Whether drivers may take VFs of that PF without being named: `sriov_drivers_autoprobe` (`pci_device_can_probe()`).
        autoprobe: bool,
    },
    /// The kernel did not finish. vfio waits for the users of a device before it lets go of it.
    #[error("the kernel has not finished {doing} of VF {vf} within {seconds} s: some process still has it open")]
    Stuck {
        /// The VF.
        vf: Bdf,
        /// Bind or unbind.
        doing: &'static str,
        /// How long was waited.
        seconds: u64,
    },
}

/// Why one grant to a QEMU was not made, or not taken back.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// The process has ended: nothing to grant, and nothing to take back.
    #[error("QEMU process {0} is gone")]
    Gone(u32),
    /// `/proc/<pid>` could not be read.
    #[error("cannot read {file} of QEMU process {pid}")]
    Process {
        /// The process.
        pid: u32,
        /// File in /proc/<pid>.
        file: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A device node in QEMU's /dev.
    #[error("cannot {doing} device node /dev/{path} as process {pid} sees it")]
    Node {
        /// The process.
        pid: u32,
        /// Below /dev.
        path: String,
        /// make, remove, give, …
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A node with a different device behind the same name.
    #[error(
        "/dev/{path} of QEMU process {pid} is device {found}, not {expected}: someone else made it; remove it and try again"
    )]
    ForeignNode {
        /// The process.
        pid: u32,
        /// Below /dev.
        path: String,
        /// major:minor found.
        found: String,
        /// major:minor expected.
        expected: String,
    },
    /// bpf(2) failed.
    #[error("cannot {doing} on cgroup {cgroup} of the domain; hybondd needs CAP_SYS_ADMIN and CAP_NET_ADMIN for it")]
    Bpf {
        /// What was tried.
        doing: &'static str,
        /// The cgroup.
        cgroup: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A device program that keeps its rules in another form than libvirt's.
    #[error(
        "cgroup {cgroup} of the domain has a device program whose rules are not libvirt's ({found}): a device cannot be \
         allowed in it; plug through libvirt instead"
    )]
    ForeignProgram {
        /// The cgroup.
        cgroup: String,
        /// What was found.
        found: String,
    },
    /// What was written is not what is there.
    #[error("{what} of QEMU process {pid} is still {found} after it was changed")]
    ReadBack {
        /// The process.
        pid: u32,
        /// The object.
        what: String,
        /// Its state.
        found: String,
    },
    /// prlimit(2) failed.
    #[error(
        "cannot set the memory lock limit of QEMU process {pid} to {bytes} bytes; hybondd needs CAP_SYS_RESOURCE, or the \
         domain a <memtune><hard_limit> of that size"
    )]
    Memlock {
        /// The process.
        pid: u32,
        /// The limit wanted.
        bytes: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// QEMU has not closed the VF.
    #[error("QEMU process {pid} still has VF {vf} open {seconds} s after it was unplugged")]
    StillOpen {
        /// The process.
        pid: u32,
        /// The VF.
        vf: Bdf,
        /// How long was waited.
        seconds: u64,
    },
}

/// Why a primary was not plugged, or its grants not all taken back.
#[derive(Debug, thiserror::Error)]
pub enum PlugError {
    /// sysfs.
    #[error("cannot look at VF {vf}")]
    Sysfs {
        /// The VF.
        vf: Bdf,
        /// Why.
        #[source]
        source: SysfsError,
    },
    /// The VF is not bound to vfio-pci, or the way is not this host's.
    #[error("VF {vf} cannot be plugged by {way}: {why}")]
    NotPossible {
        /// The VF.
        vf: Bdf,
        /// The way.
        way: crate::PlugWay,
        /// Cause and remedy.
        why: &'static str,
    },
    /// A grant.
    #[error("QEMU cannot be granted VF {vf}")]
    Grant {
        /// The VF.
        vf: Bdf,
        /// Why.
        #[source]
        source: GrantError,
    },
    /// A grant that stays.
    #[error("a grant of VF {vf} to QEMU could not be taken back")]
    Revoke {
        /// The VF.
        vf: Bdf,
        /// Why.
        #[source]
        source: GrantError,
    },
    /// A device node of the host.
    #[error("cannot open {}", path.display())]
    Open {
        /// Node.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A QMP command.
    #[error("QEMU did not do {command} for {id}")]
    Qmp {
        /// The command.
        command: &'static str,
        /// QEMU's id of the device.
        id: String,
        /// Why.
        #[source]
        source: hybond_qmp::QmpError,
    },
    /// The id is in use by another device.
    #[error("QEMU has a device {id} already, and it is not VF {vf}: unplug it first")]
    IdInUse {
        /// QEMU's id.
        id: String,
        /// The VF asked for.
        vf: Bdf,
    },
    /// Another way than by VFIO over QMP.
    #[error("the way {0} plugs no VF over QMP: libvirt attaches through its own API, an emulated primary takes a tap")]
    OtherWay(crate::PlugWay),
}
