//! Asks the switch, through a PF's driver, to know a VF by a port profile (802.1Qbh), as libvirt does for VFs of its own
//! (`virNetDevVPortProfileOp8021Qbh()`).

use crate::port::{self, IFLA_VF_PORTS, PortAssociation, PortSeen, Verdict};
use crate::vf_list::{self, VfList};
use crate::{Change, Error, Netlink, Result};
use hybond_core::ids::{IfName, ProfileName};
use nix::libc;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_core::DefaultNla;
use rtnetlink::packet_route::link::{LinkAttribute, LinkVfInfo, VfInfo, VfInfoMac};
use std::time::Duration;
use tokio::time::Instant;

/// How long the switch may take: as long as libvirt waits.
const PATIENCE: Duration = Duration::from_secs(10);
/// The kernel tells of the request only (RTM_NEWLINK at once), never of the answer: the driver asks its firmware when it is
/// asked (`enic_process_get_pp_request()`).
const PAUSE: Duration = Duration::from_millis(125);

impl Netlink {
    /// The VF's port; `None` where the driver says nothing of it, as all do that know no port profiles.
    ///
    /// # Errors
    /// [`Error::NoLink`] for the PF, [`Error::NoVf`].
    pub async fn vf_port(&self, pf: &IfName, index: u32) -> Result<Option<PortSeen>> {
        let list = self.vf_list(pf).await?;
        if index >= list.count {
            return Err(Error::NoVf {
                pf: pf.clone(),
                index,
                count: list.count,
            });
        }
        Ok(port_of(&list, index).cloned())
    }

    /// Whether the VF could be associated, as far as the driver shows without being asked for it.
    ///
    /// # Errors
    /// [`Error::NoLink`] for the PF, [`Error::NoPortProfiles`].
    pub async fn expect_port_profiles(&self, pf: &IfName, index: u32, profile: &ProfileName) -> Result<()> {
        if self.vf_list(pf).await?.knows_no_ports(index) {
            return Err(no_port_profiles(pf, index, profile));
        }
        Ok(())
    }

    /// Gives the VF its address, has it associated, and waits for the switch's answer. Asked again even if it is associated
    /// already: what the switch has meanwhile is not known here. Not to be done while the VF is in use.
    ///
    /// # Errors
    /// [`Error::NoPortProfiles`] where the driver has none, [`Error::PortRefused`] with the answer; [`Error::VfDiffers`] where
    /// something else reads back.
    pub async fn associate_vf(&self, pf: &IfName, index: u32, wanted: &PortAssociation) -> Result<()> {
        let before = self.vf_list(pf).await?;
        let mac = wanted.mac.filter(|mac| mac_of(&before, index) != Some(*mac));
        if let Some(mac) = mac {
            // Before and not with it: a driver that knows no profiles would have kept half of the message. The association is
            // for the address that the VF has then.
            let set = VfInfo::Mac(VfInfoMac::new(index, &mac));
            let info = LinkAttribute::VfInfoList(vec![LinkVfInfo(vec![set])]);
            self.of_vf(pf, format!("set mac of VF {index} of {pf}"), info).await?;
        }
        let profile = wanted.profile.as_str();
        let doing = format!("associate VF {index} of {pf} by port profile {profile:?}");
        let ports = DefaultNla::new(IFLA_VF_PORTS, port::associate(index, wanted));
        match self.of_vf(pf, doing, LinkAttribute::Other(ports)).await {
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => {
                return Err(no_port_profiles(pf, index, &wanted.profile));
            }
            sent => sent?,
        }
        let refused = |answer| Error::PortRefused {
            pf: pf.clone(),
            index,
            profile: profile.to_owned(),
            answer,
        };
        let after = self.answered(pf, index).await?.map_err(refused)?;
        let seen = port_of(&after, index).cloned().unwrap_or_default();
        if !seen.is_by(&wanted.profile, wanted.instance) {
            return Err(Error::VfDiffers {
                pf: pf.clone(),
                index,
                attribute: "port profile",
                wanted: format!("{profile:?} for {}", wanted.instance),
                found: format!("{:?} for {:?}", seen.profile, seen.instance),
            });
        }
        match (wanted.mac, mac_of(&after, index)) {
            (Some(wanted), Some(found)) if wanted != found => Err(Error::VfDiffers {
                pf: pf.clone(),
                index,
                attribute: "mac",
                wanted: crate::vf::octets(wanted),
                found: crate::vf::octets(found),
            }),
            // A driver that reports nothing of its VFs has the switch's answer to speak for it.
            _ => Ok(()),
        }
    }

