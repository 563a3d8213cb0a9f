//! VFs that stay the host's, below a macvtap of one guest's.

use crate::adapters::{Adapters, GuestLinks, because, chain, collect, failure, of_pool};
use hybond_core::guest::{Failure, Outcome};
use hybond_core::ids::{Bdf, IfName, Mac, VfId};
use hybond_core::pool::Lease;
use hybond_netlink::{StandbySpec, VfConfig};
use hybond_vfio::SysfsError;
use std::time::{Duration, Instant};

/// How long a driver may take to make its network device; udev renames it meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

impl Adapters {
    /// MAC, VLAN and the pool's settings, then the host's driver, which asks for the MAC when it is bound.
    pub(crate) async fn prepare_for_host(
        &self,
        links: &GuestLinks,
        lease: &Lease,
        vlan: Option<u16>,
    ) -> Result<Outcome, Failure> {
        let bdf = pci(lease)?;
        let pool = self.pool_of(links, lease.mac);
        let config = VfConfig {
            mac: Some(lease.mac.octets()),
            vlan: Some(vlan.unwrap_or(0)),
            ..of_pool(pool.as_ref())
        };
        self.netlink
            .set_vf(&lease.vf.pf, lease.vf.index, &config)
            .await
            .map_err(failure)?;
        self.sysfs.bind_host(bdf).await.map_err(failure)?;
        self.device_of(bdf).await?;
        Ok(Outcome::Done)
    }

    /// The macvtap of an indirect pair, which has the VF for itself. Its VLAN is in the hardware.
    pub(crate) async fn make_over_vf(&self, links: &GuestLinks, mac: Mac, lease: &Lease) -> Result<Outcome, Failure> {
        let lower = self.device_of(pci(lease)?).await?;
        let spec = self.standby_spec(links, mac, lower)?;
        self.make(StandbySpec { passthru: true, ..spec }).await
    }

    /// The VF's network device, once its driver has made it.
    async fn device_of(&self, vf: Bdf) -> Result<IfName, Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(name) = self.sysfs.interface(vf).map_err(failure)? {
                return Ok(name);
            }
            if Instant::now() >= until {
                let seconds = PATIENCE.as_secs();
                return Err(because(format!(
                    "the host's driver of VF {vf} has made no network device within {seconds} s; see 'dmesg'"
                )));
            }
            // sysfs has no event for it.
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Puts the device of a VF that is given back to the packet size that its driver began with: the standby's may be larger,
    /// and the next pair that it is for is not to find that.
    pub(crate) async fn narrow(&self, vf: Bdf, errors: &mut Vec<String>) {
        match self.sysfs.interface(vf) {
            Ok(Some(device)) => collect(errors, self.netlink.narrow(&device).await),
            // It has no driver of the host's, or is no more.
            Ok(None) | Err(SysfsError::NoDevice(_)) => {}
            Err(error) => errors.push(chain(&error)),
        }
    }

    /// PF and VF of a device that a macvtap has for itself; one that is no VF is taken for a PF.
    pub(crate) fn vf_behind(&self, device: &IfName) -> (IfName, Option<VfId>) {
        let vf = self.sysfs.bdf_of(device).ok();
        match vf.and_then(|vf| Some((self.sysfs.pf_of(vf).ok()?, vf))) {
            Some(((pf, _), vf)) => (pf, vf.to_string().parse().ok()),
            None => (device.clone(), None),
        }
    }
}

fn pci(lease: &Lease) -> Result<Bdf, Failure> {
    let vf = &lease.vf.id;
    let emulated = |_| {
        because(format!(
            "VF {vf} is emulated and no device of the host's; flavor \"indirect\" needs one"
        ))
    };
    vf.as_str().parse().map_err(emulated)
}
