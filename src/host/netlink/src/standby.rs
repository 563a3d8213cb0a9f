//! Standbys: macvtaps in bridge mode, over a PF or over a VLAN sub-interface of it; or in passthru mode, over a VF's own
//! device.
//!
//! A standby's link state is the switch: only while it is up is its address in the filter of the device below it
//! (`macvlan_open()`), so it is made down.

use crate::{Change, Error, Kind, Link, Netlink, Result, multicast, node};
use hybond_core::ids::{IfName, Mac};
use hybond_core::paths::{Multicast, StandbyMode};
use nix::libc;
use rtnetlink::LinkMacVtap;
use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, MacVtapMode};

/// A standby that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandbySpec {
    /// Its name: [`Mac::standby_name`].
    pub name: IfName,
    /// Its address.
    pub mac: Mac,
    /// The device that it is over, usually a PF. Must be up, unless it is for this standby alone.
    pub lower: IfName,
    /// It has that device, a VF's, for itself: passthru mode.
    pub passthru: bool,
    /// The VLAN, 1 to 4094; then it is over a sub-interface of `lower`, made where there is none.
    pub vlan: Option<u16>,
    /// Take every multicast frame, not only those of groups that are put on it.
    pub allmulticast: bool,
    /// Packets of this size pass, in bytes; `None`: as what it is over.
    pub mtu: Option<u32>,
    /// Remove a macvtap of the same name first, if it differs.
    pub replace: bool,
}

impl StandbySpec {
    /// The mode that it is made in.
    fn mode(&self) -> StandbyMode {
        match self.passthru {
            true => StandbyMode::Passthru,
            false => StandbyMode::Bridge,
        }
    }
}

/// A standby that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandbyLink {
    /// Its name.
    pub name: IfName,
    /// Its index; its character device is `/dev/tap<index>`.
    pub index: u32,
    /// Its address.
    pub mac: Mac,
    /// The device directly below.
    pub lower: IfName,
    /// Set if that device is a VLAN sub-interface.
    pub vlan: Option<VlanBelow>,
    /// It is up: frames pass, and its address is in the filter of the PF.
    pub up: bool,
    /// Its mode.
    pub mode: StandbyMode,
    /// The multicast frames that it takes, of those that are put on it by hand.
    pub multicast: Multicast,
    /// Packets of this size pass it and all that is below it, in bytes.
    pub mtu: u32,
}

/// The VLAN sub-interface below a standby.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VlanBelow {
    /// Its VLAN.
    pub id: u16,
    /// The device that it is over.
    pub lower: IfName,
}

impl StandbyLink {
    /// The device at the bottom: below the VLAN sub-interface, if there is one.
    #[must_use]
    pub fn pf(&self) -> &IfName {
        self.vlan.as_ref().map_or(&self.lower, |vlan| &vlan.lower)
    }
}

impl Netlink {
    /// The standby of that name, if there is one.
    ///
    /// # Errors
    /// [`Error::OtherKind`] if the name belongs to something that is no macvtap.
    pub async fn standby(&self, name: &IfName) -> Result<Option<StandbyLink>> {
        let Some(link) = self.link(name).await? else {
            return Ok(None);
        };
        expect_macvtap(&link)?;
        let mut below = Vec::new();
        let mut next = link.lower;
        // The standby's lower device, and the one below that if it is a VLAN.
        while let (Some(index), true) = (next, below.len() < 2) {
            let lower = self.link_at(index).await?;
            // A veth names its other end here, too.
            let vlan = lower.as_ref().filter(|lower| matches!(lower.kind, Kind::Vlan { .. }));
            next = vlan.and_then(|vlan| vlan.lower);
            below.extend(lower);
        }
        describe(&link, &below).map(Some)
    }

    /// Every standby of this host: the macvtaps named `hb` and twelve hexadecimal digits.
    ///
    /// # Errors
    /// [`Error::Kernel`], [`Error::Timeout`].
    pub async fn list_standbys(&self) -> Result<Vec<StandbyLink>> {
        let links = self.links().await?;
        let standbys = links.iter().filter(|link| is_standby_name(&link.name));
        let macvtaps = standbys.filter(|link| matches!(link.kind, Kind::Macvtap { .. }));
        macvtaps.map(|link| describe(link, &links)).collect()
    }

