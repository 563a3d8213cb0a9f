//! What befalls a host, and can only befall a whole one: its VFs are taken away, its clock is set, its power is cut. Each
//! scenario says one line of what was seen, as `tests/faults` does; `docs/failure-matrix.md` names them.

use crate::scene::{Scene, nothing_is_left, refusal};
use anyhow::{Context, Result, ensure};
use hybond_lab::scenario::HybridGuest;
use hybond_lab::{Host, Machine, Output};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// More than any time-out of hybond's.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Where a file takes the memory of a host.
const TAKEN: &str = "/run/taken";
/// libvirt asks its peers for a sign of life every 5 s and gives up after 5 of them (`keepalive_interval` and
/// `keepalive_count` in libvirtd.conf), and a host boots meanwhile.
const GIVEN_UP: Duration = Duration::from_secs(300);

/// One line for each, well or not.
fn told(name: &str, played: Result<String>) -> Result<()> {
    match played {
        Ok(seen) => {
            eprintln!("fault {name}: {seen}");
            Ok(())
        }
        Err(error) => {
            eprintln!("fault {name}: FALLS SHORT: {error:#}");
            Err(error)
        }
    }
}

pub fn vfs_are_taken_away(scene: &Scene<'_>) -> Result<()> {
    told("vfs-taken-away", vfs_come_and_go(scene))
}

/// The kernel asks QEMU for the VF and waits until it has let go, and whoever writes the number waits with it.
fn vfs_come_and_go(scene: &Scene<'_>) -> Result<String> {
    let (src, _, guest, _) = scene.parts();
    let before = guest.pair(src)?;
    let pf = before.pf.context("no PF")?;
    let number = format!("/sys/class/net/{pf}/device/sriov_numvfs");
    let vfs = src.read_file(&number)?;
    src.ok(&format!("echo 0 >{number}"))?;
    let bare = guest.wait_bare(src)?;
    let why = bare.degraded.context("status does not say why it is on its standby")?;
    answers(scene)?;
    let begun = Instant::now();
    src.ok(&format!("echo {} >{number}", vfs.trim()))?;
    let after = guest.wait_primary(src)?;
    Ok(format!(
        "on its standby without them (\"{why}\"), on {} {:.1} s after they were back",
        after.vf.context("no VF")?,
        begun.elapsed().as_secs_f32()
    ))
}

pub fn driver_is_reloaded(scene: &Scene<'_>) -> Result<()> {
    told("pf-driver-reloaded", driver_goes_and_comes(scene))
}

/// With the PFs go their VFs and what is over them: QEMU holds the end of a macvtap that is no more. A guest has a VF again as
/// soon as there is one; its standby is made anew at its next start.
fn driver_goes_and_comes(scene: &Scene<'_>) -> Result<String> {
    let (src, dst, guest, _) = scene.parts();
    src.ok("modprobe -r igb")?;
    let begun = Instant::now();
    src.ok("modprobe igb")?;
    for pf in src.pfs() {
        src.until(
            &format!("PF {pf}"),
            &format!("ip link set {pf} up && echo 3 >/sys/class/net/{pf}/device/sriov_numvfs"),
            Duration::from_secs(60),
        )?;
    }
    guest.wait_primary(src)?;
    answers(scene)?;
    let back = begun.elapsed().as_secs_f32();
    // There is no path to move the traffic to.
    let said = refusal(&guest.migrate(src, dst)?, &["its macvtap is gone"])?;
    let told = src.ok("journalctl -u hybondd -o cat --no-pager | grep -c 'its macvtap is gone'")?;
    ensure!(
        told.trim().parse::<u32>()? <= 5,
        "the journal says it {} times",
        told.trim()
    );
    nothing_is_left(scene, dst)?;
    answers(scene).context("after the refusal")?;
    src.ok(&format!("virsh destroy {}", guest.name()))?;
    nothing_is_left(scene, src)?;
    guest.guest.forget_console(src)?;
    guest.boot(src)?;
    guest.wait_primary(src)?;
    Ok(format!(
        "on a VF {back:.1} s after the driver was back; not migrated (\"{said}\"); well after its next start"
    ))
}

pub fn clock_is_set_back(scene: &Scene<'_>) -> Result<()> {
    told("clock-set-back", set_back_during_a_drain(scene))
}

fn set_back_during_a_drain(scene: &Scene<'_>) -> Result<String> {
    let (src, dst, guest, stage) = scene.parts();
    // Forward first, so that certificates are valid all the time.
    stage.lab.each(|host| shift(host, "+", DAY))?;
    let migration = Background::migrate(guest, src, dst);
    until_standby(guest, src)?;
    stage.lab.each(|host| shift(host, "-", DAY))?;
    migration.succeeds()?;
    guest.wait_primary(dst)?;
    answers(scene)?;
    nothing_is_left(scene, src)?;
    scene.arrive(dst, src)?;
    Ok("both clocks went back by a day during a drain: the guest arrived, and came back".to_owned())
}

fn shift(host: &Host, sign: &str, by: Duration) -> Result<()> {
    host.ok(&format!("date -s @$(($(date +%s) {sign} {}))", by.as_secs()))?;
    Ok(())
}

pub fn destination_lacks_memory(scene: &Scene<'_>) -> Result<()> {
    told("destination-lacks-memory", no_room_at_the_destination(scene))
}

