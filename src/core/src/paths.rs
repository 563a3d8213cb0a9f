//! What makes the two paths of a pair the same for its guest: which multicast frames the standby takes, how it stands
//! beside the other standbys of its PF, and what must agree before the traffic is moved.

use crate::handover::{Handover, WhilePrimary};
use crate::ids::{IfName, PoolName};
use std::collections::{BTreeMap, BTreeSet};

/// The most groups that a standby takes one by one. QEMU's virtio-net keeps 64 addresses (`MAC_TABLE_ENTRIES`), and tells
/// of more only that there are: nobody who is honest asks for more here.
pub const MAX_GROUPS: usize = 64;

/// A multicast address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group([u8; 6]);

impl Group {
    /// `None` for a unicast address, and for the broadcast address, which every macvtap takes anyway.
    #[must_use]
    pub fn from_octets(octets: [u8; 6]) -> Option<Self> {
        (octets[0] & 1 == 1 && octets != [0xff; 6]).then_some(Self(octets))
    }

    /// The six octets, in wire order.
    #[must_use]
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Which multicast frames a standby takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Multicast {
    /// All of them.
    Everything,
    /// Those of these groups.
    Groups(BTreeSet<Group>),
}

impl Multicast {
    /// Takes what a guest asks for, as its QEMU tells it: a hostile guest may ask for anything, so all but multicast
    /// addresses is left out, and where there are more than [`MAX_GROUPS`] the guest gets everything, which costs the host
    /// one flag. `all` is set where the guest asks for everything, or QEMU has lost count.
    #[must_use]
    pub fn asked(all: bool, addresses: impl IntoIterator<Item = [u8; 6]>) -> Self {
        if all {
            return Self::Everything;
        }
        let mut groups = BTreeSet::new();
        for group in addresses.into_iter().filter_map(Group::from_octets) {
            groups.insert(group);
            if groups.len() > MAX_GROUPS {
                return Self::Everything;
            }
        }
        Self::Groups(groups)
    }
}

/// A pool's word about multicast on its standbys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MulticastPolicy {
    /// What the guest asks for, while that is known and the pair is at rest; else everything.
    #[default]
    Follow,
    /// Everything, always.
    Everything,
    /// Nothing: only for guests without IPv6 and multicast.
    Nothing,
}

/// How a standby stands beside the other macvtaps of its PF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StandbyMode {
    /// Frames of other standbys for its address come straight to it. For a guest that is on its standby.
    #[default]
    Bridge,
    /// Frames of other standbys for its address leave by the PF, whose switch has the VF. For a guest that is on its VF:
    /// in bridge mode its neighbours' frames would end in a standby that it does not listen to
    /// (`macvlan_queue_xmit()`), and its own broadcasts, which come back through the PF, would be taken for what those
    /// neighbours have already had (`macvlan_multicast_rx()`).
    Vepa,
    /// Nobody else is over the device below, a VF whose address is the standby's (`macvlan_set_mac_address()` sets both).
    /// The kernel takes no other mode for it later.
    Passthru,
    /// None of these: not of hybond's making.
    Other,
}

impl StandbyMode {
    /// The kernel's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Vepa => "vepa",
            Self::Passthru => "passthru",
            Self::Other => "other",
        }
    }
}

/// What a pool, and the drivers of its PFs, ask of the paths of its pairs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolPaths {
    /// Multicast on the standby.
    pub multicast: MulticastPolicy,
    /// How the address is handed over, for each PF of the pool.
    pub handover: BTreeMap<IfName, Handover>,
}

/// The paths of every pool of a host. Standbys of pools that are not in it are left as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths(pub BTreeMap<PoolName, PoolPaths>);

impl Paths {
    /// The word of a pool.
    #[must_use]
    pub fn pool(&self, pool: &PoolName) -> Option<&PoolPaths> {
        self.0.get(pool)
    }

    /// How the address is handed over on a PF, if its pool is known.
    #[must_use]
    pub fn handover(&self, pool: &PoolName, pf: &IfName) -> Option<Handover> {
        Some(self.pool(pool)?.handover.get(pf).copied().unwrap_or_default())
    }

