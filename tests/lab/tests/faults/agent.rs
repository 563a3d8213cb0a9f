//! Guests whose agent is not there, hangs, or dies.

use crate::scene::{SOON, Scene, cast};
use anyhow::{Result, ensure};
use hybond_lab::{Machine, process};
use std::time::Instant;

pub fn absent(scene: &mut Scene<'_>) -> Result<String> {
    scene.without_agent()?;
    let begun = Instant::now();
    scene.until_status("a guest without its agent", |domain, _| !domain.agent)?;
    let noticed = begun.elapsed().as_secs_f32();
    let tap = scene.tap()?;
    let output = scene.migrate("")?;
    scene.refused(output)?;
    ensure!(scene.tap()? == tap, "it has another VF");
    scene.heal()?;
    scene.back_on_its_vf()?;
    Ok(format!("noticed after {noticed:.1} s, refused"))
}

pub fn hung(scene: &mut Scene<'_>) -> Result<String> {
    let tap = scene.tap()?;
    scene.inject_into_guest("killall -STOP hybond-agent", "killall -CONT hybond-agent")?;
    let begun = Instant::now();
    let output = scene.migrate("")?;
    scene.refused(output)?;
    let refused = begun.elapsed().as_secs_f32();
    ensure!(scene.tap()? == tap, "it has another VF");
    scene.heal()?;
    scene.back_on_its_vf()?;
    Ok(format!("refused after {refused:.1} s"))
}

/// Its keeper starts it again, as systemd does.
pub fn killed_during_a_drain(scene: &mut Scene<'_>) -> Result<String> {
    let under_way = scene.unplugging()?;
    scene.in_guest("killall -9 hybond-agent")?;
    scene.heal()?;
    let output = under_way.end()?;
    scene.arrived(output)?;
    Ok("migrated".to_owned())
}

pub fn killed_on_its_vf(scene: &mut Scene<'_>) -> Result<String> {
    let tap = scene.tap()?;
    let before = scene.in_guest("pidof hybond-agent")?;
    scene.in_guest("killall -9 hybond-agent")?;
    let another = format!("pid=$(pidof hybond-agent) && [ \"$pid\" != '{}' ]", before.trim());
    process::until("another agent", SOON, || {
        let output = scene.usual.hybrid.guest.run_within(scene.from(), &another, SOON)?;
        Ok(output.success().then_some(()))
    })?;
    ensure!(scene.tap()? == tap, "it has another VF");
    let output = scene.migrate("")?;
    scene.arrived(output)?;
    Ok("stayed on its VF, and migrated with the next agent".to_owned())
}

/// One that never had an agent: nobody can make its bond, so that it is on its standby, wherever it goes.
pub fn never_there(scene: &mut Scene<'_>) -> Result<String> {
    let mut silent = cast("silent", 3)?;
    silent.at = scene.here();
    scene.boot(&silent, silent.at, " lab.noagent")?;
    scene.reachable(&silent.address)?;
    let begun = Instant::now();
    let (from, to) = (scene.from(), scene.to());
    let moved = silent.hybrid.migrate(from, to)?;
    ensure!(moved.success(), "virsh migrate: {}", moved.stderr.trim());
    scene.reachable(&silent.address)?;
    let moved = begun.elapsed().as_secs_f32();
    let shown = to.ok("hybondctl --json status silent")?;
    ensure!(
        shown.contains("\"plugged\":false") || shown.contains("\"plugged\": false"),
        "{shown}"
    );
    to.ok("virsh destroy silent")?;
    scene.nothing_of(&silent)?;
    Ok(format!("a guest without one migrated on its standby in {moved:.1} s"))
}
