//! What goes wrong, and is undone again.

use super::Scene;
use anyhow::{Result, ensure};
use hybond_lab::Machine;
use hybond_lab::tier2_hybond::{Daemon, POOL, PoolOn, configure};

/// QEMU asks by ACPI's general purpose event 1 (`_E01`): masked, the guest's kernel does not hear it, and hears it
/// afterwards, for it is pending.
const GPE: &str = "/sys/firmware/acpi/interrupts/gpe01";

const AGENT: &str = "/sbin/hybond-agent";

/// How a fault is ended.
pub(super) enum Undo {
    Host(usize, String),
    Guest(String),
    Start(usize),
    Stop(usize),
}

impl Scene<'_> {
    /// Does this to a host until the scenario is healed.
    pub fn inject(&mut self, host: usize, script: &str, undo: &str) -> Result<()> {
        self.undo.push(Undo::Host(host, undo.to_owned()));
        self.nodes[host].ok(script).map(drop)
    }

    /// The number of the host that the usual guest is on.
    pub fn here(&self) -> usize {
        self.usual.at
    }

    /// The number of the other host.
    pub fn there(&self) -> usize {
        1 - self.usual.at
    }

    /// Does this to the usual guest until the scenario is healed.
    pub fn inject_into_guest(&mut self, line: &str, undo: &str) -> Result<()> {
        self.undo.push(Undo::Guest(undo.to_owned()));
        self.in_guest(line).map(drop)
    }

    /// A guest that does not hear that it is to let go of a device.
    pub fn deafen(&mut self) -> Result<()> {
        // One that has booted since hears, and one that hears cannot be made to.
        let undo = format!("echo unmask >{GPE} 2>/dev/null || true");
        self.inject_into_guest(&format!("echo mask >{GPE}"), &undo)
    }

    /// No hybondd on a host.
    pub fn stop_daemon(&mut self, host: usize) -> Result<()> {
        self.undo.push(Undo::Start(host));
        self.end_daemon(host)
    }

    /// No hybond on a host: neither its daemon nor its hook.
    pub fn without_hybond(&mut self, host: usize) -> Result<()> {
        self.stop_daemon(host)?;
        let (hook, reload) = (
            "/etc/libvirt/hooks/qemu.d/50-hybond",
            "kill -HUP $(cat /run/libvirtd.pid)",
        );
        self.inject(
            host,
            &format!("rm {hook} && {reload}"),
            &format!("ln -s /usr/lib/libvirt/hybond-hook {hook} && {reload}"),
        )
    }

    /// No agent in the usual guest, nor one that its keeper could start.
    pub fn without_agent(&mut self) -> Result<()> {
        let away = format!("mv {AGENT} {AGENT}.away && killall -9 hybond-agent");
        self.inject_into_guest(&away, &format!("mv {AGENT}.away {AGENT}"))
    }

    /// One on a host where none is, which goes before what was done to the host is undone.
    pub fn start_daemon_until_healed(&mut self, host: usize) -> Result<()> {
        self.undo.push(Undo::Stop(host));
        self.start_daemon(host)
    }

    fn start_daemon(&mut self, host: usize) -> Result<()> {
        if self.daemons[host].is_none() {
            self.daemons[host] = Some(Daemon::start(self.nodes[host])?);
        }
        Ok(())
    }

    fn end_daemon(&mut self, host: usize) -> Result<()> {
        self.daemons[host].take().map_or(Ok(()), Daemon::stop)
    }

    /// A host whose pool has so many VFs of its first PF, and no other; `None` gives it what it had.
    pub fn set_pool(&mut self, host: usize, vfs: Option<usize>) -> Result<()> {
        let node = self.nodes[host];
        self.end_daemon(host)?;
        let (pfs, vfs) = match vfs {
            Some(vfs) => (&node.pfs()[..1], vfs),
            None => (&node.pfs()[..], 7),
        };
        configure(node, &[PoolOn { name: POOL, pfs, vfs }])?;
        self.start_daemon(host)
    }

    /// Ends the QEMU of the usual guest on a host, without a word.
    pub fn kill_qemu(&self, host: usize) -> Result<()> {
        let script = format!("kill -KILL $(cat /run/libvirt/qemu/{}.pid)", self.name());
        self.nodes[host].ok(&script).map(drop)
    }

    /// Ends what was done to hosts and guest, goes on past errors, and tells all of them.
    pub fn heal(&mut self) -> Result<()> {
        let mut errors = Vec::new();
        while let Some(undo) = self.undo.pop() {
            let healed = match undo {
                Undo::Host(host, script) => self.nodes[host].ok(&script).map(drop),
                // With its guest the fault has gone.
                Undo::Guest(_) if self.is_off => Ok(()),
                Undo::Guest(line) => self.in_guest(&line).map(drop),
                Undo::Start(host) => self.start_daemon(host),
                Undo::Stop(host) => self.end_daemon(host),
            };
            errors.extend(healed.err().map(|error| format!("{error:#}")));
        }
        ensure!(errors.is_empty(), "{}", errors.join("\n"));
        Ok(())
    }
}
