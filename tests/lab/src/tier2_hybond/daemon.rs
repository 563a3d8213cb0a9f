//! Installation on a namespaced host, and its daemon.

use super::guest::POOL;
use super::programs::{Programs, top};
use crate::Machine;
use crate::domain::GUEST_FILES;
use crate::tier2::{BRIDGE, Node};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Emulated primaries of each PF: as many as an igb has VFs.
pub const VFS_PER_PF: usize = 7;

/// Where a hybondd that is built with crash points looks for the one to die at.
pub const CRASH: &str = "/run/hybond-crash";

/// What hybondd has said.
const LOG: &str = "/var/log/hybondd.log";
const START: Duration = Duration::from_secs(60);

/// Everything of hybond's that a host without hybrid guests does not have, a line for each thing.
const LEFT: &str = r#"
ip -o link show | awk -F': ' '$2 ~ /^hb/ && $2 !~ /^hbup/ {print "device " $2}'
find /run/hybond/qmp -type s -printf 'socket %p\n'
find /var/lib/hybond/domains /var/lib/hybond/named -type f -printf 'record %p\n'
find /dev -maxdepth 1 -name 'tap*' -printf 'node %p\n'
hybondctl --json pool | grep -o '"lease": *{[^}]*}' || true
"#;

/// Puts everything of the package `hybond` where it belongs, does what its postinst does, and writes the configuration.
///
/// # Errors
/// The host cannot be written to.
pub fn install(node: &Node, programs: &Programs, initramfs: &[u8]) -> Result<()> {
    node.copy(&programs.hybondd, "/usr/sbin/hybondd")?;
    node.copy(&programs.hybondctl, "/usr/bin/hybondctl")?;
    node.copy(&programs.hook, "/usr/lib/libvirt/hybond-hook")?;
    node.copy(
        &top().join("systemd/drain-before-save"),
        "/usr/lib/hybond/drain-before-save",
    )?;
    for (file, path) in [
        ("systemd/hybond.sysusers", "/usr/lib/sysusers.d/hybond.conf"),
        ("systemd/hybond.tmpfiles", "/usr/lib/tmpfiles.d/hybond.conf"),
    ] {
        let file = top().join(file);
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        node.write_file(path, &content, "644")?;
    }
    node.ok("set -e; mkdir -p /etc/libvirt/hooks/qemu.d\n\
         ln -sf /usr/lib/libvirt/hybond-hook /etc/libvirt/hooks/qemu.d/50-hybond\n\
         systemd-sysusers hybond.conf; systemd-tmpfiles --create hybond.conf")?;
    let whole = PoolOn {
        name: POOL,
        pfs: node.pfs(),
        vfs: VFS_PER_PF,
    };
    configure(node, &[whole])?;
    node.write_file(&format!("{GUEST_FILES}/initramfs"), initramfs, "644")?;
    node.reload_libvirt()
}

/// A pool of emulated primaries.
#[derive(Debug, Clone, Copy)]
pub struct PoolOn<'a> {
    /// Its name.
    pub name: &'a str,
    /// PFs of the host.
    pub pfs: &'a [&'a str],
    /// Primaries of each PF.
    pub vfs: usize,
}