    /// Takes the VF's association away; [`Change::AlreadyThere`] where there is none.
    ///
    /// # Errors
    /// [`Error::NoLink`], [`Error::NoVf`], [`Error::PortKept`] with the answer.
    pub async fn disassociate_vf(&self, pf: &IfName, index: u32) -> Result<Change> {
        if !self.vf_port(pf, index).await?.is_some_and(|port| port.is_claimed()) {
            return Ok(Change::AlreadyThere);
        }
        let ports = DefaultNla::new(IFLA_VF_PORTS, port::disassociate(index));
        let doing = format!("take the port profile from VF {index} of {pf}");
        self.of_vf(pf, doing, LinkAttribute::Other(ports)).await?;
        let kept = |answer| Error::PortKept {
            pf: pf.clone(),
            index,
            answer,
        };
        let after = self.answered(pf, index).await?;
        match after {
            Ok(after) if port_of(&after, index).is_some_and(PortSeen::is_claimed) => {
                Err(kept("an association that is still there".to_owned()))
            }
            Ok(_) => Ok(Change::Made),
            // The driver says nothing of a port that has no association.
            Err(_) if self.vf_port(pf, index).await?.is_none() => Ok(Change::Made),
            Err(answer) => Err(kept(answer)),
        }
    }

    async fn of_vf(&self, pf: &IfName, doing: String, attribute: LinkAttribute) -> Result<()> {
        let at = self.required(pf).await?.index;
        let message = LinkUnspec::new_with_index(at).append_extra_attribute(attribute).build();
        self.change_link(doing, message).await
    }

    pub(crate) async fn vf_list(&self, pf: &IfName) -> Result<VfList> {
        let at = self.required(pf).await?.index;
        vf_list::read(pf, at).await
    }

    /// Waits for the switch. The inner error is its answer, for people.
    async fn answered(&self, pf: &IfName, index: u32) -> Result<std::result::Result<VfList, String>> {
        let until = Instant::now() + PATIENCE;
        loop {
            let list = self.vf_list(pf).await?;
            let verdict = port_of(&list, index).cloned().unwrap_or_default().verdict();
            match verdict {
                Verdict::Agreed => return Ok(Ok(list)),
                Verdict::Refused(answer) => return Ok(Err(answer)),
                Verdict::Open if Instant::now() >= until => {
                    let seconds = PATIENCE.as_secs();
                    return Ok(Err(format!("\"in progress\" still after {seconds} s")));
                }
                Verdict::Open => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

fn no_port_profiles(pf: &IfName, index: u32, profile: &ProfileName) -> Error {
    Error::NoPortProfiles {
        pf: pf.clone(),
        index,
        profile: profile.to_string(),
    }
}

fn port_of(list: &VfList, index: u32) -> Option<&PortSeen> {
    let mut ports = list.ports.iter().flatten();
    ports.find(|(vf, _)| *vf == index).map(|(_, port)| port)
}

/// `None` where the driver does not report it.
fn mac_of(list: &VfList, index: u32) -> Option<[u8; 6]> {
    let mut vfs = list.vfs.iter();
    vfs.find(|(vf, _)| *vf == index).map(|(_, state)| state.mac)
}
