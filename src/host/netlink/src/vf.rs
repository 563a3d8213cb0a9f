//! Attributes of a VF, kept by its PF.
//!
//! Several attributes in one message are no transaction: the kernel applies them one by one (`do_setvfinfo()`) and
//! stops at the first that fails. So each is a request of its own, an error names it, and all are read back. What
//! already is as wanted is not set again: setting a MAC or VLAN resets the VF on several drivers, igb's among them.

use crate::vf_list::VfList;
use crate::{Change, Error, Netlink, Result};
use hybond_core::ids::IfName;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::{
    LinkAttribute, LinkVfInfo, VfInfo, VfInfoMac, VfInfoRate, VfInfoSpoofCheck, VfInfoTrust, VfInfoVlan,
};

/// A VF, as its PF reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VfState {
    /// Its administrative address; all zero if none was given.
    pub mac: [u8; 6],
    /// Its VLAN; 0 if untagged.
    pub vlan: u16,
    /// Priority of its VLAN's tag.
    pub qos: u8,
    /// It may be promiscuous and change its own address; `None` if the driver does not say.
    pub trust: Option<bool>,
    /// Frames from foreign addresses are dropped; `None` if the driver does not say.
    pub spoofchk: Option<bool>,
    /// What it may send at least, in Mbit/s; 0 is nothing in particular.
    pub min_tx_mbps: u32,
    /// Limit of its transmission in Mbit/s; 0 is none.
    pub max_tx_mbps: u32,
}

/// What a VF is to have; `None` leaves an attribute alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VfConfig {
    /// Its administrative address; all zero takes it away.
    pub mac: Option<[u8; 6]>,
    /// Its VLAN; 0 takes it away.
    pub vlan: Option<u16>,
    /// Trust.
    pub trust: Option<bool>,
    /// Spoof check.
    pub spoofchk: Option<bool>,
    /// What it may send at least, in Mbit/s; 0 takes it away.
    pub min_tx_mbps: Option<u32>,
    /// Limit of its transmission in Mbit/s; 0 takes it away.
    pub max_tx_mbps: Option<u32>,
}

/// An attribute that is not as wanted.
struct Difference {
    attribute: &'static str,
    wanted: String,
    /// `None`: the driver does not report it.
    found: Option<String>,
    set: VfInfo,
}

impl Netlink {
    /// The VF's attributes.
    ///
    /// # Errors
    /// [`Error::NoLink`] for the PF, [`Error::NoVf`], [`Error::VfsUnreported`].
    pub async fn vf(&self, pf: &IfName, index: u32) -> Result<VfState> {
        let VfList { count, vfs, .. } = self.vf_list(pf).await?;
        let found = vfs.into_iter().find(|(number, _)| *number == index);
        let pf = || pf.clone();
        match found {
            Some((_, state)) => Ok(state),
            // Without `ndo_get_vf_config()` the kernel lists none of them (`rtnl_fill_vf()`).
            None if index < count => Err(Error::VfsUnreported { pf: pf(), index }),
            None => Err(Error::NoVf { pf: pf(), index, count }),
        }
    }

    /// `None` where the driver reports nothing of its VFs.
    async fn reported(&self, pf: &IfName, index: u32) -> Result<Option<VfState>> {
        match self.vf(pf, index).await {
            Err(Error::VfsUnreported { .. }) => Ok(None),
            state => state.map(Some),
        }
    }

    /// Sets the VF's attributes, those that differ, and reads them back.
    ///
    /// # Errors
    /// [`Error::NoLink`], [`Error::NoVf`]; [`Error::Kernel`], [`Error::VfDiffers`] and [`Error::VfUnreported`] name the attribute.
    pub async fn set_vf(&self, pf: &IfName, index: u32, config: &VfConfig) -> Result<Change> {
        if let Some(vlan) = config.vlan.filter(|vlan| *vlan > 4094) {
            return Err(Error::BadVlan { vlan });
        }
        let before = self.reported(pf, index).await?;
        let missing = differences(index, config, before.as_ref());
        if missing.is_empty() {
            return Ok(Change::AlreadyThere);
        }
        let at = self.required(pf).await?.index;
        for difference in missing {
            let message = LinkUnspec::new_with_index(at)
                .append_extra_attribute(LinkAttribute::VfInfoList(vec![LinkVfInfo(vec![difference.set])]))
                .build();
            let Difference { attribute, wanted, .. } = difference;
            self.change_link(format!("set {attribute} of VF {index} of {pf} to {wanted}"), message)
                .await?;
        }
        let after = self.reported(pf, index).await?;
        // What is known to differ is told before what nobody can tell.
        let mut left = differences(index, config, after.as_ref());
        left.sort_by_key(|difference| difference.found.is_none());
        match left.into_iter().next() {
            None => Ok(Change::Made),
            Some(Difference {
                attribute,
                wanted,
                found: None,
                ..
            }) => Err(Error::VfUnreported {
                pf: pf.clone(),
                index,
                attribute,
                wanted,
            }),
            Some(Difference {
                attribute,
                wanted,
                found: Some(found),
                ..
            }) => Err(Error::VfDiffers {
                pf: pf.clone(),
                index,
                attribute,
                wanted,
                found,
            }),
        }
    }
}