    pub(crate) fn drops_standby(&self, pool: &PoolName, pf: &IfName) -> bool {
        let row = self.handover(pool, pf);
        row.is_some_and(|row| row.standby == WhilePrimary::Drop)
    }
}

/// The MTU that both paths must carry: the pool's, and the one that the domain's XML tells the guest.
///
/// # Errors
/// They differ: the sentence says how.
pub fn wanted_mtu(pool: Option<u32>, domain: Option<u32>) -> Result<Option<u32>, String> {
    match (pool, domain) {
        (Some(pool), Some(domain)) if pool != domain => Err(format!(
            "the pool's mtu is {pool}, and the domain's XML has <mtu size='{domain}'/>; make them the same"
        )),
        (pool, domain) => Ok(domain.or(pool)),
    }
}

/// One path of a pair, as it was read back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathSeen {
    /// Its VLAN; 0 if untagged. `None`: not known, such as of an emulated primary.
    pub vlan: Option<u16>,
    /// The largest packet that it carries, in bytes. `None`: not known, as of a VF, whose own is the guest's.
    pub mtu: Option<u32>,
}

/// How a path differs from what both paths of its pair must be, as a sentence. `name` is the path's.
#[must_use]
pub fn difference(name: &str, seen: PathSeen, vlan: Option<u16>, mtu: Option<u32>) -> Option<String> {
    let tagged = |vlan: u16| match vlan {
        0 => "no VLAN".to_owned(),
        vlan => format!("VLAN {vlan}"),
    };
    let wanted = vlan.unwrap_or(0);
    if let Some(found) = seen.vlan.filter(|found| *found != wanted) {
        return Some(format!(
            "{name} has {}, and its pair {}: the guest would lose its network with the switch",
            tagged(found),
            tagged(wanted)
        ));
    }
    match (seen.mtu, mtu) {
        (Some(found), Some(wanted)) if found < wanted => Some(format!(
            "{name} carries packets of {found} bytes, and its pair needs {wanted}; set the MTU of what it is over"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_guest_asks_only_multicast_counts_and_only_so_much() {
        let neighbours = [0x33, 0x33, 0xff, 0xaa, 0, 1];
        let asked = Multicast::asked(false, [neighbours, [0x52, 0x54, 0, 0xaa, 0, 9], [0xff; 6], [0; 6]]);
        let expected = Group::from_octets(neighbours).into_iter().collect();
        assert_eq!(asked, Multicast::Groups(expected));

        let many = |count: u8| Multicast::asked(false, (0..count).map(|n| [1, 0, 0x5e, 0, 0, n]));
        assert!(matches!(many(64), Multicast::Groups(groups) if groups.len() == MAX_GROUPS));
        assert_eq!(many(65), Multicast::Everything);
        assert_eq!(Multicast::asked(true, [neighbours]), Multicast::Everything);
    }

    #[test]
    fn paths_that_differ_are_told_in_a_sentence() {
        let vf = |vlan| PathSeen {
            vlan: Some(vlan),
            mtu: None,
        };
        assert_eq!(difference("VF 1 of pf0", vf(7), Some(7), Some(9000)), None);
        let told = difference("VF 1 of pf0", vf(0), Some(7), None).expect("untagged");
        assert!(
            told.starts_with("VF 1 of pf0 has no VLAN, and its pair VLAN 7"),
            "{told}"
        );
        let small = PathSeen {
            vlan: Some(0),
            mtu: Some(1500),
        };
        let told = difference("standby hb1", small, None, Some(9000)).expect("small");
        assert!(
            told.contains("carries packets of 1500 bytes, and its pair needs 9000"),
            "{told}"
        );
        assert_eq!(difference("standby hb1", small, None, Some(1500)), None);
    }

    #[test]
    fn the_domain_and_its_pool_must_mean_the_same_mtu() {
        assert_eq!(wanted_mtu(None, Some(9000)), Ok(Some(9000)));
        assert_eq!(wanted_mtu(Some(9000), None), Ok(Some(9000)));
        assert!(
            wanted_mtu(Some(9000), Some(1500))
                .expect_err("they differ")
                .contains("<mtu size='1500'/>")
        );
    }
}
