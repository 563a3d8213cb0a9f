//! The probe on the peer, around something that is measured.

use super::programs::Programs;
use crate::Machine;
use crate::machine::Namespace;
use crate::probe::{self, Record};
use crate::process::{self, KilledOnDrop};
use anyhow::{Context, Result, bail};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Packets per second in each direction.
const RATE: u64 = 200;
/// No measurement takes longer.
const AT_MOST: u64 = 900;
/// The guest reports 200 packets at a time.
const REPORT: Duration = Duration::from_secs(240);

/// Packets in both directions between the peer and a guest.
#[derive(Debug)]
pub struct Traffic {
    peer: Namespace,
    child: KilledOnDrop,
    file: PathBuf,
}

impl Traffic {
    /// Starts it with the guest of this address, and waits until packets come. The records are kept in `file`.
    ///
    /// # Errors
    /// The guest does not answer.
    pub fn start(peer: &Namespace, programs: &Programs, guest: &str, file: &Path) -> Result<Self> {
        // The machine is busy with the guest: what sends and receives must not be late itself.
        let script = format!(
            "first=; if chrt -f 50 true 2>/dev/null; then first='chrt -f 50'; fi\n\
             exec $first {} run --guest {guest} --rate {RATE} --seconds {AT_MOST} --stdin --out {}",
            programs.probe.display(),
            file.display()
        );
        let mut command = peer.command(&script);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut traffic = Self {
            peer: peer.clone(),
            child: command.spawn().context("cannot start the probe")?.into(),
            file: file.to_owned(),
        };
        traffic.flow(Duration::from_secs(2))?;
        Ok(traffic)
    }

    /// Waits until as many packets have come as the guest sends in this time: of all guests, where others have traffic, too.
    ///
    /// # Errors
    /// They do not come.
    pub fn flow(&mut self, time: Duration) -> Result<()> {
        let want = self.received()? + RATE * time.as_secs();
        process::until("packets of the guest", time + Duration::from_secs(90), || {
            if self.child.try_wait()?.is_some() {
                bail!("the probe has ended: {}", self.complaint());
            }
            Ok((self.received()? >= want).then_some(()))
        })
    }

    /// Ends it, and tells what became of each packet.
    ///
    /// # Errors
    /// The guest does not report what came.
    pub fn finish(mut self) -> Result<Vec<Record>> {
        drop(self.child.stdin.take());
        let ended = process::until("the probe's end", REPORT, || Ok(self.child.try_wait()?))?;
        if !ended.success() {
            bail!("the probe has failed: {}", self.complaint());
        }
        probe::read(&self.file)
    }

    /// Packets that the peer's NIC has received.
    fn received(&self) -> Result<u64> {
        let text = self.peer.read_file("/sys/class/net/eth0/statistics/rx_packets")?;
        text.trim().parse().context("rx_packets")
    }

    fn complaint(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            // What it has said so far is all that there is to show.
            stderr.read_to_string(&mut text).ok();
        }
        text.trim().to_owned()
    }
}
