//! What must be refused, and what a guest does without a VF.

use crate::scene::{Scene, refusal};
use anyhow::{Context, Result, bail, ensure};
use hybond_lab::scenario::{HybridGuest, POOL, runs};
use hybond_lab::{Host, Machine};
use std::time::Duration;

/// Where the only VF is another's: a migration of a pair that requires one is refused, and one that prefers one arrives on
/// its standby and gets the VF as soon as it is freed.
pub fn no_vf_is_free(scene: &Scene<'_>) -> Result<()> {
    let (src, dst, _, stage) = scene.parts();
    let taken = take_all_vfs(scene)?;
    let played = refused_for_want_of_a_vf(scene).and_then(|()| upgraded_later(scene, &taken));
    taken.remove(std::slice::from_ref(dst))?;
    stage.configure(dst, "", "")?;
    played?;
    scene.arrive(dst, src)
}

fn upgraded_later(scene: &Scene<'_>, taken: &HybridGuest) -> Result<()> {
    let (src, dst, guest, stage) = scene.parts();
    scene.arrive(src, dst)?;
    let pair = guest.wait_standby(dst)?;
    ensure!(pair.vf.is_none() && !pair.plugged, "it has a VF: {pair:?}");
    let why = pair.degraded.context("status does not say why it is on its standby")?;
    ensure!(why.contains(POOL) && why.contains("leased"), "status says: {why}");
    let ping = format!("ping -c 1 -W 2 {}", guest.address());
    stage
        .lab
        .peer()
        .until("ping over the standby", &ping, Duration::from_secs(30))?;
    taken.remove(std::slice::from_ref(dst))?;
    let pair = guest.wait_primary(dst)?;
    eprintln!("  \"{why}\"; then freed, and on {}", pair.vf.context("no VF")?);
    Ok(())
}

/// A domain that holds the only VF of the pool of `dst`. It is paused: only its lease is wanted.
fn take_all_vfs(scene: &Scene<'_>) -> Result<HybridGuest> {
    let (_, dst, _, stage) = scene.parts();
    let vf = dst.vfs(&dst.pfs()[1])?.remove(0);
    stage.configure(dst, &format!("vf = [\"{vf}\"]"), "")?;
    let mut other = HybridGuest::new("other", dst);
    other.domain = other.domain.numbered(3);
    (other.domain.memory, other.domain.huge_pages) = (64, false);
    other.define(dst)?;
    dst.ok("virsh start --paused other")?;
    Ok(other)
}

fn refused_for_want_of_a_vf(scene: &Scene<'_>) -> Result<()> {
    let (src, dst, guest, _) = scene.parts();
    scene.edit_metadata("prefer", "require")?;
    let before = guest.pair(src)?;
    let drains = count_runs(src, &guest.domain.uuid, "migration-out")?;
    let output = guest.migrate(src, dst)?;
    refusal(&output, &["on dst", POOL, "is leased", "require", "52:54:00:aa:00:01"])?;
    // Before anything was changed: the source was not even asked.
    ensure!(
        count_runs(src, &guest.domain.uuid, "migration-out")? == drains,
        "the source was asked"
    );
    let after = guest.pair(src)?;
    ensure!(
        (&after.vf, after.since_ms) == (&before.vf, before.since_ms),
        "{before:?} became {after:?}"
    );
    scene.edit_metadata("require", "prefer")
}

fn count_runs(host: &Host, domain: &str, kind: &str) -> Result<usize> {
    Ok(runs(host, domain)?.iter().filter(|run| run.kind == kind).count())
}

pub fn guest_ignores_the_unplug(scene: &Scene<'_>) -> Result<()> {
    let (src, _, guest, stage) = scene.parts();
    stage.configure(src, "", "[guest]\nunplug_seconds = 8\n")?;
    guest.wait_primary(src)?;
    // QEMU asks by ACPI's general purpose event 1 (`_E01`), which the guest's kernel no longer hears.
    let gpe = "/sys/firmware/acpi/interrupts/gpe01";
    guest.guest.ok(src, &format!("echo mask >{gpe}"))?;
    let refused = scene.is_refused(&["src", "did not let go", "within"]);
    // It hears the event that is pending, and lets go after all: the VF is plugged anew.
    guest.guest.ok(src, &format!("echo unmask >{gpe}"))?;
    refused?;
    stage.configure(src, "", "")?;
    guest.wait_primary(src).map(drop)
}

