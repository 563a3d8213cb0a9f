//! Guests whose agent is not there, hangs, or dies.

use crate::scene::{SOON, Scene, cast};
use anyhow::{Result, ensure};
use hybond_lab::{Machine, process};
use std::time::Instant;

/// Of the journal, of a guest that sends what it should not.
const MISBEHAVES: &str = "the guest's agent misbehaves";
/// Drains of another guest beside one that floods.
const FLOODED: usize = 3;
/// In the journal of so short a time.
const LINES: usize = 6;

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

/// Whatever stands in for the agent writes as fast as it can and reads nothing, while another guest is drained and plugged.
pub fn floods(scene: &mut Scene<'_>) -> Result<String> {
    let here = scene.here();
    scene.with_second(here)?;
    scene.without_agent()?;
    scene.until_status("a guest without its agent", |domain, _| !domain.agent)?;
    let (before, told) = (scene.cost()?, scene.journal_says(MISBEHAVES)?);
    scene.inject_into_guest(
        "cat /dev/zero >/dev/virtio-ports/org.hybond.agent.0 2>/dev/null </dev/null & echo $! >/tmp/flood",
        "kill $(cat /tmp/flood)",
    )?;
    process::until("the flood being noticed", SOON, || {
        Ok((scene.journal_says(MISBEHAVES)? > told).then_some(()))
    })?;
    let begun = Instant::now();
    for _ in 0..FLOODED {
        scene.from().ok("hybondctl drain second")?;
        scene.from().ok("hybondctl plug second")?;
        scene.second_is_well(here)?;
    }
    let seconds = begun.elapsed().as_secs_f32();
    let flooding = scene.in_guest("kill -0 $(cat /tmp/flood) && echo it floods")?;
    ensure!(flooding.trim() == "it floods", "the flood has ended: {flooding}");
    let after = scene.cost()?;
    after.cost.has_not_grown_since(&before.cost)?;
    let said = scene.journal_says(MISBEHAVES)? - told;
    ensure!(said <= LINES, "{said} lines in the journal");
    scene.heal()?;
    scene.back_on_its_vf()?;
    Ok(format!(
        "another guest drained and plugged {FLOODED} times in {seconds:.1} s; hybondd {} KiB before, {} KiB then, {:.2} s of a \
         processor, {said} lines in the journal",
        before.cost.rss_kib,
        after.cost.rss_kib,
        after.cpu - before.cpu
    ))
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
