//! A client of another's: it blocks, knows nothing of guards, and plays libvirt.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A monitor connection.
pub struct Monitor {
    stream: BufReader<UnixStream>,
    events: Vec<Value>,
}

impl Monitor {
    /// Connects and negotiates.
    ///
    /// # Panics
    /// Where QEMU does not behave.
    #[must_use]
    pub fn connect(path: &Path) -> Self {
        let end = Instant::now() + crate::LONG;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(e) => assert!(Instant::now() < end, "{}: {e}", path.display()),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        stream.set_read_timeout(Some(crate::LONG)).expect("timeout");
        let mut monitor = Self {
            stream: BufReader::new(stream),
            events: Vec::new(),
        };
        monitor.line();
        monitor.run("qmp_capabilities", json!({}));
        monitor
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("QEMU writes");
        serde_json::from_str(&line).expect("QMP")
    }

    /// Runs a command; the whole answer.
    ///
    /// # Panics
    /// Where QEMU does not answer.
    pub fn answer(&mut self, command: &str, arguments: Value) -> Value {
        let line = json!({"execute": command, "arguments": arguments}).to_string();
        self.stream.get_mut().write_all(line.as_bytes()).expect("QEMU reads");
        loop {
            let answer = self.line();
            if answer.get("event").is_none() {
                return answer;
            }
            self.events.push(answer);
        }
    }

    /// Runs a command that must succeed.
    ///
    /// # Panics
    /// Where it does not.
    pub fn run(&mut self, command: &str, arguments: Value) -> Value {
        let mut answer = self.answer(command, arguments);
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        answer["return"].take()
    }

    /// Waits for the migration to end; its last status.
    ///
    /// # Panics
    /// Where it does not end.
    pub fn migration(&mut self) -> Value {
        let end = Instant::now() + crate::LONG;
        loop {
            let status = self.run("query-migrate", json!({}));
            if matches!(status["status"].as_str(), Some("completed" | "failed" | "cancelled")) {
                return status;
            }
            assert!(Instant::now() < end, "{status}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