    /// Makes a standby, down. One that is there already keeps its link state.
    ///
    /// # Errors
    /// [`Error::NoLink`], [`Error::LowerDown`] and [`Error::LowerBusy`] for the lower device; [`Error::OtherKind`] and
    /// [`Error::OtherStandby`] for the name; [`Error::NoModule`]; [`Error::TapNode`].
    pub async fn make_standby(&self, spec: &StandbySpec) -> Result<Change> {
        let _changing = self.shared_lowers.lock().await;
        let lower = self.required(&spec.lower).await?;
        if !lower.up && !spec.passthru {
            return Err(Error::LowerDown { lower: lower.name });
        }
        // A device that is for this standby alone is made to fit.
        if let Some(wanted) = spec.mtu.filter(|mtu| *mtu > lower.mtu && !spec.passthru) {
            return Err(Error::LowerMtu {
                mtu: lower.mtu,
                lower: lower.name,
                wanted,
            });
        }
        let Some(vlan) = spec.vlan else {
            return self.make_over(spec, &lower).await;
        };
        let (over, made) = self.vlan_over(&lower, vlan, spec.mtu).await?;
        match self.make_over(spec, &over).await {
            Ok(change) => Ok(change.or(made)),
            Err(error) if made == Change::Made => match self.release_vlan(over.index).await {
                Ok(_) => Err(error),
                Err(undo) => Err(Error::LeftBehind {
                    name: over.name,
                    undo: Box::new(undo),
                    source: Box::new(error),
                }),
            },
            Err(error) => Err(error),
        }
    }

    async fn make_over(&self, spec: &StandbySpec, over: &Link) -> Result<Change> {
        if let Some(link) = self.link(&spec.name).await? {
            expect_macvtap(&link)?;
            let Some(differs) = self.difference(spec, over, &link).await? else {
                let change = self.set_mode(&link, spec.mode()).await?;
                let change = change.or(self.set_allmulticast(&link, spec.allmulticast).await?);
                let change = change.or(self.set_mtu(&link, spec.mtu.unwrap_or(link.mtu)).await?);
                node::check(&link).await?;
                return Ok(change);
            };
            if !spec.replace {
                return Err(differs);
            }
            self.remove(&link).await?;
            if let Some(below) = link.lower.filter(|below| *below != over.index) {
                // Its old sub-interface may have been there for it alone.
                self.release_vlan(below).await?;
            }
        }
        if spec.passthru {
            // It has the guest's address as well, and goes up with the standby.
            self.keep_host_quiet(over).await?;
            self.set_mtu(over, spec.mtu.unwrap_or(over.mtu)).await?;
        }
        self.create(spec, over).await?;
        let link = self.required(&spec.name).await?;
        if let Err(error) = self.keep_host_quiet(&link).await {
            return Err(self.undo(&link, error).await);
        }
        if spec.passthru {
            if let Err(error) = self.give_address(&link, spec.mac).await {
                return Err(self.undo(&link, error).await);
            }
        }
        let link = self.required(&spec.name).await?;
        if let Some(error) = self.difference(spec, over, &link).await? {
            return Err(self.undo(&link, error).await);
        }
        match node::check(&link).await {
            Ok(()) => Ok(Change::Made),
            Err(error) => Err(self.undo(&link, error).await),
        }
    }

    async fn create(&self, spec: &StandbySpec, over: &Link) -> Result<()> {
        let mode = match spec.passthru {
            true => MacVtapMode::Passthrough,
            false => MacVtapMode::Bridge,
        };
        let mut builder = LinkMacVtap::new(spec.name.as_str(), over.index, mode).address(spec.mac.octets().to_vec());
        if spec.allmulticast {
            builder = builder.allmulticast(true);
        }
        if let Some(mtu) = spec.mtu {
            builder = builder.mtu(mtu);
        }
        let message = builder.build();
        let created = self
            .request(
                format!("make macvtap {} over {}", spec.name, over.name),
                |handle| async move { handle.link().add(message).execute().await },
            )
            .await;
        let Err(error) = created else { return Ok(()) };
        match error.errno() {
            Some(libc::EOPNOTSUPP) => Err(Error::NoModule {
                name: spec.name.to_string(),
                module: "macvtap",
            }),
            // macvlan_port_create(): the receive handler of a bridge's or bond's port is taken.
            Some(libc::EBUSY) if over.master.is_some() => Err(Error::LowerBusy {
                lower: over.name.clone(),
                master: self.name_of(over.master).await?,
            }),
            _ => Err(error),
        }
    }

    /// A macvtap in passthru mode has begun with the address of the device below (`macvlan_common_newlink()`), whatever was
    /// asked for; setting its own sets both.
    async fn give_address(&self, link: &Link, mac: Mac) -> Result<()> {
        if link.mac == Some(mac.octets()) {
            return Ok(());
        }
        let change = rtnetlink::LinkUnspec::new_with_index(link.index)
            .address(mac.octets().to_vec())
            .build();
        self.change_link(format!("give {} the address {mac}", link.name), change)
            .await
    }

