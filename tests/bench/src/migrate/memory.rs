//! How long the VF takes to come back, by the size of the guest's memory: all of it is pinned for the VF.

use super::stand::Stand;
use super::{AFTERWARDS, WHOLE, longest_silence, way};
use crate::figures::{Figure, Point, Section, Slope, line};
use crate::picture::{Series, lines};
use crate::variant::{Keep, Measures, Rounds, Taken, Variant, interleave};
use anyhow::{Context, Result, ensure};
use hybond_lab::memory::HOST_MIB;
use hybond_lab::probe::{Record, Summary, analyse};
use hybond_lab::scenario::{HybridGuest, Packages, Timeline, Traffic, switches, timeline};
use std::path::Path;
use std::time::Instant;

const GUEST: &str = "bench-sized";
/// There and back without another boot.
const MIGRATIONS: usize = 5;
/// As of the other ways' migrations.
const FAILURES: usize = 2;

const ACTIVE: &str = "resumed until the VF is active";
const BLACKOUT: &str = "stopped until resumed";
/// The plug is in between.
const SILENCE: &str = "longest gap from prepare-vf to the end of failback";
const LOST: &str = "lost at the failover and the failback";
/// What the destination does in between, by its names.
const PHASES: [&str; 4] = ["prepare-vf", "plug", "primary-ready", "failback"];

/// Of x86: 2 MiB.
const HUGE_PAGE_MIB: u32 = 2;
/// QEMU takes a few more than the guest has.
const SPARE: u32 = 8;
/// A guest of so many MiB is at home on a host with the memory that it was saved with.
const FITS: u32 = HOST_MIB / 2;

/// A guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    mib: u32,
    /// Of huge pages, which the host has set apart.
    huge: bool,
}

impl Memory {
    /// Every size, and the largest in huge pages, too.
    fn each(sizes: &[u32]) -> Vec<Self> {
        let plain = sizes.iter().map(|mib| Self { mib: *mib, huge: false });
        let huge = sizes.iter().max().map(|mib| Self { mib: *mib, huge: true });
        plain.chain(huge).collect()
    }

    fn name(self) -> String {
        let pages = if self.huge { ", huge pages" } else { "" };
        format!("{} MiB{pages}", self.mib)
    }

    fn pages(self) -> u32 {
        if self.huge { self.mib / HUGE_PAGE_MIB + SPARE } else { 0 }
    }
}

/// What hosts need beyond their own, in MiB, for the largest of these guests.
fn more(sizes: &[u32]) -> u32 {
    sizes.iter().max().map_or(0, |most| most.saturating_sub(FITS))
}

/// A guest with so much memory.
struct Sized<'a> {
    stand: &'a Stand<'a>,
    memory: Memory,
    migrations: usize,
}

impl Sized<'_> {
    fn go(&self) -> Result<Measures> {
        let lab = self.stand.lab()?;
        // Those that the guest does not have are the host's.
        let pages = self.memory.pages();
        lab.each(|host| way::set_huge_pages(host, pages))?;
        let (src, dst) = (lab.host("src"), lab.host("dst"));
        let mut guest = HybridGuest::new(GUEST, src);
        guest.domain.memory = self.memory.mib;
        guest.domain.huge_pages = self.memory.huge;
        guest.remove(lab.hosts())?;
        lab.each(|host| guest.guest.forget_console(host))?;
        guest.start(src)?;
        let mut measures = Measures::new();
        for (from, to) in [(src, dst), (dst, src)].into_iter().cycle().take(self.migrations) {
            let mut traffic = Traffic::start(&lab, self.stand.packages, &guest.address())?;
            let begun = Instant::now();
            let output = guest.migrate(from, to)?;
            ensure!(output.success(), "{}: {}", guest.migrate, output.stderr.trim());
            let whole = begun.elapsed().as_secs_f64() * 1e3;
            guest.wait_primary(to)?;
            let timeline = timeline(from, to, &guest.domain.uuid)?;
            traffic.flow(AFTERWARDS)?;
            let records = traffic.finish()?;
            let times = times(&timeline)?;
            let packets = packets(&records, &timeline)?;
            for (what, value) in [(WHOLE.to_owned(), whole)].into_iter().chain(times).chain(packets) {
                measures.entry(what).or_default().push(value);
            }
        }
        guest.remove(lab.hosts())?;
        Ok(measures)
    }
}

/// What the guest's traffic had of it.
fn packets(records: &[Record], timeline: &Timeline) -> Result<Vec<(String, f64)>> {
    let spans = switches(timeline)?;
    let [_, failback] = &spans;
    let lost = analyse(records, &spans).iter().map(Summary::lost).sum::<u32>();
    Ok(vec![
        (SILENCE.to_owned(), longest_silence(records, failback)),
        (LOST.to_owned(), f64::from(lost)),
    ])
}

