//! A migration's phases as both hosts tell them, on this machine's clock.

use crate::probe::Span;
use crate::process;
use crate::{Host, Machine};
use anyhow::{Context, Result, ensure};
use hybond_wire::control::{Phase, Run};
use serde::Deserialize;
use std::time::Duration;

/// From the end of `virsh migrate` until both hosts have nothing more to tell of it.
const ENDS: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Runs {
    runs: Vec<Run>,
}

/// Both hosts' accounts of one migration. Times are this machine's.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// The migration's id, the same on both.
    pub id: String,
    /// `migration-out`.
    pub source: Run,
    /// `migration-in`.
    pub destination: Run,
}

/// What a host tells of a domain, by the host's own clock, newest last. A domain that has left is known by its UUID.
///
/// # Errors
/// hybondd does not answer, or does not know the domain.
pub fn runs(host: &Host, domain: &str) -> Result<Vec<Run>> {
    let text = host.ok(&format!("hybondctl --json timeline -n 10 {domain}"))?;
    let runs: Runs = serde_json::from_str(&text).context("hybondctl timeline")?;
    Ok(runs.runs)
}

/// The last migration between two hosts, once it is over on both.
///
/// # Errors
/// There is none, or it does not end.
pub fn timeline(from: &Host, to: &Host, uuid: &str) -> Result<Timeline> {
    let offsets = [from.clock_offset_ms()?, to.clock_offset_ms()?];
    let destination = process::until("the destination's timeline", ENDS, || {
        let last = runs(to, uuid)?.into_iter().rev().find(|run| run.kind == "migration-in");
        Ok(last.filter(|run| run.outcome.is_some()))
    })?;
    let source = process::until("the source's timeline", ENDS, || {
        Ok(with_drain(runs(from, uuid)?, &destination.id).filter(|run| run.outcome.is_some()))
    })?;
    ensure!(source.kind == "migration-out", "the source calls it {}", source.kind);
    let [source, destination] =
        [(source, offsets[0]), (destination, offsets[1])].map(|(run, offset)| moved(run, offset));
    Ok(Timeline {
        id: destination.id.clone(),
        source,
        destination,
    })
}

/// The run of that id. Where nothing was left to unplug in it, because whoever migrated has drained before, that drain is
/// part of the migration.
fn with_drain(runs: Vec<Run>, id: &str) -> Option<Run> {
    let mut drain = Vec::new();
    for mut run in runs {
        if run.id == id {
            if !run.phases.iter().any(|phase| phase.name == "failover") {
                drain.append(&mut run.phases);
                run.phases = drain;
            }
            return Some(run);
        }
        drain = if run.kind == "drain" { run.phases } else { Vec::new() };
    }
    None
}

/// On this machine's clock.
fn moved(mut run: Run, offset_ms: f64) -> Run {
    run.started_ms = (run.started_ms as f64 - offset_ms) as u64;
    for phase in &mut run.phases {
        phase.start_ms -= offset_ms;
        phase.end_ms = phase.end_ms.map(|end| end - offset_ms);
    }
    run
}

impl Timeline {
    /// The phases of both, in the order of their beginning. What both hosts tell of, such as QEMU's migration, is told
    /// twice: the destination's is marked.
    #[must_use]
    pub fn phases(&self) -> Vec<Span> {
        let told = |run: &Run, name: &str| run.phases.iter().any(|phase| phase.name == name);
        let span = |phase: &Phase, name: &str| Span::new(name, phase.start_ms, phase.end_ms.unwrap_or(phase.start_ms));
        let mut spans: Vec<Span> = self
            .source
            .phases
            .iter()
            .map(|phase| span(phase, &phase.name))
            .collect();
        spans.extend(self.destination.phases.iter().map(|phase| {
            if told(&self.source, &phase.name) {
                span(phase, &format!("{} (there)", phase.name))
            } else {
                span(phase, &phase.name)
            }
        }));
        spans.sort_by(|a, b| a.start_ms.total_cmp(&b.start_ms));
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kind: &str, phases: &[(&str, f64, f64)]) -> Run {
        let phases = phases.iter().map(|(name, start, end)| Phase {
            name: (*name).to_owned(),
            start_ms: *start,
            end_ms: Some(*end),
            detail: None,
        });
        Run {
            id: "m".to_owned(),
            kind: kind.to_owned(),
            started_ms: 0,
            phases: phases.collect(),
            outcome: Some("ok".to_owned()),
        }
    }

    #[test]
    fn both_accounts_become_one_on_one_clock() {
        let source = run(
            "migration-out",
            &[("failover", 120.0, 130.0), ("migration", 150.0, 300.0)],
        );
        let destination = run(
            "migration-in",
            &[("lease", 5_010.0, 5_020.0), ("migration", 5_160.0, 5_299.0)],
        );
        let timeline = Timeline {
            id: "m".to_owned(),
            source: moved(source, 20.0),
            destination: moved(destination, 5_000.0),
        };
        let expected = [
            Span::new("lease", 10.0, 20.0),
            Span::new("failover", 100.0, 110.0),
            Span::new("migration", 130.0, 280.0),
            Span::new("migration (there)", 160.0, 299.0),
        ];
        assert_eq!(timeline.phases(), expected);
    }
}
