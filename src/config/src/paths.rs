//! What the pools ask of the paths of their pairs, as far as the PFs that they have here let it be known.

use crate::pool::Pool;
use hybond_core::handover::Handover;
use hybond_core::ids::{IfName, PoolName};
use hybond_core::paths::{Paths, PoolPaths};
use hybond_core::pool::Vf;
use hybond_vfio::Sysfs;
use std::collections::BTreeMap;

/// What the pools, and the drivers of the PFs of their VFs, ask of the paths.
#[must_use]
pub fn paths(sysfs: &Sysfs, pools: &BTreeMap<PoolName, Pool>, vfs: &BTreeMap<PoolName, Vec<Vf>>) -> Paths {
    let row = |pool: &Pool, pf: &IfName| {
        // A PF that is no PCI function (an emulated pool's), or has just gone, has no driver of the table.
        let driver = sysfs.bdf_of(pf).and_then(|bdf| sysfs.driver(bdf)).ok().flatten();
        Handover::of(driver.as_deref(), pool.handover)
    };
    let of_pool = |(name, pool): (&PoolName, &Pool)| {
        let pfs = vfs.get(name).into_iter().flatten().map(|vf| &vf.pf);
        let handover = pfs.map(|pf| (pf.clone(), row(pool, pf))).collect();
        let multicast = pool.multicast();
        (name.clone(), PoolPaths { multicast, handover })
    };
    Paths(pools.iter().map(of_pool).collect())
}
