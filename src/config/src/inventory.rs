//! From the configured pools to the VFs that the machine has.

use crate::Pool;
use hybond_core::ids::{IfName, PoolName, VfId};
use hybond_core::pool::Vf;
use hybond_vfio::{Sysfs, SysfsError};
use std::collections::BTreeMap;

/// Something that a pool names and the machine does not have. The pool goes on without it.
#[derive(Debug, thiserror::Error)]
#[error("pool {pool}: PF {pf} cannot be used")]
pub struct Missing {
    /// The pool.
    pub pool: PoolName,
    /// The PF.
    pub pf: IfName,
    /// Why.
    #[source]
    pub source: SysfsError,
}

/// The VFs of every pool, and what could not be found.
#[must_use]
pub fn read(sysfs: &Sysfs, pools: &BTreeMap<PoolName, Pool>) -> (BTreeMap<PoolName, Vec<Vf>>, Vec<Missing>) {
    let mut found = BTreeMap::new();
    let mut missing = Vec::new();
    for (name, pool) in pools {
        let mut vfs = Vec::new();
        for pf in &pool.pf {
            match of_pf(sysfs, pool, pf) {
                Ok(mut of_pf) => vfs.append(&mut of_pf),
                Err(source) => missing.push(Missing {
                    pool: name.clone(),
                    pf: pf.clone(),
                    source,
                }),
            }
        }
        found.insert(name.clone(), vfs);
    }
    (found, missing)
}

fn of_pf(sysfs: &Sysfs, pool: &Pool, pf: &IfName) -> Result<Vec<Vf>, SysfsError> {
    if let Some(emulated) = &pool.emulated {
        let vf = |index| {
            let id = emulated_id(pf, index)?;
            Some(Vf {
                id,
                pf: pf.clone(),
                index,
                numa_node: None,
            })
        };
        return Ok((0..emulated.count).filter_map(vf).collect());
    }
    let numa_node = sysfs.numa_node(sysfs.bdf_of(pf)?)?;
    let vfs = sysfs.vfs_of(pf)?.into_iter();
    let chosen = vfs.filter(|vf| pool.vf.is_empty() || pool.vf.contains(&vf.bdf));
    let vf = |vf: hybond_vfio::Vf| {
        // A PCI address is always a valid id.
        let id = vf.bdf.to_string().parse().ok()?;
        Some(Vf {
            id,
            pf: pf.clone(),
            index: vf.index,
            numa_node,
        })
    };
    Ok(chosen.filter_map(vf).collect())
}

/// `<pf>.<number>`; `None` where the PF's name has characters that an id may not have.
fn emulated_id(pf: &IfName, index: u32) -> Option<VfId> {
    format!("{pf}.{index}").parse().ok()
}
