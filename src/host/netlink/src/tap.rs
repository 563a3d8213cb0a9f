//! Taps of emulated primaries. Where a host has no SR-IOV, a NIC model of QEMU's on a tap in a bridge stands in for
//! the VF.
#![allow(unsafe_code)] // A tap is made by an ioctl on /dev/net/tun; netlink cannot make one.

use crate::{Error, Kind, Netlink, Result};
use hybond_core::ids::IfName;
use nix::libc;
use rtnetlink::LinkUnspec;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

const NODE: &str = "/dev/net/tun";

nix::ioctl_write_ptr_bad!(
    /// Makes the descriptor a queue of the tap that the request names.
    tunsetiff,
    libc::TUNSETIFF,
    libc::ifreq
);

impl Netlink {
    /// Makes a tap, up and a port of the bridge. It is there as long as its descriptor is open anywhere; QEMU takes the
    /// descriptor as `-netdev tap,fd=…`.
    ///
    /// # Errors
    /// [`Error::NoLink`] and [`Error::OtherKind`] for the bridge; [`Error::Kernel`] if the name is taken.
    pub async fn make_tap(&self, name: &IfName, bridge: &IfName) -> Result<OwnedFd> {
        let master = self.required(bridge).await?;
        if master.kind != Kind::Bridge {
            return Err(Error::OtherKind {
                name: master.name,
                found: master.kind.to_string(),
                wanted: "bridge",
            });
        }
        let descriptor = open(name).map_err(|source| Error::Kernel {
            doing: format!("make tap {name} through {NODE}"),
            source,
        })?;
        // From here on an error closes the descriptor, and with it the tap is gone.
        let tap = self.required(name).await?;
        let change = LinkUnspec::new_with_index(tap.index)
            .controller(master.index)
            .up()
            .build();
        self.change_link(format!("make {name} a port of {bridge}"), change)
            .await?;
        let tap = self.required(name).await?;
        if tap.master == Some(master.index) && tap.up {
            return Ok(descriptor);
        }
        Err(Error::NotKept {
            name: tap.name,
            found: format!("master {:?}, {}", tap.master, if tap.up { "up" } else { "down" }),
            wanted: format!("master {}, up", master.index),
        })
    }
}

fn open(name: &IfName) -> io::Result<OwnedFd> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(NODE)?;
    // SAFETY: `ifreq` is plain data, for which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // An IfName is shorter than IFNAMSIZ, so the last byte stays zero.
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // The header is what virtio-net models and vhost expect; QEMU asks the tap whether it has one.
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the descriptor is open, and the request is an ifreq that outlives the call.
    unsafe { tunsetiff(file.as_raw_fd(), &request) }?;
    Ok(file.into())
}
