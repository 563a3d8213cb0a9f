//! VLAN sub-interfaces below standbys. A macvtap has no VLAN of its own, so the standby of a tagged pair is over the
//! sub-interface. What hybond makes carries its alias; sub-interfaces of others are used and left as they are.

use crate::{Change, Error, Kind, Link, Netlink, Result};
use hybond_core::ids::IfName;
use nix::libc;
use rtnetlink::{LinkUnspec, LinkVlan};

/// Alias of what hybond made and removes again.
const OWN: &str = "hybond";

impl Netlink {
    /// The sub-interface of `vlan` on `lower`, up; made if there is none. Packets of `mtu` bytes pass it: one that is hybond's
    /// is widened, as it may be shared by pools of different needs.
    pub(crate) async fn vlan_over(&self, lower: &Link, vlan: u16, mtu: Option<u32>) -> Result<(Link, Change)> {
        if !(1..=4094).contains(&vlan) {
            return Err(Error::BadVlan { vlan });
        }
        let links = self.links().await?;
        // By lower device and number, whatever its name: the kernel allows one per number.
        let found = links
            .iter()
            .find(|link| link.lower == Some(lower.index) && link.kind == Kind::Vlan { id: vlan });
        let is_own = |link: &Link| link.alias.as_deref() == Some(OWN);
        if let Some((link, wanted)) = found.zip(mtu).filter(|(link, mtu)| link.mtu < *mtu) {
            if !is_own(link) {
                return Err(Error::LowerMtu {
                    lower: link.name.clone(),
                    mtu: link.mtu,
                    wanted,
                });
            }
            // It has the MTU that its lower device had when it was made.
            self.set_mtu(link, wanted).await?;
        }
        match found {
            // As `make_standby` takes what it has to undo: a sub-interface that was there stays.
            Some(link) if link.up => Ok((self.required(&link.name).await?, Change::AlreadyThere)),
            Some(link) if is_own(link) => {
                self.set_link_up(link, true).await?;
                Ok((self.required(&link.name).await?, Change::Made))
            }
            Some(link) => Err(Error::VlanDown {
                name: link.name.clone(),
                vlan,
                lower: lower.name.clone(),
            }),
            None => Ok((self.make_vlan(&links, lower, vlan).await?, Change::Made)),
        }
    }

    async fn make_vlan(&self, links: &[Link], lower: &Link, vlan: u16) -> Result<Link> {
        let name = vlan_name(links, lower, vlan)?;
        let message = LinkVlan::new(name.as_str(), lower.index, vlan).build();
        let made = self
            .request(
                format!("make {name} for VLAN {vlan} on {}", lower.name),
                |handle| async move { handle.link().add(message).execute().await },
            )
            .await;
        match made {
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => {
                return Err(Error::NoModule {
                    name: name.to_string(),
                    module: "8021q",
                });
            }
            other => other?,
        }
        let link = self.required(&name).await?;
        match self.mark_and_set_up(&link).await {
            Ok(()) => self.required(&name).await,
            Err(error) => Err(self.undo(&link, error).await),
        }
    }

    /// The alias is not taken when a device is created (`rtnl_create_link()`), so it takes a second request.
    async fn mark_and_set_up(&self, link: &Link) -> Result<()> {
        let alias = LinkUnspec::new_with_index(link.index).alias(OWN).build();
        self.change_link(format!("give {} its alias", link.name), alias).await?;
        self.set_link_up(link, true).await
    }

    /// Removes what an effect made that then failed; returns the error to report.
    pub(crate) async fn undo(&self, link: &Link, error: Error) -> Error {
        match self.remove(link).await {
            Ok(_) => error,
            Err(undo) => Error::LeftBehind {
                name: link.name.clone(),
                undo: Box::new(undo),
                source: Box::new(error),
            },
        }
    }

    /// Removes the sub-interface `index` if it is hybond's and nothing is over it any more.
    pub(crate) async fn release_vlan(&self, index: u32) -> Result<Change> {
        let links = self.links().await?;
        match links.iter().find(|link| link.index == index) {
            Some(link) if is_idle(link, &links) && !is_below(&link.name) => self.remove(link).await,
            _ => Ok(Change::AlreadyThere),
        }
    }

