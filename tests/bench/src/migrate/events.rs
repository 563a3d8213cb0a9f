//! When a domain stopped here and went on there: what libvirt reports, on this machine's clock.

use anyhow::{Context, Result};
use hybond_lab::process::KilledOnDrop;
use hybond_lab::{Host, Machine};
use std::process::Stdio;
use std::time::Duration;

const FILE: &str = "/run/bench-events";

/// Lifecycle events of a host's domains, written down from now on.
#[derive(Debug)]
pub struct Events<'a> {
    host: &'a Host,
    /// Who listens, killed with this.
    _listener: KilledOnDrop,
}

impl<'a> Events<'a> {
    /// Begins to listen.
    ///
    /// # Errors
    /// It does not listen.
    pub fn listen(host: &'a Host) -> Result<Self> {
        // Stamped as they come, by the host's clock. The beginning is seen by the first line.
        let script = format!(
            "{{ echo listening; exec stdbuf -oL virsh event --event lifecycle --loop; }} | \
             while read -r line; do echo \"$(date +%s%3N) $line\"; done >{FILE}"
        );
        let child = host
            .command(&script)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot listen to libvirt")?;
        let _listener = child.into();
        let events = Self { host, _listener };
        host.until(
            "virsh event",
            &format!("grep -q listening {FILE} && pgrep -x virsh"),
            Duration::from_secs(60),
        )?;
        Ok(events)
    }

    /// When the last event of these words came, in milliseconds of this machine's clock.
    ///
    /// # Errors
    /// None has come.
    pub fn last(&self, domain: &str, words: &str) -> Result<f64> {
        let what = format!("event {words:?} of {domain}");
        // libvirt writes the name with quotes or without, as its version is.
        let look = format!("grep -E \"domain '?{domain}'?: {words}\" {FILE} | tail -n 1 | grep .");
        let line = self.host.until(&what, &look, Duration::from_secs(30))?;
        let stamp = line.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
        Ok(stamp.with_context(|| format!("{line:?} has no time"))? - self.host.clock_offset_ms()?)
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        // The shell there ends with its connection, virsh with its pipe.
        drop(self.host.run("pkill -x virsh"));
    }
}
