//! Attributes of a VF, kept by its PF.
//!
//! Several attributes in one message are no transaction: the kernel applies them one by one (`do_setvfinfo()`) and
//! stops at the first that fails. So each is a request of its own, an error names it, and all are read back. What
//! already is as wanted is not set again: setting a MAC or VLAN resets the VF on several drivers, igb's among them.

use crate::vf_list::{self, VfList};
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
    /// Limit of its transmission in Mbit/s; 0 takes it away.
    pub max_tx_mbps: Option<u32>,
}

/// An attribute that is not as wanted.
struct Difference {
    attribute: &'static str,
    wanted: String,
    found: String,
    set: VfInfo,
}

impl Netlink {
    /// The VF's attributes.
    ///
    /// # Errors
    /// [`Error::NoLink`] for the PF, [`Error::NoVf`].
    pub async fn vf(&self, pf: &IfName, index: u32) -> Result<VfState> {
        let at = self.required(pf).await?.index;
        let VfList { count, vfs } = vf_list::read(pf, at).await?;
        let found = vfs.into_iter().find(|(number, _)| *number == index);
        found.map(|(_, state)| state).ok_or_else(|| Error::NoVf {
            pf: pf.clone(),
            index,
            count,
        })
    }

    /// Sets the VF's attributes, those that differ, and reads them back.
    ///
    /// # Errors
    /// [`Error::NoLink`], [`Error::NoVf`]; [`Error::Kernel`] and [`Error::VfDiffers`] name the attribute.
    pub async fn set_vf(&self, pf: &IfName, index: u32, config: &VfConfig) -> Result<Change> {
        if let Some(vlan) = config.vlan.filter(|vlan| *vlan > 4094) {
            return Err(Error::BadVlan { vlan });
        }
        let before = self.vf(pf, index).await?;
        let missing = differences(index, config, &before);
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
        let after = self.vf(pf, index).await?;
        match differences(index, config, &after).into_iter().next() {
            None => Ok(Change::Made),
            Some(Difference {
                attribute,
                wanted,
                found,
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

fn differences(index: u32, config: &VfConfig, state: &VfState) -> Vec<Difference> {
    let mut list = Vec::new();
    let mut add = |attribute, wanted: String, found: String, set| {
        if wanted != found {
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
        add("vlan", vlan.to_string(), state.vlan.to_string(), set);
    }
    if let Some(on) = config.spoofchk {
        let set = VfInfo::SpoofCheck(VfInfoSpoofCheck::new(index, on));
        add("spoofchk", switch(Some(on)), switch(state.spoofchk), set);
    }
    if let Some(on) = config.trust {
        let set = VfInfo::Trust(VfInfoTrust::new(index, on));
        add("trust", switch(Some(on)), switch(state.trust), set);
    }
    if let Some(rate) = config.max_tx_mbps {
        let set = VfInfo::Rate(VfInfoRate::new(index, 0, rate));
        add(
            "rate",
            format!("{rate} Mbit/s"),
            format!("{} Mbit/s", state.max_tx_mbps),
            set,
        );
    }
    // Last: a driver that resets the VF for its address applies the rest with it.
    if let Some(mac) = config.mac {
        let set = VfInfo::Mac(VfInfoMac::new(index, &mac));
        add("mac", octets(mac), octets(state.mac), set);
    }
    list
}

fn switch(on: Option<bool>) -> String {
    match on {
        Some(true) => "on",
        Some(false) => "off",
        None => "not reported",
    }
    .to_owned()
}

fn octets(mac: [u8; 6]) -> String {
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
            max_tx_mbps: None,
        };
        let names: Vec<_> = differences(0, &config, &state).iter().map(|d| d.attribute).collect();
        assert_eq!(names, ["trust", "mac"]);
        assert!(differences(0, &VfConfig::default(), &state).is_empty());
    }
}