    /// Removes every VLAN sub-interface of hybond's that nothing is over, and names them: what a crash between a
    /// standby's removal and its sub-interface's leaves.
    ///
    /// # Errors
    /// [`Error::Kernel`], [`Error::Timeout`].
    pub async fn remove_idle_vlans(&self) -> Result<Vec<IfName>> {
        let _changing = self.shared_lowers.lock().await;
        let links = self.links().await?;
        let mut removed = Vec::new();
        for link in links.iter().filter(|link| is_idle(link, &links)) {
            if is_below(&link.name) {
                continue;
            }
            if self.remove(link).await? == Change::Made {
                removed.push(link.name.clone());
            }
        }
        Ok(removed)
    }
}

/// hybond made it.
pub(crate) fn is_own(link: &Link) -> bool {
    matches!(link.kind, Kind::Vlan { .. }) && link.alias.as_deref() == Some(OWN)
}

fn is_idle(link: &Link, links: &[Link]) -> bool {
    let is_own = is_own(link);
    is_own && links.iter().all(|other| other.lower != Some(link.index))
}

/// Whether sysfs shows a device over this one. Removing a device removes what is over it, so this is asked besides the
/// listing: a device whose message rtnetlink could not decode is missing from that.
fn is_below(name: &IfName) -> bool {
    let entries = std::fs::read_dir(format!("/sys/class/net/{name}"));
    // Without a /sys of this network namespace, the listing has to do.
    let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
    names
        .into_iter()
        .any(|name| name.to_string_lossy().starts_with("upper_"))
}

/// `<lower>.<vlan>`, or where that is too long or taken, `hbv<index of lower>.<vlan>`.
fn vlan_name(links: &[Link], lower: &Link, vlan: u16) -> Result<IfName> {
    let is_free = |name: &IfName| links.iter().all(|link| link.name != *name);
    let usual = format!("{}.{vlan}", lower.name).parse::<IfName>().ok().filter(is_free);
    let short = || format!("hbv{}.{vlan}", lower.index);
    usual.or_else(|| short().parse().ok()).ok_or_else(|| Error::Kernel {
        doing: format!("name {} for VLAN {vlan} on {}", short(), lower.name),
        source: std::io::Error::from_raw_os_error(libc::ENAMETOOLONG),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, index: u32, lower: Option<u32>, kind: Kind, alias: Option<&str>) -> Link {
        Link {
            name: name.parse().expect("a name"),
            index,
            up: true,
            carrier: true,
            mac: None,
            mtu: 1500,
            kind,
            alias: alias.map(str::to_owned),
            master: None,
            lower,
            allmulticast: false,
        }
    }

    #[test]
    fn the_name_says_pf_and_vlan_where_there_is_room() {
        let pf = link("enp1s0f0", 4, None, Kind::Nic, None);
        let name = |links: &[Link], lower| vlan_name(links, lower, 4094).expect("a name").to_string();
        assert_eq!(name(&[], &pf), "enp1s0f0.4094");
        let long = link("enp129s0f1np1", 1_234_567, None, Kind::Nic, None);
        assert_eq!(name(&[], &long), "hbv1234567.4094");
        let taken = link("enp1s0f0.4094", 9, None, Kind::Bridge, None);
        assert_eq!(name(&[taken], &pf), "hbv4.4094");
    }

    #[test]
    fn only_what_is_own_and_unused_is_idle() {
        let own = link("pf.7", 5, Some(4), Kind::Vlan { id: 7 }, Some(OWN));
        let foreign = link("pf.8", 6, Some(4), Kind::Vlan { id: 8 }, Some("storage"));
        let above = link(
            "hb525400aa0001",
            7,
            Some(5),
            Kind::Macvtap { mode: "bridge".into() },
            None,
        );
        assert!(is_idle(&own, &[own.clone(), foreign.clone()]));
        assert!(!is_idle(&own, &[own.clone(), above]));
        assert!(!is_idle(&foreign, std::slice::from_ref(&foreign)));
    }
}
