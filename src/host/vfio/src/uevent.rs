//! The kernel's own word that PCI functions or NICs have come or gone: its uevents, which are what udev hears too.
//!
//! A write to `sriov_numvfs` makes one `add` or `remove` for each VF (`device_add()`, `device_del()`), and `change` for the PF
//! (`sriov_enable()`), whatever the PF's driver does; a link event of the PF comes only from drivers that take it down. They
//! are sent while the write is still under way, and `sriov_numvfs` cannot be read until it is over (`sriov_numvfs_show()`
//! takes the device's lock): who looks at sysfs then sees all of it.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, setsockopt, socket, sockopt,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram as Datagrams;
use tokio::net::UnixDatagram;

/// Multicast group of the kernel's own events; udev's are in group 2 (`lib/kobject_uevent.c`).
const KERNEL: u32 = 1;
/// More than the kernel ever sends: `UEVENT_BUFFER_SIZE` is 2048, and a path stands before it.
const LONGEST: usize = 8192;
/// A card may make 256 VFs in one go, each with events of some hundred bytes.
const BUFFER: usize = 1024 * 1024;

/// Why there are no uevents.
#[derive(Debug, thiserror::Error)]
pub enum UeventError {
    /// At the beginning.
    #[error("cannot listen to the kernel's device events")]
    Open(#[source] io::Error),
    /// Later.
    #[error("the kernel's device events have broken off")]
    Broken(#[source] io::Error),
}

/// Events from now on.
#[derive(Debug)]
pub struct Uevents {
    /// A netlink socket. tokio has no type for one, and datagrams of every family are waited for and received alike.
    socket: UnixDatagram,
}

impl Uevents {
    /// Begins to listen. To be called within a runtime.
    ///
    /// # Errors
    /// There is no such socket to be had: in a user namespace that is not the host's, there are no events.
    pub fn open() -> Result<Self, UeventError> {
        let open = || -> nix::Result<OwnedFd> {
            let fd = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                SockProtocol::NetlinkKObjectUEvent,
            )?;
            // A smaller buffer loses events, which is told; and beyond rmem_max the kernel takes what it allows.
            setsockopt(&fd, sockopt::RcvBuf, &BUFFER)?;
            bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
            Ok(fd)
        };
        let fd = open().map_err(|errno| UeventError::Open(errno.into()))?;
        Self::of(fd)
    }

    fn of(fd: OwnedFd) -> Result<Self, UeventError> {
        let socket = UnixDatagram::from_std(Datagrams::from(fd)).map_err(UeventError::Open)?;
        Ok(Self { socket })
    }

    /// Returns once PCI functions or NICs have come, gone or changed; all that is known of by then counts as one. May be
    /// dropped and called again.
    ///
    /// # Errors
    /// [`UeventError::Broken`].
    pub async fn changed(&mut self) -> Result<(), UeventError> {
        loop {
            self.socket.readable().await.map_err(UeventError::Broken)?;
            if self.drain().map_err(UeventError::Broken)? {
                return Ok(());
            }
        }
    }

    /// Takes all that waits; true if any of it matters.
    fn drain(&self) -> io::Result<bool> {
        let mut buffer = [0; LONGEST];
        let mut found = false;
        loop {
            match self.socket.try_recv(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::NotConnected.into()),
                Ok(length) => found |= matters(buffer.get(..length).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(found),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Some were lost: any of them may have mattered.
                Err(e) if e.raw_os_error() == Some(Errno::ENOBUFS as i32) => found = true,
                Err(e) => return Err(e),
            }
        }
    }
}

/// A PCI function, or a network interface on one, has come, gone, changed or got another name. Not: `bind` and `unbind`,
/// which hybondd causes itself with every VF that it takes.
fn matters(message: &[u8]) -> bool {
    let value = |key: &str| {
        let mut fields = message.split(|byte| *byte == 0);
        fields.find_map(|field| field.strip_prefix(key.as_bytes())?.strip_prefix(b"="))
    };
    let action = matches!(value("ACTION"), Some(b"add" | b"remove" | b"change" | b"move"));
    let is_virtual = value("DEVPATH").is_some_and(|path| path.starts_with(b"/devices/virtual/"));
    action
        && match value("SUBSYSTEM") {
            Some(b"pci") => true,
            // Macvtaps and taps of guests come and go all the time. Queues and the like are of other subsystems.
            Some(b"net") => !is_virtual,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn message(action: &str, path: &str, subsystem: &str) -> Vec<u8> {
        format!("{action}@{path}\0ACTION={action}\0DEVPATH={path}\0SUBSYSTEM={subsystem}\0SEQNUM=7\0").into_bytes()
    }

    const VF: &str = "/devices/pci0000:00/0000:00:1c.0/0000:01:10.0";

    #[test]
    fn functions_and_nics_matter_and_nothing_else_does() {
        for action in ["add", "remove", "change"] {
            assert!(matters(&message(action, VF, "pci")), "{action}");
        }
        assert!(matters(&message("move", &format!("{VF}/net/ens1"), "net")), "renamed");
        assert!(!matters(&message("bind", VF, "pci")), "hybondd itself");
        assert!(!matters(&message("add", "/devices/virtual/net/hb525400aa0001", "net")));
        assert!(!matters(&message("add", &format!("{VF}/vfio-dev/vfio0"), "vfio-dev")));
        for strange in [&b""[..], b"add@/x", b"\0\0=\0ACTION\0", &[0xff; 100]] {
            assert!(!matters(strange));
        }
    }

    #[tokio::test]
    async fn many_events_are_one_change() {
        // A connected socket in the place of the kernel's.
        let (kernel, ours) = Datagrams::pair().expect("sockets");
        ours.set_nonblocking(true).expect("a flag");
        let mut uevents = Uevents::of(ours.into()).expect("readable");
        let quiet = Duration::from_millis(50);
        for _ in 0..3 {
            kernel.send(&message("bind", VF, "pci")).expect("room");
            kernel.send(&message("add", VF, "pci")).expect("room");
        }
        uevents.changed().await.expect("told");
        let again = tokio::time::timeout(quiet, uevents.changed()).await;
        assert!(again.is_err(), "all of them were one");
        kernel.send(&message("bind", VF, "pci")).expect("room");
        assert!(tokio::time::timeout(quiet, uevents.changed()).await.is_err());
        kernel.send(&message("remove", VF, "pci")).expect("room");
        uevents.changed().await.expect("told");
    }

    #[tokio::test]
    async fn the_kernel_lets_us_listen() {
        let mut uevents = Uevents::open().expect("a socket");
        // Nothing has to happen on this machine; that the socket is quiet and alive is what is to be seen.
        if let Ok(ended) = tokio::time::timeout(Duration::from_millis(50), uevents.changed()).await {
            ended.expect("an event, and no error");
        }
    }
}
