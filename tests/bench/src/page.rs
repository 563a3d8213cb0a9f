//! `docs/performance.md`, out of what was measured and nothing else.

use crate::figures::Section;
use crate::machine::About;
use crate::table::markdown;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// All of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where, when, and of what.
    pub about: About,
    /// How often each variant was taken, as it was asked for.
    pub rounds: usize,
    /// What was found.
    pub sections: Vec<Section>,
}

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let About {
        date,
        commit,
        cpu,
        cores,
        memory_mib,
        kernel,
        hypervisor,
        load,
    } = &report.about;
    let missed = report.sections.iter().flat_map(|section| &section.figures);
    let missed = missed.filter(|figure| figure.goal.as_ref().is_some_and(|goal| !goal.met));
    let mut text = format!(
        "# What hybond costs\n\n\
         Who runs many guests wants to know what hybond takes of a host, of a guest, and of the time of a migration, before it \
         is installed. These are figures of a run of `make bench`, which anybody can repeat; the page is written by it, and no \
         figure by hand.\n\n\
         | run | |\n|---|---|\n| date | {date} |\n| commit | {commit} |\n| processor | {cpu}, {cores} cores |\n\
         | memory | {memory_mib} MiB |\n| kernel | {kernel} |\n| is itself a virtual machine | {hypervisor} |\n\
         | load average when it began | {load} |\n| rounds | {} |\n\n\
         Variants are taken in turn, each once in a round. Beside the median are the quartiles, between which half of the \
         samples are, and the value that 99 of 100 are below. Ratios are medians of the rounds' ratios. Figures of a shared or \
         virtual machine differ from run to run by more than their quartiles say; compare within a run.\n",
        report.rounds
    );
    match missed.count() {
        0 => text += "\nEvery goal is met.\n",
        n => {
            let s = if n == 1 { "" } else { "s" };
            // Writing to a string cannot fail.
            let _written = writeln!(text, "\nMissed: {n} goal{s}.");
        }
    }
    for section in &report.sections {
        let _written = write!(
            text,
            "\n## {}\n{}\n\n{}",
            section.title,
            section.about,
            markdown(section)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{Figure, Point};

    #[test]
    fn the_page_begins_with_the_need_and_says_where_it_was_measured_and_what_was_missed() {
        let about = About {
            date: "2026-11-25".to_owned(),
            commit: "abc1234".to_owned(),
            cpu: "Fast CPU".to_owned(),
            cores: 2,
            memory_mib: 2048,
            kernel: "6.12".to_owned(),
            hypervisor: "no".to_owned(),
            load: "0.10".to_owned(),
        };
        let figure = Figure::of("RSS", "1000 domains", "MiB", &[50.0]).expect("one");
        let report = Report {
            about,
            rounds: 10,
            sections: vec![Section {
                name: "scale".to_owned(),
                title: "Many domains".to_owned(),
                about: "How it was done.".to_owned(),
                figures: vec![figure.at_most(Point::Median, 40.0)],
                slopes: Vec::new(),
                pictures: Vec::new(),
            }],
        };
        let text = page(&report);
        assert!(text.starts_with("# What hybond costs\n\nWho runs many guests wants to know"));
        for words in [
            "| commit | abc1234 |",
            "Missed: 1 goal.",
            "| ≤ 40.0 | **missed** |",
            "## Many domains\nHow",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
