//! Multicast groups of a macvtap that were put there by hand, as `ip maddress add` does. A macvtap passes a multicast frame
//! up only if a group with the frame's hash is on its list (`macvlan_broadcast()`); the kernel itself puts there what the
//! host's own IP needs, and the lists are one: of each group it is counted who uses it, and whether by hand.
#![allow(unsafe_code)] // The list is changed by an ioctl; rtnetlink shows and changes it for macvlans as a forwarding table only.

use crate::{Error, Link, Result};
use hybond_core::ids::IfName;
use hybond_core::paths::Group;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd;

// linux/sockios.h; the libc crate has them for other systems only.
const SIOCADDMULTI: libc::c_ulong = 0x8931;
const SIOCDELMULTI: libc::c_ulong = 0x8932;
/// The list of every device of the network namespace of the calling thread.
const LIST: &str = "/proc/thread-self/net/dev_mcast";

nix::ioctl_write_ptr_bad!(
    /// Adds a group to a device's list; nothing happens if it is there by hand already (`dev_mc_add_global()`).
    add_multi,
    SIOCADDMULTI,
    libc::ifreq
);
nix::ioctl_write_ptr_bad!(
    /// Takes a group that was added by hand from a device's list.
    del_multi,
    SIOCDELMULTI,
    libc::ifreq
);

/// The groups that were put on the device's list by hand.
pub(crate) fn groups_of(link: &Link) -> Result<BTreeSet<Group>> {
    let text = std::fs::read_to_string(LIST).map_err(|source| Error::Kernel {
        doing: format!("read the multicast groups of {} from {LIST}", link.name),
        source,
    })?;
    Ok(by_hand(&text, link.index))
}

/// `dev_mc_seq_show()`: index, name, users, 1 if by hand, address.
fn by_hand(text: &str, index: u32) -> BTreeSet<Group> {
    let group = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let is_ours = fields.next()?.parse() == Ok(index) && fields.nth(2)? != "0";
        is_ours.then(|| fields.next().and_then(octets)).flatten()
    };
    text.lines().filter_map(group).filter_map(Group::from_octets).collect()
}

fn octets(digits: &str) -> Option<[u8; 6]> {
    let mut octets = [0; 6];
    if digits.len() != 12 {
        return None;
    }
    for (n, octet) in octets.iter_mut().enumerate() {
        *octet = u8::from_str_radix(digits.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    Some(octets)
}

/// Adds what is missing.
pub(crate) fn add(name: &IfName, groups: &BTreeSet<Group>) -> Result<()> {
    // SAFETY: the request is an ifreq that outlives the call.
    each(name, groups, "add to", |socket, request| unsafe {
        add_multi(socket, request)
    })
}

/// Takes away what is there.
pub(crate) fn remove(name: &IfName, groups: &BTreeSet<Group>) -> Result<()> {
    each(name, groups, "remove from", |socket, request| {
        // SAFETY: as above.
        match unsafe { del_multi(socket, request) } {
            // Somebody was faster.
            Err(nix::Error::ENOENT) => Ok(0),
            other => other,
        }
    })
}

fn each(
    name: &IfName,
    groups: &BTreeSet<Group>,
    what: &str,
    change: impl Fn(i32, &libc::ifreq) -> nix::Result<libc::c_int>,
) -> Result<()> {
    if groups.is_empty() {
        return Ok(());
    }
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    let socket = socket.map_err(|errno| Error::Socket(errno.into()))?;
    for group in groups {
        let failed = |errno: nix::Error| Error::Kernel {
            doing: format!("{what} {name} the multicast group {group}"),
            source: io::Error::from(errno),
        };
        change(socket.as_raw_fd(), &request(name, *group)).map_err(failed)?;
    }
    Ok(())
}

fn request(name: &IfName, group: Group) -> libc::ifreq {
    // SAFETY: `ifreq` is plain data, for which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // An IfName is shorter than IFNAMSIZ, so the last byte stays zero.
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let mut address = libc::sockaddr {
        // dev_ifsioc() takes no other.
        sa_family: libc::AF_UNSPEC as libc::sa_family_t,
        sa_data: [0; 14],
    };
    for (to, from) in address.sa_data.iter_mut().zip(group.octets()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_hwaddr = address;
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_put_there_by_hand_is_listed() {
        let text = "4    eth0            1     0     333300000001\n\
                    7    hb525400aa0001  1     1     3333ffaa0001\n\
                    7    hb525400aa0001  2     1     01005e0000fb\n\
                    7    hb525400aa0001  1     0     333300000001\n\
                    7    hb525400aa0001  1     1     unreadable\n";
        let groups: Vec<String> = by_hand(text, 7).iter().map(Group::to_string).collect();
        assert_eq!(groups, ["01:00:5e:00:00:fb", "33:33:ff:aa:00:01"]);
    }
}
