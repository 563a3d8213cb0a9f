//! As much of QMP as it takes to save and restore an emulated host.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A QMP connection that has been negotiated.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects and negotiates. An answer may take `limit`.
    ///
    /// # Errors
    /// QEMU does not listen there, or another client is connected: QEMU serves one at a time.
    pub fn connect(socket: &Path, limit: Duration) -> Result<Self> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("QEMU does not listen at {}", socket.display()))?;
        stream.set_read_timeout(Some(limit))?;
        let mut qmp = Self {
            stream: BufReader::new(stream),
        };
        qmp.read().context("no greeting: is another client connected?")?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Executes a command, and answers what it returns. Events that come in between are dropped.
    ///
    /// # Errors
    /// QEMU's own description.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        self.stream.get_mut().write_all(format!("{request}\n").as_bytes())?;
        loop {
            let mut answer = self.read().with_context(|| format!("no answer to {command}"))?;
            if let Some(error) = answer.get("error") {
                bail!("{command}: {}", error["desc"].as_str().unwrap_or("no description"));
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// Waits for the end of a migration, which is how QEMU saves and restores.
    ///
    /// # Errors
    /// It fails, or takes longer than `limit`.
    pub fn finish_migration(&mut self, limit: Duration) -> Result<()> {
        crate::process::until("QEMU's migration to or from a file", limit, || {
            let answer = self.execute("query-migrate", json!({}))?;
            match answer["status"].as_str() {
                Some("completed") => Ok(Some(())),
                Some("failed" | "cancelled") => {
                    bail!(
                        "QEMU: {}",
                        answer["error-desc"]
                            .as_str()
                            .unwrap_or("the migration failed, without a reason")
                    )
                }
                _ => Ok(None),
            }
        })
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("QEMU has closed the connection");
        }
        Ok(serde_json::from_str(&line)?)
    }
}
