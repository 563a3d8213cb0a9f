//! Where a running lab keeps its records, and what its namespaces are called.

use crate::cache::{self, Lock};
use crate::net::Namespaces;
use crate::process::Ledger;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The place of one lab. `$HYBOND_LAB` names a lab beside the usual one, so that two can run at a time.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    tier: &'static str,
    suffix: String,
    run: PathBuf,
}

impl Place {
    pub(crate) fn new(tier: &'static str) -> Result<Self> {
        let suffix = match std::env::var("HYBOND_LAB") {
            Ok(name) if name.len() <= 16 && name.bytes().all(|b| b.is_ascii_alphanumeric()) => format!("-{name}"),
            Ok(name) => bail!("HYBOND_LAB={name:?} is not a name of at most 16 letters and digits"),
            Err(_) => String::new(),
        };
        let run = cache::root().join(format!("run/tier{tier}{suffix}"));
        Ok(Self { tier, suffix, run })
    }

    /// Folder of the running lab: sockets, logs, disks.
    pub(crate) fn run(&self) -> &Path {
        &self.run
    }

    /// Full name of one of its network namespaces.
    pub(crate) fn namespace(&self, name: &str) -> String {
        format!("hb{}-{name}{}", self.tier, self.suffix)
    }

    pub(crate) fn namespaces(&self) -> Namespaces {
        Namespaces::recorded_in(self.run.join("namespaces"))
    }

    pub(crate) fn ledger(&self) -> Result<Ledger> {
        Ledger::open(self.run.join("processes"))
    }

    /// Whether a lab runs here.
    pub(crate) fn is_up(&self) -> Result<bool> {
        Ok(self.run.exists() && self.ledger()?.alive()?)
    }

    /// Takes the place for a new lab, ends what an earlier one has left here, and makes the folder.
    pub(crate) fn take(&self, patience: Duration) -> Result<Lock> {
        fs::create_dir_all(cache::root().join("run")).context("cannot make the folder of running labs")?;
        let owner = cache::lock(&self.lock(), &format!("tier {}", self.tier), patience)?;
        self.clear()?;
        fs::create_dir_all(&self.run)?;
        Ok(owner)
    }

    /// Ends a lab that nobody answers for any more.
    pub(crate) fn release(&self) -> Result<()> {
        if !self.run.exists() {
            return Ok(());
        }
        let _owner = cache::lock(&self.lock(), &format!("tier {}", self.tier), Duration::from_secs(5))?;
        self.clear()
    }

    /// Ends what is recorded here, of this run or of one that was interrupted.
    pub(crate) fn clear(&self) -> Result<()> {
        if self.run.exists() {
            self.ledger()?.end_all()?;
            self.namespaces().remove()?;
            fs::remove_dir_all(&self.run).with_context(|| format!("cannot remove {}", self.run.display()))?;
        }
        Ok(())
    }

    /// Keeps the logs of a lab that has not come up, which [`Place::clear`] would take with it, and answers where.
    pub(crate) fn keep_logs(&self) -> Result<PathBuf> {
        let kept = self.run.with_extension("failed");
        fs::create_dir_all(&kept)?;
        for entry in fs::read_dir(&self.run)? {
            let path = entry?.path();
            let log = path.extension().is_some_and(|e| e == "log" || e == "serial");
            if let (true, Some(name)) = (log, path.file_name()) {
                fs::copy(&path, kept.join(name))?;
            }
        }
        Ok(kept)
    }

    fn lock(&self) -> PathBuf {
        self.run.with_extension("lock")
    }
}
