//! Many domains on one daemon.
//!
//! hybondd is the real one, and so are its sockets, its journal on a disk, and the kernel's network devices. Simulated are
//! libvirt (its own test driver, which lives in the daemon's process), QEMU's monitor and the guests' agents ([`ends`]), and
//! emulated primaries stand in for VFs, as a card with VFs is not to be had.

pub mod ends;
pub mod flood;
pub mod host;
pub mod inside;
pub mod plan;

use crate::Programs;
use crate::figures::{Figure, Point, Section, Slope, line};
use crate::picture::{Series, lines};
use crate::variant::{Keep, Measures, Rounds, Taken, Variant, interleave};
use anyhow::{Context, Result, bail};
use hybond_lab::process;
use plan::Plan;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longest go. A thousand network devices are made and go in it.
const GO: Duration = Duration::from_secs(900);
/// Where the goals hold.
const GOAL: usize = 1000;

/// A host of one size.
struct Sized<'a> {
    plan: Plan,
    programs: &'a Programs,
    work: PathBuf,
    idle: Duration,
}

fn called(plan: Plan) -> String {
    let s = if plan.pfs == 1 { "" } else { "s" };
    format!("{} domains, {} PF{s}", plan.domains, plan.pfs)
}

impl Variant for Sized<'_> {
    fn name(&self) -> String {
        called(self.plan)
    }

    /// In a process of its own: the namespaces that it makes are its own from then on.
    fn once(&mut self, _round: usize) -> Result<Measures> {
        let mut inside = first(&std::env::current_exe()?);
        inside
            .arg("inside")
            .arg("--domains")
            .arg(self.plan.domains.to_string())
            .arg("--pfs")
            .arg(self.plan.pfs.to_string())
            .arg("--idle")
            .arg(self.idle.as_secs().to_string())
            .arg("--work")
            .arg(&self.work)
            .arg("--hybondd")
            .arg(&self.programs.hybondd);
        let output = process::run(&mut inside, None, GO)?;
        if !output.success() {
            bail!("{}", output.stderr.trim());
        }
        serde_json::from_str(&output.stdout).context("what it measured makes no sense")
    }
}

/// A program whose threads run before all others' where the machine lets them, and the programs that it starts as usual. The
/// other ends stand for machines of their own: what waits for them to be scheduled would be told as hybondd's time.
fn first(program: &Path) -> Command {
    const FIRST: [&str; 3] = ["--reset-on-fork", "--fifo", "50"];
    let may = Command::new("chrt")
        .args(FIRST)
        .arg("true")
        .stderr(Stdio::null())
        .status();
    if !may.is_ok_and(|status| status.success()) {
        return Command::new(program);
    }
    let mut command = Command::new("chrt");
    command.args(FIRST).arg(program);
    command
}

/// Measures it on hosts of several sizes.
///
/// # Errors
/// A go fails.
pub fn bench(
    programs: &Programs,
    folder: &Path,
    rounds: usize,
    sizes: &[Plan],
    idle: Duration,
    keep: &mut Keep<'_>,
) -> Result<()> {
    let work = folder.join("scale");
    std::fs::create_dir_all(&work)?;
    let mut variants: Vec<Box<dyn Variant>> = Vec::new();
    for plan in sizes {
        variants.push(Box::new(Sized {
            plan: *plan,
            programs,
            work: work.clone(),
            idle,
        }));
    }
    let rounds = Rounds {
        warm: 0,
        count: rounds,
        failures: 0,
    };
    interleave(&mut variants, rounds, &mut |taken, rounds| {
        let (section, drawn) = section(sizes, taken);
        for (name, picture) in drawn {
            hybond_lab::svg::write(folder, name, picture)?;
        }
        keep(section, rounds)
    })?;
    Ok(())
}

