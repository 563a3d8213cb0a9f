//! The report of a run, and `docs/performance.md` out of it and nothing else.

use crate::figures::Section;
use crate::machine::About;
use crate::table::{self, markdown};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Version of the report's form.
const VERSION: u32 = 1;
/// The page's folder for its pictures and the report that it is made of, beside the page.
const FOLDER: &str = "performance";

/// Everything that was measured, one benchmark at a time: each may be of another day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    version: u32,
    /// What was found.
    pub measured: Vec<Measured>,
}

/// One benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Where, when, and of what.
    pub about: About,
    /// How often each variant was taken, as it was asked for.
    pub rounds: usize,
    /// What was found.
    pub section: Section,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            version: VERSION,
            measured: Vec::new(),
        }
    }
}

impl Report {
    /// Of earlier runs; an empty one where there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(file: &Path) -> Result<Self> {
        if !file.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let report: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is no report of this program's: remove it", file.display()))?;
        ensure!(
            report.version == VERSION,
            "{} is of version {}, and this program writes {VERSION}: remove it",
            file.display(),
            report.version
        );
        Ok(report)
    }

    /// Puts a benchmark in the place of what was known of it; `order`: as the page has them.
    pub fn put(&mut self, measured: Measured, order: &[&str]) {
        self.measured
            .retain(|known| known.section.name != measured.section.name);
        self.measured.push(measured);
        let place = |measured: &Measured| order.iter().position(|name| *name == measured.section.name);
        self.measured.sort_by_key(place);
    }

    /// Writes it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Without the single samples, which the page does not show.
    fn short(mut self) -> Self {
        for measured in &mut self.measured {
            for figure in &mut measured.section.figures {
                figure.samples.clear();
            }
        }
        self
    }
}

