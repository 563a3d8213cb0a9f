//! Links: `RTM_*LINK` to and from [`Link`].

use super::Socket;
use super::msg::{self, Message, attribute, attributes, u16_at, u32_at};
use crate::model::{Bond, Kind, Link, Saved};
use crate::takeover::{ACTIVE_BACKUP, RESELECT_FAILURE};
use hybond_core::ids::Mac;
use nix::errno::Errno;

/// `RTM_NEWLINK`.
pub const RTM_NEWLINK: u16 = 16;
/// `RTM_DELLINK`.
pub const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;

const ARPHRD_ETHER: u16 = 1;
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 0x1_0000;
const AF_INET6: u16 = 10;
/// `IN6_ADDR_GEN_MODE_NONE`.
pub const V6_NONE: u8 = 1;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_STATS64: u16 = 23;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_EVENT: u16 = 44;
const IFLA_PERM_ADDRESS: u16 = 54;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IFLA_BOND_MODE: u16 = 1;
const IFLA_BOND_ACTIVE_SLAVE: u16 = 2;
const IFLA_BOND_MIIMON: u16 = 3;
const IFLA_BOND_PRIMARY_RESELECT: u16 = 12;
const IFLA_BOND_FAIL_OVER_MAC: u16 = 13;
const IFLA_BOND_NUM_PEER_NOTIF: u16 = 16;
const IFLA_BOND_ALL_SLAVES_ACTIVE: u16 = 17;
const IFLA_BOND_SLAVE_MII_STATUS: u16 = 2;
const IFLA_EVENT_NOTIFY_PEERS: u32 = 4;
/// `RTEXT_FILTER_SKIP_STATS`: a third of the answer, and of use only where packets are counted.
const SKIP_STATS: u32 = 8;
/// Milliseconds between the bond's looks at the carrier.
const MIIMON: u32 = 100;
/// How often the kernel announces after a change of the active slave (`num_grat_arp` and `num_unsol_na` are one).
const PEER_NOTIFICATIONS: u8 = 2;

