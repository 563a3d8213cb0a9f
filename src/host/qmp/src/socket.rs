//! The unix socket of a monitor: whole lines in, lines with a descriptor out, nothing blocks.

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Longest line taken from QEMU. `query-qmp-schema`, the longest answer there is, has 0.3 MB in QEMU 10.
pub(crate) const LONGEST_LINE: usize = 16 * 1024 * 1024;
/// Read at once. Into memory of the reader's own: a thousand monitors that say nothing keep no room for what they might say.
const READ: usize = 16 * 1024;

/// A line on its way to QEMU.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub bytes: Vec<u8>,
    pub fd: Option<OwnedFd>,
    done: usize,
}

impl Outgoing {
    pub fn new(bytes: Vec<u8>, fd: Option<OwnedFd>) -> Self {
        Self { bytes, fd, done: 0 }
    }

    /// Part of it has left, so nothing may be put before the rest.
    pub fn begun(&self) -> bool {
        self.done > 0
    }
}

pub(crate) enum Line {
    Whole(Vec<u8>),
    /// Longer than [`LONGEST_LINE`]; dropped.
    TooLong,
}

#[derive(Debug)]
pub(crate) struct Socket {
    stream: UnixStream,
    held: Vec<u8>,
    /// Up to here `held` has no newline.
    searched: usize,
    /// The rest of a line that is too long is on its way.
    skipping: bool,
}

impl Socket {
    pub async fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self::over(UnixStream::connect(path).await?))
    }

    pub fn over(stream: UnixStream) -> Self {
        Self {
            stream,
            held: Vec::new(),
            searched: 0,
            skipping: false,
        }
    }

    /// Waits for bytes and takes them in.
    pub async fn fill(&mut self) -> io::Result<()> {
        loop {
            self.readable().await?;
            if self.take()? {
                return Ok(());
            }
        }
    }

    pub async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    /// Takes in what has arrived; `false` where that is nothing.
    pub fn take(&mut self) -> io::Result<bool> {
        let mut bytes = [0; READ];
        match self.stream.try_read(&mut bytes) {
            Ok(0) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "QEMU closed the connection",
            )),
            Ok(n) => {
                self.held.extend_from_slice(&bytes[..n]);
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The next line that has arrived whole.
    pub fn line(&mut self) -> Option<Line> {
        loop {
            let Some(end) = self.held[self.searched..].iter().position(|b| *b == b'\n') else {
                self.searched = self.held.len();
                if self.searched <= LONGEST_LINE {
                    return None;
                }
                self.held = Vec::new();
                self.searched = 0;
                if !std::mem::replace(&mut self.skipping, true) {
                    return Some(Line::TooLong);
                }
                return None;
            };
            let line: Vec<u8> = self.held.drain(..=self.searched + end).collect();
            self.searched = 0;
            // An answer does not keep its memory for the life of the domain.
            if self.held.is_empty() {
                self.held = Vec::new();
            }
            if !std::mem::take(&mut self.skipping) {
                return Some(Line::Whole(line));
            }
        }
    }

    pub async fn writable(&self) -> io::Result<()> {
        self.stream.writable().await
    }

    /// Sends what fits; `true` when the line is out. The descriptor goes with the first byte, as QEMU takes it from the
    /// message that carries the command.
    pub fn send(&self, line: &mut Outgoing) -> io::Result<bool> {
        while line.done < line.bytes.len() {
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                let data = [IoSlice::new(&line.bytes[line.done..])];
                let fds: Vec<_> = line.fd.iter().map(AsRawFd::as_raw_fd).collect();
                let rights = [ControlMessage::ScmRights(&fds)];
                let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                Ok(sendmsg::<()>(self.stream.as_raw_fd(), &data, control, flags, None)?)
            });
            match sent {
                Ok(n) => {
                    line.done += n;
                    line.fd = None;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}
