//! Figures as text: for a terminal, and as Markdown.

use crate::figures::{Figure, Point, Section};
use std::collections::BTreeMap;
use std::fmt::Write;

const HEAD: [&str; 9] = ["figure", "of", "median", "quartiles", "p99", "n", "ratio", "goal", ""];

/// A number with as many digits as say something.
#[must_use]
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        small if small < 0.1 => 4,
        small if small < 1.0 => 3,
        small if small < 10.0 => 2,
        small if small < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

/// A figure's median with its unit.
#[must_use]
pub fn shown(figure: &Figure) -> String {
    format!("{} {}", number(figure.summary.median), figure.unit)
}

fn row(figure: &Figure) -> [String; 9] {
    let summary = &figure.summary;
    let ratio = figure.ratio.as_ref();
    let goal = figure.goal.as_ref();
    let point = |point| match point {
        Point::Median => "",
        Point::P99 => "p99 ",
        Point::Max => "max ",
    };
    [
        figure.what.clone(),
        figure.variant.clone(),
        shown(figure),
        format!("{} – {}", number(summary.q1), number(summary.q3)),
        number(summary.p99),
        summary.n.to_string(),
        ratio.map_or_else(String::new, |ratio| format!("{:.2} × {}", ratio.median, ratio.to)),
        goal.map_or_else(String::new, |goal| {
            format!("{}≤ {}", point(goal.point), number(goal.at_most))
        }),
        goal.map_or_else(String::new, |goal| if goal.met { "met" } else { "MISSED" }.to_owned()),
    ]
}

/// Columns that line up.
#[must_use]
pub fn plain(section: &Section) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(section.figures.iter().map(row));
    let mut widths = [0; HEAD.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = format!("{}\n", section.title);
    for row in rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            // Words to the left, numbers to the right.
            if column < 2 {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    for slope in &section.slopes {
        // Writing to a string cannot fail.
        let _written = writeln!(
            text,
            "{}: {} {} for each {}, and {} {} without any",
            slope.what,
            number(slope.slope),
            slope.unit,
            slope.per,
            number(slope.base),
            slope.unit
        );
    }
    for failed in &section.failed {
        let _written = writeln!(text, "failed, and in no figure: {failed}");
    }
    text
}

/// A table in Markdown, and the slopes below it. `before`: by figure and variant, what is shown in a further column.
#[must_use]
pub fn markdown(section: &Section, before: &BTreeMap<(String, String), String>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut head: Vec<String> = HEAD.map(str::to_owned).to_vec();
    let mut below = "|---|---|---:|---:|---:|---:|---:|---:|---|".to_owned();
    if !before.is_empty() {
        head.push("before".to_owned());
        below += "---:|";
    }
    let mut text = line(&head) + &below + "\n";
    for figure in &section.figures {
        let mut cells = row(figure);
        if figure.goal.as_ref().is_some_and(|goal| !goal.met) {
            cells[8] = "**missed**".to_owned();
        }
        let mut cells = cells.map(|cell| cell.replace('|', "\\|")).to_vec();
        if !before.is_empty() {
            let of = (figure.what.clone(), figure.variant.clone());
            cells.push(before.get(&of).cloned().unwrap_or_default());
        }
        text += &line(&cells);
    }
    if !section.slopes.is_empty() {
        text += "\n| grows | for each | by | without any |\n|---|---|---:|---:|\n";
    }
    for slope in &section.slopes {
        text += &line(&[
            slope.what.clone(),
            slope.per.clone(),
            format!("{} {}", number(slope.slope), slope.unit),
            format!("{} {}", number(slope.base), slope.unit),
        ]);
    }
    if !section.failed.is_empty() {
        text += "\nFailed, and in no figure:\n\n";
    }
    for failed in &section.failed {
        // What a program has said may have lines.
        text += &format!("- {}\n", failed.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section() -> Section {
        let base = Figure::of("time of a call", "empty C program", "ms", &[1.0, 1.0, 1.0]).expect("three");
        let own = Figure::of("time of a call", "hook", "ms", &[1.5, 1.5, 3.25]).expect("three");
        Section {
            name: "hook".to_owned(),
            title: "The hook".to_owned(),
            about: String::new(),
            figures: vec![
                base,
                own.against("empty C program", &[1.5, 1.5, 3.25])
                    .at_most(Point::P99, 2.0),
            ],
            slopes: Vec::new(),
            failed: Vec::new(),
            pictures: Vec::new(),
        }
    }

    #[test]
    fn columns_line_up_and_a_missed_goal_is_seen() {
        let expected = "\
The hook
figure          of                 median    quartiles   p99  n                   ratio      goal
time of a call  empty C program   1.00 ms  1.00 – 1.00  1.00  3
time of a call  hook              1.50 ms  1.50 – 2.38  3.21  3  1.50 × empty C program  p99 ≤ 2.00  MISSED
";
        // The width of a column counts characters, of which ≤ and × are one each.
        let table = plain(&section());
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&table), words(expected));
        let ends: Vec<usize> = table
            .lines()
            .skip(1)
            .filter_map(|line| line.find("  3 ").or(line.find("  n ")))
            .collect();
        assert!(ends.windows(2).all(|pair| pair[0].abs_diff(pair[1]) <= 4), "{table}");
        let before = BTreeMap::from([(("time of a call".to_owned(), "hook".to_owned()), "9.00 ms".to_owned())]);
        let with = markdown(&section(), &before);
        assert!(with.contains("| p99 ≤ 2.00 | **missed** | 9.00 ms |"), "{with}");
        let without = markdown(&section(), &BTreeMap::new());
        assert!(!without.contains("before") && !without.contains("ailed"), "{without}");
        let failed = Section {
            failed: vec!["hook, round 2: no\ncable".to_owned()],
            ..section()
        };
        assert!(plain(&failed).contains("failed, and in no figure: hook, round 2"));
        assert!(markdown(&failed, &BTreeMap::new()).ends_with("\n- hook, round 2: no cable\n"));
    }

    #[test]
    fn numbers_have_the_digits_that_say_something() {
        for (value, text) in [
            (0.0, "0"),
            (0.012_34, "0.0123"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (1234.5, "1234"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
