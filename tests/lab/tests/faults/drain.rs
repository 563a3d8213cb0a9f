//! Faults of a drain: the guest does not let go of its VF, or something happens to it meanwhile.

use crate::scene::{SOON, Scene};
use anyhow::{Result, ensure};
use hybond_lab::{Machine, process};
use std::time::Instant;

pub fn unplug_ignored(scene: &mut Scene<'_>) -> Result<String> {
    let tap = scene.tap()?;
    let begun = Instant::now();
    let output = scene.unplugging()?.end()?;
    scene.refused(output)?;
    let refused = begun.elapsed().as_secs_f32();
    scene.back_on_its_vf()?;
    ensure!(scene.tap()? == tap, "it has another VF");
    let back = begun.elapsed().as_secs_f32();
    // The request to let go is pending in QEMU: a guest that hears again obeys it.
    scene.heal()?;
    scene.another_tap_than(&tap)?;
    Ok(format!(
        "refused after {refused:.1} s, on its VF again after {back:.1} s"
    ))
}

pub fn unplug_late(scene: &mut Scene<'_>) -> Result<String> {
    let tap = scene.tap()?;
    scene.deafen()?;
    let drained = scene.hybondctl(&format!("drain {}", scene.name()))?;
    ensure!(!drained.success(), "it is said to be drained");
    scene.back_on_its_vf()?;
    let begun = Instant::now();
    scene.heal()?;
    scene.another_tap_than(&tap)?;
    scene.back_on_its_vf()?;
    let again = begun.elapsed().as_secs_f32();
    Ok(format!(
        "let go after the time-out, and had a VF again {again:.1} s later"
    ))
}

pub fn guest_paused(scene: &mut Scene<'_>) -> Result<String> {
    let tap = scene.tap()?;
    let under_way = scene.unplugging()?;
    scene.from().ok(&format!("virsh suspend {}", scene.name()))?;
    let output = under_way.end()?;
    scene.refused(output)?;
    // libvirt lets a guest whose migration has failed run on, as it ran when it began.
    let runs = format!("virsh domstate {} | grep -q running", scene.name());
    scene.from().until("the guest running", &runs, SOON)?;
    scene.back_on_its_vf()?;
    scene.heal()?;
    scene.another_tap_than(&tap)?;
    Ok("paused, refused, and resumed by libvirt".to_owned())
}

pub fn guest_reboots(scene: &mut Scene<'_>) -> Result<String> {
    boots_again(scene, "(sleep 0.2; reboot -f) >/dev/null 2>&1 &")
}

/// A panic resets the guest where its kernel is told so (`kernel.panic`), as servers' kernels are.
pub fn guest_panics(scene: &mut Scene<'_>) -> Result<String> {
    boots_again(
        scene,
        "echo 1 >/proc/sys/kernel/panic; (sleep 0.2; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &",
    )
}

fn boots_again(scene: &mut Scene<'_>, line: &str) -> Result<String> {
    let boot = scene.in_guest("cat /proc/sys/kernel/random/boot_id")?;
    let under_way = scene.unplugging()?;
    scene.in_guest(line)?;
    let output = under_way.end()?;
    scene.arrived(output)?;
    scene.ends_well()?;
    ensure!(
        scene.in_guest("cat /proc/sys/kernel/random/boot_id")? != boot,
        "the guest has not booted again"
    );
    Ok("migrated while it booted".to_owned())
}

pub fn source_libvirtd_restarted(scene: &mut Scene<'_>) -> Result<String> {
    let here = scene.here();
    libvirtd_restarted(scene, here)
}

pub fn destination_libvirtd_restarted(scene: &mut Scene<'_>) -> Result<String> {
    let there = scene.there();
    libvirtd_restarted(scene, there)
}

fn libvirtd_restarted(scene: &mut Scene<'_>, host: usize) -> Result<String> {
    let tap = scene.tap()?;
    let under_way = scene.unplugging()?;
    scene.node(host).crash_libvirt()?;
    let output = under_way.end()?;
    scene.refused(output)?;
    scene.back_on_its_vf()?;
    scene.heal()?;
    scene.another_tap_than(&tap)?;
    Ok("refused, and back on its VF when the drain had failed".to_owned())
}

pub fn qemu_killed(scene: &mut Scene<'_>) -> Result<String> {
    let under_way = scene.unplugging()?;
    scene.kill_qemu(scene.here())?;
    scene.is_off = true;
    let output = under_way.end()?;
    scene.refused(output)?;
    Ok("refused".to_owned())
}

pub fn given_up(scene: &mut Scene<'_>) -> Result<String> {
    let tap = scene.tap()?;
    scene.deafen()?;
    // As Ctrl-C on virsh does, which takes a first one for `domjobabort`.
    let script = format!(
        "{} & pid=$!; until hybondctl --json status {} | grep -q '\"stage\": *\"draining\"'; do sleep 0.2; done; \
         kill -INT $pid; wait $pid",
        scene.migration(""),
        scene.name()
    );
    let begun = Instant::now();
    let output = scene.begin_as(script).end()?;
    scene.refused(output)?;
    let ended = begun.elapsed().as_secs_f32();
    scene.back_on_its_vf()?;
    scene.heal()?;
    scene.another_tap_than(&tap)?;
    Ok(format!("virsh ended after {ended:.1} s"))
}

/// The hosts' only link is away for longer than the daemons wait for a sign of each other, and shorter than libvirt does.
pub fn link_cut(scene: &mut Scene<'_>) -> Result<String> {
    let tap = scene.tap()?;
    let under_way = scene.unplugging()?;
    let there = scene.there();
    scene.inject(there, "ip link set mg0 down", "ip link set mg0 up")?;
    process::until("the destination giving up", SOON, || {
        Ok((scene.held(there)? == 0).then_some(()))
    })?;
    scene.heal()?;
    let output = under_way.end()?;
    scene.refused(output)?;
    scene.another_tap_than(&tap)?;
    Ok("refused when the hosts saw each other again".to_owned())
}
