//! What goes wrong, one after the other, on two namespaced hosts with libvirt, QEMU and a guest that are real. After each
//! fault the guest is reachable, on its VF or on its standby with a reason, no VF is held twice, and nothing of it is on the
//! host that it is not on. Ignored by `cargo test`, because it boots guests:
//! `cargo test -p hybond-lab --test faults -- --ignored`. By itself the short ones; with `HYBOND_FAULTS=all` all of them; with
//! `HYBOND_SCENARIO=word,word` those whose name has one of the words.
//!
//! `docs/failure-matrix.md` is written from the same table.

mod agent;
mod arrival;
mod copy;
mod drain;
mod fault;
mod guard;
mod host;
mod page;
mod pings;
mod scene;
mod several;
mod table;
mod ways;

use anyhow::{Context, Result, ensure};
use fault::{Fault, Play};
use hybond_lab::Machine;
use hybond_lab::tier2_hybond::{Daemon, on_stage, results};
use pings::Pings;
use scene::Scene;
use std::time::Instant;
use table::TABLE;

#[test]
#[ignore = "boots guests under TCG"]
fn after_every_fault_the_guest_is_reachable_and_nothing_is_left_where_it_is_not() -> Result<()> {
    on_stage("faults", |pair, _, daemons| {
        let wanted = wanted();
        ensure!(!wanted.is_empty(), "no fault has that name");
        let mut scene = Scene::new(pair, daemons)?;
        let mut fallen = Vec::new();
        for (fault, play) in &wanted {
            match act(&mut scene, fault, *play) {
                Ok(seen) => eprintln!("fault {}: {seen}", fault.name),
                Err(error) => {
                    eprintln!("fault {}: FALLS SHORT: {error:#}", fault.name);
                    fallen.push(fault.name);
                    let kept = results()?.join("faults.failed").join(fault.name);
                    for node in pair.hosts() {
                        Daemon::keep_logs(node, &kept)?;
                    }
                    scene.recover().with_context(|| format!("after {}", fault.name))?;
                }
            }
        }
        let well = wanted.len() - fallen.len();
        eprintln!("{well} of {} faults: all well", wanted.len());
        ensure!(fallen.is_empty(), "these fall short: {fallen:?}");
        scene.end()
    })
}

/// Has it happen, and answers a line of what was seen.
fn act(scene: &mut Scene<'_>, fault: &Fault, play: Play) -> Result<String> {
    scene.ready()?;
    let file = results()?.join("faults.ping");
    let pings = Pings::start(scene.pair().peer(), &scene.usual.address, &file)?;
    let begun = Instant::now();
    let played = play(scene);
    // Undone in any case; what the scenario has found comes first.
    let healed = scene.heal();
    let figure = played?;
    healed.context("it cannot be undone")?;
    scene.ends_well()?;
    let seconds = begun.elapsed().as_secs_f32();
    let pings = pings.end()?;
    let unseen = scene.unseen(fault.sees);
    ensure!(unseen.is_empty(), "{}", unseen.join("\n"));
    let place = if scene.is_off {
        "off, nothing left".to_owned()
    } else {
        format!("on its VF on {}", scene.from().name())
    };
    Ok(format!(
        "{figure}; {place} after {seconds:.1} s; {} of {} pings lost, silence of {:.1} s at most",
        pings.lost, pings.sent, pings.silence
    ))
}

fn wanted() -> Vec<(&'static Fault, Play)> {
    let word = std::env::var("HYBOND_SCENARIO").unwrap_or_default();
    let all = std::env::var("HYBOND_FAULTS").is_ok_and(|which| which == "all");
    let pick = |fault: &&Fault| match word.as_str() {
        "" => all || fault.short,
        words => words.split(',').any(|word| fault.name.contains(word)),
    };
    let wanted = TABLE.iter().filter(pick);
    wanted.filter_map(|fault| Some((fault, fault.play?))).collect()
}