/// Writes the configuration, which counts from the daemon's next start.
///
/// # Errors
/// The host cannot be written to.
pub fn configure(node: &Node, pools: &[PoolOn<'_>]) -> Result<()> {
    let mut config = format!("[host]\npeer = \"{}\"\n", node.name());
    for PoolOn { name, pfs, vfs } in pools {
        config += &format!(
            "\n[[pool]]\nname = \"{name}\"\npf = {pfs:?}\n\
             emulated = {{ bridge = \"{BRIDGE}\", count = {vfs}, model = \"igb\" }}\n"
        );
    }
    node.write_file("/etc/hybond/hybond.toml", config.as_bytes(), "644")
}

/// What a guest has left on a host where none of hybond's is, once it is nothing or does not go within `limit`: libvirt
/// ends a domain before its last hook has been answered.
///
/// # Errors
/// The host cannot be looked at.
pub fn leftovers(node: &Node, limit: Duration) -> Result<String> {
    let script = format!(
        "end=$(($(date +%s) + {})); while :; do left=$({LEFT}) || exit; \
         [ -n \"$left\" ] && [ $(date +%s) -lt $end ] || break; sleep 0.5; done; echo \"$left\"",
        limit.as_secs()
    );
    let output = node.run_within(&script, limit + Duration::from_secs(60))?;
    anyhow::ensure!(output.success(), "on {}: {}", node.name(), output.stderr.trim());
    Ok(output.stdout.trim().to_owned())
}

/// A running hybondd.
#[derive(Debug)]
pub struct Daemon {
    node: Node,
    /// As the host counts.
    pid: u32,
}

impl Daemon {
    /// Starts hybondd, and waits until it answers.
    ///
    /// # Errors
    /// It does not come up; the error has what it said.
    pub fn start(node: &Node) -> Result<Self> {
        let pid = node.ok(&format!(
            "HYBOND_LOG=debug HYBOND_CRASH={CRASH} setsid hybondd >>{LOG} 2>&1 </dev/null & echo $!"
        ))?;
        let daemon = Self {
            node: node.clone(),
            pid: pid.trim().parse().context("no process")?,
        };
        let up = format!(
            "kill -0 {} || {{ tail -n 5 {LOG}; exit 1; }}; hybondctl host",
            daemon.pid
        );
        node.until("hybondd", &up, START)?;
        Ok(daemon)
    }

    /// Its process, as the host counts.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Has it read its configuration again, as `systemctl reload` does.
    ///
    /// # Errors
    /// It is not there, or the configuration makes no sense.
    pub fn reload(&self) -> Result<()> {
        self.node.ok(&format!("hybondd --check && kill -HUP {}", self.pid))?;
        Ok(())
    }

    /// Whether it is still there.
    ///
    /// # Errors
    /// The host cannot be looked at.
    pub fn runs(&self) -> Result<bool> {
        Ok(self.node.run(&format!("kill -0 {}", self.pid))?.success())
    }

    /// Ends it as systemd does.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(self) -> Result<()> {
        self.end()
    }

    /// Another one in its place, whether or not it is still there.
    ///
    /// # Errors
    /// It does not end, or the other does not come up.
    pub fn renew(&mut self) -> Result<()> {
        if self.runs()? {
            self.end()?;
        }
        *self = Self::start(&self.node)?;
        Ok(())
    }

    fn end(&self) -> Result<()> {
        let Self { node, pid } = self;
        node.ok(&format!("kill {pid}"))?;
        node.until("hybondd's end", &format!("! kill -0 {pid} 2>/dev/null"), START)?;
        Ok(())
    }

    /// What all hybondds of the host have said since its start.
    ///
    /// # Errors
    /// The host cannot be read from.
    pub fn log(&self) -> Result<String> {
        self.node.read_file(LOG)
    }

    /// Keeps on this machine what libvirt, QEMU and hybondd have said on the host, for whoever has to find out why.
    ///
    /// # Errors
    /// It cannot be read, or not be kept.
    pub fn keep_logs(node: &Node, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for (what, script) in [
            ("hybondd", format!("cat {LOG}")),
            // Whichever of its daemons the host has.
            ("libvirt", "tail -v -n +1 /var/log/libvirt/*.log".to_owned()),
            // Of QEMU, and of the guests' consoles, where their agents speak.
            ("qemu", "tail -v -n +1 /var/log/libvirt/qemu/*.log".to_owned()),
            (
                "state",
                "virsh list --all; hybondctl --json status; hybondctl --json pool; ip -d link; bridge fdb".to_owned(),
            ),
        ] {
            // Whatever there is helps.
            let output = node.run(&script)?;
            let file = folder.join(format!("{}-{what}.log", node.name()));
            fs::write(&file, output.stdout + &output.stderr)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }
}
