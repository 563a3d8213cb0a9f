//! A daemon of the test's own, and hybondctl run against it.

use hybond_wire::control::{REQUEST_LIMIT, RESPONSE_LIMIT, Request, Response};
use hybond_wire::line;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;

/// Takes as many connections as there are scripts, and answers each with the lines of its script.
pub struct Daemon {
    folder: tempfile::TempDir,
    thread: JoinHandle<Vec<Request>>,
}

impl Daemon {
    pub fn answering(scripts: Vec<Vec<Response>>) -> Self {
        let encode = |r: &Response| line::encode(r, RESPONSE_LIMIT).expect("short");
        let bytes = scripts.iter().map(|script| script.iter().flat_map(encode).collect());
        Self::sending(bytes.collect())
    }

    pub fn sending(scripts: Vec<Vec<u8>>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("control.sock")).expect("a socket");
        let serve = move |script: Vec<u8>| {
            let (mut stream, _) = listener.accept().expect("a connection");
            let request = request(&stream);
            stream.write_all(&script).expect("hybondctl reads");
            request
        };
        let thread = std::thread::spawn(move || scripts.into_iter().map(serve).collect());
        Self { folder, thread }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// What was asked. Waits until every script was used.
    pub fn requests(self) -> Vec<Request> {
        self.thread.join().expect("the daemon lives")
    }
}

fn request(stream: &UnixStream) -> Request {
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream);
    reader.read_until(b'\n', &mut line).expect("a request");
    line::decode(&line, REQUEST_LIMIT).expect("one that the daemon knows")
}

/// What came out of one call.
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// stdout of a call that went well.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "stderr: {}", self.stderr);
        self.stdout
    }

    /// A failure with this exit code and these words.
    #[track_caller]
    pub fn assert_failed(&self, code: i32, words: &str) {
        assert_eq!(
            self.code,
            Some(code),
            "stdout: {}\nstderr: {}",
            self.stdout,
            self.stderr
        );
        assert!(self.stderr.contains(words), "{} lacks {words}", self.stderr);
    }

    /// stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).expect("JSON")
    }
}

pub fn hybondctl(socket: &Path, arguments: &[&str]) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_hybondctl"))
        .arg("--socket")
        .arg(socket)
        .args(arguments)
        .output()
        .expect("hybondctl starts");
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}
