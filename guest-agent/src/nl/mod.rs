//! rtnetlink, as much of it as the agent needs.
//!
//! Why not the netlink-packet-route crate: with it the static binary has 0.96 MB, of which 0.5 MB decode messages that the
//! agent never looks into. And moving addresses and routes from one link to another is best done without understanding
//! them: here each goes back to the kernel byte for byte, with nothing but link numbers changed, so that metrics,
//! encapsulations and attributes that did not exist when this was written survive.

pub mod link;
pub mod moved;
pub mod msg;

use msg::{Message, Received};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::os::fd::{AsRawFd, OwnedFd};

/// `RTMGRP_LINK`.
pub const GROUP_LINK: u32 = 1;
/// `RTMGRP_IPV4_IFADDR`.
pub const GROUP_ADDRESSES: u32 = 0x10;
/// The kernel fills at most this much of a dump into one datagram; a link without its VFs has 2 KiB.
const BUFFER: usize = 32 * 1024;

/// A netlink socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// A socket for requests. The kernel answers within `send`, so the time-out is only met by a bug.
    pub fn requests() -> Result<Self, Errno> {
        let new = Self::open(0, SockFlag::empty())?;
        setsockopt(&new.fd, sockopt::ReceiveTimeout, &TimeVal::seconds(10))?;
        Ok(new)
    }

    /// A socket that hears of changes, nonblocking.
    pub fn events(groups: u32) -> Result<Self, Errno> {
        Self::open(groups, SockFlag::SOCK_NONBLOCK)
    }

    fn open(groups: u32, flags: SockFlag) -> Result<Self, Errno> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            flags | SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self {
            fd,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// For epoll.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Sends a request and waits for its acknowledgement.
    pub fn request(&mut self, message: &Message) -> Result<(), Errno> {
        self.exchange(message, msg::ACK, |_, _| Ok(()))
    }

    /// Sends a request for a dump, or for one object, and hands out each message that comes back.
    pub fn query(
        &mut self,
        message: &Message,
        dump: bool,
        mut each: impl FnMut(u16, &[u8]) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let flags = if dump { msg::DUMP } else { msg::ACK };
        self.exchange(message, flags, &mut each)
    }

    fn exchange(
        &mut self,
        message: &Message,
        flags: u16,
        mut each: impl FnMut(u16, &[u8]) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        send(
            self.fd.as_raw_fd(),
            &message.finish(flags, self.sequence),
            MsgFlags::empty(),
        )?;
        let mut failed = Ok(());
        loop {
            let length = recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC)?;
            let datagram = self.buffer.get(..length).ok_or(Errno::EMSGSIZE)?;
            for received in msg::messages(datagram) {
                if received.sequence != self.sequence {
                    continue;
                }
                match received.error() {
                    Some(0) => return failed,
                    Some(error) => return Err(Errno::from_raw(error)),
                    // A reader that fails must not leave the rest of a dump in the socket.
                    None if failed.is_ok() => failed = each(received.kind, received.payload),
                    None => {}
                }
            }
        }
    }

    /// Hands out what has happened. `Err(ENOBUFS)`: some of it was lost, look at everything again.
    pub fn heard(&mut self, mut each: impl FnMut(Received<'_>)) -> Result<(), Errno> {
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Ok(length) => {
                    let datagram = self.buffer.get(..length).ok_or(Errno::ENOBUFS)?;
                    msg::messages(datagram).for_each(&mut each);
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
