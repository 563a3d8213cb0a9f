//! What tests do with a host, whichever tier it is of.

use crate::process;
pub use crate::process::Output;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Time that a command on a machine may take, unless [`Machine::run_within`] says otherwise. Under TCG, a minute is
/// not yet a sign of anything.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A machine of the lab on which commands run as root.
pub trait Machine {
    /// `src`, `dst` or `peer`.
    fn name(&self) -> &str;

    /// Address on the management network, where libvirt and hybond listen and domains migrate.
    fn address(&self) -> &str;

    /// A shell script on this machine, not yet started: for what runs in the background.
    fn command(&self, script: &str) -> Command;

    /// Runs a shell script to its end.
    ///
    /// # Errors
    /// It cannot be started, or takes longer than [`PATIENCE`]. A script that fails is not an error.
    fn run(&self, script: &str) -> Result<Output> {
        self.run_within(script, PATIENCE)
    }

    /// As [`Machine::run`], with another limit.
    ///
    /// # Errors
    /// It cannot be started, or takes longer than `limit`.
    fn run_within(&self, script: &str, limit: Duration) -> Result<Output> {
        process::run(&mut self.command(script), None, limit).with_context(|| format!("on {}", self.name()))
    }

    /// Runs a script that must succeed, and answers its standard output.
    ///
    /// # Errors
    /// It fails; the error has its standard error.
    fn ok(&self, script: &str) -> Result<String> {
        let output = self.run(script)?;
        if !output.success() {
            bail!(
                "on {}: \"{script}\" ended with {}: {}",
                self.name(),
                output.status,
                output.stderr.trim()
            );
        }
        Ok(output.stdout)
    }

    /// Writes a file, with mode `mode` (such as `644`).
    ///
    /// # Errors
    /// The machine cannot write it.
    fn write_file(&self, path: &str, content: &[u8], mode: &str) -> Result<()> {
        // Renamed when whole: what reads the file meanwhile sees the old one or the new one.
        let script = format!(
            "set -e; mkdir -p \"$(dirname {path})\"; cat >{path}.part; chmod {mode} {path}.part; mv {path}.part {path}"
        );
        let output = process::run(&mut self.command(&script), Some(content), PATIENCE)?;
        if !output.success() {
            bail!("cannot write {path} on {}: {}", self.name(), output.stderr.trim());
        }
        Ok(())
    }

    /// Copies a file of this machine there, with mode 755, as programs need it.
    ///
    /// # Errors
    /// It cannot be read here, or not be written there.
    fn copy(&self, local: &Path, remote: &str) -> Result<()> {
        let content = fs::read(local).with_context(|| format!("cannot read {}", local.display()))?;
        self.write_file(remote, &content, "755")
    }

    /// Reads a file as text.
    ///
    /// # Errors
    /// The machine cannot read it.
    fn read_file(&self, path: &str) -> Result<String> {
        self.ok(&format!("cat {path}"))
    }

    /// Runs `script` every quarter of a second until it succeeds, and answers its standard output.
    ///
    /// # Errors
    /// It has not succeeded within `limit`; the error names `what` and has the script's last words.
    fn until(&self, what: &str, script: &str, limit: Duration) -> Result<String> {
        // The loop runs there: a connection for each attempt would cost more than the attempt.
        let loops = format!(
            "end=$(($(date +%s) + {})); while :; do out=$( {{ {script}\n}} 2>&1) && break; \
             [ $(date +%s) -lt $end ] || {{ printf %s \"$out\" >&2; exit 111; }}; sleep 0.25; done; printf '%s\\n' \"$out\"",
            limit.as_secs()
        );
        let output = self.run_within(&loops, limit + Duration::from_secs(60))?;
        if !output.success() {
            bail!(
                "{what} on {}: not within {} s: {}",
                self.name(),
                limit.as_secs(),
                output.stderr.trim()
            );
        }
        Ok(output.stdout)
    }
}

/// A network namespace of this machine, such as that of the traffic peer.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
    address: String,
    namespace: String,
}

impl Namespace {
    pub(crate) fn new(name: &str, address: &str, namespace: &str) -> Self {
        Self {
            name: name.into(),
            address: address.into(),
            namespace: namespace.into(),
        }
    }

    /// What `ip netns exec` takes.
    #[must_use]
    pub fn netns(&self) -> &str {
        &self.namespace
    }
}

impl Machine for Namespace {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn command(&self, script: &str) -> Command {
        let mut command = crate::net::command(&self.namespace, "sh");
        command.args(["-c", script]);
        command
    }
}