/// `state` is `None` where the driver reports nothing of its VFs: then all is set, and nobody can tell.
fn differences(index: u32, config: &VfConfig, state: Option<&VfState>) -> Vec<Difference> {
    let mut list = Vec::new();
    let mut add = |attribute, wanted: String, found: Option<String>, set| {
        if found.as_ref() != Some(&wanted) {
            list.push(Difference {
                attribute,
                wanted,
                found,
                set,
            });
        }
    };
    if let Some(vlan) = config.vlan {
        let set = VfInfo::Vlan(VfInfoVlan::new(index, vlan.into(), 0));
        add("vlan", vlan.to_string(), state.map(|state| state.vlan.to_string()), set);
    }
    if let Some(on) = config.spoofchk {
        let set = VfInfo::SpoofCheck(VfInfoSpoofCheck::new(index, on));
        add(
            "spoofchk",
            switch(on),
            state.and_then(|state| state.spoofchk).map(switch),
            set,
        );
    }
    if let Some(on) = config.trust {
        let set = VfInfo::Trust(VfInfoTrust::new(index, on));
        add(
            "trust",
            switch(on),
            state.and_then(|state| state.trust).map(switch),
            set,
        );
    }
    if config.min_tx_mbps.or(config.max_tx_mbps).is_some() {
        // The kernel takes both at once.
        let min = config.min_tx_mbps.or(state.map(|state| state.min_tx_mbps)).unwrap_or(0);
        let max = config.max_tx_mbps.or(state.map(|state| state.max_tx_mbps)).unwrap_or(0);
        let rate = |min: u32, max: u32| format!("{min} to {max} Mbit/s");
        let set = VfInfo::Rate(VfInfoRate::new(index, min, max));
        add(
            "rate",
            rate(min, max),
            state.map(|state| rate(state.min_tx_mbps, state.max_tx_mbps)),
            set,
        );
    }
    // Last: a driver that resets the VF for its address applies the rest with it.
    if let Some(mac) = config.mac {
        let set = VfInfo::Mac(VfInfoMac::new(index, &mac));
        add("mac", octets(mac), state.map(|state| octets(state.mac)), set);
    }
    list
}

fn switch(on: bool) -> String {
    if on { "on" } else { "off" }.to_owned()
}

pub(crate) fn octets(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_set_and_the_address_last() {
        let state = VfState {
            vlan: 7,
            trust: None,
            spoofchk: Some(true),
            ..VfState::default()
        };
        let config = VfConfig {
            mac: Some([0x52, 0x54, 0, 0xaa, 0, 1]),
            vlan: Some(7),
            trust: Some(false),
            spoofchk: Some(true),
            ..VfConfig::default()
        };
        let names: Vec<_> = differences(0, &config, Some(&state))
            .iter()
            .map(|d| d.attribute)
            .collect();
        assert_eq!(names, ["trust", "mac"]);
        assert!(differences(0, &VfConfig::default(), Some(&state)).is_empty());
    }

    #[test]
    fn what_a_driver_does_not_report_is_no_off() {
        let off = VfConfig {
            trust: Some(false),
            ..VfConfig::default()
        };
        let found = |trust| {
            let state = VfState {
                trust,
                ..VfState::default()
            };
            differences(0, &off, Some(&state)).into_iter().map(|d| d.found).next()
        };
        assert_eq!(found(Some(false)), None, "as wanted");
        assert_eq!(found(None), Some(None), "nobody can tell");
        assert_eq!(found(Some(true)), Some(Some("on".to_owned())));
    }

    #[test]
    fn of_a_driver_that_reports_nothing_of_its_vfs_all_is_set_and_nothing_is_taken_for_set() {
        let clear = VfConfig {
            mac: Some([0; 6]),
            vlan: Some(0),
            ..VfConfig::default()
        };
        let unreported = differences(0, &clear, None);
        let names: Vec<_> = unreported.iter().map(|d| d.attribute).collect();
        assert_eq!(names, ["vlan", "mac"]);
        assert!(unreported.iter().all(|d| d.found.is_none()));
        assert!(differences(0, &clear, Some(&VfState::default())).is_empty());
    }

    #[test]
    fn one_end_of_the_rate_leaves_the_other_as_it_is() {
        let state = VfState {
            min_tx_mbps: 100,
            ..VfState::default()
        };
        let config = VfConfig {
            max_tx_mbps: Some(1000),
            ..VfConfig::default()
        };
        let rates = differences(0, &config, Some(&state));
        let [rate] = rates.as_slice() else { panic!("one") };
        assert_eq!(rate.wanted, "100 to 1000 Mbit/s");
        assert!(
            differences(
                0,
                &VfConfig {
                    max_tx_mbps: Some(0),
                    ..config
                },
                Some(&state)
            )
            .is_empty()
        );
    }
}
