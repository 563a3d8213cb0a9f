//! Pages that a guest keeps through a migration: see [`crate::probe::send_pages`].

use super::packages::Packages;
use crate::probe::Kept;
use crate::process::{self, KilledOnDrop};
use crate::{Lab, Machine};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Stdio};
use std::time::Duration;

/// From the end until the guest has compared all: it may be emulated on an emulated host.
const COMPARES: Duration = Duration::from_secs(150);

/// Pages on their way to a guest, or in it.
#[derive(Debug)]
pub struct Pages {
    child: KilledOnDrop,
    said: BufReader<ChildStdout>,
}

impl Pages {
    /// Sends the first of them over the path that the guest has now. More go there until [`Pages::compare`].
    ///
    /// # Errors
    /// The guest does not answer.
    pub fn send(lab: &Lab, packages: &Packages, address: &str) -> Result<Self> {
        let script = format!("exec {} pages --guest {address}", packages.probe.display());
        let mut child = lab
            .peer()
            .command(&script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("cannot start the probe")?;
        let said = child.stdout.take().context("the probe has no standard output")?;
        let mut pages = Self {
            child: child.into(),
            said: BufReader::new(said),
        };
        // It gives up by itself when the guest does not answer.
        match pages.line()?.as_str() {
            "sent" => Ok(pages),
            other => bail!("the probe says {other:?} where pages should have been sent"),
        }
    }

    /// Has the guest compare what it has kept.
    ///
    /// # Errors
    /// It does not answer.
    pub fn compare(mut self) -> Result<Kept> {
        drop(self.child.stdin.take());
        // It exits with an error where something is altered: what it says tells as much.
        process::until("the guest's comparison", COMPARES, || Ok(self.child.try_wait()?))?;
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("the probe says {line:?}"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}
