//! Two guests at a time.

use crate::scene::Scene;
use anyhow::{Context, Result, ensure};
use hybond_lab::Machine;
use hybond_lab::soak::View;
use hybond_wire::agent::Path;
use std::time::Instant;

pub fn both_directions(scene: &mut Scene<'_>) -> Result<String> {
    let (here, there) = (scene.here(), scene.there());
    scene.with_second(there)?;
    let begun = Instant::now();
    let under_way = scene.begin("");
    let second = scene.second.hybrid.migrate(scene.node(there), scene.node(here))?;
    let output = under_way.end()?;
    scene.arrived(output)?;
    ensure!(second.success(), "virsh migrate: {}", second.stderr.trim());
    let crossed = begun.elapsed().as_secs_f32();
    scene.second.at = here;
    scene.second_is_well(here)?;
    Ok(format!("both migrated within {crossed:.1} s"))
}

pub fn last_vf(scene: &mut Scene<'_>) -> Result<String> {
    let (here, there) = (scene.here(), scene.there());
    scene.with_second(here)?;
    scene.set_pool(there, Some(1))?;
    let under_way = scene.begin("");
    let second = scene.second.hybrid.migrate(scene.node(here), scene.node(there))?;
    let output = under_way.end()?;
    scene.arrived(output)?;
    ensure!(second.success(), "virsh migrate: {}", second.stderr.trim());
    scene.second.at = there;
    let node = scene.node(there);

    let held = View::of(node)?.held();
    let [held] = held.as_slice() else {
        anyhow::bail!("held: {held:?}");
    };
    let usual_has_it = held.domain == scene.usual.identity.id;
    let (has, waits) = if usual_has_it {
        (&scene.usual, &scene.second)
    } else {
        (&scene.second, &scene.usual)
    };
    has.hybrid.wait_path(node, Path::Primary)?;
    let without = waits.hybrid.wait_path(node, Path::Standby)?;
    ensure!(without.vf.is_none() && !without.plugged, "{without:?}");
    scene.reachable(&waits.address)?;
    let (has, waits) = (has.hybrid.name().to_owned(), waits.hybrid.clone());
    scene.hear_status(&without);

    let begun = Instant::now();
    node.ok(&format!("hybondctl drain {has}"))?;
    let upgraded = waits.wait_path(node, Path::Primary)?;
    ensure!(
        upgraded.vf.as_ref().context("no VF")?.to_string() == held.vf,
        "{upgraded:?}"
    );
    let upgraded = begun.elapsed().as_secs_f32();
    scene.set_pool(there, None)?;
    node.ok(&format!("hybondctl plug {has}"))?;
    scene.second_is_well(there)?;
    Ok(format!(
        "{has} had it; {} got it {upgraded:.1} s after a drain",
        waits.name()
    ))
}
