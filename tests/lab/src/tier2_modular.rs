//! A host of tier 2 whose libvirtd gives way to libvirt's modular daemons, as other distributions than Debian have them:
//! virtqemud for the guests, and virtproxyd for who comes over the network.

use crate::cache;
use crate::machine::Machine;
use crate::tier2::Node;
use anyhow::Result;
use std::path::PathBuf;
use std::time::Duration;

/// A daemon comes up and goes within this.
const DAEMON: Duration = Duration::from_secs(60);

/// The modular daemons, in the order in which they are started.
const DAEMONS: [&str; 2] = ["virtqemud", "virtproxyd"];

/// The modular daemons of the hosts' libvirt.
#[derive(Debug)]
pub struct Modular {
    /// Held for as long as they may be copied from here.
    _held: cache::Lock,
    folder: PathBuf,
}

impl Modular {
    /// Has them built, the first time.
    ///
    /// # Errors
    /// They cannot be built.
    pub fn built() -> Result<Self> {
        let folder = cache::artifact("modular")?;
        let _held = cache::hold(&folder)?;
        Ok(Self { _held, folder })
    }

    /// Ends libvirtd on a host without guests, takes it away, and starts virtqemud and virtproxyd in its place. No client is
    /// told of them: the library looks for virtqemud's socket before it turns to libvirtd's, which is virtproxyd's now.
    ///
    /// # Errors
    /// libvirtd does not go, or they do not come up.
    pub fn replace_libvirtd(&self, node: &Node) -> Result<()> {
        for daemon in DAEMONS {
            node.copy(&self.folder.join(daemon), &format!("/usr/sbin/{daemon}"))?;
        }
        node.ok("set -e; cd /etc/libvirt\n\
             grep ^host_uuid libvirtd.conf >virtqemud.conf\n\
             grep -E '^(listen_|auth_|host_uuid)' libvirtd.conf >virtproxyd.conf")?;
        end(node, "libvirtd", "TERM")?;
        // Nobody is to find it by accident.
        node.ok("rm -f /usr/sbin/libvirtd /run/libvirt/libvirt-sock*")?;
        DAEMONS.iter().try_for_each(|daemon| start(node, daemon))
    }
}

/// Ends virtqemud or virtproxyd with a signal and starts it anew, as an upgrade does, or a crash. Guests run on meanwhile.
///
/// # Errors
/// It does not end, or does not come up.
pub fn renew(node: &Node, daemon: &str, signal: &str) -> Result<()> {
    end(node, daemon, signal)?;
    start(node, daemon)
}

fn end(node: &Node, daemon: &str, signal: &str) -> Result<()> {
    let process = node.ok(&format!("cat /run/{daemon}.pid"))?;
    let process = process.trim();
    node.ok(&format!("kill -{signal} {process}"))?;
    node.until(
        &format!("{daemon}'s end"),
        &format!("! kill -0 {process} 2>/dev/null"),
        DAEMON,
    )?;
    Ok(())
}

fn start(node: &Node, daemon: &str) -> Result<()> {
    // virtproxyd has no --listen: it listens where its configuration says so and systemd has opened nothing for it.
    node.ok(&format!("{daemon} --daemon </dev/null >/dev/null 2>&1"))?;
    let asked = match daemon {
        "virtproxyd" => "virsh -q -c 'qemu:///system?mode=legacy' list",
        _ => "virsh -q -c 'qemu:///system?mode=direct' list",
    };
    node.until(daemon, asked, DAEMON)?;
    Ok(())
}
