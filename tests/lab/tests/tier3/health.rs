//! Whether the emulated machines are still those that a scenario began with. QEMU emulates the hosts' SVM, and seldom a guest
//! stands still, panics or is reset, or a host starts anew, without hybond, too (docs/lab.md).

use crate::scene::Scene;
use anyhow::Result;
use hybond_lab::Machine;
use std::time::Duration;

const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

/// What does not change while nothing crashes.
pub struct Health {
    hosts: Vec<String>,
}

impl Health {
    /// As it is now.
    pub fn of(scene: &Scene<'_>) -> Result<Self> {
        let hosts = [scene.src, scene.dst].map(|host| host.ok(BOOT_ID));
        Ok(Self {
            hosts: hosts.into_iter().collect::<Result<_>>()?,
        })
    }

    /// What has crashed since. Only what was seen without hybond, too, or has nothing to do with a network counts: that a
    /// guest is not reached over its own, or is gone because libvirt was told to end it, is a failure.
    pub fn crash(&self, scene: &Scene<'_>) -> Option<String> {
        for (host, boot) in [scene.src, scene.dst].into_iter().zip(&self.hosts) {
            match host.ok(BOOT_ID) {
                Err(error) => return Some(format!("host {} does not answer: {error:#}", host.name())),
                Ok(now) if now != *boot => return Some(format!("host {} has started anew", host.name())),
                Ok(_) => {}
            }
            let console = scene.guest.guest.console(host);
            if console.is_ok_and(|console| console.contains("Kernel panic")) {
                return Some(format!("the guest has panicked on {}", host.name()));
            }
            // A reset of the guest: QEMU ends it, as libvirt has asked (`-action reboot=shutdown`), and libvirt says so. What
            // libvirt was told to end has another reason: destroyed, migrated, failed. No log is where it never ran.
            let log = format!("tail -n 1 /var/log/libvirt/qemu/{}.log", scene.guest.name());
            let last = host.ok(&log).unwrap_or_default();
            if ["reason=shutdown", "reason=crashed"]
                .iter()
                .any(|reason| last.contains(reason))
            {
                return Some(format!("the guest has reset itself on {}", host.name()));
            }
            // Its shell has a port of its own, beside the network.
            let answer = || scene.guest.guest.run_within(host, "true", Duration::from_secs(60));
            if scene.guest.runs_on(host).unwrap_or(false) && answer().is_err() {
                return Some(format!("the guest's shell is silent on {}", host.name()));
            }
        }
        None
    }
}
