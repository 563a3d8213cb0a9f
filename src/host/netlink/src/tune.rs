//! What is changed on a standby under a running guest: its mode, its multicast frames, its MTU.

use crate::standby::expect_macvtap;
use crate::{Change, Error, Kind, Link, Netlink, Result, multicast};
use hybond_core::ids::IfName;
use hybond_core::paths::{Multicast, StandbyMode};
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoMacVtap, LinkAttribute, LinkInfo, MacVtapMode};

/// What every Ethernet driver begins with, in bytes.
const ETH_DATA_LEN: u32 = 1500;

impl Netlink {
    /// Has a standby stand so beside the others of its lower device, and take these multicast frames. Nothing that it is to
    /// take is lost meanwhile: what comes is added before what goes is removed.
    ///
    /// # Errors
    /// [`Error::NoLink`], [`Error::OtherKind`]; [`Error::NotKept`] if it reads back otherwise.
    pub async fn tune_standby(&self, name: &IfName, mode: StandbyMode, multicast: &Multicast) -> Result<Change> {
        let link = self.required(name).await?;
        expect_macvtap(&link)?;
        let moded = self.set_mode(&link, mode).await?;
        Ok(moded.or(self.set_multicast(&link, multicast).await?))
    }

    pub(crate) async fn set_mode(&self, link: &Link, mode: StandbyMode) -> Result<Change> {
        let (word, wanted) = match mode {
            StandbyMode::Bridge => (mode.as_str(), MacVtapMode::Bridge),
            StandbyMode::Vepa => (mode.as_str(), MacVtapMode::Vepa),
            // `macvlan_changelink()` refuses to change to it or from it.
            StandbyMode::Passthru | StandbyMode::Other => return Ok(Change::AlreadyThere),
        };
        if mode_of(&link.kind) == word {
            return Ok(Change::AlreadyThere);
        }
        let info = vec![
            LinkInfo::Kind(InfoKind::MacVtap),
            LinkInfo::Data(InfoData::MacVtap(vec![InfoMacVtap::Mode(wanted)])),
        ];
        let change = LinkUnspec::new_with_index(link.index)
            .append_extra_attribute(LinkAttribute::LinkInfo(info))
            .build();
        // What is a kind's own is changed by RTM_NEWLINK only; RTM_SETLINK takes it and does nothing (`do_setlink()`).
        self.request(format!("set {} to mode {word}", link.name), |handle| async move {
            handle.link().change(change).execute().await
        })
        .await?;
        let found = self.required(&link.name).await?;
        match mode_of(&found.kind) {
            kept if kept == word => Ok(Change::Made),
            other => Err(Error::NotKept {
                found: format!("mode {other}"),
                wanted: word.to_owned(),
                name: found.name,
            }),
        }
    }

    async fn set_multicast(&self, link: &Link, wanted: &Multicast) -> Result<Change> {
        let Multicast::Groups(groups) = wanted else {
            return self.set_allmulticast(link, true).await;
        };
        let found = multicast::groups_of(link)?;
        let missing = groups.difference(&found).copied().collect();
        let stale = found.difference(groups).copied().collect();
        multicast::add(&link.name, &missing)?;
        let narrowed = self.set_allmulticast(link, false).await?;
        multicast::remove(&link.name, &stale)?;
        if missing.is_empty() && stale.is_empty() {
            return Ok(narrowed);
        }
        let kept = multicast::groups_of(link)?;
        if kept == *groups {
            return Ok(Change::Made);
        }
        Err(Error::NotKept {
            name: link.name.clone(),
            found: format!("the multicast groups {kept:?}"),
            wanted: format!("{groups:?}"),
        })
    }

    pub(crate) async fn set_allmulticast(&self, link: &Link, on: bool) -> Result<Change> {
        if link.allmulticast == on {
            return Ok(Change::AlreadyThere);
        }
        let word = if on { "on" } else { "off" };
        let change = LinkUnspec::new_with_index(link.index).allmulticast(on).build();
        self.change_link(format!("set allmulticast {word} on {}", link.name), change)
            .await?;
        let found = self.required(&link.name).await?;
        if found.allmulticast == on {
            return Ok(Change::Made);
        }
        Err(Error::NotKept {
            name: found.name,
            found: format!("allmulticast {}", if on { "off" } else { "on" }),
            wanted: word.to_owned(),
        })
    }

    /// Puts a device that was made to fit its standby back to what drivers begin with (`ether_setup()`). It may be gone.
    ///
    /// # Errors
    /// [`Error::NotKept`]; something is over it still that needs more.
    pub async fn narrow(&self, device: &IfName) -> Result<Change> {
        match self.link(device).await? {
            Some(link) if link.mtu > ETH_DATA_LEN => self.set_mtu(&link, ETH_DATA_LEN).await,
            _ => Ok(Change::AlreadyThere),
        }
    }

    /// Sets a device's MTU, and reads it back.
    pub(crate) async fn set_mtu(&self, link: &Link, mtu: u32) -> Result<Change> {
        if link.mtu == mtu {
            return Ok(Change::AlreadyThere);
        }
        let change = LinkUnspec::new_with_index(link.index)
            .append_extra_attribute(LinkAttribute::Mtu(mtu))
            .build();
        self.change_link(format!("set the MTU of {} to {mtu}", link.name), change)
            .await?;
        let found = self.required(&link.name).await?;
        if found.mtu == mtu {
            return Ok(Change::Made);
        }
        Err(Error::NotKept {
            name: found.name,
            found: format!("MTU {}", found.mtu),
            wanted: mtu.to_string(),
        })
    }
}

fn mode_of(kind: &Kind) -> &str {
    match kind {
        Kind::Macvtap { mode } => mode,
        _ => "none",
    }
}