fn times(timeline: &Timeline) -> Result<Vec<(String, f64)>> {
    let phases = &timeline.destination.phases;
    let phase = |name: &str| phases.iter().rev().find(|phase| phase.name == name);
    let end = |name: &str| phase(name).map(|phase| phase.end_ms.unwrap_or(phase.start_ms));
    let resumed = end("resume").context("the destination's timeline has no resume")?;
    let active = end("failback").context("the destination's timeline has no failback")?;
    let stopped = timeline.source.phases.iter().rev().find(|phase| phase.name == "stop");
    let stopped = stopped.context("the source's timeline has no stop")?.start_ms;
    let mut measures = vec![
        (ACTIVE.to_owned(), active - resumed),
        (BLACKOUT.to_owned(), resumed - stopped),
    ];
    // What comes before `primary-ready`, which has no length, is the guest's driver.
    let mut before = resumed;
    for name in PHASES {
        if let Some(ends) = end(name) {
            measures.push((share(name), (ends - before).max(0.0)));
            before = ends;
        }
    }
    Ok(measures)
}

fn share(phase: &str) -> String {
    format!("of that, until the end of {phase}")
}

impl Variant for Sized<'_> {
    fn name(&self) -> String {
        self.memory.name()
    }

    fn once(&mut self, _round: usize) -> Result<Measures> {
        let done = self.go();
        if done.is_err() {
            self.stand.mend(GUEST);
        }
        done
    }
}

/// Measures it.
///
/// # Errors
/// The hosts do not come up, or one size after the other fails.
pub fn bench(folder: &Path, rounds: usize, sizes: &[u32], keep: &mut Keep<'_>) -> Result<()> {
    let packages = Packages::built()?;
    let stand = Stand::new(&packages, more(sizes))?;
    let migrations = MIGRATIONS.min(rounds);
    let mut variants: Vec<Box<dyn Variant>> = Vec::new();
    let all = Memory::each(sizes);
    for memory in &all {
        variants.push(Box::new(Sized {
            stand: &stand,
            memory: *memory,
            migrations,
        }));
    }
    let goes = Rounds {
        warm: 0,
        count: rounds.div_ceil(migrations.max(1)),
        failures: FAILURES,
    };
    interleave(&mut variants, goes, &mut |taken, goes| {
        let (section, drawn) = section(&all, taken);
        hybond_lab::svg::write(folder, "memory", drawn)?;
        keep(section, goes * migrations)
    })?;
    drop(variants);
    stand.end()
}

/// The rows, and the picture.
fn section(all: &[Memory], taken: &Taken) -> (Section, String) {
    let shares = PHASES.map(share);
    let rows: Vec<&str> = [ACTIVE]
        .into_iter()
        .chain(shares.iter().map(String::as_str))
        .chain([BLACKOUT, SILENCE, WHOLE])
        .collect();
    let mut figures = Vec::new();
    for row in &rows {
        figures.extend(
            all.iter()
                .map(|memory| memory.name())
                .filter_map(|name| Figure::of(row, &name, "ms", &taken.samples(&name, row))),
        );
    }
    figures.extend(all.iter().filter_map(|memory| {
        let name = memory.name();
        let lost = Figure::of(LOST, &name, "packets", &taken.samples(&name, LOST));
        lost.map(|lost| lost.at_most(Point::Max, 0.0))
    }));
    let mut slopes = Vec::new();
    let mut series = Vec::new();
    for row in &rows {
        let points: Vec<(f64, &Figure)> = all
            .iter()
            .filter(|memory| !memory.huge)
            .filter_map(|memory| {
                let own = figures
                    .iter()
                    .find(|figure| figure.what == *row && figure.variant == memory.name());
                own.map(|figure| (f64::from(memory.mib), figure))
            })
            .collect();
        let medians: Vec<(f64, f64)> = points
            .iter()
            .map(|(mib, figure)| (*mib, figure.summary.median))
            .collect();
        slopes.extend(line(&medians).map(|(slope, base)| Slope {
            what: (*row).to_owned(),
            unit: "ms".to_owned(),
            per: "MiB".to_owned(),
            slope,
            base,
        }));
        series.push(Series {
            name: (*row).to_owned(),
            points,
        });
    }
    let title = "A guest's memory and the time until its VF is back";
    let drawn = lines(title, "memory of the guest, in MiB", &series);
    let section = Section {
        name: "memory".to_owned(),
        title: title.to_owned(),
        about: "A guest with a VF, migrated between two emulated hosts, by the size of its memory, under 200 packets/s in each \
                direction. QEMU pins all of it for the VF, after the guest has gone on at the destination: so that the guest \
                stands no longer for it. Times are hybondd's own, of its timelines; each share is from the end of the one before \
                it. The longest gap is of the packets while the VF is prepared and plugged, in which all of the memory is \
                pinned. Memory is as the guest's XML leaves it, so that hybond has it got before the guest comes, where it is \
                not said to be in huge pages (<memoryBacking><hugepages/>). Slopes and the picture are of the former."
            .to_owned(),
        figures,
        slopes,
        failed: taken.failed().to_vec(),
        pictures: vec![("memory".to_owned(), "times over the memory of the guest".to_owned())],
    };
    (section, drawn)
}