/// Writes `performance.md` into a folder, and beside it the pictures and the report without its samples, so that the page
/// can be made again. What this report does not have stays as it was published. Where there is a report `before.json`, of before
/// something was changed for these figures, they are held against that. `order`: as the page has the benchmarks.
///
/// # Errors
/// Nothing was measured yet, or something cannot be read or written.
pub fn publish(report: &Path, docs: &Path, order: &[&str]) -> Result<()> {
    let new = Report::read(report)?;
    ensure!(
        !new.measured.is_empty(),
        "{} has no figures: run 'make bench'",
        report.display()
    );
    let folder = docs.join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let from = report.parent().unwrap_or(Path::new("."));
    for (name, _) in new.measured.iter().flat_map(|measured| &measured.section.pictures) {
        let picture = format!("{name}.svg");
        let (from, to) = (from.join(&picture), folder.join(&picture));
        // The page is made again of what is beside it.
        if from != to {
            fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    let before = Report::read(&folder.join("before.json"))?;
    let kept = folder.join("report.json");
    let mut known = Report::read(&kept)?;
    for measured in new.short().measured {
        known.put(measured, order);
    }
    known.write(&kept)?;
    let page_file = docs.join("performance.md");
    fs::write(&page_file, page(&known, &before)).with_context(|| format!("cannot write {}", page_file.display()))
}

/// The page.
#[must_use]
pub fn page(report: &Report, before: &Report) -> String {
    let figures = report.measured.iter().flat_map(|measured| &measured.section.figures);
    let goals: Vec<bool> = figures
        .filter_map(|figure| figure.goal.as_ref())
        .map(|goal| goal.met)
        .collect();
    let missed = goals.iter().filter(|met| !**met).count();
    let mut text = String::from(
        "# What hybond costs\n\n\
         Who runs many guests wants to know what hybond takes of a host, of a guest, and of the time of a migration, before it \
         is installed. These are figures of `make bench`, which anybody can repeat; the page is written by `hybond-bench page`, \
         and no figure by hand.\n\n\
         Variants are taken in turn, each once in a round. Beside the median are the quartiles, between which half of the \
         samples are, and the value that 99 of 100 are below. Ratios are medians of the rounds' ratios. Figures of a shared or \
         virtual machine differ from run to run by more than their quartiles say; compare within a run.\n",
    );
    // Writing to a string cannot fail.
    let _written = match (goals.len(), missed) {
        (0, _) => Ok(()),
        (n, 0) => writeln!(text, "\nAll of {n} goals are met."),
        (n, missed) => writeln!(text, "\nOf {n} goals {missed} are missed."),
    };
    let mut machine = None;
    for Measured { about, rounds, section } in &report.measured {
        let _written = write!(text, "\n## {}\n{}\n\n", section.title, section.about);
        if machine != Some(about.machine()) {
            let _written = write!(text, "{}\n\n", about.machine());
            machine = Some(about.machine());
        }
        let earlier = before
            .measured
            .iter()
            .find(|earlier| earlier.section.name == section.name);
        let _written = write!(
            text,
            "Taken on {}, of commit {}, in {rounds} rounds; the load average was {} when it began.",
            about.date, about.commit, about.load
        );
        if let Some(before) = earlier {
            let _written = write!(
                text,
                " Before: of commit {}, on {}, before something was changed for these figures.",
                before.about.commit, before.about.date
            );
            // The text above says how, and is part of what was kept.
            if before.section.about != section.about {
                text += " How it is measured was changed, too: part of a difference may be due to that.";
            }
        }
        text += "\n\n";
        text += &markdown(section, &earlier.map(earlier_medians).unwrap_or_default());
        for (name, what) in &section.pictures {
            let _written = write!(text, "\n![{}: {what}]({FOLDER}/{name}.svg)\n", section.title);
        }
    }
    text
}

/// Medians of before, by figure and variant, as they are shown.
fn earlier_medians(earlier: &Measured) -> BTreeMap<(String, String), String> {
    let figures = earlier.section.figures.iter();
    figures
        .map(|figure| {
            let of = (figure.what.clone(), figure.variant.clone());
            (of, table::shown(figure))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{Figure, Point};

    const ORDER: [&str; 2] = ["agent", "scale"];

    fn measured(name: &str, rss: f64) -> Measured {
        let figure = Figure::of("RSS", "1000 domains", "MiB", &[rss]).expect("one");
        Measured {
            about: About {
                date: "2026-11-25".to_owned(),
                commit: "abc1234".to_owned(),
                cpu: "Fast CPU".to_owned(),
                cores: 2,
                memory_mib: 2048,
                kernel: "6.12".to_owned(),
                hypervisor: "no".to_owned(),
                load: "0.10".to_owned(),
            },
            rounds: 10,
            section: Section {
                name: name.to_owned(),
                title: format!("Many {name}"),
                about: "How it was done.".to_owned(),
                figures: vec![figure.at_most(Point::Median, 40.0)],
                slopes: Vec::new(),
                failed: Vec::new(),
                pictures: vec![("rss".to_owned(), "memory".to_owned())],
            },
        }
    }

    #[test]
    fn the_page_begins_with_the_need_and_says_where_it_was_measured_what_was_missed_and_what_was_before() {
        let (mut report, mut before) = (Report::default(), Report::default());
        report.put(measured("scale", 50.0), &ORDER);
        report.put(measured("agent", 30.0), &ORDER);
        before.put(measured("scale", 70.0), &ORDER);
        let changed = "How it is measured was changed, too";
        assert!(!page(&report, &before).contains(changed));
        before.measured[0].section.about = "How it was done then.".to_owned();
        let text = page(&report, &before);
        assert!(text.starts_with("# What hybond costs\n\nWho runs many guests wants to know"));
        for words in [
            "of commit abc1234, in 10 rounds",
            "Of 2 goals 1 are missed.",
            "| ≤ 40.0 | **missed** | 70.0 MiB |",
            changed,
            "## Many scale\nHow",
            "![Many agent: memory](performance/rss.svg)",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(text.find("Many agent") < text.find("Many scale"), "{text}");
        // The machine is said once.
        assert_eq!(text.matches("Fast CPU").count(), 1, "{text}");
    }

    #[test]
    fn a_page_is_made_again_of_what_is_beside_it() {
        let (run, docs) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        let mut report = Report::default();
        report.put(measured("scale", 50.0), &ORDER);
        let file = run.path().join("report.json");
        report.write(&file).expect("written");
        fs::write(run.path().join("rss.svg"), "<svg/>").expect("written");
        publish(&file, docs.path(), &ORDER).expect("a page");
        let first = fs::read_to_string(docs.path().join("performance.md")).expect("a page");
        let kept = docs.path().join("performance/report.json");
        assert!(
            Report::read(&kept).expect("a report").measured[0].section.figures[0]
                .samples
                .is_empty()
        );
        publish(&kept, docs.path(), &ORDER).expect("a page");
        let second = fs::read_to_string(docs.path().join("performance.md")).expect("a page");
        assert_eq!(first, second);
        let none = publish(&run.path().join("none.json"), docs.path(), &ORDER).expect_err("no figures");
        assert!(none.to_string().contains("make bench"), "{none}");
    }

    #[test]
    fn what_was_not_measured_this_time_stays_on_the_page() {
        let docs = tempfile::tempdir().expect("a folder");
        let measure = |name: &str, rss: f64| {
            // Another machine, which has no other figures.
            let run = tempfile::tempdir().expect("a folder");
            let mut report = Report::default();
            report.put(measured(name, rss), &ORDER);
            let file = run.path().join("report.json");
            report.write(&file).expect("written");
            fs::write(run.path().join("rss.svg"), "<svg/>").expect("written");
            publish(&file, docs.path(), &ORDER).expect("a page");
            fs::read_to_string(docs.path().join("performance.md")).expect("a page")
        };
        measure("scale", 50.0);
        measure("agent", 30.0);
        let text = measure("agent", 35.0);
        assert!(
            text.contains("50.0 MiB") && text.contains("35.0 MiB") && !text.contains("30.0 MiB"),
            "{text}"
        );
        assert!(text.find("Many agent") < text.find("Many scale"), "{text}");
    }
}
