//! Memory that somebody copies or saves while the VF is plugged, past everything that would have drained the guest. What the
//! guard can call off it calls off, and the guest is on the same VF all the while; what it cannot, it tells.

use crate::scene::{Cast, SOON, Scene, cast};
use anyhow::{Context, Result, ensure};
use hybond_lab::{Machine, Output, process};
use hybond_wire::agent::Path;
use std::time::{Duration, Instant};

/// Of the journal, when the guard has acted.
const CANCELLED: &str = "a migration or save began with a VF plugged, and was cancelled";
/// Of the journal, where it could not.
const TOO_LATE: &str = "went on with a VF plugged and can no longer be cancelled";
/// Where memory would be written to.
const FILE: &str = "/root/memory";
/// A disk that can hold snapshots.
const DISK: &str = "/var/lib/libvirt/images/photo.qcow2";
/// Of a guest's whole memory, on a busy machine.
const COPY: Duration = Duration::from_secs(120);
/// No macvtap has this number by itself: nodes of macvtaps are the whole machine's.
const INDEX: u32 = 424_242;

/// No hook runs at the destination, and all that hybond would have made is there.
pub fn migration(scene: &mut Scene<'_>) -> Result<String> {
    let (there, mac) = (scene.there(), scene.usual.identity.mac);
    let (standby, pf) = (mac.standby_name(), scene.to().pfs()[0]);
    let id = scene.usual.identity.id;
    scene.without_hybond(there)?;
    scene.inject(
        there,
        &format!(
            // Down, as hybond's is until the guest has come: two of one address are one too many.
            "ip link add link {pf} name {standby} index {INDEX} address {mac} type macvtap mode bridge"
        ),
        &format!("ip link del {standby}; rm -f /run/hybond/qmp/{id}*"),
    )?;
    let seen = called_off(scene, "virsh migrate", "running", |scene| scene.migrate(""))?;
    scene.heal()?;
    Ok(seen)
}

/// Neither asks hybond.
pub fn save(scene: &mut Scene<'_>) -> Result<String> {
    let saved = save_is_called_off(scene, "running")?;
    let managed = called_off(scene, "virsh managedsave", "running", |scene| {
        scene.virsh(&format!("managedsave {}", scene.name()))
    })?;
    let kept = format!("virsh dominfo {} | grep -E '^Managed save: +no'", scene.name());
    scene.from().ok(&kept)?;
    Ok(format!("{saved}; {managed}"))
}

/// A guest whose drain was asked for and cannot end, each time for another reason.
pub fn save_while_the_drain_is_prevented(scene: &mut Scene<'_>) -> Result<String> {
    let tap = scene.tap()?;
    // Nobody in it hears that it is to let go, and somebody waits for that.
    let under_way = scene.draining()?;
    save_is_called_off(scene, "running")?;
    let drained = under_way.end()?;
    ensure!(!drained.success(), "it is said to be drained");
    scene.back_on_its_vf()?;
    ask_and_be_refused(scene)?;
    scene.back_on_its_vf()?;
    scene.heal()?;
    scene.another_tap_than(&tap)?;
    scene.back_on_its_vf()?;

    scene.without_agent()?;
    scene.until_status("a guest without its agent", |domain, _| !domain.agent)?;
    ask_and_be_refused(scene)?;
    save_is_called_off(scene, "running")?;
    scene.heal()?;
    scene.back_on_its_vf()?;

    let name = scene.name().to_owned();
    scene.inject(
        scene.here(),
        &format!("virsh suspend {name}"),
        &format!("virsh resume {name}"),
    )?;
    ask_and_be_refused(scene)?;
    save_is_called_off(scene, "paused")?;
    scene.heal()?;
    scene.back_on_its_vf()?;

    // Last: it obeys late, and its traffic is moved to and fro.
    scene.inject_into_guest("killall -STOP hybond-agent", "killall -CONT hybond-agent")?;
    ask_and_be_refused(scene)?;
    save_is_called_off(scene, "running")?;
    scene.heal()?;
    scene.back_on_its_vf()?;
    Ok("deaf, agent away, paused, agent hung: hybondctl save refused and virsh save called off each time".to_owned())
}

/// By QEMU's migration, as `virsh dump` does by itself; and by QEMU's dump, from which nothing is ever started.
pub fn dump(scene: &mut Scene<'_>) -> Result<String> {
    let mut seen = Vec::new();
    for how in ["", "--live "] {
        seen.push(called_off(scene, &format!("virsh dump {how}"), "running", |scene| {
            scene.virsh(&format!("dump {how}{} {FILE}", scene.name()))
        })?);
        nothing_is_written(scene)?;
    }
    let (tap, told) = (scene.tap()?, scene.journal_says(CANCELLED)?);
    let dumped = scene.virsh(&format!("dump --memory-only {} {FILE}", scene.name()))?;
    ensure!(dumped.success(), "virsh dump --memory-only: {}", dumped.stderr.trim());
    scene.from().ok(&format!("rm {FILE}"))?;
    ensure!(
        scene.journal_says(CANCELLED)? == told,
        "the guard has had to do with it"
    );
    ensure!(scene.tap()? == tap, "it has another VF");
    scene.back_on_its_vf()?;
    seen.push("--memory-only went on".to_owned());
    Ok(seen.join("; "))
}

