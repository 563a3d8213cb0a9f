//! The two paths of a pair as they are on this host: what the guest wants of its standby, what the standby is made to be, and
//! whether both are the same.

use crate::adapters::{Adapters, GuestLinks, because, failure, primary_of};
use hybond_core::guest::{Failure, Outcome};
use hybond_core::handover::Handover;
use hybond_core::ids::{Bdf, Mac, PoolName};
use hybond_core::paths::{Multicast, PathSeen, StandbyMode, difference, wanted_mtu};
use hybond_core::pool::Lease;
use hybond_wire::control::HandoverStatus;
use std::collections::BTreeMap;

impl Adapters {
    /// How the address of a lease's pair is handed over.
    pub(crate) fn handover(&self, links: &GuestLinks, lease: &Lease) -> Handover {
        let pair = links.pair(lease.mac);
        let row = pair.and_then(|pair| self.pools.paths().handover(&pair.pool, &lease.vf.pf));
        // A pair that the domain no longer has, or a pool that the host no longer has: all is taken back.
        row.unwrap_or_else(|| Handover::of(None, Default::default()))
    }

    /// How addresses are handed over on the PFs of one pool, or of all, for people.
    pub(crate) fn handovers(&self, pool: Option<&PoolName>) -> Vec<HandoverStatus> {
        let paths = self.pools.paths();
        let pools = paths
            .0
            .iter()
            .filter(|(name, _)| pool.is_none_or(|wanted| wanted == *name));
        let mut rows: Vec<HandoverStatus> = Vec::new();
        for (pf, row) in pools.flat_map(|(_, paths)| &paths.handover) {
            let status = HandoverStatus {
                pf: pf.clone(),
                driver: self
                    .sysfs
                    .bdf_of(pf)
                    .and_then(|bdf| self.sysfs.driver(bdf))
                    .ok()
                    .flatten(),
                row: row.to_string(),
                source: row.source.to_owned(),
            };
            // Two pools may share a PF.
            if !rows.contains(&status) {
                rows.push(status);
            }
        }
        rows
    }

    pub(crate) fn lease_of(&self, links: &GuestLinks, mac: Mac) -> Option<Lease> {
        let book = self.book();
        let mut leases = book.leases();
        leases
            .find(|lease| lease.domain == links.id && lease.mac == mac)
            .cloned()
    }

    /// The MTU that both paths of a pair must carry.
    pub(crate) fn mtu(&self, links: &GuestLinks, mac: Mac) -> Result<Option<u32>, Failure> {
        let pool = self.pool_of(links, mac).and_then(|pool| pool.mtu);
        wanted_mtu(pool, links.pair(mac).and_then(|pair| pair.mtu)).map_err(because)
    }

    /// Reads both paths back.
    ///
    /// # Errors
    /// They are not what their pair needs.
    pub(crate) async fn same_paths(&self, links: &GuestLinks, mac: Mac, lease: Option<&Lease>) -> Result<(), Failure> {
        let (vlan, mtu) = (links.pair(mac).and_then(|pair| pair.vlan), self.mtu(links, mac)?);
        let name = mac.standby_name();
        // A standby that libvirt has made has another name, and is libvirt's.
        if let Some(standby) = self.netlink.standby(&name).await.map_err(failure)? {
            let seen = PathSeen {
                vlan: Some(standby.vlan.as_ref().map_or(0, |vlan| vlan.id)),
                mtu: Some(standby.mtu),
            };
            told(difference(&format!("standby {name}"), seen, vlan, mtu))?;
        }
        // An emulated primary has no PF that knows of it; the VLAN of a VF with a port profile is the switch's.
        let tagged =
            |lease: &&Lease| lease.vf.id.as_str().parse::<Bdf>().is_ok() && self.profile(links, lease).is_none();
        if let Some(lease) = lease.filter(tagged) {
            let (pf, index) = (&lease.vf.pf, lease.vf.index);
            let found = self.netlink.vf(pf, index).await.map_err(failure)?;
            let seen = PathSeen {
                vlan: Some(found.vlan),
                mtu: None,
            };
            told(difference(&format!("VF {index} of {pf}"), seen, vlan, mtu))?;
        }
        Ok(())
    }

    pub(crate) async fn read_filters(links: &GuestLinks) -> Result<Outcome, Failure> {
        let qmp = links.qmp.as_ref();
        let qmp = qmp.ok_or_else(|| because("QEMU's monitor is not connected"))?;
        let filters = qmp.query_rx_filter().await.map_err(failure)?;
        let mut wanted = BTreeMap::new();
        for filter in filters {
            // An emulated primary may be a virtio-net of the pair's address, too.
            let is_primary = primary_of(&links.pairs, &filter.name).is_some();
            let mac = filter.mac.and_then(|mac| Mac::from_octets(mac).ok());
            if let (Some(mac), false) = (mac.filter(|mac| links.pair(*mac).is_some()), is_primary) {
                wanted.insert(mac, Multicast::asked(filter.all_multicast, filter.groups));
            }
        }
        Ok(Outcome::Filters(wanted))
    }

    pub(crate) async fn tune_standby(
        &self,
        mac: Mac,
        mode: StandbyMode,
        multicast: &Multicast,
    ) -> Result<Outcome, Failure> {
        // It reads back what it has changed: the rest of the standby and what is below it need no further look.
        let tuned = self.netlink.tune_standby(&mac.standby_name(), mode, multicast).await;
        tuned.map(|_| Outcome::Done).map_err(failure)
    }
}

fn told(difference: Option<String>) -> Result<(), Failure> {
    difference.map_or(Ok(()), |sentence| Err(because(sentence)))
}