/// All of the guest's memory is to be there before it comes; without, it would be found to be lacking when its VF is plugged.
fn no_room_at_the_destination(scene: &Scene<'_>) -> Result<String> {
    let (src, dst, guest, _) = scene.parts();
    let most = guest.domain.memory / 2;
    // What is in a tmpfs is nobody's that could be killed for it.
    dst.ok(&format!(
        "set -e; mkdir -p {TAKEN}; mount -t tmpfs -o size=100% taken {TAKEN}; \
         has=$(awk '/^MemAvailable:/ {{ print int($2 / 1024) }}' /proc/meminfo); fallocate -l $((has - {most}))M {TAKEN}/file"
    ))?;
    let refused = scene.is_refused(&["process exited"]);
    dst.ok(&format!("umount {TAKEN}"))?;
    let said = refused?;
    answers(scene)?;
    // Whom the kernel has ended for want of memory was the newcomer.
    dst.ok("hybondctl host")?;
    scene.arrive(src, dst)?;
    guest.wait_primary(dst)?;
    scene.arrive(dst, src)?;
    Ok(format!(
        "it stayed where it was, on its VF (virsh: \"{said}\"); with the memory there it went, and came back"
    ))
}

pub fn destination_loses_power(scene: &Scene<'_>) -> Result<()> {
    told("destination-power-lost", power_of_the_destination(scene))
}

fn power_of_the_destination(scene: &Scene<'_>) -> Result<String> {
    let (src, dst, guest, stage) = scene.parts();
    let before = guest.pair(src)?;
    dst.ok("sync")?;
    let migration = Background::slow(guest, src, dst);
    until_copied(guest, src)?;
    stage.lab.cut_power(dst.name())?;
    let begun = Instant::now();
    let answered = answers(scene);
    stage.lab.boot_again(dst.name())?;
    answered.context("over its standby, while the destination is off")?;
    let said = migration.fails()?;
    let after = guest.wait_primary(src)?;
    ensure!(after.vf == before.vf, "{before:?} became {after:?}");
    let settled = begun.elapsed().as_secs();
    guest.guest.ok(src, "true").context("the guest itself")?;
    nothing_is_left(scene, dst)?;
    scene.arrive(src, dst)?;
    guest.wait_primary(dst)?;
    scene.arrive(dst, src)?;
    Ok(format!(
        "reachable while it was off, on its VF on src {settled} s later (virsh: \"{said}\"); with the destination booted again it \
         went there, and came back"
    ))
}

pub fn source_loses_power(scene: &Scene<'_>) -> Result<()> {
    told("source-power-lost", power_of_the_source(scene))
}

fn power_of_the_source(scene: &Scene<'_>) -> Result<String> {
    let (src, dst, guest, stage) = scene.parts();
    src.ok("sync")?;
    let migration = Background::slow(guest, src, dst);
    until_copied(guest, src)?;
    stage.lab.cut_power(src.name())?;
    let begun = Instant::now();
    // Its client has died with it: there is nobody to be told.
    drop(migration);
    dst.until(
        "end of the guest that cannot arrive",
        &format!("! virsh -q list --name | grep -qx {}", guest.name()),
        GIVEN_UP,
    )?;
    nothing_is_left(scene, dst)?;
    let settled = begun.elapsed().as_secs();
    stage.lab.boot_again(src.name())?;
    src.until("hybondd", "hybondctl host", GIVEN_UP)?;
    nothing_is_left(scene, src)?;
    guest.guest.forget_console(src)?;
    guest.boot(src)?;
    let after = guest.wait_primary(src)?;
    Ok(format!(
        "the guest ended with its host; nothing of it on dst {settled} s later, nor on src after the boot; started again, it \
         is on {}",
        after.vf.context("no VF")?
    ))
}

/// The guest, from the traffic peer.
fn answers(scene: &Scene<'_>) -> Result<()> {
    let ping = format!("ping -c 1 -W 2 {}", scene.guest.address());
    let peer = scene.stage.lab.peer();
    peer.until("ping of the guest", &ping, Duration::from_secs(30))?;
    Ok(())
}

fn until_standby(guest: &HybridGuest, host: &Host) -> Result<()> {
    let script = format!(
        "hybondctl --json status {} | grep -q '\"active\": *\"standby\"'",
        guest.name()
    );
    host.until("failover", &script, Duration::from_secs(120))?;
    Ok(())
}

/// The VF is out of the guest by then.
fn until_copied(guest: &HybridGuest, host: &Host) -> Result<()> {
    let script = format!("virsh domjobinfo {} | grep -q 'Memory processed'", guest.name());
    host.until("copy of the memory", &script, Duration::from_secs(120))?;
    Ok(())
}

/// A migration that goes on while other things happen.
struct Background(JoinHandle<Result<Output>>);

impl Background {
    fn migrate(guest: &HybridGuest, from: &Host, to: &Host) -> Self {
        Self::begin(guest, from, to, "")
    }

    /// With a copy that takes longer than what is to happen in it.
    fn slow(guest: &HybridGuest, from: &Host, to: &Host) -> Self {
        Self::begin(guest, from, to, " --bandwidth 1")
    }

    fn begin(guest: &HybridGuest, from: &Host, to: &Host, words: &str) -> Self {
        let command = format!(
            "{} {} qemu+tls://{}/system{words}",
            guest.migrate,
            guest.name(),
            to.name()
        );
        let from = from.clone();
        Self(thread::spawn(move || from.run_within(&command, GIVEN_UP)))
    }

    fn ended(self) -> Result<Output> {
        let joined = self.0.join().ok().context("the thread of the migration panicked")?;
        joined.context("virsh migrate")
    }

    fn succeeds(self) -> Result<()> {
        let output = self.ended()?;
        ensure!(output.success(), "virsh migrate: {}", output.stderr.trim());
        Ok(())
    }

    fn fails(self) -> Result<String> {
        let output = self.ended()?;
        ensure!(!output.success(), "virsh migrate has succeeded");
        Ok(output.stderr.trim().replace('\n', " "))
    }
}
