//! From the configured pools to the VFs that the machine has.

use crate::pool::{Emulated, Pool};
use crate::selector::Selector;
use crate::there::{Candidate, There};
use hybond_core::ids::{Bdf, IfName, PoolName, VfId};
use hybond_core::pool::Vf;
use hybond_vfio::{Pf, Sysfs, SysfsError};
use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;

/// What the machine has, what of it is in which pool, and what of the configuration means nothing here.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Every PF, by name.
    pub pfs: Vec<PfVfs>,
    /// The VFs of every pool, in the order in which they are preferred.
    pub pools: BTreeMap<PoolName, Vec<Vf>>,
    /// What matches nothing, and what cannot be read. The pools go on without it.
    pub warnings: Vec<Warning>,
}

/// A PF and its VFs.
#[derive(Debug)]
pub struct PfVfs {
    /// The PF.
    pub pf: Pf,
    /// Its VFs, by index.
    pub vfs: Vec<hybond_vfio::Vf>,
}

/// Something that does not hinder, and is hardly what was meant.
#[derive(Debug, thiserror::Error)]
pub enum Warning {
    /// A selector that gives its pool nothing.
    #[error("pool {pool}: {selector} {problem}")]
    Selector {
        /// The pool.
        pool: PoolName,
        /// The selector.
        selector: Selector,
        /// Why, and what is there.
        problem: String,
    },
    /// Each selector matches something, and nothing matches all of them.
    #[error("pool {pool} has no VF: each of its selectors matches some, and no VF matches all of them; {there}")]
    Together {
        /// The pool.
        pool: PoolName,
        /// What is there.
        there: String,
    },
    /// Something of sysfs.
    #[error("PFs or VFs are left out")]
    Sysfs(#[from] SysfsError),
}

/// Looks at the machine, and matches the pools against it.
#[must_use]
pub fn read(sysfs: &Sysfs, pools: &BTreeMap<PoolName, Pool>) -> Inventory {
    let (pfs, faults) = machine(sysfs);
    let mut inventory = Inventory {
        pfs,
        warnings: faults.into_iter().map(Warning::from).collect(),
        pools: BTreeMap::new(),
    };
    for (name, pool) in pools {
        let mut warnings = Vec::new();
        let vfs = match &pool.emulated {
            Some(emulated) => emulated_vfs(pool, emulated),
            None => Matching::new(sysfs, &inventory.pfs, pool).run(&mut warnings),
        };
        inventory.pools.insert(name.clone(), vfs);
        inventory.warnings.append(&mut warnings);
    }
    inventory
}

/// Every PF of the machine with its VFs, and what cannot be read.
#[must_use]
pub fn machine(sysfs: &Sysfs) -> (Vec<PfVfs>, Vec<SysfsError>) {
    let (pfs, mut faults) = sysfs.pfs().unwrap_or_else(|error| (Vec::new(), vec![error]));
    let with_vfs = pfs.into_iter().map(|pf| {
        let vfs = sysfs.vfs_of(&pf.name).unwrap_or_else(|error| {
            faults.push(error);
            Vec::new()
        });
        PfVfs { pf, vfs }
    });
    (with_vfs.collect(), faults)
}

fn emulated_vfs(pool: &Pool, emulated: &Emulated) -> Vec<Vf> {
    let of_pf = |pf: &IfName| {
        let pf = pf.clone();
        (0..emulated.count).filter_map(move |index| {
            Some(Vf {
                id: emulated_id(&pf, index)?,
                pf: pf.clone(),
                index,
                numa_node: None,
            })
        })
    };
    pool.pf.iter().flat_map(of_pf).collect()
}

/// `<pf>.<number>`; `None` where the PF's name has characters that an id may not have.
fn emulated_id(pf: &IfName, index: u32) -> Option<VfId> {
    format!("{pf}.{index}").parse().ok()
}

/// One pool and the machine.
struct Matching<'a> {
    pool: &'a Pool,
    there: There<'a>,
    /// The PFs that the pool names, with their addresses: a function may have several interfaces.
    named: Vec<(&'a IfName, Result<Bdf, SysfsError>)>,
}

impl<'a> Matching<'a> {
    fn new(sysfs: &Sysfs, pfs: &'a [PfVfs], pool: &'a Pool) -> Self {
        let address = |name| sysfs.bdf_of(name).and_then(|bdf| sysfs.totalvfs(bdf).map(|_| bdf));
        let named = pool.pf.iter().map(|name| (name, address(name)));
        Self {
            pool,
            there: There { pfs },
            named: named.collect(),
        }
    }

