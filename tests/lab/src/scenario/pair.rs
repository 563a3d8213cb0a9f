//! A hybrid guest: an ordinary domain that was made hybrid as a user makes it.

use crate::{Domain, Guest, Host, Machine, Output};
use anyhow::{Context, Result, ensure};
use hybond_wire::agent::Path;
use hybond_wire::control::{DomainStatus, PairStatus};
use serde::Deserialize;
use std::time::Duration;

/// Name of the pool on both hosts.
pub const POOL: &str = "lan";

/// How a guest is migrated, before the domain and the destination.
pub const MIGRATE: &str = "virsh migrate --live --persistent";

const BOOT: Duration = Duration::from_secs(400);
const MIGRATION: Duration = Duration::from_secs(400);
/// From a running guest to one whose traffic goes over its VF.
const SETTLE: Duration = Duration::from_secs(180);

/// A guest of the lab with one pair.
#[derive(Debug, Clone)]
pub struct HybridGuest {
    /// Its domain as it was before hybond.
    pub domain: Domain,
    /// Commands in it.
    pub guest: Guest,
    /// The command that migrates it: [`MIGRATE`], unless the hosts need another.
    pub migrate: &'static str,
}

#[derive(Deserialize)]
struct Domains {
    domains: Vec<DomainStatus>,
}

impl HybridGuest {
    /// The usual guest under a name; nothing is done yet.
    #[must_use]
    pub fn new(name: &str, host: &Host) -> Self {
        Self {
            domain: Domain::new(name, host.pfs().first().map_or("", String::as_str)),
            guest: Guest::new(name),
            migrate: MIGRATE,
        }
    }

