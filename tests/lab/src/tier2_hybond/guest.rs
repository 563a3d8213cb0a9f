//! A hybrid guest of tier 2.

use crate::tier2::Node;
use crate::{Domain, Guest, Machine, Output};
use anyhow::{Context, Result, ensure};
use hybond_wire::agent::Path;
use hybond_wire::control::{DomainStatus, PairStatus, Run};
use serde::Deserialize;
use std::time::Duration;

/// Name of the pool on both hosts.
pub const POOL: &str = "lan";

/// What the agent has called the guest's virtio NIC, since the bond has its name.
pub const STANDBY: &str = "eth0nsby";

/// Between two questions. Each costs a few processes, on a machine that is busy with the guests.
const PAUSE: Duration = Duration::from_millis(300);

/// A guest without KVM on a busy machine takes its time.
const BOOT: Duration = Duration::from_secs(400);
const MIGRATION: Duration = Duration::from_secs(400);
const SETTLE: Duration = Duration::from_secs(240);

#[derive(Deserialize)]
struct Domains {
    domains: Vec<DomainStatus>,
}

#[derive(Deserialize)]
struct Runs {
    runs: Vec<Run>,
}

/// A guest of tier 2, made hybrid as a user makes it.
#[derive(Debug, Clone)]
pub struct Hybrid {
    /// Its domain as it was before hybond. The PF of its NIC is set when it is defined, since each host has others.
    pub domain: Domain,
    /// Commands in it.
    pub guest: Guest,
}

impl Hybrid {
    /// The usual guest under a name; nothing is done yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::numbered(name, 1)
    }

    /// One of many: see [`Domain::numbered`].
    #[must_use]
    pub fn numbered(name: &str, number: u8) -> Self {
        Self {
            domain: Domain::emulated(name, "").numbered(number),
            guest: Guest::new(name),
        }
    }

    /// libvirt's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.domain.name
    }

    /// Defines the domain, makes it hybrid, and starts it.
    ///
    /// # Errors
    /// One of these fails, or the guest does not boot.
    pub fn start(&self, node: &Node) -> Result<()> {
        self.define(node, &format!("--pool {POOL}"))?;
        self.boot(node)
    }

    /// Defines the domain, and makes it hybrid with these options of `hybondctl enable`.
    ///
    /// # Errors
    /// One of these fails.
    pub fn define(&self, node: &Node, options: &str) -> Result<()> {
        let name = self.name();
        let file = format!("/root/{name}.xml");
        let mut domain = self.domain.clone();
        for (index, (_, pf)) in domain.nics.iter_mut().enumerate() {
            node.pfs()[index % 2].clone_into(pf);
        }
        node.write_file(&file, domain.xml().as_bytes(), "644")?;
        node.ok(&format!("virsh define {file}"))?;
        node.ok(&format!("hybondctl enable {name} {options}"))?;
        Ok(())
    }

    /// Starts the domain, and waits until the guest has booted.
    ///
    /// # Errors
    /// It does not start, or not boot.
    pub fn boot(&self, node: &Node) -> Result<()> {
        self.guest.forget_console(node)?;
        node.ok(&format!("virsh start {}", self.name()))?;
        self.guest.wait_ready(node, BOOT)
    }

    /// Waits until hybond has nothing more to do with it on this host and the traffic of its only pair takes this path.
    ///
    /// # Errors
    /// It does not within four minutes; the error has the last status.
    pub fn wait_path(&self, node: &Node, path: Path) -> Result<PairStatus> {
        self.wait_paths(node, path)?.pop().context("the domain has no pair")
    }

    /// As [`Hybrid::wait_path`], for all its pairs, in their order.
    ///
    /// # Errors
    /// As there.
    pub fn wait_paths(&self, node: &Node, path: Path) -> Result<Vec<PairStatus>> {
        let name = self.name();
        let mut last = String::new();
        crate::process::until_every(
            PAUSE,
            &format!("path {path:?} of guest {name} on {}", node.name()),
            SETTLE,
            || {
                let output = node.run(&format!("hybondctl --json status {name}"))?;
                last = output.stdout + &output.stderr;
                // A domain that hybond does not know yet is an error of its own.
                let Ok(domains) = serde_json::from_str::<Domains>(&last) else {
                    return Ok(None);
                };
                let domain = domains.domains.into_iter().next().context("no domain")?;
                let there = domain.stage == "running" && domain.pairs.iter().all(|pair| pair.active == Some(path));
                Ok(there.then_some(domain.pairs))
            },
        )
        .with_context(|| last.clone())
    }

    /// Waits until the guest itself sends by its VF: what hybond says may be of before a reset.
    ///
    /// # Errors
    /// It does not within four minutes.
    pub fn wait_sends_by_vf(&self, node: &Node) -> Result<()> {
        let what = format!("guest {} sending by its VF on {}", self.name(), node.name());
        let mut last = String::new();
        crate::process::until_every(PAUSE, &what, SETTLE, || {
            // While it boots, it does not answer.
            let nic = self.active_nic(node);
            last = format!("{nic:?}");
            let by_vf = |nic: &Option<String>| nic.as_deref().is_some_and(|nic| nic != STANDBY);
            Ok(nic.ok().filter(by_vf).map(drop))
        })
        .with_context(|| format!("it sends by {last}"))
    }

    /// A plain `virsh migrate --live`.
    ///
    /// # Errors
    /// It cannot be run, or does not end. A refusal is no error.
    pub fn migrate(&self, from: &Node, to: &Node) -> Result<Output> {
        let command = format!(
            "virsh migrate --live --persistent {} qemu+tls://{}/system",
            self.name(),
            to.name()
        );
        from.run_within(&command, MIGRATION)
    }

    /// As [`Hybrid::migrate`], for a migration that must succeed.
    ///
    /// # Errors
    /// It does not; the error has virsh's words.
    pub fn moves(&self, from: &Node, to: &Node) -> Result<()> {
        let moved = self.migrate(from, to)?;
        ensure!(
            moved.success(),
            "virsh migrate from {} to {}: {}",
            from.name(),
            to.name(),
            moved.stderr.trim()
        );
        Ok(())
    }

    /// What a host tells of its starts, migrations, drains and plugs, newest last, once the last of that kind is over.
    ///
    /// # Errors
    /// It is not over within four minutes.
    pub fn last_run(&self, node: &Node, kind: &str) -> Result<Run> {
        crate::process::until(&format!("end of {kind} on {}", node.name()), SETTLE, || {
            // A domain that has left is known by its UUID.
            let text = node.ok(&format!("hybondctl --json timeline -n 20 {}", self.domain.uuid))?;
            let runs: Runs = serde_json::from_str(&text).context("hybondctl timeline")?;
            let last = runs.runs.into_iter().rev().find(|run| run.kind == kind);
            Ok(last.filter(|run| run.outcome.is_some()))
        })
    }

    /// The NIC that the guest's own bond sends by; `None` where there is no bond.
    ///
    /// # Errors
    /// The guest does not answer.
    pub fn active_nic(&self, node: &Node) -> Result<Option<String>> {
        let line = "cat /sys/class/net/*/bonding/active_slave || true";
        let text = self.guest.ok(node, line)?;
        let nic = text.trim().to_owned();
        Ok((!nic.is_empty() && !nic.contains("No such file")).then_some(nic))
    }
}
