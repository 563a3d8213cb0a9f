//! Figures as pictures: variants beside each other, or something over the number of something.

use crate::figures::{Figure, line};
use crate::table::number;
use hybond_lab::svg::{Anchor, BODY, FAINT, Font, GRID, HEADING, SMALL, Svg};

const WIDTH: f64 = 1000.0;
const RIGHT: f64 = 40.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 62.0;
const COLORS: [&str; 6] = ["#0550ae", "#bf8700", "#1a7f37", "#8250df", "#cf222e", "#57606a"];

/// From 0 to at least `max`, in steps that people count in.
fn scale(max: f64) -> (f64, f64) {
    let rough = (max.max(f64::MIN_POSITIVE) / 6.0).log10();
    let power = 10f64.powf(rough.floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|part| part * power).into_iter();
    let step = step.clone().find(|step| max / step <= 6.0).unwrap_or(10.0 * power);
    (step, (max / step).ceil().max(1.0) * step)
}

/// One row for each figure: its samples as dots, quartiles as a box, the median as a line. All have one unit.
#[must_use]
pub fn boxes(title: &str, figures: &[&Figure]) -> String {
    const LEFT: f64 = 330.0;
    const ROW: f64 = 40.0;
    let mut svg = Svg::default();
    // One sample far out must not press the others together.
    let max = figures.iter().map(|figure| figure.summary.p99).fold(0.0, f64::max);
    let (step, top) = scale(max * 1.05);
    let x = |value: f64| LEFT + (value / top).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT);
    let bottom = TOP + ROW * figures.len() as f64;
    svg.text((24.0, 34.0), Anchor::Start, HEADING, title);
    let mut value = 0.0;
    while value <= top * 1.0001 {
        svg.line((x(value), TOP - 6.0), (x(value), bottom), GRID, 0.8);
        svg.text((x(value), bottom + 18.0), Anchor::Middle, SMALL, &number(value));
        value += step;
    }
    let unit = figures.first().map_or("", |figure| figure.unit.as_str());
    let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
    svg.text(
        (middle, bottom + 40.0),
        Anchor::Middle,
        BODY,
        &format!("{}, in {unit}", of(figures)),
    );
    for (row, figure) in figures.iter().enumerate() {
        let color = COLORS[row % COLORS.len()];
        let y = TOP + ROW * row as f64;
        let summary = &figure.summary;
        svg.text((LEFT - 12.0, y + 16.0), Anchor::End, BODY, &figure.variant);
        let told = format!("{} {unit}, n = {}", number(summary.median), summary.n);
        svg.text((LEFT - 12.0, y + 31.0), Anchor::End, SMALL, &told);
        // At most so many: a picture of thousands of dots says no more.
        let every = figure.samples.len().div_ceil(400).max(1);
        for (i, sample) in figure.samples.iter().enumerate().step_by(every) {
            let off = (i * 7 % 11) as f64 - 5.0;
            svg.rect([x(*sample) - 1.2, y + ROW / 2.0 - 3.0 + off, 2.4, 2.4], color, 0.45);
        }
        let (q1, q3) = (x(summary.q1), x(summary.q3));
        svg.rect([q1, y + 6.0, (q3 - q1).max(1.0), ROW - 16.0], color, 0.22);
        let median = x(summary.median);
        svg.line((median, y + 4.0), (median, y + ROW - 8.0), color, 2.5);
    }
    svg.finish(WIDTH, bottom + BOTTOM)
}

fn of(figures: &[&Figure]) -> String {
    let mut whats: Vec<&str> = figures.iter().map(|figure| figure.what.as_str()).collect();
    whats.dedup();
    whats.join("; ")
}

/// A line of a picture: figures, each with the number that it is over.
#[derive(Debug)]
pub struct Series<'a> {
    /// Its name.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, &'a Figure)>,
}

