//! Port profiles of the VFs that guests have: the switch is asked to know a VF before it is plugged, and to forget it when it
//! is out of its guest. Where VFs are plugged through libvirt, libvirt does both.

use crate::adapters::{Adapters, GuestLinks, because, chain, collect, failure};
use hybond_core::guest::Failure;
use hybond_core::handover::SetMac;
use hybond_core::ids::{Bdf, ProfileName};
use hybond_core::pool::Lease;
use hybond_core::spec::PairSpec;
use hybond_netlink::{PortAssociation, PortSeen};
use hybond_vfio::PlugWay;
use tracing::info;

impl Adapters {
    /// The profile that a pair's VF is to be associated by, by hybond. An emulated primary has no PF that could.
    pub(crate) fn profile<'a>(&self, links: &'a GuestLinks, lease: &Lease) -> Option<&'a ProfileName> {
        let ours = self.way != PlugWay::Libvirt && lease.vf.id.as_str().parse::<Bdf>().is_ok();
        links.pair(lease.mac).filter(|_| ours).and_then(PairSpec::vf_profile)
    }

    /// Has the switch know a VF that is to be plugged, and gives the VF its address with that.
    pub(crate) async fn associate(
        &self,
        links: &GuestLinks,
        lease: &Lease,
        profile: &ProfileName,
    ) -> Result<(), Failure> {
        let gives_mac = self.handover(links, lease).set_mac == SetMac::BeforePlug;
        let wanted = PortAssociation {
            profile: profile.clone(),
            instance: links.id,
            host: self.libvirt.host_uuid().await.map_err(failure)?,
            mac: gives_mac.then(|| lease.mac.octets()),
        };
        let (pf, index) = (&lease.vf.pf, lease.vf.index);
        self.netlink.associate_vf(pf, index, &wanted).await.map_err(failure)?;
        info!(
            pair = %lease.mac, vf = %lease.vf.id, %profile,
            "VF {index} of {pf} is associated with the switch by port profile \"{profile}\""
        );
        Ok(())
    }

    /// The switch still knows the VF that the traffic of a pair is to go to. One that does not lets nothing of it pass, while
    /// its link is up.
    pub(crate) async fn still_associated(&self, links: &GuestLinks, lease: &Lease) -> Result<(), Failure> {
        let Some(profile) = self.profile(links, lease) else {
            return Ok(());
        };
        let (pf, index) = (&lease.vf.pf, lease.vf.index);
        let port = self.netlink.vf_port(pf, index).await.map_err(failure)?;
        if port.is_some_and(|port| port.is_by(profile, links.id)) {
            return Ok(());
        }
        Err(because(format!(
            "VF {index} of {pf} is not associated with the switch by port profile \"{profile}\" any more: the guest would lose \
             its network with the switch to it; 'hybondctl drain' and 'hybondctl plug' associate it anew"
        )))
    }

    /// Has the switch forget a VF that is out of its guest. What is there says whether it knows it, not what was done before.
    pub(crate) async fn disassociate(&self, links: &GuestLinks, lease: &Lease, errors: &mut Vec<String>) {
        let (pf, index) = (&lease.vf.pf, lease.vf.index);
        let asked = self.profile(links, lease).is_some();
        match self.netlink.vf_port(pf, index).await {
            Ok(Some(port)) if is_of(&port, links, asked) => {
                collect(errors, self.netlink.disassociate_vf(pf, index).await);
            }
            Ok(_) => {}
            Err(error) if asked => errors.push(chain(&error)),
            // A PF that is not there any more is told of with the VF's other attributes.
            Err(_) => {}
        }
    }
}

/// An association that an administrator has given to a VF for whoever gets it stays; one of this domain does not, though its
/// pair may have lost its profile, or be gone, since.
fn is_of(port: &PortSeen, links: &GuestLinks, asked: bool) -> bool {
    port.is_claimed() && (asked || port.instance == Some(links.id))
}

/// The `<virtualport>` of a VF that libvirt attaches.
pub(crate) fn virtualport(pair: Option<&PairSpec>) -> String {
    let port = pair.filter(|pair| pair.vf_profile().is_some());
    port.and_then(|pair| pair.port.as_ref())
        .map(hybond_domxml::virtualport)
        .unwrap_or_default()
}
