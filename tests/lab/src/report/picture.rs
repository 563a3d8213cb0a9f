//! The picture: for each migration its phases as bars, and below them, on the same axis of time, how long either
//! direction had been without a packet. Lost packets are red.

use super::{Entry, Migration};
use crate::probe::{Direction, Span, arrivals};
use crate::svg::{Anchor, BODY, FAINT, Font, GRID, HEADING, SMALL, Svg};

const WIDTH: f64 = 1180.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 84.0;
const ROW: f64 = 20.0;
const CHART: f64 = 190.0;
const RUG: f64 = 16.0;
const BOTTOM: f64 = 62.0;

const LOST: &str = "#cf222e";
const TO_GUEST: &str = "#0550ae";
const FROM_GUEST: &str = "#bf8700";
/// Tops of the scale of gaps, in ms.
const SCALES: [f64; 10] = [100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5];
/// One after the other.
const PHASES: [&str; 6] = ["#2f6f8f", "#8250df", "#1a7f37", "#bc4c00", "#6e7781", "#a04080"];

/// Draws all migrations, one below the other.
pub(super) fn draw(migrations: &[Migration], entries: &[Entry]) -> String {
    let mut svg = Svg::default();
    let mut y = 0.0;
    for (migration, entry) in migrations.iter().zip(entries) {
        y += Panel::new(migration, entry, y).draw(&mut svg);
    }
    svg.finish(WIDTH, y.max(1.0))
}

struct Panel<'a> {
    migration: &'a Migration,
    entry: &'a Entry,
    /// What is shown.
    shown: Span,
    y: f64,
    phases: Vec<Span>,
    /// Top of the scale, in ms.
    scale_ms: f64,
}

impl<'a> Panel<'a> {
    fn new(migration: &'a Migration, entry: &'a Entry, y: f64) -> Self {
        let mut phases = migration.phases.clone();
        phases.sort_by(|a, b| a.start_ms.total_cmp(&b.start_ms));
        let gap = entry.longest_gap_ms.max(migration.virtio_only_gap_ms.unwrap_or(0.0));
        Self {
            migration,
            entry,
            shown: shown(&phases, migration),
            y,
            phases,
            scale_ms: SCALES.into_iter().find(|top| gap * 1.3 < *top).unwrap_or(1e6),
        }
    }

    fn chart_top(&self) -> f64 {
        self.y + TOP + self.phases.len() as f64 * ROW + 14.0
    }

    fn rug_top(&self) -> f64 {
        self.chart_top() + CHART + 8.0
    }

    fn bottom(&self) -> f64 {
        self.rug_top() + 2.0 * RUG
    }

    fn x(&self, at_ms: f64) -> f64 {
        let part = (at_ms - self.shown.start_ms) / (self.shown.end_ms - self.shown.start_ms);
        LEFT + part.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    /// From 1 ms on, logarithmic: usual gaps of some ms and one of a second are both to be seen.
    fn gap_y(&self, gap_ms: f64) -> f64 {
        let part = gap_ms.max(1.0).log10() / self.scale_ms.log10();
        self.chart_top() + CHART * (1.0 - part.clamp(0.0, 1.0))
    }

    /// Draws it and returns its height.
    fn draw(&self, svg: &mut Svg) -> f64 {
        self.headings(svg);
        self.time_axis(svg);
        self.gap_axis(svg);
        self.bars(svg);
        if let Some(gap) = self.migration.virtio_only_gap_ms {
            let y = self.gap_y(gap);
            svg.dashed((LEFT, y), (WIDTH - RIGHT, y), FAINT);
            let text = format!("virtio only, longest gap {gap:.0} ms");
            svg.text((WIDTH - RIGHT - 4.0, y + 15.0), Anchor::End, SMALL, &text);
        }
        // The one below is the wider: where both are the same, both are seen.
        for (dir, color, width) in [
            (Direction::FromGuest, FROM_GUEST, 4.0),
            (Direction::ToGuest, TO_GUEST, 1.5),
        ] {
            svg.polyline(&self.silence(dir), color, width);
        }
        self.mark_longest(svg);
        self.rugs(svg);
        self.bottom() + BOTTOM - self.y
    }

    fn headings(&self, svg: &mut Svg) {
        let Entry {
            title,
            from,
            to,
            lost_failover,
            lost_failback,
            lost_total,
            duplicates,
            longest_gap_ms,
            ..
        } = self.entry;
        svg.text(
            (24.0, self.y + 32.0),
            Anchor::Start,
            HEADING,
            &format!("{from} → {to}, {title}"),
        );
        let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "none".to_owned());
        let (before, after) = (name(&self.entry.vf_before), name(&self.entry.vf_after));
        let devices = format!("VF {before} → {after}, standby on {}", name(&self.entry.pf_after));
        svg.text((WIDTH - RIGHT, self.y + 32.0), Anchor::End, BODY, &devices);
        let sent = self.entry.traffic.to_guest.sent + self.entry.traffic.from_guest.sent;
        let figures = [
            format!("lost at the failover: {lost_failover}"),
            format!("lost at the failback: {lost_failback}"),
            format!("lost in all: {lost_total} of {sent}"),
            format!("duplicates: {duplicates}"),
            format!("longest gap: {longest_gap_ms:.0} ms"),
        ];
        svg.text((24.0, self.y + 56.0), Anchor::Start, BODY, &figures.join("  ·  "));
        let legend = [
            (WIDTH - RIGHT - 270.0, "to the guest", TO_GUEST),
            (WIDTH - RIGHT - 125.0, "from the guest", FROM_GUEST),
        ];
        for (x, text, color) in legend {
            svg.rect([x, self.y + 50.0, 22.0, 4.0], color, 1.0);
            svg.text((x + 28.0, self.y + 56.0), Anchor::Start, BODY, text);
        }
    }

