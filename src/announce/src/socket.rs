//! The one system call that no safe wrapper has: a frame out of a given link. Wants CAP_NET_RAW.
#![allow(unsafe_code)] // sockaddr_ll can be handed to sendto() only as a raw pointer.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::{AsRawFd, OwnedFd};

/// A socket that sends frames and receives none (protocol 0).
///
/// # Errors
/// The kernel has no packet sockets, or this process may not have one.
pub fn open() -> Result<OwnedFd, Errno> {
    socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )
}

/// Sends a frame, Ethernet header included, out of a link.
///
/// # Errors
/// The link is gone or down, or its queue is full.
pub fn send(socket: &OwnedFd, index: u32, frame: &[u8]) -> Result<(), Errno> {
    let mut address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    for (to, octet) in address.sll_addr.iter_mut().zip(frame.iter().take(6)) {
        *to = *octet;
    }
    // SAFETY: frame and address live for the whole call, and their lengths are theirs.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    Errno::result(sent).map(drop)
}
