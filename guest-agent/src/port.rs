//! The virtio-serial port.
//!
//! A port whose other end is closed polls as readable and hung up for ever (`port_fops_poll` in the kernel's
//! virtio_console), and reads give 0: a loop over poll(2) would spin until a daemon comes. Nothing but a change of the
//! port wakes its wait queue, though (`VIRTIO_CONSOLE_PORT_OPEN`, data, room), so the port is watched edge-triggered: one
//! wake-up for each change, none while nothing happens, and neither a thread nor SIGIO.
//!
//! Data comes through a queue and an interrupt of its own, the other end's opening and closing through another queue and a
//! work item: a host's first line can be there before its opening is known, and a read behind it then gives 0, too. That
//! is no disconnection; one counts only when the port has been seen connected before it.

use crate::outbox::Outbox;
use hybond_wire::agent::{LIMIT, PORT, ToAgent};
use hybond_wire::line::{self, LineBuffer};
use nix::errno::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Reads of one wake-up: a host that never stops sending must not keep the agent from its links.
const READS_MAX: usize = 16;

/// What came through the port.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A message.
    Message(ToAgent),
    /// A line that is none, with its id where it has one.
    NotUnderstood(Option<u64>, String),
    /// The other end was closed.
    Gone,
}

/// The port, open.
#[derive(Debug)]
pub struct Port {
    file: File,
    lines: LineBuffer,
    /// A line of which a part is written.
    partial: Vec<u8>,
    host: Host,
}

/// The other end, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    Gone,
    /// Data came; the port has not said that it is connected.
    Heard,
    Connected,
}

/// All that has to be known of a line to refuse it.
#[derive(serde::Deserialize)]
struct OnlyId {
    id: u64,
}

impl Port {
    /// Where the port is: udev's link, or by name in sysfs where there is no udev.
    pub fn find() -> Option<PathBuf> {
        let link = PathBuf::from("/dev/virtio-ports").join(PORT);
        if link.exists() {
            return Some(link);
        }
        let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
        ports
            .flatten()
            .find(|port| fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == PORT))
            .map(|port| PathBuf::from("/dev").join(port.file_name()))
    }

    /// Opens the port. One process at a time can: EBUSY means that another agent runs.
    pub fn open(path: &PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)?;
        Ok(Self {
            file,
            lines: LineBuffer::new(LIMIT),
            partial: Vec::new(),
            host: Host::Gone,
        })
    }

    /// The last read has found nobody on the other end.
    pub fn nobody(&self) -> bool {
        self.host == Host::Gone
    }

    /// For epoll.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Reads what is there; true if there may be more. An error: the port was unplugged.
    pub fn read(&mut self, mut each: impl FnMut(Incoming)) -> io::Result<bool> {
        let mut buffer = [0u8; LIMIT];
        for _ in 0..READS_MAX {
            match self.file.read(&mut buffer) {
                Ok(0) => {
                    if self.host == Host::Connected {
                        self.host = Host::Gone;
                        self.partial.clear();
                        self.lines = LineBuffer::new(LIMIT);
                        each(Incoming::Gone);
                    }
                    return Ok(false);
                }
                Ok(length) => {
                    if self.host == Host::Gone {
                        self.host = Host::Heard;
                    }
                    self.lines.push(&buffer[..length]);
                    self.take_lines(&mut each);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.host = Host::Connected;
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn take_lines(&mut self, each: &mut impl FnMut(Incoming)) {
        loop {
            match self.lines.next_line() {
                Ok(Some(line)) if line.is_empty() => {}
                Ok(Some(line)) => each(understand(&line)),
                Ok(None) => return,
                Err(error) => each(Incoming::NotUnderstood(None, error.to_string())),
            }
        }
    }

    /// Writes what waits, as far as there is room. Room is announced by epoll.
    pub fn write(&mut self, out: &mut Outbox) -> io::Result<()> {
        loop {
            if self.partial.is_empty() {
                let Some(message) = out.pop() else {
                    return Ok(());
                };
                match line::encode(&message, LIMIT) {
                    Ok(line) => self.partial = line,
                    Err(error) => log!(error, "message for the host not sent: {error}"),
                }
                continue;
            }
            match self.file.write(&self.partial) {
                Ok(length) => drop(self.partial.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// A line as a message. When a guest is migrated while its host was writing, the beginning of a line from the source and
/// a whole one from the destination arrive as one: the last beginning of a message counts.
fn understand(line: &[u8]) -> Incoming {
    let error = match line::decode(line, LIMIT) {
        Ok(message) => return Incoming::Message(message),
        Err(error) => error,
    };
    const BEGINNING: &[u8] = b"{\"type\":";
    let begins = line.windows(BEGINNING.len()).rposition(|window| window == BEGINNING);
    if let Some(message) = begins
        .filter(|at| *at > 0)
        .and_then(|at| line::decode(&line[at..], LIMIT).ok())
    {
        return Incoming::Message(message);
    }
    let id = line::decode::<OnlyId>(line, LIMIT).ok().map(|only| only.id);
    let cause = std::error::Error::source(&error)
        .map(|cause| format!(": {cause}"))
        .unwrap_or_default();
    Incoming::NotUnderstood(id, format!("{error}{cause}"))
}

/// The port was unplugged, or its driver unbound.
pub fn unplugged(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::ENODEV | Errno::EPIPE | Errno::ENXIO | Errno::EIO)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cut_by_a_migration_does_not_take_the_next_one_with_it() {
        let whole = br#"{"type":"hello","id":7,"version":1,"pairs":["52:54:00:aa:00:01"]}"#;
        let mut line = br#"{"type":"failover","id":6,"ma"#.to_vec();
        line.extend_from_slice(whole);
        let Incoming::Message(ToAgent::Hello { id, .. }) = understand(&line) else {
            panic!("the hello is understood");
        };
        assert_eq!(id, 7);
    }

    #[test]
    fn what_is_no_message_is_refused_by_its_id_or_skipped() {
        for (line, expected) in [
            (&br#"{"type":"reboot","id":3}"#[..], Some(3)),
            (br#"{"id":4,"type":"failover","mac":"not one","overlap_ms":1}"#, Some(4)),
            (br#"{"type":"hello"}"#, None),
            (b"\xff\x00garbage{\"type\":", None),
            (b"[[[[", None),
        ] {
            let Incoming::NotUnderstood(id, reason) = understand(line) else {
                panic!("{line:?} is understood");
            };
            assert_eq!(id, expected, "{reason}");
        }
    }
}