    /// Keeps the host's own IPv6 off a macvtap. When it goes up, the host would otherwise make itself a link-local address
    /// there and solicit neighbours and routers with the guest's MAC for seconds; each such frame turns bridges towards
    /// the standby, and frames for a guest on its primary are lost.
    async fn keep_host_quiet(&self, link: &Link) -> Result<()> {
        let none = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let change = rtnetlink::LinkUnspec::new_with_index(link.index)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![none]))
            .build();
        let doing = format!("keep the host's IPv6 off {}", link.name);
        match self.change_link(doing, change).await {
            // A kernel without IPv6 is quiet.
            Err(error) if error.errno() == Some(libc::EAFNOSUPPORT) => Ok(()),
            result => result,
        }
    }

    /// How a macvtap differs from what is wanted, as the error to report.
    async fn difference(&self, spec: &StandbySpec, over: &Link, link: &Link) -> Result<Option<Error>> {
        let differs = |found: String, wanted: String| {
            Ok(Some(Error::OtherStandby {
                name: link.name.clone(),
                found,
                wanted,
            }))
        };
        if link.lower != Some(over.index) {
            let below = self.name_of(link.lower).await?;
            return differs(format!("lower device {below}"), format!("{}", over.name));
        }
        if link.mac != Some(spec.mac.octets()) {
            return differs(format!("address {}", text(link.mac)), spec.mac.to_string());
        }
        let found = mode_of(link);
        let fits = match spec.passthru {
            true => found == StandbyMode::Passthru,
            false => matches!(found, StandbyMode::Bridge | StandbyMode::Vepa),
        };
        match &link.kind {
            Kind::Macvtap { mode } if !fits => differs(format!("mode {mode}"), spec.mode().as_str().to_owned()),
            _ => Ok(None),
        }
    }

    /// Sets a standby up or down.
    ///
    /// # Errors
    /// [`Error::NoLink`]; [`Error::MacTaken`] if something else over the same device has its address.
    pub async fn set_standby_up(&self, name: &IfName, up: bool) -> Result<Change> {
        let link = self.required(name).await?;
        expect_macvtap(&link)?;
        if up && is_passthru(&link) {
            self.set_lower_up(&link, true).await?;
        }
        if link.up == up {
            return Ok(Change::AlreadyThere);
        }
        if let Err(error) = self.set_link_up(&link, up).await {
            // macvlan_open() looks for the address on the lower device and on what else is over it.
            let is_taken = error.errno() == Some(libc::EADDRINUSE);
            return Err(if is_taken {
                self.mac_taken(&link, error).await?
            } else {
                error
            });
        }
        let found = self.required(name).await?;
        if found.up == up {
            return Ok(Change::Made);
        }
        let word = |up| if up { "up" } else { "down" }.to_owned();
        Err(Error::NotKept {
            name: found.name,
            found: word(found.up),
            wanted: word(up),
        })
    }

    /// Tells the network that a guest's MAC is behind this standby, on the guest's behalf: switches learn it, and bring what is
    /// sent to the guest here, where it waits in the macvtap until the guest takes it.
    ///
    /// # Errors
    /// [`Error::NoLink`]; [`Error::Kernel`] where it is down, or this process may not send frames.
    pub async fn announce_standby(&self, name: &IfName, mac: Mac) -> Result<()> {
        let link = self.required(name).await?;
        let frame = hybond_announce::frames::rarp(mac);
        let socket = self.frames.as_ref().as_ref().map_err(|errno| *errno);
        // Queued, and nothing waited for.
        let sent = socket.and_then(|socket| hybond_announce::send(socket, link.index, &frame));
        sent.map_err(|errno| Error::Kernel {
            doing: format!("announce {mac} from {name}"),
            source: errno.into(),
        })
    }

    /// The device that is there for this standby alone.
    async fn set_lower_up(&self, link: &Link, up: bool) -> Result<()> {
        let Some(index) = link.lower else { return Ok(()) };
        match self.link_at(index).await? {
            Some(lower) if lower.up != up => self.set_link_up(&lower, up).await,
            _ => Ok(()),
        }
    }

    async fn mac_taken(&self, link: &Link, error: Error) -> Result<Error> {
        let links = self.links().await?;
        let below = links.iter().find(|other| Some(other.index) == link.lower);
        let mac = link.mac.and_then(|octets| Mac::from_octets(octets).ok());
        let (Some(below), Some(mac)) = (below, mac) else {
            return Ok(error);
        };
        let is_holder = |other: &&Link| {
            let beside = other.lower == link.lower && other.up && other.index != link.index;
            other.mac == link.mac && (beside || other.index == below.index)
        };
        Ok(Error::MacTaken {
            name: link.name.clone(),
            mac,
            lower: below.name.clone(),
            holder: links.iter().find(is_holder).map_or_else(
                || format!("a device of another network namespace over {}", below.name),
                |other| other.name.to_string(),
            ),
        })
    }

    /// Removes a standby, sets the VF down that was there for it alone, and removes the VLAN sub-interface below it if hybond
    /// made that and nothing else is over it.
    ///
    /// # Errors
    /// [`Error::OtherKind`] if the name belongs to something that is no macvtap.
    pub async fn remove_standby(&self, name: &IfName) -> Result<Change> {
        let _changing = self.shared_lowers.lock().await;
        let Some(link) = self.link(name).await? else {
            return Ok(Change::AlreadyThere);
        };
        expect_macvtap(&link)?;
        let removed = self.remove(&link).await?;
        if is_passthru(&link) {
            self.set_lower_up(&link, false).await?;
        }
        match link.lower {
            Some(below) => Ok(removed.or(self.release_vlan(below).await?)),
            None => Ok(removed),
        }
    }

    async fn name_of(&self, index: Option<u32>) -> Result<String> {
        let Some(index) = index else {
            return Ok("none".to_owned());
        };
        let link = self.link_at(index).await?;
        Ok(link.map_or_else(|| format!("device {index}"), |link| link.name.to_string()))
    }
}

