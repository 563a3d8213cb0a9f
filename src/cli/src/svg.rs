//! A timeline as a picture.

use crate::time::{duration, utc};
use crate::timeline::Span;
use hybond_wire::control::Run;

const LEFT: usize = 150;
const BARS: usize = 700;
const RIGHT: usize = 220;
const ROW: usize = 20;
const HEAD: usize = 34;

/// One block for each run, one bar for each phase.
pub fn picture(domain: &str, runs: &[Run]) -> String {
    let width = LEFT + BARS + RIGHT;
    let mut body = String::new();
    let mut y = HEAD;
    body += &text(10, 22, "t", &format!("hybond timeline of {domain}"));
    for run in runs {
        y += block(&mut body, run, y);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
         <style>text{{font:12px sans-serif}}.t{{font-weight:bold;font-size:15px}}.h{{font-weight:bold}}\
         .n{{text-anchor:end}}.f{{fill:#b00020}}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n",
        height = y + 10,
    )
}

/// Draws a run from `top` on; its height.
fn block(body: &mut String, run: &Run, top: usize) -> usize {
    let span = Span::of(run);
    let outcome = run.outcome.as_deref().unwrap_or("under way");
    let class = if matches!(run.outcome.as_deref(), None | Some("ok")) {
        "h"
    } else {
        "h f"
    };
    let head = format!(
        "{}  {}  {}  {outcome}",
        utc(run.started_ms),
        run.kind,
        duration(span.length())
    );
    *body += &text(10, top + 16, class, &head);
    for (i, phase) in run.phases.iter().enumerate() {
        let y = top + HEAD - 8 + i * ROW;
        let (from, to) = span.part(phase);
        let x = LEFT as f64 + from * BARS as f64;
        let length = ((to - from) * BARS as f64).max(1.5);
        let opacity = if phase.end_ms.is_some() { "1" } else { "0.4" };
        *body += &text(LEFT - 8, y + 13, "n", &phase.name);
        *body += &format!(
            "<rect x=\"{x:.1}\" y=\"{}\" width=\"{length:.1}\" height=\"{}\" fill=\"{}\" opacity=\"{opacity}\"/>\n",
            y + 3,
            ROW - 6,
            colour(&phase.name)
        );
        let took = phase
            .end_ms
            .map_or_else(|| "…".to_owned(), |end| duration(end - phase.start_ms));
        *body += &text((x + length) as usize + 5, y + 13, "", &took);
    }
    HEAD + run.phases.len() * ROW
}

/// One for each of the guest's changes of path, one for what is done to VFs, one for the rest.
fn colour(phase: &str) -> &'static str {
    match phase {
        "failover" | "failback" => "#2e7d32",
        "plug" | "unplug" | "prepare-vf" | "reset-vf" => "#1565c0",
        "drain-source" => "#ef6c00",
        _ => "#78909c",
    }
}

fn text(x: usize, y: usize, class: &str, content: &str) -> String {
    let mut escaped = String::with_capacity(content.len());
    for c in content.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    format!("<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{escaped}</text>\n")
}
