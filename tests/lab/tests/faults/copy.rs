//! Faults while QEMU copies the guest's memory. The VF is gone by then; the guest gets it back where it stays.

use crate::scene::{SETTLE, Scene};
use anyhow::Result;
use hybond_lab::{Machine, process};
use std::time::Instant;

/// Refused, and on its VF where it was.
fn stays(scene: &mut Scene<'_>, under_way: crate::scene::UnderWay) -> Result<String> {
    let begun = Instant::now();
    let output = under_way.end()?;
    scene.refused(output)?;
    scene.ends_well()?;
    Ok(format!("on its VF {:.1} s later", begun.elapsed().as_secs_f32()))
}

pub fn aborted(scene: &mut Scene<'_>) -> Result<String> {
    let under_way = scene.copying("")?;
    scene.from().ok(&format!("virsh domjobabort {}", scene.name()))?;
    stays(scene, under_way)
}

pub fn destination_qemu_killed(scene: &mut Scene<'_>) -> Result<String> {
    let under_way = scene.copying("")?;
    scene.kill_qemu(scene.there())?;
    stays(scene, under_way)
}

pub fn source_qemu_killed(scene: &mut Scene<'_>) -> Result<String> {
    let under_way = scene.copying("")?;
    scene.kill_qemu(scene.here())?;
    scene.is_off = true;
    let output = under_way.end()?;
    scene.refused(output)?;
    Ok("refused".to_owned())
}

pub fn source_libvirtd_restarted(scene: &mut Scene<'_>) -> Result<String> {
    let under_way = scene.copying("")?;
    scene.from().crash_libvirt()?;
    stays(scene, under_way)
}

pub fn destination_libvirtd_restarted(scene: &mut Scene<'_>) -> Result<String> {
    let under_way = scene.copying("")?;
    scene.to().crash_libvirt()?;
    stays(scene, under_way)
}

/// A migration that is to be persistent ends at the source where the destination cannot write the domain's definition: the
/// destination ends its QEMU in Finish, before the guest's CPUs run there (`qemuMigrationDstFinish()`).
pub fn finish_fails(scene: &mut Scene<'_>) -> Result<String> {
    const DEFINITIONS: &str = "/etc/libvirt/qemu";
    let there = scene.there();
    scene.inject(
        there,
        &format!("mount --bind {DEFINITIONS} {DEFINITIONS} && mount -o remount,bind,ro {DEFINITIONS}"),
        &format!("umount {DEFINITIONS}"),
    )?;
    let under_way = scene.begin("");
    stays(scene, under_way)
}

/// virsh gives a host up that it has not heard of for half a minute. The source's QEMU waits for the link, or for TCP.
pub fn link_cut(scene: &mut Scene<'_>) -> Result<String> {
    let under_way = scene.copying("")?;
    let there = scene.there();
    scene.inject(there, "ip link set mg0 down", "ip link set mg0 up")?;
    let begun = Instant::now();
    process::until("the destination's end of it", SETTLE, || {
        Ok((scene.held(there)? == 0).then_some(()))
    })?;
    let given_up = begun.elapsed().as_secs_f32();
    scene.heal()?;
    let told = stays(scene, under_way)?;
    Ok(format!(
        "the destination gave up after {given_up:.1} s; with the link, {told}"
    ))
}