pub(crate) fn expect_macvtap(link: &Link) -> Result<()> {
    match &link.kind {
        Kind::Macvtap { .. } => Ok(()),
        other => Err(Error::OtherKind {
            name: link.name.clone(),
            found: other.to_string(),
            wanted: "macvtap",
        }),
    }
}

fn is_passthru(link: &Link) -> bool {
    mode_of(link) == StandbyMode::Passthru
}

fn mode_of(link: &Link) -> StandbyMode {
    match &link.kind {
        Kind::Macvtap { mode } => mode_named(mode),
        _ => StandbyMode::Other,
    }
}

fn is_standby_name(name: &IfName) -> bool {
    let digits = name.as_str().strip_prefix("hb").unwrap_or_default();
    digits.len() == 12 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn mode_named(word: &str) -> StandbyMode {
    let mut known = [StandbyMode::Bridge, StandbyMode::Vepa, StandbyMode::Passthru].into_iter();
    known.find(|mode| mode.as_str() == word).unwrap_or(StandbyMode::Other)
}

fn text(mac: Option<[u8; 6]>) -> String {
    mac.map_or_else(
        || "none".to_owned(),
        |octets| octets.map(|o| format!("{o:02x}")).join(":"),
    )
}

/// What is said of a macvtap, given the devices below it.
fn describe(link: &Link, below: &[Link]) -> Result<StandbyLink> {
    let at = |index: Option<u32>| below.iter().find(|other| Some(other.index) == index);
    let gone = || Error::NotKept {
        name: link.name.clone(),
        found: format!("address {}", text(link.mac)),
        wanted: "a unicast address and a lower device".to_owned(),
    };
    let mac = link.mac.and_then(|octets| Mac::from_octets(octets).ok());
    let lower = at(link.lower).ok_or_else(gone)?;
    // What a veth is over is its other end.
    let bottom = at(lower.lower).filter(|_| matches!(lower.kind, Kind::Vlan { .. }));
    let mtu = link
        .mtu
        .min(lower.mtu)
        .min(bottom.map_or(u32::MAX, |bottom| bottom.mtu));
    let vlan = match (&lower.kind, bottom) {
        (Kind::Vlan { id }, Some(bottom)) => Some(VlanBelow {
            id: *id,
            lower: bottom.name.clone(),
        }),
        _ => None,
    };
    Ok(StandbyLink {
        name: link.name.clone(),
        index: link.index,
        mac: mac.ok_or_else(gone)?,
        lower: lower.name.clone(),
        vlan,
        up: link.up,
        mode: mode_of(link),
        multicast: if link.allmulticast {
            Multicast::Everything
        } else {
            Multicast::Groups(multicast::groups_of(link)?)
        },
        mtu,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_is_known_by_its_name() {
        let is = |name: &str| is_standby_name(&name.parse().expect("a name"));
        assert!(is("hb525400aa0001"));
        assert!(!is("hb525400aa001"));
        assert!(!is("hbv4.4094"));
        assert!(!is("hb525400AA0001"));
        assert!(!is("macvtap0"));
    }
}