    fn time_axis(&self, svg: &mut Svg) {
        let (top, bottom) = (self.y + TOP - 6.0, self.bottom());
        let length = (self.shown.end_ms - self.shown.start_ms) / 1e3;
        let step = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0].into_iter();
        let step = step.clone().find(|step| length / step <= 16.0).unwrap_or(500.0);
        let mut n = 0.0;
        while n * step <= length {
            let x = self.x(self.shown.start_ms + n * step * 1e3);
            svg.line((x, top), (x, bottom), GRID, 0.8);
            let digits = usize::from(step < 1.0);
            svg.text(
                (x, bottom + 18.0),
                Anchor::Middle,
                SMALL,
                &format!("{:.digits$}", n * step),
            );
            n += 1.0;
        }
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        svg.text((middle, bottom + 38.0), Anchor::Middle, BODY, "time in seconds");
    }

    fn gap_axis(&self, svg: &mut Svg) {
        let mut value = 1.0;
        while value <= self.scale_ms {
            let y = self.gap_y(value);
            svg.line((LEFT, y), (WIDTH - RIGHT, y), GRID, 0.8);
            svg.text((LEFT - 8.0, y + 4.0), Anchor::End, SMALL, &format!("{value:.0}"));
            value *= 10.0;
        }
        let middle = self.chart_top() + CHART / 2.0;
        svg.upright((LEFT - 70.0, middle), BODY, "time since the last packet");
        svg.upright((LEFT - 52.0, middle), SMALL, "in milliseconds");
    }

    fn bars(&self, svg: &mut Svg) {
        let right = WIDTH - RIGHT;
        for (row, phase) in self.phases.iter().enumerate() {
            let color = PHASES[row % PHASES.len()];
            let y = self.y + TOP + row as f64 * ROW;
            let (from, to) = (self.x(phase.start_ms), self.x(phase.end_ms));
            let width = (to - from).max(2.5);
            svg.text((LEFT - 8.0, y + 13.0), Anchor::End, BODY, &phase.name);
            svg.rect([LEFT, y + ROW - 1.0, right - LEFT, 0.6], GRID, 1.0);
            svg.rect([from, y + 2.0, width, ROW - 5.0], color, 0.9);
            // Down through the chart, to see what fell into the phase.
            svg.rect(
                [from, self.chart_top(), width, self.bottom() - self.chart_top()],
                color,
                0.10,
            );
            let length = phase.end_ms - phase.start_ms;
            let text = if length < 1e3 {
                format!("{length:.0} ms")
            } else {
                format!("{:.2} s", length / 1e3)
            };
            let room_right = right - (from + width) > 70.0;
            let (at, anchor) = if room_right {
                (from + width + 6.0, Anchor::Start)
            } else {
                (from - 6.0, Anchor::End)
            };
            svg.text((at, y + 13.5), anchor, SMALL, &text);
        }
    }

    /// Time since the last packet, as a saw whose teeth are the gaps; by column, the highest of each.
    fn silence(&self, dir: Direction) -> Vec<(f64, f64)> {
        let times = arrivals(&self.migration.records, dir);
        let mut points: Vec<(f64, f64)> = Vec::new();
        let mut column = f64::NEG_INFINITY;
        for pair in times.windows(2) {
            let [before, now] = pair else { continue };
            if *now < self.shown.start_ms || *now > self.shown.end_ms {
                continue;
            }
            let gap = now - before;
            let (x, y) = (self.x(*now), self.gap_y(gap));
            if self.x(*before) + 2.0 < x {
                // A tooth that is wide enough to have a shape: it rises out of the line before it.
                let base = points.last().map_or(y, |(_, base)| *base);
                points.push((self.x(*before), base));
                points.extend((1..=16).map(|n| {
                    let part = gap * f64::from(n) / 16.0;
                    (self.x(before + part), self.gap_y(part).min(base))
                }));
                points.push((x, base));
                column = x;
            } else if x - column >= 1.0 {
                points.push((x, y));
                column = x;
            } else if let Some(last) = points.last_mut() {
                last.1 = last.1.min(y);
            }
        }
        points
    }

    fn mark_longest(&self, svg: &mut Svg) {
        let traffic = &self.entry.traffic;
        let (count, color) = if traffic.to_guest.longest_gap_ms >= traffic.from_guest.longest_gap_ms {
            (traffic.to_guest, TO_GUEST)
        } else {
            (traffic.from_guest, FROM_GUEST)
        };
        let end = count.gap_start_ms + count.longest_gap_ms;
        if count.sent == 0 || end < self.shown.start_ms || end > self.shown.end_ms {
            return;
        }
        let x = self.x(end);
        let y = self.gap_y(count.longest_gap_ms);
        let is_right = WIDTH - RIGHT - x > 90.0;
        let (at, anchor) = if is_right {
            (x + 7.0, Anchor::Start)
        } else {
            (x - 7.0, Anchor::End)
        };
        let font = Font {
            bold: true,
            color,
            ..BODY
        };
        svg.text((at, y + 16.0), anchor, font, &format!("{:.0} ms", count.longest_gap_ms));
    }

    /// One line per direction, with a stroke for each packet that was lost.
    fn rugs(&self, svg: &mut Svg) {
        let lines = [
            (
                Direction::ToGuest,
                "lost to the guest",
                self.entry.traffic.to_guest.lost,
            ),
            (
                Direction::FromGuest,
                "lost from the guest",
                self.entry.traffic.from_guest.lost,
            ),
        ];
        for (row, (dir, text, lost)) in lines.into_iter().enumerate() {
            let y = self.rug_top() + row as f64 * RUG;
            let font = Font {
                color: if lost > 0 { LOST } else { FAINT },
                ..SMALL
            };
            svg.text((LEFT - 8.0, y + 11.0), Anchor::End, font, &format!("{text}: {lost}"));
            svg.line((LEFT, y + RUG / 2.0), (WIDTH - RIGHT, y + RUG / 2.0), GRID, 0.8);
            let mut drawn = f64::NEG_INFINITY;
            let own = self
                .migration
                .records
                .iter()
                .filter(|record| record.dir == dir && record.recv_ms.is_none());
            for record in own {
                let x = self.x(record.sent_ms);
                if x - drawn >= 0.8 {
                    svg.line((x, y + 2.0), (x, y + RUG - 2.0), LOST, 1.6);
                    drawn = x;
                }
            }
        }
    }
}

/// From a little before the first phase to a little after the last; all packets, where there are no phases.
fn shown(phases: &[Span], migration: &Migration) -> Span {
    let ends = phases.iter().map(|phase| phase.end_ms).reduce(f64::max);
    if let (Some(first), Some(last)) = (phases.first(), ends) {
        let margin = ((last - first.start_ms) * 0.04).max(500.0);
        return Span::new("shown", first.start_ms - margin, last + margin.max(super::AFTERMATH_MS));
    }
    let sent = || migration.records.iter().map(|record| record.sent_ms);
    match (sent().reduce(f64::min), sent().reduce(f64::max)) {
        (Some(first), Some(last)) => Span::new("shown", first, last + 1.0),
        _ => Span::new("shown", 0.0, 1000.0),
    }
}