    /// libvirt's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.domain.name
    }

    /// Address for the probe.
    #[must_use]
    pub fn address(&self) -> String {
        let words = self.domain.kernel_arguments.split_whitespace();
        let ip = words.filter_map(|word| word.strip_prefix("lab.ip=")).next_back();
        ip.and_then(|ip| ip.split('/').next()).unwrap_or_default().to_owned()
    }

    /// Defines the domain and makes it hybrid.
    ///
    /// # Errors
    /// libvirt or hybondctl refuses.
    pub fn define(&self, host: &Host) -> Result<()> {
        self.define_as(host, &format!("--pool {POOL}"))
    }

    /// Defines the domain, and has `hybondctl enable` make of it what these words say.
    ///
    /// # Errors
    /// libvirt or hybondctl refuses.
    pub fn define_as(&self, host: &Host, words: &str) -> Result<()> {
        define(host, &self.domain)?;
        host.ok(&format!("hybondctl enable {} {words}", self.name()))?;
        Ok(())
    }

    /// Starts the defined domain, and waits until the guest answers.
    ///
    /// # Errors
    /// libvirt refuses, or it takes too long.
    pub fn boot(&self, host: &Host) -> Result<()> {
        host.ok(&format!("virsh start {}", self.name()))?;
        self.guest.wait_ready(host, BOOT)
    }

    /// Defines the domain, makes it hybrid, starts it, and waits until its traffic goes over a VF.
    ///
    /// # Errors
    /// One of these fails, or takes too long.
    pub fn start(&self, host: &Host) -> Result<PairStatus> {
        self.define(host)?;
        self.boot(host)?;
        self.wait_primary(host)
    }

    /// Makes it fit to be saved with its host: on its standby, and standing still.
    ///
    /// # Errors
    /// hybondctl or libvirt refuses.
    pub fn rest(&self, host: &Host) -> Result<()> {
        host.ok(&format!("hybondctl drain {0} && virsh suspend {0}", self.name()))?;
        Ok(())
    }

    /// Has it run again after [`HybridGuest::rest`], and waits until its traffic goes over a VF.
    ///
    /// # Errors
    /// libvirt refuses, or it takes too long.
    pub fn wake(&self, host: &Host) -> Result<PairStatus> {
        host.ok(&format!("virsh resume {}", self.name()))?;
        host.run_within(&format!("hybondctl plug {}", self.name()), SETTLE)?;
        self.wait_primary(host)
    }

    /// What hybond says of it on a host.
    ///
    /// # Errors
    /// It is not there, or hybondd does not answer.
    pub fn status(&self, host: &Host) -> Result<DomainStatus> {
        status(&host.ok(&format!("hybondctl --json status {}", self.name()))?)
    }

    /// What hybond says of its pair.
    ///
    /// # Errors
    /// As [`HybridGuest::status`].
    pub fn pair(&self, host: &Host) -> Result<PairStatus> {
        first_pair(self.status(host)?)
    }

    /// Waits until its traffic goes over a VF and it is all there on this host.
    ///
    /// # Errors
    /// It is not within three minutes; the error has the last status.
    pub fn wait_primary(&self, host: &Host) -> Result<PairStatus> {
        first_pair(self.wait_path(host, Path::Primary)?)
    }

    /// Waits until its traffic goes over its standby and it is all there on this host.
    ///
    /// # Errors
    /// It is not within three minutes; the error has the last status.
    pub fn wait_standby(&self, host: &Host) -> Result<PairStatus> {
        first_pair(self.wait_path(host, Path::Standby)?)
    }

    /// As [`HybridGuest::wait_standby`], until it has no VF leased either, and the reason is known.
    ///
    /// # Errors
    /// As there.
    pub fn wait_bare(&self, host: &Host) -> Result<PairStatus> {
        let wants = ["\"active\": *\"standby\"", "\"vf\": *null", "\"degraded\": *\""];
        first_pair(self.wait_status(host, "path standby without a VF", &wants)?)
    }

    /// Waits until its pair, of flavor `indirect`, is above a VF and it is all there on this host.
    ///
    /// # Errors
    /// It is not within three minutes; the error has the last status.
    pub fn wait_indirect(&self, host: &Host) -> Result<PairStatus> {
        first_pair(self.wait_status(
            host,
            "VF below the standby",
            &["\"flavor\": *\"indirect\"", "\"vf\": *\""],
        )?)
    }

    fn wait_path(&self, host: &Host, path: Path) -> Result<DomainStatus> {
        // A daemon that has just been restarted knows the path from the guest before it knows QEMU's devices.
        let (word, plugged) = match path {
            Path::Primary => ("primary", "true"),
            Path::Standby => ("standby", "false"),
            Path::None => ("none", "false"),
        };
        let wants = [format!("\"active\": *\"{word}\""), format!("\"plugged\": *{plugged}")];
        self.wait_status(host, &format!("path {word}"), &wants.each_ref().map(String::as_str))
    }

    /// Waits until it runs there and its status has all of these, which grep understands.
    fn wait_status(&self, host: &Host, what: &str, wants: &[&str]) -> Result<DomainStatus> {
        let wants: String = wants.iter().map(|want| format!(" '{want}'")).collect();
        let script = format!(
            "s=$(hybondctl --json status {}) || {{ echo \"$s\"; exit 1; }}; echo \"$s\"; \
             for want in '\"stage\": *\"running\"'{wants}; do echo \"$s\" | grep -q \"$want\" || exit; done",
            self.name()
        );
        let what = format!("{what} of guest {}", self.name());
        status(&host.until(&what, &script, SETTLE)?)
    }

    /// Migrated by its command, run on `from`. Whether it succeeded is in the answer.
    ///
    /// # Errors
    /// It cannot be run, or does not end.
    pub fn migrate(&self, from: &Host, to: &Host) -> Result<Output> {
        let command = format!("{} {} qemu+tls://{}/system", self.migrate, self.name(), to.name());
        from.run_within(&command, MIGRATION)
    }

    /// As [`HybridGuest::migrate`], for a migration that must succeed.
    ///
    /// # Errors
    /// It does not; the error has the command's words.
    pub fn moves(&self, from: &Host, to: &Host) -> Result<()> {
        let output = self.migrate(from, to)?;
        ensure!(
            output.success(),
            "{} from {} to {}: {}",
            self.migrate,
            from.name(),
            to.name(),
            output.stderr.trim()
        );
        Ok(())
    }

    /// Whether it runs there.
    ///
    /// # Errors
    /// The host does not answer.
    pub fn runs_on(&self, host: &Host) -> Result<bool> {
        let listed = host.run(&format!("virsh -q list --name | grep -qx {}", self.name()))?;
        Ok(listed.success())
    }

    /// What a host shows of the guest, of its end, too, and what the guest itself does where it runs there: for whoever has
    /// to find out what is wrong.
    #[must_use]
    pub fn view(&self, host: &Host) -> String {
        let shown =
            |output: Result<crate::Output>| output.map_or_else(|error| format!("{error:#}"), |done| done.stdout);
        let outside = format!(
            "ip -s -d link show; dmesg | tail -n 15; \
             tail -n 15 /var/log/libvirt/qemu/{0}.log; tail -n 120 /var/log/libvirt/qemu/{0}-console.log",
            self.name()
        );
        let mut text = format!("on {}:\n{}\n", host.name(), shown(host.run(&outside)));
        if self.runs_on(host).unwrap_or(false) {
            let inside = "date; ip addr; cat /proc/net/dev /proc/net/bonding/* /proc/interrupts; dmesg | tail -n 15";
            let inside = self.guest.run_within(host, inside, Duration::from_secs(30));
            text += &format!("in guest {}:\n{}\n", self.name(), shown(inside));
        }
        text
    }

    /// Ends the guest, and removes its domain from both hosts.
    ///
    /// # Errors
    /// libvirt refuses.
    pub fn remove(&self, hosts: &[Host]) -> Result<()> {
        for host in hosts {
            remove(host, self.name())?;
        }
        Ok(())
    }
}

/// Defines an ordinary domain.
pub(super) fn define(host: &Host, domain: &Domain) -> Result<()> {
    let file = format!("/root/{}.xml", domain.name);
    host.write_file(&file, domain.xml().as_bytes(), "644")?;
    host.ok(&format!("virsh define {file}"))?;
    Ok(())
}

/// Ends a domain and removes it, as far as it is there.
pub(super) fn remove(host: &Host, name: &str) -> Result<()> {
    host.ok(&format!(
        "virsh -q list --all --name | grep -qx {name} || exit 0\n\
         virsh -q list --name | grep -qx {name} && {{ virsh destroy {name} || exit; }}\n\
         virsh -q list --all --name | grep -qx {name} || exit 0\nvirsh undefine {name}"
    ))?;
    Ok(())
}

fn status(json: &str) -> Result<DomainStatus> {
    let domains: Domains = serde_json::from_str(json).context("hybondctl status")?;
    domains
        .domains
        .into_iter()
        .next()
        .context("hybondctl status shows no domain")
}

fn first_pair(status: DomainStatus) -> Result<PairStatus> {
    status.pairs.into_iter().next().context("the domain has no pair")
}
