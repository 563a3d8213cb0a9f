//! Two hosts on which hybond is installed as its users install it.

use super::leftovers::Inventory;
use super::packages::Packages;
use super::pair::POOL;
use crate::cache::progress;
use crate::domain::GUEST_FILES;
use crate::{Host, Lab, Machine, image};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::time::{Duration, Instant};

const CONFIG: &str = "/etc/hybond/hybond.toml";
/// How long dpkg may take on an emulated host, its postinst included.
const INSTALL: Duration = Duration::from_secs(300);

/// A lab with hybond on both hosts.
#[derive(Debug)]
pub struct Stage<'a> {
    /// The hosts.
    pub lab: &'a Lab,
    /// What was installed.
    pub packages: &'a Packages,
    /// Each host as it was before the first hybrid guest.
    before: Vec<(String, Inventory)>,
}

impl<'a> Stage<'a> {
    /// Installs the packages on both hosts, with a pool of both PFs, and puts the agent and the probe into the guest's
    /// image.
    ///
    /// # Errors
    /// A package does not install, or the daemon does not come up.
    pub fn deploy(lab: &'a Lab, packages: &'a Packages) -> Result<Self> {
        let start = Instant::now();
        let initramfs = packages.work().join("initramfs");
        let programs = [
            (packages.agent.as_path(), "hybond-agent"),
            (packages.probe.as_path(), "hybond-probe"),
        ];
        image::guest_image(&programs, &initramfs)?;
        let initramfs = fs::read(&initramfs).context("cannot read the guest's image")?;
        let before = lab.each(|host| {
            host.write_file(&format!("{GUEST_FILES}/initramfs"), &initramfs, "644")?;
            install(host, packages)?;
            Ok((host.name().to_owned(), Inventory::keep(host)?))
        })?;
        progress(&format!(
            "hybond is installed on both after {} s",
            start.elapsed().as_secs()
        ));
        Ok(Self { lab, packages, before })
    }

    /// The hosts at which [`Stage::deploy`] has been before they were saved.
    ///
    /// # Errors
    /// It has not, or the daemon does not answer.
    pub fn restored(lab: &'a Lab, packages: &'a Packages) -> Result<Self> {
        let before = lab.each(|host| {
            ready(host)?;
            Ok((host.name().to_owned(), Inventory::kept(host)?))
        })?;
        Ok(Self { lab, packages, before })
    }

    /// Gives a host other settings, `pool` for its pool and `others` for sections of their own, and restarts its daemon.
    /// Without any, they are those that it was installed with.
    ///
    /// # Errors
    /// The daemon does not come up with them.
    pub fn configure(&self, host: &Host, pool: &str, others: &str) -> Result<()> {
        let text = format!("{}{pool}\n{others}", config(host));
        host.write_file(CONFIG, text.as_bytes(), "644")?;
        host.ok("systemctl restart hybondd")?;
        ready(host)
    }

    /// What is on a host that was not there before the first hybrid guest was. Where none is now, it must be nothing.
    ///
    /// # Errors
    /// The host cannot be looked at.
    pub fn leftovers(&self, host: &Host) -> Result<Vec<String>> {
        let before = self.before.iter().find(|(name, _)| name == host.name());
        let (_, before) = before.context("a host of another lab")?;
        Ok(Inventory::of(host)?.beyond(before))
    }

    /// As [`Stage::leftovers`], once they are none or do not become fewer within `limit`: libvirt ends a domain before
    /// its last hook has been answered.
    ///
    /// # Errors
    /// The host cannot be looked at.
    pub fn settled_leftovers(&self, host: &Host, limit: Duration) -> Result<Vec<String>> {
        let start = Instant::now();
        loop {
            let left = self.leftovers(host)?;
            if left.is_empty() || start.elapsed() > limit {
                return Ok(left);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

fn install(host: &Host, packages: &Packages) -> Result<()> {
    host.write_file(CONFIG, config(host).as_bytes(), "644")?;
    host.copy(&packages.host, "/root/hybond.deb")?;
    // The administrator's file was there first, and stays.
    let dpkg = "DEBIAN_FRONTEND=noninteractive dpkg --force-confold -i /root/hybond.deb";
    let output = host.run_within(dpkg, INSTALL)?;
    ensure!(
        output.success(),
        "hybond does not install on {}: {}{}",
        host.name(),
        output.stdout.trim(),
        output.stderr.trim()
    );
    ready(host)
}

fn config(host: &Host) -> String {
    let pfs: Vec<String> = host.pfs().iter().map(|pf| format!("{pf:?}")).collect();
    format!(
        "[host]\npeer = \"{}\"\n\n[[pool]]\nname = \"{POOL}\"\npf = [{}]\n",
        host.name(),
        pfs.join(", ")
    )
}

fn ready(host: &Host) -> Result<()> {
    let script = "systemctl is-active --quiet hybondd || { journalctl -u hybondd -o cat -n 5 --no-pager; exit 1; }\n\
                  hybondctl host";
    host.until("hybondd", script, Duration::from_secs(60))?;
    Ok(())
}