fn fixed(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0u8; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

/// A change of one link.
fn change(index: u32) -> Message {
    Message::new(RTM_NEWLINK, 0, &fixed(index, 0, 0))
}

/// Decodes a link; `None` for what is no Ethernet. `driver` is asked for what the message does not say.
pub fn parse(payload: &[u8], driver: impl FnOnce(u32, &str) -> Kind) -> Option<Link> {
    let index = u32_at(payload, 4)?;
    let flags = u32_at(payload, 8)?;
    if u16_at(payload, 2)? != ARPHRD_ETHER {
        return None;
    }
    let all = payload.get(16..)?;
    let number = |kind| attribute(all, kind).and_then(|v| u32_at(v, 0));
    let mac = |kind| {
        let octets: [u8; 6] = attribute(all, kind)?.try_into().ok()?;
        Mac::from_octets(octets).ok()
    };
    let name = msg::text(attribute(all, IFLA_IFNAME)?);
    let info = attribute(all, IFLA_LINKINFO).unwrap_or_default();
    let kind = match attribute(info, IFLA_INFO_KIND).map(msg::text).as_deref() {
        None => driver(index, &name),
        Some("bond") => Kind::Bond,
        Some("vlan" | "macvlan" | "macvtap" | "ipvlan" | "ipvtap") => Kind::Stacked,
        Some(_) => Kind::Other,
    };
    let mii_down = attribute(info, IFLA_INFO_SLAVE_DATA)
        .and_then(|data| attribute(data, IFLA_BOND_SLAVE_MII_STATUS))
        .and_then(|v| v.first())
        .is_some_and(|status| *status != 0);
    let v6 = attribute(all, IFLA_AF_SPEC)
        .and_then(|families| attribute(families, AF_INET6))
        .unwrap_or_default();
    Some(Link {
        index,
        name,
        mac: mac(IFLA_ADDRESS),
        permanent: mac(IFLA_PERM_ADDRESS),
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0 && !mii_down,
        mtu: number(IFLA_MTU).unwrap_or(1500),
        master: number(IFLA_MASTER).filter(|m| *m != 0),
        lower: number(IFLA_LINK),
        v6_mode: attribute(v6, IFLA_INET6_ADDR_GEN_MODE)
            .and_then(|v| v.first().copied())
            .unwrap_or(0),
        bond: (kind == Kind::Bond).then(|| bond(attribute(info, IFLA_INFO_DATA).unwrap_or_default())),
        kind,
    })
}

/// The number of a link that tells its peers where it is, if that is what the message is about.
pub fn notifies(payload: &[u8]) -> Option<u32> {
    let event = u32_at(attribute(payload.get(16..)?, IFLA_EVENT)?, 0)?;
    (event == IFLA_EVENT_NOTIFY_PEERS).then(|| u32_at(payload, 4)).flatten()
}

fn bond(data: &[u8]) -> Bond {
    let mut bond = Bond::default();
    for (kind, value) in attributes(data) {
        let byte = value.first().copied().unwrap_or(0);
        match kind {
            IFLA_BOND_MODE => bond.mode = byte,
            IFLA_BOND_ACTIVE_SLAVE => bond.active = u32_at(value, 0),
            IFLA_BOND_MIIMON => bond.miimon = u32_at(value, 0).unwrap_or(0),
            IFLA_BOND_PRIMARY_RESELECT => bond.reselect = byte,
            IFLA_BOND_ALL_SLAVES_ACTIVE => bond.all_active = byte != 0,
            _ => {}
        }
    }
    bond
}

impl Socket {
    /// Hands out all links, undecoded.
    pub fn links(&mut self, mut each: impl FnMut(&[u8])) -> Result<(), Errno> {
        let request = Message::new(RTM_GETLINK, 0, &fixed(0, 0, 0)).put_u32(IFLA_EXT_MASK, SKIP_STATS);
        self.query(&request, true, |kind, payload| {
            if kind == RTM_NEWLINK {
                each(payload);
            }
            Ok(())
        })
    }

    /// Hands out one link, undecoded.
    pub fn link(&mut self, index: u32, mut each: impl FnMut(&[u8])) -> Result<(), Errno> {
        let request = Message::new(RTM_GETLINK, 0, &fixed(index, 0, 0)).put_u32(IFLA_EXT_MASK, SKIP_STATS);
        self.query(&request, false, |kind, payload| {
            if kind == RTM_NEWLINK {
                each(payload);
            }
            Ok(())
        })
    }

    /// How many packets a link has received; `None` where the kernel does not say.
    pub fn received(&mut self, index: u32) -> Result<Option<u64>, Errno> {
        let mut received = None;
        self.query(
            &Message::new(RTM_GETLINK, 0, &fixed(index, 0, 0)),
            false,
            |kind, payload| {
                if kind == RTM_NEWLINK {
                    // `rx_packets` is the first of `struct rtnl_link_stats64`.
                    let counters = payload.get(16..).and_then(|all| attribute(all, IFLA_STATS64));
                    let first = counters.and_then(|counters| counters.first_chunk::<8>());
                    received = first.map(|octets| u64::from_ne_bytes(*octets));
                }
                Ok(())
            },
        )?;
        Ok(received)
    }

    /// Sets a link up or down.
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), Errno> {
        let flags = if up { IFF_UP } else { 0 };
        self.request(&Message::new(RTM_NEWLINK, 0, &fixed(index, flags, IFF_UP)))
    }

    /// Renames a link.
    pub fn rename(&mut self, index: u32, name: &str) -> Result<(), Errno> {
        self.request(&change(index).put_text(IFLA_IFNAME, name))
    }

    /// Makes a link a port of a master, or of none.
    pub fn set_master(&mut self, index: u32, master: Option<u32>) -> Result<(), Errno> {
        self.request(&change(index).put_u32(IFLA_MASTER, master.unwrap_or(0)))
    }

    /// Says how a link makes its link-local address. By netlink this changes nothing at once; by sysctl it would.
    pub fn set_v6_mode(&mut self, index: u32, mode: u8) -> Result<(), Errno> {
        let mut v6 = Vec::new();
        msg::put(&mut v6, IFLA_INET6_ADDR_GEN_MODE, &[mode]);
        let mut families = Vec::new();
        msg::put(&mut families, AF_INET6, &v6);
        self.request(&change(index).put(IFLA_AF_SPEC, &families))
    }

    /// Deletes a link.
    pub fn delete(&mut self, index: u32) -> Result<(), Errno> {
        self.request(&Message::new(RTM_DELLINK, 0, &fixed(index, 0, 0)))
    }

    /// Makes the bond that takes a standby's place, down.
    pub fn make_bond(&mut self, saved: &Saved) -> Result<(), Errno> {
        let mut data = Vec::new();
        msg::put(&mut data, IFLA_BOND_MODE, &[ACTIVE_BACKUP]);
        msg::put(&mut data, IFLA_BOND_MIIMON, &MIIMON.to_ne_bytes());
        msg::put(&mut data, IFLA_BOND_PRIMARY_RESELECT, &[RESELECT_FAILURE]);
        msg::put(&mut data, IFLA_BOND_FAIL_OVER_MAC, &[0]);
        msg::put(&mut data, IFLA_BOND_NUM_PEER_NOTIF, &[PEER_NOTIFICATIONS]);
        let request = Message::new(RTM_NEWLINK, msg::CREATE | msg::EXCL, &fixed(0, 0, 0))
            .put_text(IFLA_IFNAME, &saved.name)
            .put(IFLA_ADDRESS, &saved.mac.octets())
            .put_u32(IFLA_MTU, saved.mtu)
            .put(IFLA_LINKINFO, &info(&data));
        self.request(&request)
    }

    /// Makes a bond that somebody else made look at carriers and stay where it is put.
    pub fn adjust_bond(&mut self, bond: u32) -> Result<(), Errno> {
        let mut data = Vec::new();
        msg::put(&mut data, IFLA_BOND_MIIMON, &MIIMON.to_ne_bytes());
        msg::put(&mut data, IFLA_BOND_PRIMARY_RESELECT, &[RESELECT_FAILURE]);
        self.set_bond(bond, &data)
    }

    /// Lets one slave send.
    pub fn set_active(&mut self, bond: u32, slave: u32) -> Result<(), Errno> {
        let mut data = Vec::new();
        msg::put(&mut data, IFLA_BOND_ACTIVE_SLAVE, &slave.to_ne_bytes());
        self.set_bond(bond, &data)
    }

    /// Takes, or drops, what arrives on inactive slaves.
    pub fn set_all_active(&mut self, bond: u32, on: bool) -> Result<(), Errno> {
        let mut data = Vec::new();
        msg::put(&mut data, IFLA_BOND_ALL_SLAVES_ACTIVE, &[u8::from(on)]);
        self.set_bond(bond, &data)
    }

    // By index only: with the name beside it the kernel applies the options and answers EBUSY.
    fn set_bond(&mut self, bond: u32, data: &[u8]) -> Result<(), Errno> {
        self.request(&change(bond).put(IFLA_LINKINFO, &info(data)))
    }
}

fn info(data: &[u8]) -> Vec<u8> {
    let mut info = Vec::new();
    msg::put(&mut info, IFLA_INFO_KIND, b"bond");
    msg::put(&mut info, IFLA_INFO_DATA, data);
    info
}