/// Medians over the number of something, quartiles as bars, and the straight line that is nearest, dashed. Both axes begin
/// at 0: what is linear is straight.
#[must_use]
pub fn lines(title: &str, over: &str, series: &[Series<'_>]) -> String {
    const LEFT: f64 = 100.0;
    const HEIGHT: f64 = 360.0;
    let mut svg = Svg::default();
    let all = || series.iter().flat_map(|series| &series.points);
    let (step_x, right) = scale(all().map(|(at, _)| *at).fold(0.0, f64::max));
    let (step_y, top) = scale(all().map(|(_, figure)| figure.summary.q3).fold(0.0, f64::max) * 1.05);
    let legend = 22.0 * series.len() as f64;
    let chart = TOP + legend;
    let bottom = chart + HEIGHT;
    let x = |value: f64| LEFT + value / right * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| bottom - (value / top).clamp(0.0, 1.0) * HEIGHT;
    svg.text((24.0, 34.0), Anchor::Start, HEADING, title);
    let mut value = 0.0;
    while value <= right * 1.0001 {
        svg.line((x(value), chart), (x(value), bottom), GRID, 0.8);
        svg.text((x(value), bottom + 18.0), Anchor::Middle, SMALL, &number(value));
        value += step_x;
    }
    value = 0.0;
    while value <= top * 1.0001 {
        svg.line((LEFT, y(value)), (WIDTH - RIGHT, y(value)), GRID, 0.8);
        svg.text((LEFT - 8.0, y(value) + 4.0), Anchor::End, SMALL, &number(value));
        value += step_y;
    }
    let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
    svg.text((middle, bottom + 40.0), Anchor::Middle, BODY, over);
    let first = all().next().map(|(_, figure)| *figure);
    let unit = first.map_or("", |figure| figure.unit.as_str());
    let what = first.map_or("", |figure| figure.what.as_str());
    svg.upright(
        (34.0, f64::midpoint(chart, bottom)),
        BODY,
        &format!("{what}, in {unit}"),
    );
    for (row, own) in series.iter().enumerate() {
        let color = COLORS[row % COLORS.len()];
        let medians: Vec<(f64, f64)> = own
            .points
            .iter()
            .map(|(at, figure)| (*at, figure.summary.median))
            .collect();
        let mut told = own.name.clone();
        if let Some((slope, base)) = line(&medians) {
            told += &format!(
                ": {} {unit} for each, {} {unit} without any",
                number(slope),
                number(base)
            );
            svg.dashed((x(0.0), y(base)), (x(right), y(base + slope * right)), FAINT);
        }
        svg.rect([LEFT, TOP - 6.0 + 22.0 * row as f64, 22.0, 4.0], color, 1.0);
        svg.text((LEFT + 30.0, TOP + 22.0 * row as f64), Anchor::Start, BODY, &told);
        let points: Vec<(f64, f64)> = medians.iter().map(|(at, value)| (x(*at), y(*value))).collect();
        svg.polyline(&points, color, 2.0);
        for (at, figure) in &own.points {
            let summary = &figure.summary;
            svg.line((x(*at), y(summary.q1)), (x(*at), y(summary.q3)), color, 5.0);
            let font = Font { color, ..SMALL };
            let (place, anchor) = if x(*at) > WIDTH - 140.0 {
                (-8.0, Anchor::End)
            } else {
                (8.0, Anchor::Start)
            };
            svg.text(
                (x(*at) + place, y(summary.median) - 6.0),
                anchor,
                font,
                &number(summary.median),
            );
        }
    }
    svg.finish(WIDTH, bottom + BOTTOM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_begin_at_0_and_hold_everything() {
        for max in [0.003, 1.0, 5.9, 6.1, 40.0, 1000.0] {
            let (step, top) = scale(max);
            assert!(top >= max && top / step <= 6.001, "{max}: {step} {top}");
        }
        assert!(scale(0.0).1.is_finite());
    }

    #[test]
    fn pictures_name_variants_units_and_slopes() {
        let figure =
            |of: &str, value: f64| Figure::of("RSS", of, "MiB", &[value, value * 1.1, value * 0.9]).expect("three");
        let (a, b) = (figure("10 domains", 10.0), figure("1000 domains", 40.0));
        let svg = boxes("Memory", &[&a, &b]);
        assert!(
            svg.contains("RSS, in MiB") && svg.contains("1000 domains") && !svg.contains("NaN"),
            "{svg}"
        );
        let series = Series {
            name: "idle".to_owned(),
            points: vec![(10.0, &a), (1000.0, &b)],
        };
        let svg = lines("Memory", "domains", &[series]);
        assert!(
            svg.contains("idle: 0.0303 MiB for each") && !svg.contains("NaN"),
            "{svg}"
        );
        assert!(!lines("Nothing", "domains", &[]).contains("NaN"));
        assert!(!boxes("Nothing", &[]).contains("NaN"));
    }
}
