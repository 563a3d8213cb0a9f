//! Destinations that do not take the guest.

use crate::scene::{SOON, Scene};
use anyhow::{Result, ensure};
use hybond_lab::domain::GUEST_FILES;
use hybond_lab::process;
use std::time::Instant;

/// A hook of somebody else's, which runs after hybond's.
const OTHER: &str = "/etc/libvirt/hooks/qemu.d/90-other";

/// Refused, and on its VF where it was.
fn stays(scene: &mut Scene<'_>) -> Result<String> {
    let begun = Instant::now();
    let output = scene.migrate("")?;
    scene.refused(output)?;
    let refused = begun.elapsed().as_secs_f32();
    scene.back_on_its_vf()?;
    Ok(format!(
        "refused after {refused:.1} s, on its VF after {:.1} s",
        begun.elapsed().as_secs_f32()
    ))
}

pub fn file_missing(scene: &mut Scene<'_>) -> Result<String> {
    let (file, there) = (format!("{GUEST_FILES}/vmlinuz"), scene.there());
    scene.inject(
        there,
        &format!("mv {file} {file}.away"),
        &format!("mv {file}.away {file}"),
    )?;
    stays(scene)
}

fn other_hook(scene: &mut Scene<'_>, operation: &str) -> Result<()> {
    let hook = format!("#!/bin/sh\\n[ \"$2\" != {operation} ] || {{ echo no room here >&2; exit 1; }}\\n");
    let reload = "kill -HUP $(cat /run/libvirtd.pid)";
    scene.inject(
        scene.there(),
        &format!("printf '{hook}' >{OTHER} && chmod 755 {OTHER} && {reload}"),
        &format!("rm -f {OTHER} && {reload}"),
    )
}

/// libvirt calls no hook any more for a domain that a `migrate` hook has refused: only time tells that it does not come.
pub fn other_hook_refuses_migrate(scene: &mut Scene<'_>) -> Result<String> {
    other_hook(scene, "migrate")?;
    let told = stays(scene)?;
    ensure!(scene.held(scene.there())? == 1, "no VF is held at the destination");
    let begun = Instant::now();
    process::until("end of the lease", SOON, || {
        Ok((scene.held(scene.there())? == 0).then_some(()))
    })?;
    Ok(format!(
        "{told}; the destination's lease ended {:.1} s later",
        begun.elapsed().as_secs_f32()
    ))
}

pub fn other_hook_refuses_prepare(scene: &mut Scene<'_>) -> Result<String> {
    other_hook(scene, "prepare")?;
    stays(scene)
}

pub fn without_hybond(scene: &mut Scene<'_>) -> Result<String> {
    scene.without_hybond(scene.there())?;
    stays_untouched(scene)
}

pub fn daemon_down(scene: &mut Scene<'_>) -> Result<String> {
    scene.stop_daemon(scene.there())?;
    stays_untouched(scene)
}

/// Refused before the guest has left its VF.
fn stays_untouched(scene: &mut Scene<'_>) -> Result<String> {
    let (_, before) = scene.status()?;
    let told = stays(scene)?;
    let (_, after) = scene.status()?;
    ensure!(
        (&before.vf, before.since_ms) == (&after.vf, after.since_ms),
        "{before:?} became {after:?}"
    );
    Ok(told)
}

pub fn pfs_down(scene: &mut Scene<'_>) -> Result<String> {
    let there = scene.there();
    let [first, second] = scene.to().pfs();
    let both = |state: &str| format!("ip link set {first} {state} && ip link set {second} {state}");
    scene.inject(there, &both("down"), &both("up"))?;
    stays(scene)
}
