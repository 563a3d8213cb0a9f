//! A daemon that dies. Ignored by `cargo test`, because it boots a guest:
//! `cargo test -p hybond-lab --test crash -- --ignored`. By itself each effect once; with `HYBOND_CRASH_POINTS=all` each point
//! of each operation on each host; with another word, those points whose line holds it.

use anyhow::{Result, ensure};
use hybond_lab::crash::{Case, Scene};
use hybond_lab::tier2_hybond::{Programs, on_stage_with};
use std::collections::BTreeSet;

#[test]
#[ignore = "boots a guest under TCG"]
fn a_daemon_that_dies_at_any_point_leaves_a_guest_on_the_network_and_nothing_else() -> Result<()> {
    on_stage_with("crash", &Programs::built_to_crash()?, |pair, _, daemons| {
        let mut scene = Scene::new(pair, daemons)?;
        let all = scene.cases()?;
        let cases = chosen(&all);
        ensure!(!cases.is_empty(), "no point is wanted");
        eprintln!("{} points of {} that were passed", cases.len(), all.len());
        for case in &cases {
            let seen = scene.play(case);
            eprintln!(
                "{}: {}",
                line(case),
                seen.as_ref().map_or_else(|error| format!("{error:#}"), Clone::clone)
            );
            seen?;
        }
        eprintln!("{} of {} crash points: all well", cases.len(), cases.len());
        scene.end()
    })
}

fn line(case: &Case) -> String {
    format!("crash point {} in {} on {}", case.point, case.operation, case.side)
}

fn chosen(all: &[Case]) -> Vec<Case> {
    let wanted = std::env::var("HYBOND_CRASH_POINTS").unwrap_or_default();
    let mut effects = BTreeSet::new();
    let pick = |case: &&Case| match wanted.as_str() {
        "all" => true,
        // The worse half: what was done and not noted.
        "" => case.point.starts_with("after:") && effects.insert(case.point.clone()),
        word => line(case).contains(word),
    };
    all.iter().filter(pick).cloned().collect()
}
