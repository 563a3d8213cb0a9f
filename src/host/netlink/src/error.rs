//! Why a device is not as it was asked to be.

use hybond_core::ids::{IfName, Mac};
use std::io;
use std::time::Duration;

/// What went wrong, with which device, and what mends it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Socket(#[source] io::Error),
    /// The kernel refused.
    #[error("cannot {doing}")]
    Kernel {
        /// What was tried.
        doing: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel did not answer, or in a way that could not be decoded: such answers are dropped below this crate.
    #[error("cannot {doing}: the kernel did not answer within {} s", after.as_secs())]
    Timeout {
        /// What was tried.
        doing: String,
        /// How long was waited.
        after: Duration,
    },
    /// The socket was closed under the request. The next request opens a new one.
    #[error("cannot {doing}: the netlink connection was lost; the next request opens a new one")]
    Lost {
        /// What was tried.
        doing: String,
    },
    /// Another device has the name.
    #[error(
        "{name} cannot be a further name of {wanted}: it is one of {holder} already; `ip link property del dev {holder} altname {name}` takes it away"
    )]
    NameTaken {
        /// The name.
        name: IfName,
        /// Who has it.
        holder: IfName,
        /// Who was to have it.
        wanted: IfName,
    },
    /// No such device.
    #[error("there is no network device {name}")]
    NoLink {
        /// The device.
        name: IfName,
    },
    /// The lower device is down.
    #[error("{lower} is down, so nothing can be put over it; `ip link set {lower} up` mends it")]
    LowerDown {
        /// The lower device.
        lower: IfName,
    },
    /// The lower device carries smaller packets only.
    #[error(
        "{lower} carries packets of {mtu} bytes, and {wanted} are needed; `ip link set {lower} mtu {wanted}` mends it, where \
         what is below allows it"
    )]
    LowerMtu {
        /// The lower device.
        lower: IfName,
        /// What it carries.
        mtu: u32,
        /// What is needed.
        wanted: u32,
    },
    /// The lower device is a port of a bridge or bond, whose receive handler takes every frame first.
    #[error(
        "no macvtap can be put over {lower}: it is a port of {master}; take it out with `ip link set {lower} nomaster`, or name {master} instead"
    )]
    LowerBusy {
        /// The lower device.
        lower: IfName,
        /// What has taken it.
        master: String,
    },
    /// The name belongs to something else.
    #[error("{name} is there already and is a {found}, not a {wanted}; remove or rename it")]
    OtherKind {
        /// The device.
        name: IfName,
        /// Its kind.
        found: String,
        /// The kind that was asked for.
        wanted: &'static str,
    },
    /// There is a standby of this name which differs, and it was not to be replaced.
    #[error(
        "standby {name} is there already, with {found} instead of {wanted}; remove it, or ask for it to be replaced"
    )]
    OtherStandby {
        /// The device.
        name: IfName,
        /// What it has.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// Another device over the same lower device is up with the same address.
    #[error(
        "{name} cannot be set up: {holder} has {mac} on {lower} already; set {holder} down or give it another address"
    )]
    MacTaken {
        /// The device.
        name: IfName,
        /// Its address.
        mac: Mac,
        /// Its lower device.
        lower: IfName,
        /// Who has the address.
        holder: String,
    },
    /// The kernel does not know the kind of device.
    #[error(
        "cannot make {name}: this kernel has no {module}; `modprobe {module}` mends it where the module is installed"
    )]
    NoModule {
        /// The device that was to be made.
        name: String,
        /// The module.
        module: &'static str,
    },
    /// A VLAN number that no frame can carry.
    #[error("{vlan} is no VLAN: 1 to 4094 are")]
    BadVlan {
        /// The number.
        vlan: u16,
    },
    /// The VLAN sub-interface is there, is not hybond's, and is down.
    #[error(
        "{name}, the sub-interface of VLAN {vlan} on {lower}, is not hybond's and is down; `ip link set {name} up` mends it"
    )]
    VlanDown {
        /// The sub-interface.
        name: IfName,
        /// Its VLAN.
        vlan: u16,
        /// Its lower device.
        lower: IfName,
    },
    /// The character device of a macvtap cannot be used.
    #[error("{name} has no usable {node}: {reason}")]
    TapNode {
        /// The macvtap.
        name: IfName,
        /// Its character device.
        node: String,
        /// Cause and remedy.
        reason: String,
    },
    /// The PF has no such VF.
    #[error(
        "{pf} has no VF {index}: {count} VFs are enabled; /sys/class/net/{pf}/device/sriov_numvfs sets their number"
    )]
    NoVf {
        /// The PF.
        pf: IfName,
        /// Number of the VF.
        index: u32,
        /// How many there are.
        count: u32,
    },
    /// The driver accepted a VF's attribute, and reports another.
    #[error(
        "VF {index} of {pf} has {attribute} {found} after it was set to {wanted}; its driver does not support that"
    )]
    VfDiffers {
        /// The PF.
        pf: IfName,
        /// Number of the VF.
        index: u32,
        /// `mac`, `vlan`, `trust`, `spoofchk`, `rate` or `port profile`.
        attribute: &'static str,
        /// What was set.
        wanted: String,
        /// What is reported.
        found: String,
    },
    /// The driver accepted a VF's attribute, and does not report it.
    #[error(
        "VF {index} of {pf}: its driver took {attribute} {wanted} and does not report it, so nobody can tell whether it holds; \
         leave {attribute} out of the pool"
    )]
    VfUnreported {
        /// The PF.
        pf: IfName,
        /// Number of the VF.
        index: u32,
        /// `trust` or `spoofchk`.
        attribute: &'static str,
        /// What was set.
        wanted: String,
    },
    /// The driver says nothing of what its VFs have.
    #[error("VF {index} of {pf}: its driver does not report what its VFs have")]
    VfsUnreported {
        /// The PF.
        pf: IfName,
        /// Number of the VF.
        index: u32,
    },
    /// The driver cannot associate a VF with a switch.
    #[error(
        "VF {index} of {pf} cannot be associated by port profile {profile:?}: its driver knows none (of Linux's own, Cisco's enic \
         alone does); take the <virtualport> out of the domain where the switch does without, or make the pair one of flavor \
         virtual"
    )]
    NoPortProfiles {
        /// The PF.
        pf: IfName,
        /// Number of the VF.
        index: u32,
        /// The profile.
        profile: String,
    },
    /// The switch, or the card for it, does not associate a VF.
    #[error(
        "VF {index} of {pf} is not associated by port profile {profile:?}: the answer is {answer}; see whether the switch has \
         the profile, and for this port"
    )]
    PortRefused {
        /// The PF.
        pf: IfName,
        /// Number of the VF.
        index: u32,
        /// The profile.
        profile: String,
        /// The kernel's answer.
        answer: String,
    },
    /// An association cannot be taken away.
    #[error("VF {index} of {pf} keeps its port profile: the answer is {answer}")]
    PortKept {
        /// The PF.
        pf: IfName,
        /// Number of the VF.
        index: u32,
        /// The kernel's answer.
        answer: String,
    },
    /// The kernel acknowledged a change that is not there when read back.
    #[error(
        "{name} was changed, but reads back with {found} instead of {wanted}; something else on this host changes it"
    )]
    NotKept {
        /// The device.
        name: IfName,
        /// What is there.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// A failed effect could not be undone either.
    #[error("{name} is left behind, because undoing it failed ({undo}); `ip link del {name}` removes it")]
    LeftBehind {
        /// The device.
        name: IfName,
        /// Why it was not undone.
        undo: Box<Error>,
        /// Why it was to be undone.
        #[source]
        source: Box<Error>,
    },
}

impl Error {
    /// The kernel's error number, if it gave one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { source, .. } | Self::Socket(source) => source.raw_os_error(),
            _ => None,
        }
    }
}
