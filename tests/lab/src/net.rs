//! Network namespaces of the lab, made with `ip`.

use crate::process::{self, run_ok};
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Network namespaces that were made together and go together. Their names are recorded before they are made.
#[derive(Debug, Clone)]
pub struct Namespaces {
    record: PathBuf,
}

impl Namespaces {
    /// The record in file `record`.
    #[must_use]
    pub fn recorded_in(record: PathBuf) -> Self {
        Self { record }
    }

    /// Makes namespaces, each with its loopback up.
    ///
    /// # Errors
    /// One of them exists and is not ours.
    pub fn add(&self, names: &[&str]) -> Result<()> {
        fs::write(&self.record, names.join("\n")).context("cannot record the namespaces")?;
        for name in names {
            run_ok(Command::new("ip").args(["netns", "add", name]))?;
            ip(name, "link set lo up")?;
        }
        Ok(())
    }

    /// Removes the recorded namespaces that are there.
    ///
    /// # Errors
    /// One of them cannot be removed.
    pub fn remove(&self) -> Result<()> {
        let names = match fs::read_to_string(&self.record) {
            Ok(names) => names,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.record.display())),
        };
        for name in names.lines().filter(|name| exists(name)) {
            run_ok(Command::new("ip").args(["netns", "del", name]))?;
        }
        fs::remove_file(&self.record)?;
        Ok(())
    }
}

/// Whether there is a namespace of this name.
#[must_use]
pub fn exists(name: &str) -> bool {
    Path::new("/run/netns").join(name).exists()
}

/// `ip ARGUMENTS` in namespace `name`.
///
/// # Errors
/// With what `ip` says.
pub fn ip(name: &str, arguments: &str) -> Result<String> {
    run_ok(Command::new("ip").args(["-n", name]).args(arguments.split_whitespace()))
}

/// A program in namespace `name`, not yet started.
#[must_use]
pub fn command(name: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", name]).arg(program);
    command
}

/// A bridge without the delays and floods of its own that would be taken for the lab's packets.
///
/// # Errors
/// With what `ip` says.
pub fn bridge(namespace: &str, name: &str) -> Result<()> {
    ip(
        namespace,
        &format!("link add {name} type bridge forward_delay 0 mcast_snooping 0"),
    )?;
    // The bridge itself is no host on this network.
    sysctl(namespace, &format!("net.ipv6.conf.{name}.disable_ipv6=1"))?;
    ip(namespace, &format!("link set {name} up"))?;
    Ok(())
}

/// Sets a link up as a port of a bridge, without an address of its own.
///
/// # Errors
/// With what `ip` says.
pub fn plug(namespace: &str, link: &str, bridge: &str) -> Result<()> {
    sysctl(namespace, &format!("net.ipv6.conf.{link}.disable_ipv6=1"))?;
    ip(namespace, &format!("link set {link} master {bridge} up"))?;
    Ok(())
}

/// The traffic peer: `eth0` in namespace `peer`, on bridge `br-data` of namespace `net`.
///
/// # Errors
/// With what `ip` says.
pub fn peer(net: &str, peer: &str, address: &str) -> Result<()> {
    ip(net, &format!("link add to-peer type veth peer name eth0 netns {peer}"))?;
    plug(net, "to-peer", "br-data")?;
    ip(peer, "link set eth0 address 02:00:00:00:00:fe")?;
    ip(peer, &format!("addr add {address}/24 dev eth0"))?;
    ip(peer, "addr add fd88::fe/64 dev eth0 nodad")?;
    ip(peer, "link set eth0 up")?;
    Ok(())
}

/// Sets a variable of a namespace's network.
///
/// # Errors
/// The kernel does not have it.
pub fn sysctl(namespace: &str, setting: &str) -> Result<()> {
    let output = process::run(
        command(namespace, "sysctl").args(["-qw", setting]),
        None,
        std::time::Duration::from_secs(10),
    )?;
    anyhow::ensure!(output.success(), "sysctl {setting}: {}", output.stderr.trim());
    Ok(())
}
