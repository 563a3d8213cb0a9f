//! Clocks of the emulated hosts against this machine's. Time lines of both hosts and of the probe, which runs here, are
//! laid over each other, so that milliseconds count.

use crate::machine::Machine;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// A measured difference of two clocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Offset {
    /// The host's clock less this machine's.
    pub offset_ms: f64,
    /// The measurement is right to within this: half of the shortest round trip.
    pub error_ms: f64,
}

/// Answers each line with the clock's nanoseconds, after changing the clock by the nanoseconds that the line may hold.
/// perl-base is in every Debian, and its `syscall` reads and sets the clock within microseconds of each other, even
/// emulated. 228 and 227 are `clock_gettime` and `clock_settime` of x86-64.
const SERVANT: &str = r#"exec perl -e '
$| = 1;
sub now { my $t = "\0" x 16; syscall(228, 0, $t); my ($s, $n) = unpack("qq", $t); return $s * 1000000000 + $n }
while (<STDIN>) {
    if (/^(-?\d+)$/ && $1) { my $t = now() + $1; syscall(227, 0, pack("qq", int($t / 1000000000), $t % 1000000000)) }
    print now(), "\n";
}'"#;

/// An open conversation with a host about its time.
#[derive(Debug)]
pub(crate) struct Clock {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Clock {
    pub(crate) fn open(machine: &impl Machine) -> Result<Self> {
        let mut child = machine
            .command(SERVANT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot ask {} for its time", machine.name()))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("no pipe")?;
        Ok(Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
        })
    }

    /// The best of a number of round trips: the shortest has the least room for an error.
    pub(crate) fn measure(&mut self) -> Result<Offset> {
        let mut best: Option<Offset> = None;
        for trip in 0..200 {
            // On a busy machine a good round trip takes its time to come.
            if trip >= 40 && best.is_some_and(|best| best.error_ms < 0.5) {
                break;
            }
            let before = now();
            let theirs = self.ask(0)?;
            let after = now();
            let measured = Offset {
                offset_ms: (theirs - (before + (after - before) / 2)) as f64 / 1e6,
                error_ms: (after - before) as f64 / 2e6,
            };
            if best.is_none_or(|best| measured.error_ms < best.error_ms) {
                best = Some(measured);
            }
        }
        best.context("not measured")
    }

    /// Sets the clock, and measures what is left.
    pub(crate) fn adjust(&mut self) -> Result<Offset> {
        let mut offset = self.measure()?;
        for _ in 0..4 {
            if offset.offset_ms.abs() <= offset.error_ms.min(0.5) {
                break;
            }
            self.ask((-offset.offset_ms * 1e6) as i128)?;
            offset = self.measure()?;
        }
        Ok(offset)
    }

    fn ask(&mut self, change: i128) -> Result<i128> {
        let stdin = self.stdin.as_mut().context("closed")?;
        stdin.write_all(format!("{change}\n").as_bytes())?;
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            bail!("the host does not tell its time");
        }
        line.trim().parse().context("not a time")
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        // At the end of its input the servant ends, and with it the connection. Nothing hangs on how.
        drop(self.stdin.take());
        self.child.wait().ok();
    }
}

fn now() -> i128 {
    // Before 1970 there was no lab.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |t| t.as_nanos() as i128)
}
