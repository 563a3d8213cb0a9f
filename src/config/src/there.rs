//! What a machine has, and in words for those whose selector matches nothing of it.

use crate::inventory::PfVfs;
use crate::selector::{PciId, Selector};
use hybond_core::ids::Bdf;
use std::collections::BTreeSet;
use std::fmt::Display;

/// What a sentence lists at most.
const SHOWN: usize = 8;

/// The PFs of a machine.
#[derive(Clone, Copy)]
pub(crate) struct There<'a> {
    pub(crate) pfs: &'a [PfVfs],
}

/// A VF, and the PF that it is of.
pub(crate) type Candidate<'a> = (&'a PfVfs, &'a hybond_vfio::Vf);

impl<'a> There<'a> {
    /// Every VF.
    pub(crate) fn all(self) -> impl Iterator<Item = Candidate<'a>> {
        self.pfs.iter().flat_map(|pf| pf.vfs.iter().map(move |vf| (pf, vf)))
    }

    /// Why a selector matches nothing, and what would match something.
    pub(crate) fn nothing_for(self, selector: &Selector) -> String {
        let (words, values) = match selector {
            Selector::Device(bdf) => return self.nothing_at(*bdf),
            Selector::Vf(range) => match self.pfs.iter().find(|pf| range.contains(pf.pf.bdf)) {
                Some(pf) => return self.nothing_at(pf.pf.bdf),
                None => return format!("matches no VF; {}", self.vfs()),
            },
            Selector::Pf(_) => return format!("matches no PF; {}", self.pfs()),
            Selector::PciId(_) => {
                let ids = self.all().map(|(_, vf)| PciId { id: vf.id });
                ("the VFs here are", texts(ids))
            }
            Selector::NumaNode(_) => {
                let nodes = self.all().filter_map(|(pf, _)| pf.pf.numa_node);
                ("the VFs here are on NUMA node", texts(nodes))
            }
            Selector::PfDriver(_) => {
                let drivers = self.all().filter_map(|(pf, _)| pf.pf.driver.as_ref());
                ("the PFs of the VFs here have the driver", texts(drivers))
            }
        };
        match (values.is_empty(), self.all().next().is_none()) {
            (_, true) => format!("matches no VF; {}", self.vfs()),
            (true, false) => "matches no VF; the machine does not say this of its VFs".to_owned(),
            (false, false) => format!("matches no VF; {words} {}", list(&values)),
        }
    }

    /// Why there is no VF at, or of, an address.
    pub(crate) fn nothing_at(self, bdf: Bdf) -> String {
        match self.pfs.iter().find(|there| there.pf.bdf == bdf) {
            Some(PfVfs { pf, vfs }) if vfs.is_empty() => {
                let (name, most) = (&pf.name, pf.totalvfs);
                format!(
                    "is a PF without VFs: write how many, up to {most}, to /sys/class/net/{name}/device/sriov_numvfs"
                )
            }
            Some(PfVfs { pf, .. }) => format!("is PF {0} and no VF: for all its VFs, pf = [\"{0}\"]", pf.name),
            None => format!("matches no VF; {}", self.vfs()),
        }
    }

    /// The VFs.
    pub(crate) fn vfs(self) -> String {
        let vfs = texts(self.all().map(|(_, vf)| vf.bdf));
        if vfs.is_empty() {
            return format!("there is no VF here; {}", self.pfs());
        }
        format!("the VFs here are {}", list(&vfs))
    }

    /// The PFs.
    pub(crate) fn pfs(self) -> String {
        if self.pfs.is_empty() {
            return "there is no PF here: no NIC with SR-IOV and a network interface (lspci -v)".to_owned();
        }
        let pfs = self.pfs.iter();
        let pfs = pfs.map(|PfVfs { pf, vfs }| format!("{} {} ({} VFs)", pf.name, pf.bdf, vfs.len()));
        format!("the PFs here are {}", list(&pfs.collect::<Vec<_>>()))
    }
}

/// Sorted as the values are, each once.
fn texts<T: Display + Ord>(values: impl Iterator<Item = T>) -> Vec<String> {
    let values: BTreeSet<T> = values.collect();
    values.iter().map(ToString::to_string).collect()
}

fn list(all: &[String]) -> String {
    let shown = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match all.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{shown} and {more} more"),
        _ => shown,
    }
}
