//! A network device, as far as hybond looks at it.

use hybond_core::ids::IfName;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoMacVtap, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVtapMode,
};

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: IfName,
    /// Its index.
    pub index: u32,
    /// Set up by an administrator.
    pub up: bool,
    /// The layer below is there.
    pub carrier: bool,
    /// Its Ethernet address; `None` where it has another kind of address or none.
    pub mac: Option<[u8; 6]>,
    /// Its MTU.
    pub mtu: u32,
    /// What it is.
    pub kind: Kind,
    /// Its alias (`ip link set … alias`).
    pub alias: Option<String>,
    /// Index of the bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// Index of the device that it is over, if that is in the same network namespace.
    pub lower: Option<u32>,
    /// It takes every multicast frame.
    pub allmulticast: bool,
}

/// Kind of a network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A NIC, or whatever else has no kind.
    Nic,
    /// A macvtap and its mode: `bridge`, `private`, `vepa`, `passthru`, `source`.
    Macvtap {
        /// Its mode.
        mode: String,
    },
    /// A VLAN sub-interface.
    Vlan {
        /// Its VLAN.
        id: u16,
    },
    /// A bridge.
    Bridge,
    /// A tun or tap.
    Tun,
    /// Any other kind, in the kernel's words.
    Other(String),
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nic => "NIC",
            Self::Macvtap { .. } => "macvtap",
            Self::Vlan { .. } => "vlan",
            Self::Bridge => "bridge",
            Self::Tun => "tun",
            Self::Other(kind) => kind,
        })
    }
}

impl Link {
    /// `None` if the message has no name that is an [`IfName`].
    pub(crate) fn from_message(message: &LinkMessage) -> Option<Self> {
        let flags = message.header.flags;
        let mut name = None;
        let mut link = Self {
            // Replaced below, or the message is refused.
            name: "lo".parse().ok()?,
            index: message.header.index,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            mac: None,
            mtu: 0,
            kind: Kind::Nic,
            alias: None,
            master: None,
            lower: None,
            allmulticast: flags.contains(LinkFlags::Allmulti),
        };
        let mut lower_is_elsewhere = false;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = text.parse().ok(),
                LinkAttribute::Address(octets) => link.mac = octets.as_slice().try_into().ok(),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
                LinkAttribute::Controller(index) => link.master = Some(*index),
                LinkAttribute::Link(index) if *index != 0 => link.lower = Some(*index),
                LinkAttribute::LinkNetNsId(_) => lower_is_elsewhere = true,
                LinkAttribute::LinkInfo(infos) => link.kind = kind(infos),
                _ => {}
            }
        }
        if lower_is_elsewhere {
            link.lower = None;
        }
        link.name = name?;
        Some(link)
    }
}

fn kind(infos: &[LinkInfo]) -> Kind {
    let mut kind = Kind::Nic;
    for info in infos {
        match info {
            LinkInfo::Kind(InfoKind::MacVtap) => kind = Kind::Macvtap { mode: String::new() },
            LinkInfo::Kind(InfoKind::Vlan) => kind = Kind::Vlan { id: 0 },
            LinkInfo::Kind(InfoKind::Bridge) => kind = Kind::Bridge,
            LinkInfo::Kind(InfoKind::Tun) => kind = Kind::Tun,
            LinkInfo::Kind(other) => kind = Kind::Other(other.to_string()),
            LinkInfo::Data(InfoData::MacVtap(data)) => {
                let mode = data.iter().find_map(|item| match item {
                    InfoMacVtap::Mode(mode) => Some(mode_name(*mode)),
                    _ => None,
                });
                kind = Kind::Macvtap {
                    mode: mode.unwrap_or_default(),
                };
            }
            LinkInfo::Data(InfoData::Vlan(data)) => {
                let id = data.iter().find_map(|item| match item {
                    InfoVlan::Id(id) => Some(*id),
                    _ => None,
                });
                kind = Kind::Vlan {
                    id: id.unwrap_or_default(),
                };
            }
            _ => {}
        }
    }
    kind
}

fn mode_name(mode: MacVtapMode) -> String {
    match mode {
        MacVtapMode::Bridge => "bridge",
        MacVtapMode::Private => "private",
        MacVtapMode::Vepa => "vepa",
        MacVtapMode::Passthrough => "passthru",
        MacVtapMode::Source => "source",
        _ => "unknown",
    }
    .to_owned()
}