/// With memory it is a save; of the disks alone it is none of the guard's business.
pub fn external_snapshot(scene: &mut Scene<'_>) -> Result<String> {
    let photo = photographed(scene)?;
    let node = scene.node(photo.at);
    let told = scene.journal_says(CANCELLED)?;
    let disks = "virsh snapshot-create-as photo disks --disk-only --no-metadata";
    node.run_within(disks, COPY)?.succeeded("a snapshot of the disks")?;
    ensure!(
        scene.journal_says(CANCELLED)? == told,
        "the guard has had to do with it"
    );

    let whole = format!("virsh snapshot-create-as photo whole --memspec file={FILE} --no-metadata");
    let begun = Instant::now();
    let output = node.run_within(&whole, COPY)?;
    ensure!(!output.success(), "the snapshot was taken");
    scene.hear_virsh(output);
    let seconds = begun.elapsed().as_secs_f32();
    journal_has(scene, CANCELLED, told + 1)?;
    nothing_is_written(scene)?;
    node.until("the guest running", "virsh domstate photo | grep -q running", SOON)?;
    photo.hybrid.wait_path(node, Path::Primary)?;
    end(scene, &photo)?;
    Ok(format!(
        "of the disks: taken; with memory: refused after {seconds:.1} s"
    ))
}

/// QEMU takes it in one go, without a look at its monitors.
pub fn internal_snapshot(scene: &mut Scene<'_>) -> Result<String> {
    let photo = photographed(scene)?;
    let node = scene.node(photo.at);
    let told = scene.journal_says(TOO_LATE)?;
    node.run_within("virsh snapshot-create-as photo one", COPY)?
        .succeeded("an internal snapshot")?;
    journal_has(scene, TOO_LATE, told + 1)?;
    photo.hybrid.wait_path(node, Path::Primary)?;
    node.run_within("virsh snapshot-delete photo one", COPY)?
        .succeeded("the end of it")?;

    // As the page of a domain's life has it.
    node.ok("hybondctl drain photo")?;
    node.run_within("virsh snapshot-create-as photo two", COPY)?
        .succeeded("an internal snapshot of a drained guest")?;
    node.ok("virsh snapshot-delete photo two && hybondctl plug photo")?;
    photo.hybrid.wait_path(node, Path::Primary)?;
    ensure!(
        scene.journal_says(TOO_LATE)? == told + 1,
        "told of a guest without its VF"
    );
    end(scene, &photo)?;
    Ok("told with the VF plugged; nothing to tell after a drain".to_owned())
}

/// Something that copies memory must fail, by the guard, and the guest must not have noticed: it has the VF that it had, and
/// goes on as it did.
fn called_off(
    scene: &mut Scene<'_>,
    what: &str,
    state: &str,
    copy: impl FnOnce(&mut Scene<'_>) -> Result<Output>,
) -> Result<String> {
    let (tap, told) = (scene.tap()?, scene.journal_says(CANCELLED)?);
    let begun = Instant::now();
    let output = copy(scene)?;
    let seconds = begun.elapsed().as_secs_f32();
    ensure!(!output.success(), "{what} has succeeded with a VF plugged");
    journal_has(scene, CANCELLED, told + 1).with_context(|| format!("{what}: {}", output.stderr.trim()))?;
    let goes_on = format!("virsh domstate {} | grep -q {state}", scene.name());
    scene.from().until(&format!("the guest {state}"), &goes_on, SOON)?;
    ensure!(scene.tap()? == tap, "{what}: it has another VF");
    Ok(format!("{} called off after {seconds:.1} s", what.trim_end()))
}

fn save_is_called_off(scene: &mut Scene<'_>, state: &str) -> Result<String> {
    let seen = called_off(scene, "virsh save", state, |scene| {
        scene.virsh(&format!("save {} {FILE}", scene.name()))
    })?;
    nothing_is_written(scene)?;
    Ok(seen)
}

/// hybond's own save drains before, and does not begin without.
fn ask_and_be_refused(scene: &mut Scene<'_>) -> Result<()> {
    let told = scene.journal_says(CANCELLED)?;
    let asked = scene.hybondctl(&format!("save {} {FILE}", scene.name()))?;
    ensure!(!asked.success(), "it is said to be saved");
    nothing_is_written(scene)?;
    ensure!(scene.journal_says(CANCELLED)? == told, "it was left to the guard");
    Ok(())
}

fn nothing_is_written(scene: &Scene<'_>) -> Result<()> {
    let left = scene.from().run(&format!("[ ! -e {FILE} ]"))?;
    ensure!(left.success(), "{FILE} is there");
    Ok(())
}

fn journal_has(scene: &Scene<'_>, words: &str, times: usize) -> Result<()> {
    process::until(&format!("“{words}” in the journal"), SOON, || {
        Ok((scene.journal_says(words)? >= times).then_some(()))
    })
}

/// A guest with a disk, on its VF on the usual guest's host.
fn photographed(scene: &mut Scene<'_>) -> Result<Cast> {
    let mut photo = cast("photo", 4)?;
    photo.at = scene.here();
    photo.hybrid.domain.disk = Some(DISK.to_owned());
    let node = scene.node(photo.at);
    // Of a scenario that has failed.
    node.run("virsh undefine photo --snapshots-metadata; rm -f /var/lib/libvirt/images/photo.*")?;
    node.ok(&format!("qemu-img create -q -f qcow2 {DISK} 512M"))?;
    scene.boot(&photo, photo.at, "")?;
    photo.hybrid.wait_path(node, Path::Primary)?;
    Ok(photo)
}

fn end(scene: &Scene<'_>, photo: &Cast) -> Result<()> {
    scene
        .node(photo.at)
        .ok("virsh destroy photo && virsh undefine photo && rm -f /var/lib/libvirt/images/photo.*")?;
    scene.nothing_of(photo)
}
