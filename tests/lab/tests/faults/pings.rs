//! Pings of the usual guest while something goes wrong with it: what was lost, and for how long nothing came.

use anyhow::{Context, Result};
use hybond_lab::Machine;
use hybond_lab::machine::Namespace;
use hybond_lab::process::{self, KilledOnDrop};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Ten times a second.
const COMMAND: &str = "exec ping -n -D -i 0.1";
/// ping says its sums when it is interrupted.
const END: Duration = Duration::from_secs(20);

/// A ping of the peer's that goes on until it is ended.
#[derive(Debug)]
pub struct Pings {
    child: KilledOnDrop,
    file: PathBuf,
}

/// What became of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sums {
    /// Pings without an answer.
    pub lost: usize,
    /// Pings.
    pub sent: usize,
    /// Seconds between two answers, at most.
    pub silence: f64,
}

impl Pings {
    /// Starts it. Its lines are kept in `file`.
    pub fn start(peer: &Namespace, address: &str, file: &Path) -> Result<Self> {
        let mut command = peer.command(&format!("{COMMAND} {address} >{} 2>&1", file.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self {
            child: command.spawn().context("cannot start ping")?.into(),
            file: file.to_owned(),
        })
    }

    /// Ends it.
    pub fn end(mut self) -> Result<Sums> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGINT)?;
        process::until("ping's end", END, || Ok(self.child.try_wait()?))?;
        sums(&fs::read_to_string(&self.file)?).context("ping has not said how many it has sent")
    }
}

fn sums(text: &str) -> Option<Sums> {
    let (sent, _) = text.split_once(" packets transmitted")?;
    let sent: usize = sent.rsplit('\n').next()?.trim().parse().ok()?;
    let mut answered = BTreeSet::new();
    let mut times: Vec<f64> = Vec::new();
    for line in text.lines().filter(|line| line.contains(" bytes from ")) {
        let time = line.strip_prefix('[')?.split_once(']')?.0;
        times.push(time.parse().ok()?);
        let (number, _) = line.split_once("icmp_seq=")?.1.split_once(' ')?;
        answered.insert(number.to_owned());
    }
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    Some(Sums {
        lost: sent.saturating_sub(answered.len()),
        sent,
        silence: gaps.fold(0.0, f64::max),
    })
}

#[test]
fn what_ping_says_is_added_up() {
    let text = "PING 10.88.0.50 (10.88.0.50) 56(84) bytes of data.
[100.0] 64 bytes from 10.88.0.50: icmp_seq=1 ttl=64 time=0.9 ms
[100.1] 64 bytes from 10.88.0.50: icmp_seq=2 ttl=64 time=0.9 ms
[100.1] 64 bytes from 10.88.0.50: icmp_seq=2 ttl=64 time=1.0 ms (DUP!)
[102.5] From 10.88.0.254 icmp_seq=3 Destination Host Unreachable
[102.6] 64 bytes from 10.88.0.50: icmp_seq=4 ttl=64 time=0.9 ms

--- 10.88.0.50 ping statistics ---
4 packets transmitted, 3 received, +1 duplicates, +1 errors, 25% packet loss, time 2600ms
";
    let sums = sums(text).expect("summed");
    assert_eq!((sums.lost, sums.sent), (1, 4));
    assert!((sums.silence - 2.5).abs() < 0.001, "{sums:?}");
}
