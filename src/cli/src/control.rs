//! Talking to hybondd.

use crate::failure::{Failure, Kind, chain};
use crate::output::plain;
use hybond_wire::control::{HostStatus, Phase, REQUEST_LIMIT, RESPONSE_LIMIT, Request, Response};
use hybond_wire::line::{LineBuffer, encode};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What hybondd answers from memory, it answers at once.
pub const QUERY: Duration = Duration::from_secs(10);
/// hybondd takes connections at once, or is not well.
const CONNECT_SECONDS: i64 = 5;

/// One request, and its answers.
#[derive(Debug)]
pub struct Exchange {
    stream: UnixStream,
    buffer: LineBuffer,
    socket: PathBuf,
    ends: Option<(Instant, Duration)>,
}

impl Exchange {
    /// Sends the request. Its answers have to come `within` that time; without it, it is waited until the other end, or
    /// [`Exchange::stream`], is closed.
    pub fn begin(socket: &Path, request: &Request, within: Option<Duration>) -> Result<Self, Failure> {
        let stream = open(socket)?;
        let mut exchange = Self {
            stream,
            buffer: LineBuffer::new(RESPONSE_LIMIT),
            socket: socket.to_owned(),
            ends: within.map(|within| (Instant::now() + within, within)),
        };
        let line = encode(request, REQUEST_LIMIT).map_err(|error| Failure::new(Kind::Usage, chain(&error)))?;
        exchange.limit_wait()?;
        let written = exchange.stream.write_all(&line);
        written.map_err(|error| exchange.lost(&error))?;
        Ok(exchange)
    }

    /// The connection, to shut it down from another thread.
    pub fn stream(&self) -> Result<UnixStream, Failure> {
        self.stream.try_clone().map_err(|error| self.lost(&error))
    }

    /// The next answer.
    pub fn next(&mut self) -> Result<Response, Failure> {
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(line) = self.buffer.next_line().map_err(|error| self.strange(&error))? {
                let answer = hybond_wire::line::decode(&line, RESPONSE_LIMIT);
                return answer.map_err(|error| self.strange(&error));
            }
            self.limit_wait()?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(self.lost(&std::io::Error::from(ErrorKind::UnexpectedEof))),
                Ok(length) => self.buffer.push(chunk.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.lost(&error)),
            }
        }
    }

    /// The final answer; phases before it go to `on_phase`.
    pub fn finish(mut self, mut on_phase: impl FnMut(&str, &Phase)) -> Result<Response, Failure> {
        loop {
            match self.next()? {
                Response::Progress { domain, phase } => on_phase(&domain, &phase),
                Response::Error { kind, message } => return Err(Failure::new(kind.into(), plain(&message))),
                response => return Ok(response),
            }
        }
    }

    /// Lets the next read or write wait for what is left of the time.
    fn limit_wait(&self) -> Result<(), Failure> {
        let Some((ends, within)) = self.ends else {
            return Ok(());
        };
        let left = ends.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(no_answer(within));
        }
        let set = self.stream.set_read_timeout(Some(left));
        set.and_then(|()| self.stream.set_write_timeout(Some(left)))
            .map_err(|error| self.lost(&error))
    }

    fn lost(&self, error: &std::io::Error) -> Failure {
        match (error.kind(), self.ends) {
            (ErrorKind::WouldBlock | ErrorKind::TimedOut, Some((_, within))) => no_answer(within),
            (ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset, _) => Failure::new(
                Kind::Daemon,
                "hybondd closed the connection without an answer; see 'journalctl -u hybondd'",
            ),
            _ => Failure::new(
                Kind::Daemon,
                format!("talking to hybondd at {} failed: {error}", self.socket.display()),
            ),
        }
    }

    fn strange(&self, error: &dyn std::error::Error) -> Failure {
        Failure::new(
            Kind::Daemon,
            format!(
                "hybondd at {} gave an answer that this hybondctl does not understand ({}); they are not of one release, \
                 run 'systemctl restart hybondd'",
                self.socket.display(),
                chain(error)
            ),
        )
    }
}

/// A request that is answered at once.
pub fn query(socket: &Path, request: &Request) -> Result<Response, Failure> {
    Exchange::begin(socket, request, Some(QUERY))?.finish(|_, _| ())
}

/// How this host plugs.
pub fn host(socket: &Path) -> Result<HostStatus, Failure> {
    match query(socket, &Request::Host)? {
        Response::Host { host } => Ok(host),
        other => Err(unexpected(&other)),
    }
}

/// An answer to something else.
pub fn unexpected(response: &Response) -> Failure {
    let mut shown = format!("{response:?}");
    shown.truncate(shown.char_indices().nth(60).map_or(shown.len(), |(at, _)| at));
    Failure::new(
        Kind::Daemon,
        format!("hybondd answered something else than was asked: {shown}"),
    )
}

fn no_answer(within: Duration) -> Failure {
    Failure::new(
        Kind::Daemon,
        format!(
            "hybondd has not answered within {} s; see 'hybondctl status' and 'journalctl -u hybondd'",
            within.as_secs()
        ),
    )
}

/// Connects, and waits a bounded time where the daemon's backlog is full; std's `connect` would wait for ever.
fn open(path: &Path) -> Result<UnixStream, Failure> {
    let attempt = || -> nix::Result<UnixStream> {
        let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd, sockopt::SendTimeout, &TimeVal::seconds(CONNECT_SECONDS))?;
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(UnixStream::from(fd))
    };
    attempt().map_err(|errno| {
        let path = path.display();
        let message = match errno {
            nix::Error::ENOENT | nix::Error::ECONNREFUSED => {
                format!("hybondd is not running on this host (nothing listens at {path}): systemctl start hybondd")
            }
            nix::Error::EACCES | nix::Error::EPERM => {
                format!("{path} may be used by root and the group hybond only: sudo, or usermod -aG hybond USER")
            }
            nix::Error::EAGAIN => {
                format!("hybondd does not take connections at {path}; see 'journalctl -u hybondd'")
            }
            other => format!("hybondd cannot be reached at {path}: {}", other.desc()),
        };
        Failure::new(Kind::Daemon, message)
    })
}
