//! A daemon that dies. Ignored by `cargo test`, because it boots a guest:
//! `cargo test -p hybond-lab --test crash -- --ignored`. By itself each effect once; with `HYBOND_CRASH_POINTS=all` each point
//! of each operation on each host; with another word, those points whose line holds it.

use anyhow::{Context, Result, ensure};
use hybond_lab::crash::{Case, Scene};
use hybond_lab::tier2_hybond::{Programs, on_stage_with, results};
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
        let mut fallen = Vec::new();
        for case in &cases {
            match scene.play(case) {
                Ok(seen) => eprintln!("{}: {seen}", line(case)),
                Err(error) => {
                    eprintln!("{}: FALLS SHORT: {error:#}", line(case));
                    let kept = format!("crash.failed/{}", line(case).replace([' ', ':'], "-"));
                    scene
                        .recover(&results()?.join(kept))
                        .with_context(|| format!("after {}", line(case)))?;
                    fallen.push(line(case));
                }
            }
        }
        let well = cases.len() - fallen.len();
        eprintln!("{well} of {} crash points: all well", cases.len());
        let effects: BTreeSet<&str> = cases.iter().map(|case| case.effect()).collect();
        let verdict = if fallen.is_empty() { "" } else { "FALLS SHORT: " };
        eprintln!(
            "invariant 9, after a restart the daemon goes on from what is there: {verdict}{well} of {} deaths around {} effects",
            cases.len(),
            effects.len()
        );
        ensure!(fallen.is_empty(), "these fall short: {fallen:#?}");
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