pub fn destination_daemon_down(scene: &Scene<'_>) -> Result<()> {
    scene.dst.ok("systemctl stop hybondd")?;
    let output = scene.guest.migrate(scene.src, scene.dst)?;
    scene.dst.ok("systemctl start hybondd")?;
    refusal(&output, &["hybondd is not running on dst", "systemctl start hybondd"])?;
    scene.guest.wait_primary(scene.src).map(drop)
}

pub fn source_daemon_down(scene: &Scene<'_>) -> Result<()> {
    let before = scene.guest.pair(scene.src)?;
    scene.src.ok("systemctl stop hybondd")?;
    let output = scene.guest.migrate(scene.src, scene.dst)?;
    scene.src.ok("systemctl start hybondd")?;
    refusal(&output, &["on dst", "src"])?;
    let after = scene.guest.wait_primary(scene.src)?;
    ensure!(before.vf == after.vf, "{before:?} became {after:?}");
    Ok(())
}

pub fn wrong_certificate(scene: &Scene<'_>) -> Result<()> {
    let (_, dst, _, stage) = scene.parts();
    let pki = "/var/lib/lab/wrong-pki/dst/libvirt";
    stage.configure(
        dst,
        "",
        &format!(
            "[tls]\nca = \"/etc/pki/CA/cacert.pem\"\ncert = \"{pki}/servercert.pem\"\nkey = \"{pki}/private/serverkey.pem\"\n"
        ),
    )?;
    let refused = scene.is_refused(&["on dst", "src", "certificate"]);
    stage.configure(dst, "", "")?;
    refused.map(drop)
}

pub fn domain_unknown_to_the_source(scene: &Scene<'_>) -> Result<()> {
    scene.edit_metadata("peer=.src.", "peer='dst'")?;
    let refused = scene.is_refused(&["on dst", "does not drain", "the domain does not run on this host"]);
    scene.edit_metadata("peer=.dst.", "peer='src'")?;
    refused.map(drop)
}

pub fn save_is_cancelled(scene: &Scene<'_>) -> Result<()> {
    let (src, _, guest, _) = scene.parts();
    let before = guest.pair(src)?;
    let since = src.ok("date '+%F %T'")?;
    let output = src.run_within(
        &format!("virsh save {} /var/tmp/saved", guest.name()),
        Duration::from_secs(300),
    )?;
    if output.success() {
        bail!("the guest was saved with its VF: {}", output.stdout.trim());
    }
    eprintln!("  virsh: {}", output.stderr.trim());
    let journal = format!(
        "journalctl -u hybondd -o cat --no-pager --since '{}' | grep 'with a VF plugged, and was cancelled'",
        since.trim()
    );
    let said = src.until("the guard's word in the journal", &journal, Duration::from_secs(20))?;
    ensure!(said.contains(guest.name()) && said.contains("hybondctl save"), "{said}");
    // The guard's message id, as src/daemon has it; the catalog's text has the domain's name filled in.
    let explained = src.ok("journalctl -u hybondd -x --no-pager -n 50 MESSAGE_ID=d6fe32f062af4e1b84d9db81d362910a")?;
    let subject = format!("A migration or save of {} was cancelled", guest.name());
    ensure!(
        explained.contains(&subject),
        "journalctl -x does not explain it: {explained}"
    );
    ensure!(
        src.ok(&format!("virsh domstate {}", guest.name()))?.trim() == "running",
        "the guest does not run"
    );
    let after = guest.pair(src)?;
    ensure!(
        (&after.vf, after.plugged, after.active) == (&before.vf, true, before.active),
        "{before:?} became {after:?}"
    );
    ensure!(!src.run("test -e /var/tmp/saved")?.success(), "libvirt has left a file");
    Ok(())
}