    fn run(&self, warnings: &mut Vec<Warning>) -> Vec<Vf> {
        let selectors = self.pool.selectors();
        let mut selected = Vec::new();
        if !selectors.is_empty() {
            for (name, pf) in self.pfs_of_pool() {
                let vfs = pf.vfs.iter().map(|vf| (pf, vf));
                selected.extend(vfs.filter(|vf| self.selects(&selectors, *vf)).map(|vf| (name, vf)));
            }
            self.judge(&selectors, &selected, warnings);
        }
        for bdf in &self.pool.devices {
            let before = selected.len();
            let device = self.there.all().filter(|(pf, vf)| [pf.pf.bdf, vf.bdf].contains(bdf));
            selected.extend(device.map(|vf| (&vf.0.pf.name, vf)));
            if selected.len() == before {
                warnings.push(self.useless(Selector::Device(*bdf), self.there.nothing_at(*bdf)));
            }
        }
        let mut seen = BTreeSet::new();
        selected.retain(|(_, (_, vf))| seen.insert(vf.bdf));
        let offered = selected.into_iter().filter_map(|(name, (pf, vf))| {
            Some(Vf {
                // A PCI address is always a valid id.
                id: vf.bdf.to_string().parse().ok()?,
                pf: name.clone(),
                index: vf.index,
                numa_node: pf.pf.numa_node,
            })
        });
        offered.collect()
    }

    /// In the order in which the pool names them, by the names that it has for them; or all.
    fn pfs_of_pool(&self) -> Vec<(&'a IfName, &'a PfVfs)> {
        if self.named.is_empty() {
            return self.there.pfs.iter().map(|pf| (&pf.pf.name, pf)).collect();
        }
        let named = self.named.iter().filter_map(|(name, bdf)| {
            let bdf = bdf.as_ref().ok()?;
            Some((*name, self.there.pfs.iter().find(|pf| pf.pf.bdf == *bdf)?))
        });
        named.collect()
    }

    /// Whether selectors, in the order of their kinds, all let a VF through: of each kind one is enough.
    fn selects(&self, selectors: &[Selector], vf: Candidate<'_>) -> bool {
        let mut kinds = selectors.chunk_by(|a, b| discriminant(a) == discriminant(b));
        kinds.all(|kind| kind.iter().any(|selector| self.admits(selector, vf)))
    }

    /// Whether one selector lets a VF through.
    fn admits(&self, selector: &Selector, (pf, vf): Candidate<'_>) -> bool {
        match selector {
            Selector::Pf(name) => {
                let mut named = self.named.iter().filter(|(n, _)| *n == name);
                named.any(|(_, bdf)| bdf.as_ref().is_ok_and(|bdf| *bdf == pf.pf.bdf))
            }
            Selector::Vf(range) => range.contains(vf.bdf),
            Selector::PciId(id) => id.id == vf.id,
            Selector::NumaNode(node) => pf.pf.numa_node == Some(*node),
            Selector::PfDriver(driver) => pf.pf.driver.as_ref() == Some(driver),
            Selector::Device(bdf) => [pf.pf.bdf, vf.bdf].contains(bdf),
        }
    }

    /// Warns of every selector that gives the pool nothing.
    fn judge(&self, selectors: &[Selector], selected: &[(&IfName, Candidate<'_>)], warnings: &mut Vec<Warning>) {
        let before = warnings.len();
        for selector in selectors {
            if !self.there.all().any(|vf| self.admits(selector, vf)) {
                warnings.push(self.useless(selector.clone(), self.why_nothing(selector)));
            }
        }
        if warnings.len() > before && selected.is_empty() {
            return;
        }
        if selected.is_empty() {
            warnings.push(Warning::Together {
                pool: self.pool.name.clone(),
                there: self.there.vfs(),
            });
            return;
        }
        // A PF or VF that is named was meant to be in the pool; the others are filters, and may well take nothing away.
        let named = selectors.iter();
        for selector in named.filter(|s| matches!(s, Selector::Pf(_) | Selector::Vf(_))) {
            let contributes = selected.iter().any(|(_, vf)| self.admits(selector, *vf));
            if !contributes && self.there.all().any(|vf| self.admits(selector, vf)) {
                let problem = "matches VFs here, and none of them is left by the pool's other selectors".to_owned();
                warnings.push(self.useless(selector.clone(), problem));
            }
        }
    }

    fn useless(&self, selector: Selector, problem: String) -> Warning {
        Warning::Selector {
            pool: self.pool.name.clone(),
            selector,
            problem,
        }
    }

    /// Why a selector matches no VF of this machine.
    fn why_nothing(&self, selector: &Selector) -> String {
        match selector {
            Selector::Pf(name) => match self.named.iter().find(|(n, _)| *n == name) {
                Some((_, Err(error))) => format!("cannot be used: {error}; {}", self.there.pfs()),
                Some((_, Ok(bdf))) => self.there.nothing_at(*bdf),
                None => self.there.pfs(),
            },
            other => self.there.nothing_for(other),
        }
    }
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
mod tests;
