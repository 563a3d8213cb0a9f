//! A host of tier 2 whose libvirtd gives way to libvirt's modular daemons, as other distributions than Debian have them:
//! virtqemud for the guests, and virtproxyd for who comes over the network.

use crate::cache;
use crate::machine::Machine;
use crate::tier2::Node;
use anyhow::Result;
use std::time::Duration;

/// A daemon comes up and goes within this.
const DAEMON: Duration = Duration::from_secs(60);

/// What clients of the library find on such hosts. Debian's asks for libvirtd's socket where nothing else is said.
const CLIENT: &str = "remote_mode = \"direct\"\n";

/// Ends libvirtd on a host without guests, and starts virtqemud and virtproxyd in its place.
///
/// # Errors
/// They cannot be built, or do not come up.
pub fn replace_libvirtd(node: &Node) -> Result<()> {
    let built = cache::artifact("modular")?;
    for daemon in ["virtqemud", "virtproxyd"] {
        node.copy(&built.join(daemon), &format!("/usr/sbin/{daemon}"))?;
    }
    node.write_file("/etc/libvirt/libvirt.conf", CLIENT.as_bytes(), "644")?;
    node.ok("set -e; cd /etc/libvirt\n\
         grep ^host_uuid libvirtd.conf >virtqemud.conf\n\
         grep -E '^(listen_|auth_|host_uuid)' libvirtd.conf >virtproxyd.conf\n\
         kill $(cat /run/libvirtd.pid)")?;
    let ended = "! kill -0 $(cat /run/libvirtd.pid 2>/dev/null) 2>/dev/null";
    node.until("libvirtd's end", ended, DAEMON)?;
    // Nobody is to find it by accident.
    node.ok("rm -f /usr/sbin/libvirtd /run/libvirt/libvirt-sock*; virtproxyd --daemon --listen </dev/null >/dev/null 2>&1")?;
    start_virtqemud(node)
}

fn start_virtqemud(node: &Node) -> Result<()> {
    node.ok("virtqemud --daemon </dev/null >/dev/null 2>&1")?;
    node.until("virtqemud", "virsh -q list", DAEMON)?;
    Ok(())
}

/// Ends virtqemud and starts it anew, as an upgrade does. Guests run on meanwhile.
///
/// # Errors
/// It does not end, or does not come up.
pub fn restart_virtqemud(node: &Node) -> Result<()> {
    node.ok("kill $(cat /run/virtqemud.pid)")?;
    let ended = "! kill -0 $(cat /run/virtqemud.pid 2>/dev/null) 2>/dev/null";
    node.until("virtqemud's end", ended, DAEMON)?;
    start_virtqemud(node)
}
