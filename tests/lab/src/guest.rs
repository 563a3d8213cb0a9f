//! Commands in a guest, over a virtio-serial port that has nothing to do with the guest's network.

use crate::machine::{Machine, Output};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A guest of the lab, by its domain's name. It may be on either host.
#[derive(Debug, Clone)]
pub struct Guest {
    domain: String,
}

impl Guest {
    /// The guest of a domain.
    #[must_use]
    pub fn new(domain: &str) -> Self {
        Self { domain: domain.into() }
    }

    /// The console log on a host, from the guest's start there.
    ///
    /// # Errors
    /// The domain never ran there.
    pub fn console(&self, host: &impl Machine) -> Result<String> {
        host.read_file(&self.console_log())
    }

    /// Removes the console log of earlier lives, before the domain starts again: [`Guest::wait_ready`] looks for a word in it.
    ///
    /// # Errors
    /// The host cannot remove it.
    pub fn forget_console(&self, host: &impl Machine) -> Result<()> {
        host.ok(&format!("rm -f {}", self.console_log()))?;
        Ok(())
    }

    /// Waits until the guest has booted.
    ///
    /// # Errors
    /// It has not within `limit`.
    pub fn wait_ready(&self, host: &impl Machine, limit: Duration) -> Result<()> {
        let script = format!("grep -a L2READY {}", self.console_log());
        host.until(&format!("boot of guest {}", self.domain), &script, limit)?;
        Ok(())
    }

    fn console_log(&self) -> String {
        format!("/var/log/libvirt/qemu/{}-console.log", self.domain)
    }

    /// Runs one line of shell in the guest, which is on `host`. Both streams are in `stdout`.
    ///
    /// # Errors
    /// The guest does not answer within `limit`: it is not there, or its CPUs do not run.
    pub fn run_within(&self, host: &impl Machine, line: &str, limit: Duration) -> Result<Output> {
        anyhow::ensure!(!line.contains('\n'), "a command of the guest is one line");
        // Answers to a client that has given up reach the next one: the id tells whose an answer is.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let id = format!("{since:x}.{}", COUNT.fetch_add(1, Ordering::Relaxed));

        // libvirt's own path, which holds the domain's number and changes with each start.
        let connect = format!(
            "exec socat -t0.1 - UNIX-CONNECT:$(ls -d /run/libvirt/qemu/channel/*-{}/org.hybond.test.0)",
            self.domain
        );
        let mut child = host
            .command(&connect)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot connect to the guest")?;
        let mut stdin = child.stdin.take().context("no pipe")?;
        let stdout = child.stdout.take().context("no pipe")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        // A connection that has failed is seen by its end below.
        stdin.write_all(format!("{id} {line}\n").as_bytes()).ok();
        let answer = self.answer(&lines, &id, limit);
        drop(stdin);
        if answer.is_err() {
            child.kill().ok();
        }
        let rest = child.wait_with_output()?;
        answer.with_context(|| {
            let why = String::from_utf8_lossy(&rest.stderr).trim().to_owned();
            format!("guest {} on {}: \"{line}\": {why}", self.domain, host.name())
        })
    }

    /// As [`Guest::run_within`] with a limit of 60 s, for a command that must succeed; answers what it printed.
    ///
    /// # Errors
    /// It fails, or the guest does not answer.
    pub fn ok(&self, host: &impl Machine, line: &str) -> Result<String> {
        let output = self.run_within(host, line, Duration::from_secs(60))?;
        if !output.success() {
            bail!(
                "guest {}: \"{line}\" ended with {}: {}",
                self.domain,
                output.status,
                output.stdout.trim()
            );
        }
        Ok(output.stdout)
    }

    fn answer(&self, lines: &mpsc::Receiver<String>, id: &str, limit: Duration) -> Result<Output> {
        let start = Instant::now();
        let (first, last) = (format!("<{id}"), format!(">{id} "));
        let mut stdout: Option<String> = None;
        loop {
            let line = match lines.recv_timeout(limit.saturating_sub(start.elapsed())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => bail!("no answer within {} s", limit.as_secs()),
                Err(RecvTimeoutError::Disconnected) => bail!("the connection has ended"),
            };
            match &mut stdout {
                None if line == first => stdout = Some(String::new()),
                None => {}
                Some(text) => match line.strip_prefix(&last) {
                    Some(status) => {
                        // The line break before the last line is the shell's, not the command's.
                        if text.ends_with('\n') {
                            text.pop();
                        }
                        let status = status.trim().parse().context("exit status")?;
                        return Ok(Output {
                            status,
                            stdout: std::mem::take(text),
                            stderr: String::new(),
                        });
                    }
                    None => {
                        text.push_str(&line);
                        text.push('\n');
                    }
                },
            }
        }
    }
}
