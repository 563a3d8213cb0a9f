//! One guest back and forth many times, under traffic: everything that must hold of one migration holds of each, and the
//! daemons need no more at the end than at the beginning.

use crate::scene::Scene;
use crate::there_and_back;
use anyhow::{Context, Result, ensure};
use hybond_lab::soak::{Cost, migrations};
use hybond_lab::{Host, Machine};

/// Where the environment says no other number: half an hour.
const MIGRATIONS: usize = 20;
/// Round trips after which nothing may grow any more.
const WARM: usize = 2;

pub fn back_and_forth(scene: &Scene<'_>) -> Result<()> {
    let trips = migrations(MIGRATIONS)? / 2;
    ensure!(trips > WARM, "a soak has more than {} migrations", 2 * WARM);
    let mut costs: Vec<[Cost; 2]> = Vec::new();
    for trip in 1..=trips {
        there_and_back::there_and_back(scene).with_context(|| format!("round trip {trip} of {trips}"))?;
        let both = [cost(scene.src)?, cost(scene.dst)?];
        for (host, cost) in [scene.src, scene.dst].iter().zip(&both) {
            eprintln!("after {} migrations: {}: {cost}", 2 * trip, host.name());
        }
        costs.push(both);
    }
    let (before, after) = (costs[WARM - 1], costs[trips - 1]);
    for side in 0..2 {
        after[side].has_not_grown_since(&before[side])?;
    }
    Cost::is_flat(&before, &after)
}

fn cost(host: &Host) -> Result<Cost> {
    let pid = host.ok("systemctl show -p MainPID --value hybondd")?;
    Cost::of(host, pid.trim().parse().context("hybondd's process")?)
}
