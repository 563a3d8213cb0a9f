//! One request to the daemon.

use crate::call::{Call, host, plain};
use hybond_wire::hook::{LIMIT, Request, Response, SOCKET, SourceEdit};
use hybond_wire::line;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Longest reason of the daemon's that is passed on.
const REASON: usize = 2000;

/// What of the XML is to be another.
#[derive(Debug)]
pub struct Changes {
    /// Lower devices; none where they are right as they are.
    pub sources: Vec<SourceEdit>,
    /// QEMU is to get all of the guest's memory when it starts.
    pub preallocate: bool,
}

/// Asks, and gives what is to be changed.
pub fn ask(call: &Call, request: &Request) -> Result<Changes, String> {
    let message = line::encode(request, LIMIT).map_err(|error| error.to_string())?;
    let socket = socket();
    let mut stream = UnixStream::connect(&socket).map_err(|error| not_running(call, &socket, &error))?;
    let io = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => no_answer(call),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => closed(),
        _ => format!("talking to hybondd failed: {error}; see 'journalctl -u hybondd'"),
    };
    // The deadline of the process comes first; these are for the case that it could not be set.
    stream.set_read_timeout(Some(call.deadline)).map_err(io)?;
    stream.set_write_timeout(Some(call.deadline)).map_err(io)?;
    stream.write_all(&message).map_err(io)?;
    let answer = read_line(&mut stream, io)?;
    match line::decode(&answer, LIMIT) {
        Ok(Response::Proceed { sources, preallocate }) => Ok(Changes { sources, preallocate }),
        Ok(Response::Refuse { reason }) => Err(sentence(&reason)),
        Err(error) => Err(not_understood(&error)),
    }
}

/// The first line of the answer. Bytes after it, or none at all, are no answer.
fn read_line(stream: &mut UnixStream, io: impl Fn(std::io::Error) -> String) -> Result<Vec<u8>, String> {
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let length = match stream.read(&mut chunk) {
            Ok(0) => return Err(closed()),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(io(error)),
        };
        answer.extend_from_slice(chunk.get(..length).unwrap_or_default());
        match answer.iter().position(|b| *b == b'\n') {
            Some(end) if end + 1 == answer.len() => return Ok(answer),
            Some(_) => return Err(not_understood(&"more than one line")),
            None if answer.len() > LIMIT => return Err(not_understood(&line::LineError::TooLong { limit: LIMIT })),
            None => {}
        }
    }
}

/// Where the daemon listens; elsewhere in tests (see `Call::deadline` on the environment).
fn socket() -> PathBuf {
    std::env::var_os("HYBOND_HOOK_SOCKET").map_or_else(|| PathBuf::from(SOCKET), PathBuf::from)
}

fn not_running(call: &Call, socket: &std::path::Path, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => format!(
            "hybondd is not running on {}; start it with 'systemctl start hybondd', or take hybond out of the domain \
             with 'hybondctl disable {}'",
            host(),
            call.domain
        ),
        _ => format!("hybondd cannot be reached at {}: {error}", socket.display()),
    }
}

/// The deadline has passed.
pub fn no_answer(call: &Call) -> String {
    format!(
        "hybondd has not answered within {} s; see 'journalctl -u hybondd', and try again",
        call.deadline.as_secs_f32()
    )
}

fn closed() -> String {
    "hybondd closed the connection without an answer; see 'journalctl -u hybondd', and try again".to_owned()
}

fn not_understood(error: &dyn std::fmt::Display) -> String {
    format!(
        "hybondd gave an answer that this hook does not understand ({error}); they are not of one release: run \
         'systemctl restart hybondd'"
    )
}

/// The daemon's reason as one line for a terminal.
fn sentence(reason: &str) -> String {
    let mut left = REASON;
    let words: Vec<String> = reason
        .split_whitespace()
        .map(plain)
        .take_while(|word| {
            left = left.saturating_sub(word.len() + 1);
            left > 0
        })
        .collect();
    if words.is_empty() {
        return "refused by hybondd without a reason; see 'journalctl -u hybondd'".to_owned();
    }
    words.join(" ")
}
