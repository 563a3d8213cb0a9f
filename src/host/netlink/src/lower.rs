//! Lower devices by the names that people and domains' XML have for them. A device has one name and any number of
//! alternative ones (`ip link property add dev … altname …`, Linux 5.5); the kernel takes each where it takes a name
//! (`__dev_get_by_name()`), and so does libvirt.

use crate::{Change, Error, Kind, Netlink, Result};
use hybond_core::ids::IfName;
use nix::libc;

/// A device that a macvtap is over, or could be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lower {
    /// Its name, whichever of its names it was found by.
    pub name: IfName,
    /// The device at the bottom: below it where it is a VLAN sub-interface, itself otherwise.
    pub pf: IfName,
    /// Its VLAN, where it is a sub-interface.
    pub vlan: Option<u16>,
}

impl Netlink {
    /// The device that has this name or alternative name; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Kernel`], [`Error::Timeout`].
    pub async fn lower(&self, name: &IfName) -> Result<Option<Lower>> {
        let Some(link) = self.link(name).await? else {
            return Ok(None);
        };
        if let (Kind::Vlan { id }, Some(below)) = (&link.kind, link.lower) {
            let vlan = Some(*id);
            let pf = self.link_at(below).await?;
            return Ok(pf.map(|pf| Lower {
                name: link.name,
                pf: pf.name,
                vlan,
            }));
        }
        Ok(Some(Lower {
            pf: link.name.clone(),
            name: link.name,
            vlan: None,
        }))
    }

    /// The sub-interface of a VLAN on a PF that somebody else than hybond has made: it stays for as long as that somebody
    /// likes.
    ///
    /// # Errors
    /// [`Error::NoLink`] for the PF.
    pub async fn sub_interface(&self, pf: &IfName, vlan: u16) -> Result<Option<IfName>> {
        let at = self.required(pf).await?.index;
        let links = self.links().await?;
        let found = links
            .into_iter()
            .find(|link| link.lower == Some(at) && link.kind == Kind::Vlan { id: vlan } && !crate::vlan::is_own(link));
        Ok(found.map(|link| link.name))
    }

    /// Gives a device an alternative name.
    ///
    /// # Errors
    /// [`Error::NoLink`]; [`Error::NameTaken`] where another device has that name.
    pub async fn add_altname(&self, name: &IfName, altname: &IfName) -> Result<Change> {
        let link = self.required(name).await?;
        match self.link(altname).await? {
            Some(holder) if holder.index == link.index => return Ok(Change::AlreadyThere),
            Some(holder) => {
                return Err(Error::NameTaken {
                    name: altname.clone(),
                    holder: holder.name,
                    wanted: link.name,
                });
            }
            None => {}
        }
        let (index, text) = (link.index, altname.to_string());
        let added = self
            .request(format!("give {name} the further name {altname}"), |handle| async move {
                let names = [text.as_str()];
                handle.link().property_add(index).alt_ifname(&names).execute().await
            })
            .await;
        match added {
            // Somebody else was faster; whether with the same device is seen below.
            Err(error) if error.errno() != Some(libc::EEXIST) => return Err(error),
            _ => {}
        }
        match self.link(altname).await? {
            Some(holder) if holder.index == link.index => Ok(Change::Made),
            other => Err(Error::NotKept {
                name: link.name,
                found: other.map_or_else(
                    || "no such name".to_owned(),
                    |holder| format!("{altname} is {}", holder.name),
                ),
                wanted: format!("the further name {altname}"),
            }),
        }
    }

    /// Takes an alternative name from a device. What is over the device stays: only the name goes.
    ///
    /// # Errors
    /// [`Error::NoLink`].
    pub async fn remove_altname(&self, name: &IfName, altname: &IfName) -> Result<Change> {
        let link = self.required(name).await?;
        let has = |found: Option<crate::Link>| found.is_some_and(|found| found.index == link.index);
        if link.name == *altname || !has(self.link(altname).await?) {
            return Ok(Change::AlreadyThere);
        }
        let (index, text) = (link.index, altname.to_string());
        self.request(
            format!("take the further name {altname} from {name}"),
            |handle| async move {
                let names = [text.as_str()];
                handle.link().property_del(index).alt_ifname(&names).execute().await
            },
        )
        .await?;
        if has(self.link(altname).await?) {
            return Err(Error::NotKept {
                name: link.name,
                found: format!("the further name {altname}"),
                wanted: "none".to_owned(),
            });
        }
        Ok(Change::Made)
    }
}
