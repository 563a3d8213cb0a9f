//! Progress for whoever watches: what is being done since when, and the daemons' own words as they come.

use crate::{Lab, Machine};
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Says on standard error what is done, and after how many seconds.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    start: Instant,
}

impl Default for Stopwatch {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Stopwatch {
    /// A line.
    pub fn say(&self, text: &str) {
        eprintln!("{:7.1} s  {text}", self.start.elapsed().as_secs_f64());
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Shows what hybondd writes into its journal on both hosts, until it is dropped.
#[derive(Debug)]
pub struct Follow {
    followers: Vec<(Child, JoinHandle<()>)>,
}

impl Follow {
    /// Begins with what is written from now on.
    ///
    /// # Errors
    /// A host cannot be reached.
    pub fn start(lab: &Lab, stopwatch: Stopwatch) -> Result<Self> {
        // From here on, dropping it ends those that were started.
        let mut follow = Self { followers: Vec::new() };
        for host in lab.hosts() {
            // Ends with its standard input, so that nothing runs on there.
            let script = "journalctl -u hybondd -f -n 0 -o cat & cat >/dev/null; kill $!";
            let mut child = host
                .command(script)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .with_context(|| format!("cannot follow the journal of {}", host.name()))?;
            let stdout = child.stdout.take().context("no pipe")?;
            let name = host.name().to_owned();
            let thread = std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    stopwatch.say(&format!("  {name}: {line}"));
                }
            });
            follow.followers.push((child, thread));
        }
        Ok(follow)
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        for (child, _) in &mut self.followers {
            drop(child.stdin.take());
        }
        for (mut child, thread) in self.followers.drain(..) {
            // What became of a journal's reader is nobody's concern.
            child.wait().ok();
            thread.join().ok();
        }
    }
}
