//! What stories of guests on the hosts of tier 2 ask and do again and again.

use super::daemon::{Daemon, PoolOn, configure, leftovers};
use super::guest::Hybrid;
use crate::tier2::Node;
use crate::{Machine, process};
use anyhow::{Context, Result, ensure};
use hybond_wire::agent::Path;
use hybond_wire::control::PairStatus;
use std::time::Duration;

/// A guest that starts again does so within this.
pub const BOOT: Duration = Duration::from_secs(400);
/// A host is clean, or changed, within this.
pub const CLEAN: Duration = Duration::from_secs(60);

/// A daemon with other pools.
///
/// # Errors
/// It does not go or come.
pub fn configured(node: &Node, daemon: Daemon, pools: &[PoolOn<'_>]) -> Result<Daemon> {
    daemon.stop()?;
    configure(node, pools)?;
    Daemon::start(node)
}

/// Waits until hybond says that the guest is on its VF, and the guest that it sends by it.
///
/// # Errors
/// It does not within minutes, or something is wrong with its pair all the same.
pub fn on_its_vf(guest: &Hybrid, node: &Node) -> Result<PairStatus> {
    guest.wait_sends_by_vf(node)?;
    let pair = guest.wait_path(node, Path::Primary)?;
    ensure!(pair.plugged && pair.vf.is_some() && pair.degraded.is_none(), "{pair:?}");
    Ok(pair)
}

/// Moves the guest by `virsh migrate`: it is on its VF then, and nothing of it is left on the host that it came from.
///
/// # Errors
/// One of that is not so.
pub fn moved(guest: &Hybrid, from: &Node, to: &Node) -> Result<PairStatus> {
    guest.moves(from, to)?;
    let pair = on_its_vf(guest, to)?;
    nothing_is_left(from)?;
    Ok(pair)
}

/// Whether it is the same VF, of the same PF.
#[must_use]
pub fn same_vf(one: &PairStatus, other: &PairStatus) -> bool {
    one.vf == other.vf && one.pf == other.pf
}

/// Tells one boot of the guest from another.
///
/// # Errors
/// The guest does not answer.
pub fn boot_id(guest: &Hybrid, node: &Node) -> Result<String> {
    guest.guest.ok(node, "cat /proc/sys/kernel/random/boot_id")
}

/// Waits until the guest has another boot id, and answers it.
///
/// # Errors
/// It has not within minutes.
pub fn booted_again(guest: &Hybrid, node: &Node, before: &str) -> Result<String> {
    process::until_every(Duration::from_secs(1), "another boot", BOOT, || {
        // While it boots, it does not answer.
        let line = "cat /proc/sys/kernel/random/boot_id";
        let answer = guest.guest.run_within(node, line, Duration::from_secs(10));
        let now = answer
            .ok()
            .filter(|answer| answer.success())
            .map(|answer| answer.stdout);
        Ok(now.filter(|now| now != before && !now.is_empty()))
    })
    .context("the guest has not booted again")
}

/// Destroys domains, after which nothing of any may be left.
///
/// # Errors
/// One cannot be destroyed, or something is left.
pub fn end(node: &Node, domains: &[&str]) -> Result<()> {
    for domain in domains {
        node.ok(&format!("virsh destroy {domain}"))?;
    }
    nothing_is_left(node)
}

/// Nothing of a guest may be left on a host.
///
/// # Errors
/// Something is; the error says what.
pub fn nothing_is_left(node: &Node) -> Result<()> {
    let left = leftovers(node, CLEAN)?;
    ensure!(left.is_empty(), "left behind on {}:\n{left}", node.name());
    Ok(())
}
