//! Processes that the lab starts, each recorded, so that they and no others are ended, also after an interrupted run.

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Read;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How a command ended, and what it printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit status; −1 for a command that was ended by a signal.
    pub status: i32,
    /// Standard output, lossily decoded.
    pub stdout: String,
    /// Standard error, lossily decoded.
    pub stderr: String,
}

impl Output {
    /// Whether the command ended with status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status == 0
    }

    /// That it did; `what` it was otherwise.
    ///
    /// # Errors
    /// It did not: the error has what it printed.
    pub fn succeeded(&self, what: &str) -> Result<()> {
        if !self.success() {
            let said = [self.stdout.trim(), self.stderr.trim()].join(" ");
            bail!("{what} ended with {}: {}", self.status, said.trim());
        }
        Ok(())
    }
}

/// A child that is killed when this goes, unless it has ended by itself. All else is [`Child`]'s.
#[derive(Debug)]
pub struct KilledOnDrop(Child);

impl From<Child> for KilledOnDrop {
    fn from(child: Child) -> Self {
        Self(child)
    }
}

impl Deref for KilledOnDrop {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for KilledOnDrop {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            // It may end just now, and then needs no end.
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }
}

/// Runs a command to its end, with `input` on its standard input, at most for `limit`.
///
/// # Errors
/// It cannot be started, or has not ended in time; it is then killed. A failing command is not an error.
pub fn run(command: &mut Command, input: Option<&[u8]>, limit: Duration) -> Result<Output> {
    let name = format!("{command:?}");
    let mut child = command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    // Each stream has a thread: a command that fills one pipe while we read the other would never end.
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let feeder = child
        .stdin
        .take()
        .zip(input.map(<[u8]>::to_vec))
        .map(|(mut stdin, bytes)| {
            // A command that does not read its input to the end is judged by its exit status.
            thread::spawn(move || std::io::Write::write_all(&mut stdin, &bytes).ok())
        });
    let status = wait(&mut child, limit).with_context(|| format!("{name} was ended"))?;
    if let Some(feeder) = feeder {
        feeder.join().ok();
    }
    let text = |thread: thread::JoinHandle<Vec<u8>>| {
        let bytes = thread.join().unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok(Output {
        status: status.code().unwrap_or(-1),
        stdout: text(stdout),
        stderr: text(stderr),
    })
}

/// Runs a command that must succeed, and answers what it printed.
///
/// # Errors
/// With what it wrote on standard error.
pub fn run_ok(command: &mut Command) -> Result<String> {
    let output = run(command, None, Duration::from_secs(60))?;
    if !output.success() {
        bail!("{command:?} ended with {}: {}", output.status, output.stderr.trim());
    }
    Ok(output.stdout)
}

fn collect(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read before an error is all that there is to show.
            stream.read_to_end(&mut bytes).ok();
        }
        bytes
    })
}

fn wait(child: &mut Child, limit: Duration) -> Result<std::process::ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("it had not ended after {} s", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `ready` answers something.
///
/// # Errors
/// `ready` fails, or answers nothing for `limit`; the error then names `what`.
pub fn until<T>(what: &str, limit: Duration, ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    until_every(Duration::from_millis(50), what, limit, ready)
}

/// As [`until`], with a pause of its own between two tries: for what costs the machine something to ask.
///
/// # Errors
/// As there.
pub fn until_every<T>(
    pause: Duration,
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        thread::sleep(pause);
    }
}

/// Record of processes: one file per process, named by its number, with a text that its command line must contain.
#[derive(Debug, Clone)]
pub struct Ledger {
    folder: PathBuf,
}

impl Ledger {
    /// The record in `folder`, which is made if need be.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// Records a process. `mark` tells it from another process that is given the same number later.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn add(&self, pid: u32, mark: &str) -> Result<()> {
        fs::write(self.folder.join(pid.to_string()), mark).context("cannot record a process")
    }

    /// Whether any recorded process still runs.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn alive(&self) -> Result<bool> {
        Ok(self.entries()?.iter().any(|(pid, mark, _)| is(*pid, mark)))
    }

    /// Ends what was recorded: first politely, then not.
    ///
    /// # Errors
    /// The record cannot be read, or a process cannot be ended.
    pub fn end_all(&self) -> Result<()> {
        let entries = self.entries()?;
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            for (pid, mark, _) in entries.iter().filter(|(pid, mark, _)| is(*pid, mark)) {
                match kill(Pid::from_raw(*pid), signal) {
                    // It has ended by itself.
                    Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                    Err(errno) => return Err(errno).with_context(|| format!("cannot end process {pid} ({mark})")),
                }
            }
            let ended = until("end of processes", Duration::from_secs(5), || {
                Ok((!entries.iter().any(|(pid, mark, _)| is(*pid, mark))).then_some(()))
            });
            if ended.is_ok() {
                break;
            }
        }
        for (_, _, file) in entries {
            fs::remove_file(file)?;
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<(i32, String, PathBuf)>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.folder).with_context(|| format!("cannot list {}", self.folder.display()))? {
            let path = entry?.path();
            let pid = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok());
            if let Some(pid) = pid {
                entries.push((pid, fs::read_to_string(&path)?, path));
            }
        }
        Ok(entries)
    }
}

/// Whether process `pid` runs and is the one that was recorded with `mark`. A zombie has no command line any more.
fn is(pid: i32, mark: &str) -> bool {
    let command_line = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"));
    command_line.is_ok_and(|line| String::from_utf8_lossy(&line).replace('\0', " ").contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_never_ends_is_ended() {
        let error = run(Command::new("sleep").arg("60"), None, Duration::from_millis(50)).expect_err("too slow");
        assert!(format!("{error:#}").contains("had not ended"), "{error:#}");
    }

    #[test]
    fn output_larger_than_a_pipe_arrives_whole() {
        let mut command = Command::new("sh");
        command.args(["-c", "cat; head -c 300000 /dev/zero | tr '\\0' x >&2; exit 3"]);
        let output = run(&mut command, Some(&[b'y'; 200_000]), Duration::from_secs(20)).expect("runs");
        assert_eq!(
            (output.status, output.stdout.len(), output.stderr.len()),
            (3, 200_000, 300_000)
        );
    }

    #[test]
    fn only_the_recorded_process_is_ended() {
        let folder = std::env::temp_dir().join(format!("hb-ledger-{}", std::process::id()));
        let ledger = Ledger::open(folder.clone()).expect("a folder");
        let mut recorded = Command::new("sleep").arg("61.5").spawn().expect("starts");
        let mut reused = Command::new("sleep").arg("62.5").spawn().expect("starts");
        ledger.add(recorded.id(), "sleep 61.5").expect("recorded");
        ledger
            .add(reused.id(), "qemu-system-x86_64 of an earlier run")
            .expect("recorded");
        let reaper = thread::spawn(move || recorded.wait());
        ledger.end_all().expect("ended");
        assert!(!reaper.join().expect("joined").expect("waited").success());
        assert!(
            reused.try_wait().expect("waited").is_none(),
            "another's process was ended"
        );
        reused.kill().expect("killed");
        reused.wait().expect("waited");
        fs::remove_dir_all(folder).expect("removed");
    }
}
