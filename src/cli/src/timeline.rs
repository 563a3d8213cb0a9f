//! `timeline`: where the time went.

use crate::args::Timeline;
use crate::control::{query, unexpected};
use crate::failure::{Failure, Kind};
use crate::output::{Output, plain};
use crate::svg;
use crate::time::{duration, utc};
use hybond_wire::control::{Phase, Request, Response, Run};
use serde::Serialize;
use std::path::Path;

/// Width of the bars, in characters.
const WIDTH: usize = 50;

#[derive(Serialize)]
struct Runs<'a> {
    domain: &'a str,
    runs: &'a [Run],
}

/// `hybondctl timeline`.
pub fn timeline(socket: &Path, what: &Timeline, output: &Output) -> Result<(), Failure> {
    let request = Request::Timeline {
        domain: what.domain.clone(),
        limit: usize::from(what.last),
    };
    let runs = match query(socket, &request)? {
        Response::Timeline { runs } => runs,
        other => return Err(unexpected(&other)),
    };
    if let Some(file) = &what.svg {
        let picture = svg::picture(&what.domain, &runs);
        std::fs::write(file, picture)
            .map_err(|error| Failure::new(Kind::Failed, format!("{} cannot be written: {error}", file.display())))?;
    }
    let domain = &what.domain;
    let json = Runs { domain, runs: &runs };
    output.result(&json, || text(domain, &runs))
}

fn text(domain: &str, runs: &[Run]) -> String {
    if runs.is_empty() {
        return format!("nothing has happened to domain {domain} on this host yet\n");
    }
    let runs: Vec<String> = runs.iter().map(run_text).collect();
    runs.join("\n")
}

fn run_text(run: &Run) -> String {
    let span = Span::of(run);
    let outcome = match &run.outcome {
        None => "under way".to_owned(),
        Some(outcome) => plain(outcome),
    };
    let mut text = format!(
        "{}  {}  {}  {}  ({})\n",
        utc(run.started_ms),
        plain(&run.kind),
        duration(span.length()),
        outcome,
        plain(&run.id)
    );
    let names = run.phases.iter().map(|p| p.name.chars().count());
    let width = names.max().unwrap_or(0);
    for phase in &run.phases {
        let took = phase
            .end_ms
            .map_or_else(|| "…".to_owned(), |end| duration(end - phase.start_ms));
        let name = plain(&phase.name);
        let bar = span.bar(phase);
        let at = format!("+{}", duration(phase.start_ms - span.start));
        let line = format!("  {name:<width$}  {at:>10}  {took:>9}  {bar}");
        text += line.trim_end();
        if let Some(detail) = &phase.detail {
            text += &format!("  {}", plain(detail));
        }
        text.push('\n');
    }
    text
}

/// From the first beginning to the last end of a run.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// In milliseconds since the epoch.
    pub start: f64,
    /// In milliseconds since the epoch.
    pub end: f64,
}

impl Span {
    /// Of one run. A phase that is under way counts as far as it is known.
    pub fn of(run: &Run) -> Self {
        // Milliseconds since the epoch are exact in an f64 for the next 280,000 years.
        let begun = run.started_ms as f64;
        let starts = run.phases.iter().map(|p| p.start_ms);
        let ends = run.phases.iter().map(|p| p.end_ms.unwrap_or(p.start_ms));
        Self {
            start: starts.fold(begun, f64::min),
            end: ends.fold(begun, f64::max),
        }
    }

    /// In milliseconds.
    pub fn length(self) -> f64 {
        (self.end - self.start).max(0.0)
    }

    /// Where a phase lies, as parts of one.
    pub fn part(self, phase: &Phase) -> (f64, f64) {
        let length = self.length().max(0.001);
        let part = |at: f64| ((at - self.start) / length).clamp(0.0, 1.0);
        (part(phase.start_ms), part(phase.end_ms.unwrap_or(self.end)))
    }

    /// As characters: at least one, and never beyond the edge.
    fn bar(self, phase: &Phase) -> String {
        let (from, to) = self.part(phase);
        let column = |part: f64| (part * WIDTH as f64).round() as usize;
        let start = column(from).min(WIDTH - 1);
        let end = column(to).clamp(start + 1, WIDTH);
        let symbol = if phase.end_ms.is_some() { "█" } else { "▒" };
        let bar = format!("{}{}", " ".repeat(start), symbol.repeat(end - start));
        format!("{bar:<WIDTH$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(name: &str, start_ms: f64, end_ms: Option<f64>) -> Phase {
        Phase {
            name: name.to_owned(),
            start_ms,
            end_ms,
            detail: None,
        }
    }

    #[test]
    fn bars_lie_where_the_phases_do() {
        let run = Run {
            id: "m1".to_owned(),
            kind: "migration-in".to_owned(),
            started_ms: 1_000_000,
            phases: vec![
                phase("lease", 1_000_000.0, Some(1_000_010.0)),
                phase("drain-source", 1_000_010.0, Some(1_000_510.0)),
                phase("plug", 1_000_510.0, Some(1_001_000.0)),
                phase("failback", 1_001_000.0, None),
            ],
            outcome: None,
        };
        let text = run_text(&run);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "1970-01-01 00:16:40.000Z  migration-in  1000 ms  under way  (m1)"
        );
        assert_eq!(lines[1], "  lease            +0.0 ms      10 ms  █");
        let half = "█".repeat(25);
        assert_eq!(lines[2], format!("  drain-source      +10 ms     500 ms   {half}"));
        assert_eq!(
            lines[3],
            format!(
                "  plug             +510 ms     490 ms  {}{}",
                " ".repeat(26),
                "█".repeat(24)
            )
        );
        assert_eq!(
            lines[4],
            format!("  failback        +1000 ms          …  {}▒", " ".repeat(49))
        );
    }

    #[test]
    fn a_run_of_no_length_is_drawn() {
        let run = Run {
            id: "d".to_owned(),
            kind: "drain".to_owned(),
            started_ms: 5,
            phases: vec![
                phase("failover", 5.0, Some(5.0)),
                phase("unplug", f64::NAN, Some(f64::INFINITY)),
            ],
            outcome: Some("ok".to_owned()),
        };
        assert_eq!(run_text(&run).lines().count(), 3);
    }
}