/// A row: its name, the measure it is of, its unit, and what it must come to with [`GOAL`] domains.
type Row = (&'static str, &'static str, &'static str, Option<(Point, f64)>);

const ROWS: [Row; 23] = [
    ("RSS, idle", "own rss", "MiB", Some((Point::Median, 40.0))),
    ("RSS with libvirt's test driver in it", "rss", "MiB", None),
    ("RSS after all drains, with the driver", "rss after", "MiB", None),
    ("wake-ups when idle", "wakeups", "1/s", Some((Point::Median, 1.0))),
    ("processor when idle", "cpu", "% of a core", None),
    ("first start until all have a VF", "first", "ms", None),
    ("restart until ready", "ready", "ms", None),
    (
        "restart until all are looked at",
        "reconciled",
        "ms",
        Some((Point::Median, 1000.0)),
    ),
    (
        "own time of a drain, 1 at once",
        "drain 1",
        "ms",
        Some((Point::Median, 10.0)),
    ),
    ("own time of a drain, 50 at once", "drain 50", "ms", None),
    (
        "own time of a drain, 200 at once",
        "drain 200",
        "ms",
        Some((Point::P99, 20.0)),
    ),
    (
        "own time of a plug, 1 at once",
        "plug 1",
        "ms",
        Some((Point::Median, 10.0)),
    ),
    ("own time of a plug, 50 at once", "plug 50", "ms", None),
    ("own time of a plug, 200 at once", "plug 200", "ms", None),
    ("processor of a drain, 1 at once", "drain cpu 1", "ms", None),
    ("processor of a drain, 50 at once", "drain cpu 50", "ms", None),
    ("processor of a drain, 200 at once", "drain cpu 200", "ms", None),
    ("processor of a plug, 1 at once", "plug cpu 1", "ms", None),
    ("processor of a plug, 50 at once", "plug cpu 50", "ms", None),
    ("processor of a plug, 200 at once", "plug cpu 200", "ms", None),
    (
        "own time of a drain beside a guest that floods",
        "flood drain",
        "ms",
        Some((Point::Median, 10.0)),
    ),
    ("processor that a guest's flood takes", "flood cpu", "% of a core", None),
    ("memory that a guest's floods take", "flood rss", "MiB", None),
];

/// What has to grow with the domains in a straight line: rows, and the picture that they are drawn in.
const GROWING: [(&str, &str, &[&str]); 5] = [
    ("scale-rss", "Memory of hybondd", &["RSS, idle"]),
    (
        "scale-idle",
        "Wake-ups of hybondd when nothing happens",
        &["wake-ups when idle"],
    ),
    (
        "scale-start",
        "Start of hybondd",
        &["restart until all are looked at", "first start until all have a VF"],
    ),
    (
        "scale-drain",
        "hybondd's own time of a drain",
        &[
            "own time of a drain, 1 at once",
            "own time of a drain, 50 at once",
            "own time of a drain, 200 at once",
        ],
    ),
    (
        "scale-cpu",
        "Processor time of hybondd for a drain",
        &["processor of a drain, 1 at once", "processor of a drain, 50 at once"],
    ),
];

/// The rows, and the pictures by name.
fn section(sizes: &[Plan], taken: &Taken) -> (Section, Vec<(&'static str, String)>) {
    let mut figures = Vec::new();
    for (what, measure, unit, goal) in ROWS {
        for plan in sizes {
            let name = called(*plan);
            // Without what the driver takes for as many domains that are not hybond's, and with what a daemon takes for none.
            let own: Vec<f64> = match measure {
                "own rss" => own_rss(sizes, taken, *plan),
                measure => taken.samples(&name, measure),
            };
            // Fewer domains than are to be drained at once.
            let Some(figure) = Figure::of(what, &name, unit, &own) else {
                continue;
            };
            // The time of one drain is to be short on any host.
            let counts = plan.domains == GOAL || measure.ends_with(" 1") || measure == "flood drain";
            figures.push(match goal {
                Some((point, at_most)) if counts => figure.at_most(point, at_most),
                _ => figure,
            });
        }
    }
    let mut slopes = Vec::new();
    let mut pictures = Vec::new();
    let mut drawn = Vec::new();
    for (picture, title, rows) in GROWING {
        let mut series = Vec::new();
        for row in rows {
            let points = growing(sizes, &figures, row);
            let medians: Vec<(f64, f64)> = points.iter().map(|(at, figure)| (*at, figure.summary.median)).collect();
            if let (Some((slope, base)), Some((_, figure))) = (line(&medians), points.first()) {
                slopes.push(Slope {
                    what: (*row).to_owned(),
                    unit: figure.unit.clone(),
                    per: "domain".to_owned(),
                    slope,
                    base,
                });
            }
            if !points.is_empty() {
                series.push(Series {
                    name: (*row).to_owned(),
                    points,
                });
            }
        }
        if !series.is_empty() {
            drawn.push((picture, lines(title, "domains on the host", &series)));
            pictures.push((picture.to_owned(), title.to_owned()));
        }
    }
    let section = Section {
        name: "scale".to_owned(),
        title: "Many domains on one daemon".to_owned(),
        about: format!(
            "A real hybondd, its journal on a disk and network devices of the kernel. QEMU's monitors and the guests' \
             agents are simulated on real sockets, by one thread of another process on the same cores, which runs before \
             hybondd: a switch takes 10 ms, an unplug and a carrier 100 ms each, everything else is answered at once. \
             libvirt is its own test driver, which lives in hybondd's process: what it takes of the memory for as many \
             domains that are not hybond's is subtracted. Emulated primaries stand in for VFs, those of each PF on a \
             bridge of its own; that their taps go, {} at a time, takes the kernel time on the same cores. Own time is \
             from the request on the control socket to its answer, less the time in which an answer of the other ends was \
             due; time in which hybondd waits for a core, the disk or the kernel is its own.",
            ends::CLOSING
        ),
        figures,
        slopes,
        failed: taken.failed().to_vec(),
        pictures,
    };
    (section, drawn)
}

/// hybondd's own memory: that with the driver, less what the driver takes for its domains. What hybondd is without a domain
/// is in the memory of a daemon whose domains are not hybond's, and is known from the line through those.
fn own_rss(sizes: &[Plan], taken: &Taken, plan: Plan) -> Vec<f64> {
    let without = |plan: Plan| taken.samples(&called(plan), "rss without");
    let points: Vec<(f64, f64)> = sizes
        .iter()
        .flat_map(|plan| without(*plan).into_iter().map(|rss| (plan.domains as f64, rss)))
        .collect();
    let Some((_, bare)) = line(&points) else {
        return Vec::new();
    };
    let with = taken.samples(&called(plan), "rss");
    with.into_iter()
        .zip(without(plan))
        .map(|(with, without)| with - without + bare)
        .collect()
}

/// A row over the number of domains. Of several hosts with as many domains, the first: PFs are another matter.
fn growing<'a>(sizes: &[Plan], figures: &'a [Figure], row: &str) -> Vec<(f64, &'a Figure)> {
    let mut points: Vec<(f64, &Figure)> = Vec::new();
    for plan in sizes {
        let (at, name) = (plan.domains as f64, called(*plan));
        let figure = figures
            .iter()
            .find(|figure| figure.what == row && figure.variant == name);
        if let Some(figure) = figure.filter(|_| points.iter().all(|(known, _)| *known != at)) {
            points.push((at, figure));
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_memory_is_not_the_daemons() {
        let sizes = [Plan { domains: 10, pfs: 1 }, Plan { domains: 1000, pfs: 16 }];
        let mut taken = Taken::default();
        for plan in sizes {
            let n = plan.domains as f64;
            // 8 MiB of its own, 0.1 MiB of the driver's and 0.02 MiB of hybondd's for each domain.
            let measures = [("rss without", 8.0 + 0.1 * n), ("rss", 8.0 + 0.12 * n)];
            let measures = measures.map(|(what, value)| (what.to_owned(), vec![value]));
            taken.put(&called(plan), 0, Measures::from(measures));
        }
        let own = own_rss(&sizes, &taken, sizes[1]);
        assert!((own[0] - 28.0).abs() < 1e-6, "{own:?}");
    }

    #[test]
    fn goals_hold_for_a_thousand_domains_and_for_a_single_drain_anywhere() {
        let sizes = [Plan { domains: 10, pfs: 1 }, Plan { domains: 1000, pfs: 16 }];
        let mut taken = Taken::default();
        for plan in sizes {
            let measures = ["rss without", "rss", "wakeups", "drain 1", "drain 200"];
            let measures = measures
                .iter()
                .filter(|what| plan.domains > 200 || **what != "drain 200")
                .map(|what| ((*what).to_owned(), vec![30.0]));
            taken.put(&called(plan), 0, measures.collect());
        }
        let (section, drawn) = section(&sizes, &taken);
        let held: Vec<(&str, &str)> = section
            .figures
            .iter()
            .filter(|figure| figure.goal.as_ref().is_some_and(|goal| !goal.met))
            .map(|figure| (figure.what.as_str(), figure.variant.as_str()))
            .collect();
        let (few, many) = ("10 domains, 1 PF", "1000 domains, 16 PFs");
        assert_eq!(
            held,
            [
                ("wake-ups when idle", many),
                ("own time of a drain, 1 at once", few),
                ("own time of a drain, 1 at once", many),
                ("own time of a drain, 200 at once", many),
            ]
        );
        assert!(section.figures.iter().all(|figure| figure.summary.n == 1));
        assert!(drawn.iter().any(|(name, _)| *name == "scale-rss"));
    }
}
