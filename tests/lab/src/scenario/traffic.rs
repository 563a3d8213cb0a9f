//! The probe on the peer's side, around something that is measured.

use super::packages::Packages;
use crate::probe::{self, Record};
use crate::process::KilledOnDrop;
use crate::{Lab, Machine};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Packets per second in each direction.
pub const RATE: u32 = 200;
/// No measurement takes longer.
const AT_MOST: Duration = Duration::from_secs(900);
/// The rest of the report of a long run, 200 packets at a time.
const REPORT: Duration = Duration::from_secs(240);

/// Packets in both directions between the peer and a guest.
#[derive(Debug)]
pub struct Traffic<'a> {
    lab: &'a Lab,
    child: KilledOnDrop,
    file: PathBuf,
}

impl<'a> Traffic<'a> {
    /// Starts it, and waits until packets come.
    ///
    /// # Errors
    /// The guest does not answer.
    pub fn start(lab: &'a Lab, packages: &Packages, address: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = packages.work().join(format!("records-{number}"));
        // The machine is busy with both hosts: what sends and receives must not be late itself.
        let script = format!(
            "first=; if chrt -f 50 true 2>/dev/null; then first='chrt -f 50'; fi\n\
             exec $first {} run --guest {address} --rate {RATE} --seconds {} --stdin --out {}",
            packages.probe.display(),
            AT_MOST.as_secs(),
            file.display()
        );
        let mut command = lab.peer().command(&script);
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start the probe")?;
        let child = child.into();
        let mut traffic = Self { lab, child, file };
        traffic.flow(Duration::from_secs(1))?;
        Ok(traffic)
    }

    /// Waits until as many packets have come as the guest sends in this time.
    ///
    /// # Errors
    /// They do not come.
    pub fn flow(&mut self, time: Duration) -> Result<()> {
        let now = self.received()?;
        self.flow_since(now, time)
    }

    /// As [`Traffic::flow`], from a moment on of which [`Traffic::received`] has told.
    ///
    /// # Errors
    /// As there.
    pub fn flow_since(&mut self, moment: u64, time: Duration) -> Result<()> {
        let want = moment + u64::from(RATE) * time.as_secs();
        let limit = time + Duration::from_secs(90);
        crate::process::until("packets of the guest", limit, || {
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
        let ended = crate::process::until("the probe's end", REPORT, || Ok(self.child.try_wait()?))?;
        if !ended.success() {
            bail!("the probe has failed: {}", self.complaint());
        }
        probe::read(&self.file)
    }

    /// Packets that the peer's NIC has received.
    ///
    /// # Errors
    /// The peer cannot be asked.
    pub fn received(&self) -> Result<u64> {
        let text = self.lab.peer().read_file("/sys/class/net/eth0/statistics/rx_packets")?;
        text.trim().parse().context("rx_packets")
    }

    fn complaint(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            // What it has said so far is all that there is to show.
            std::io::Read::read_to_string(&mut stderr, &mut text).ok();
        }
        text.trim().to_owned()
    }
}
