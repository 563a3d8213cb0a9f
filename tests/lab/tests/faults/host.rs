//! Faults of a host: of its VFs, of the file system of hybond's state.

use crate::scene::Scene;
use anyhow::{Result, ensure};
use hybond_lab::Machine;
use std::time::Instant;

const STATE: &str = "/var/lib/hybond";

/// As a VF does that somebody takes away from QEMU: the guest lets go of it, and nobody of hybond's has asked.
pub fn vf_unplugged(scene: &mut Scene<'_>) -> Result<String> {
    let tap = scene.tap()?;
    let id = scene.usual.identity.mac.primary_id();
    let begun = Instant::now();
    scene.from().ok(&format!(
        "virsh qemu-monitor-command {} '{{\"execute\":\"device_del\",\"arguments\":{{\"id\":\"{id}\"}}}}'",
        scene.name()
    ))?;
    scene.another_tap_than(&tap)?;
    scene.back_on_its_vf()?;
    Ok(format!("had a VF again after {:.1} s", begun.elapsed().as_secs_f32()))
}

/// State on a small file system of its own, for as long as the scenario lasts.
fn own_file_system(scene: &mut Scene<'_>, host: usize) -> Result<()> {
    let kept = "/root/hybond-kept";
    scene.stop_daemon(host)?;
    scene.inject(
        host,
        &format!(
            "set -e; rm -rf {kept}; cp -a {STATE} {kept}; mount -t tmpfs -o size=2m,mode=700 tmpfs {STATE}; \
             cp -a {kept}/. {STATE}"
        ),
        &format!(
            "set -e; rm -rf {kept} {STATE}/filler; cp -a {STATE} {kept}; umount {STATE}; rm -rf {STATE}/*; cp -a {kept}/. {STATE}"
        ),
    )?;
    scene.start_daemon_until_healed(host)
}

pub fn source_state_full(scene: &mut Scene<'_>) -> Result<String> {
    let host = scene.here();
    own_file_system(scene, host)?;
    scene.back_on_its_vf()?;
    let (_, before) = scene.status()?;
    let filler = format!("{STATE}/filler");
    ensure!(
        !scene
            .from()
            .run(&format!("dd if=/dev/zero of={filler} bs=1k"))?
            .success(),
        "the file system is not full"
    );
    let begun = Instant::now();
    let output = scene.migrate("")?;
    scene.refused(output)?;
    let refused = begun.elapsed().as_secs_f32();
    scene.from().ok(&format!("rm {filler}"))?;
    scene.back_on_its_vf()?;
    let (_, after) = scene.status()?;
    ensure!(before.vf == after.vf, "{before:?} became {after:?}");
    Ok(format!("refused after {refused:.1} s"))
}
