//! The emulated hosts under the benchmarks, renewed where they have failed.

use super::way;
use anyhow::{Context, Result, ensure};
use hybond_lab::scenario::{HybridGuest, Packages, Stage};
use hybond_lab::{Lab, Machine};
use std::cell::{Cell, Ref, RefCell};
use std::time::Duration;

/// From a host that is well to its answer.
const ANSWERS: Duration = Duration::from_secs(60);

/// Hosts with the packages and what the ways need.
#[derive(Debug)]
pub struct Stand<'a> {
    /// What is installed.
    pub packages: &'a Packages,
    /// What hosts get beyond the memory that they were saved with, in MiB.
    more: u32,
    lab: RefCell<Option<Lab>>,
    number: Cell<u32>,
    boots: RefCell<Vec<String>>,
}

impl<'a> Stand<'a> {
    /// Brings them up, with so many MiB more than hosts have.
    ///
    /// # Errors
    /// They do not come up.
    pub fn new(packages: &'a Packages, more: u32) -> Result<Self> {
        let stand = Self {
            packages,
            more,
            lab: RefCell::new(None),
            number: Cell::new(0),
            boots: RefCell::default(),
        };
        stand.renew()?;
        Ok(stand)
    }

    /// The hosts as they are now.
    ///
    /// # Errors
    /// They have failed, and do not come up again.
    pub fn lab(&self) -> Result<Ref<'_, Lab>> {
        if self.lab.borrow().is_none() {
            self.renew()?;
        }
        Ref::filter_map(self.lab.borrow(), Option::as_ref)
            .ok()
            .context("there are no hosts")
    }

    /// How often they have been brought up: no guest of before is on them.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number.get()
    }

    /// After a go of a guest has failed: removes what is left of it, or ends hosts that are not well, so that the next go has
    /// others.
    pub fn mend(&self, guest: &str) {
        let removed = self.lab().and_then(|lab| {
            ensure!(boots(&lab)? == *self.boots.borrow(), "a host has started anew");
            HybridGuest::new(guest, lab.host("src")).remove(lab.hosts())
        });
        if let Err(error) = removed {
            eprintln!("the hosts are ended, and will be restored: {error:#}");
            // Dropped, it ends whatever is left of them.
            drop(self.lab.borrow_mut().take());
        }
    }

    fn renew(&self) -> Result<()> {
        let key = format!("{} {}", self.packages.key()?, way::PREPARED);
        let lab = Lab::up_prepared("bench", &key, |lab| {
            Stage::deploy(lab, self.packages)?;
            lab.each(way::prepare)?;
            Ok(())
        })?;
        let more = self.more;
        if more > 0 {
            lab.each(|host| host.add_memory(more))?;
        }
        *self.boots.borrow_mut() = boots(&lab)?;
        *self.lab.borrow_mut() = Some(lab);
        self.number.set(self.number.get() + 1);
        Ok(())
    }

    /// Ends them.
    ///
    /// # Errors
    /// Something of them cannot be removed.
    pub fn end(self) -> Result<()> {
        self.lab.into_inner().map_or(Ok(()), Lab::down)
    }
}

/// Which boot of each host this is.
fn boots(lab: &Lab) -> Result<Vec<String>> {
    lab.each(|host| {
        let told = host.run_within(
            "cat /proc/sys/kernel/random/boot_id && virsh -q list >/dev/null",
            ANSWERS,
        )?;
        ensure!(told.success(), "{} is not well: {}", host.name(), told.stderr.trim());
        Ok(told.stdout.trim().to_owned())
    })
}
