//! How long the VF takes to come back, by the size of the guest's memory: all of it is pinned for the VF.

use super::{GUEST, hosts};
use crate::figures::{Figure, Section, Slope, line};
use crate::picture::{Series, lines};
use crate::variant::{Measures, Variant, interleave, samples};
use anyhow::{Context, Result, ensure};
use hybond_lab::Lab;
use hybond_lab::scenario::{HybridGuest, Packages, timeline};
use std::path::Path;

const ACTIVE: &str = "resumed until the VF is active";
const BLACKOUT: &str = "stopped until resumed";
/// What the destination does in between, by its names.
const PHASES: [&str; 4] = ["prepare-vf", "plug", "primary-ready", "failback"];

/// A guest with so much memory.
struct Sized<'a> {
    lab: &'a Lab,
    mib: u32,
}

fn called(mib: u32) -> String {
    format!("{mib} MiB")
}

impl Variant for Sized<'_> {
    fn name(&self) -> String {
        called(self.mib)
    }

    fn once(&mut self) -> Result<Measures> {
        let (src, dst) = (self.lab.host("src"), self.lab.host("dst"));
        let mut guest = HybridGuest::new(GUEST, src);
        guest.domain.memory = self.mib;
        // The hosts' huge pages are for a guest of the usual size.
        guest.domain.huge_pages = false;
        guest.remove(self.lab.hosts())?;
        guest.guest.forget_console(src)?;
        guest.start(src)?;
        let output = guest.migrate(src, dst)?;
        ensure!(output.success(), "{}: {}", guest.migrate, output.stderr.trim());
        guest.wait_primary(dst)?;
        let timeline = timeline(src, dst, &guest.domain.uuid)?;
        guest.remove(self.lab.hosts())?;

        let phase = |name: &str| {
            timeline
                .destination
                .phases
                .iter()
                .rev()
                .find(|phase| phase.name == name)
        };
        let end = |name: &str| phase(name).map(|phase| phase.end_ms.unwrap_or(phase.start_ms));
        let resumed = end("resume").context("the destination's timeline has no resume")?;
        let active = end("failback").context("the destination's timeline has no failback")?;
        let stopped = timeline.source.phases.iter().rev().find(|phase| phase.name == "stop");
        let stopped = stopped.context("the source's timeline has no stop")?.start_ms;
        let mut measures = Measures::from([
            (ACTIVE.to_owned(), vec![active - resumed]),
            (BLACKOUT.to_owned(), vec![resumed - stopped]),
        ]);
        // What comes before `primary-ready`, which has no length, is the guest's driver.
        let mut before = resumed;
        for name in PHASES {
            if let Some(ends) = end(name) {
                measures.insert(
                    format!("of that, until the end of {name}"),
                    vec![(ends - before).max(0.0)],
                );
                before = ends;
            }
        }
        Ok(measures)
    }
}

/// Measures it.
///
/// # Errors
/// The hosts do not come up, have no room for a guest, or a migration fails.
pub fn bench(folder: &Path, rounds: usize, sizes: &[u32]) -> Result<Section> {
    let packages = Packages::built()?;
    let lab = hosts(&packages)?;
    let mut variants: Vec<Box<dyn Variant>> = Vec::new();
    for mib in sizes {
        variants.push(Box::new(Sized { lab: &lab, mib: *mib }));
    }
    let taken = interleave(&mut variants, 0, rounds)?;
    drop(variants);
    lab.down()?;

    let shares = PHASES.map(|name| format!("of that, until the end of {name}"));
    let rows: Vec<&str> = [ACTIVE]
        .into_iter()
        .chain(shares.iter().map(String::as_str))
        .chain([BLACKOUT])
        .collect();
    let mut figures = Vec::new();
    for row in &rows {
        figures.extend(
            sizes
                .iter()
                .filter_map(|mib| Figure::of(row, &called(*mib), "ms", samples(&taken, &called(*mib), row))),
        );
    }
    let mut slopes = Vec::new();
    let mut series = Vec::new();
    for row in &rows {
        let points: Vec<(f64, &Figure)> = sizes
            .iter()
            .filter_map(|mib| {
                let own = figures
                    .iter()
                    .find(|figure| figure.what == *row && figure.variant == called(*mib));
                own.map(|figure| (f64::from(*mib), figure))
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
    hybond_lab::svg::write(folder, "memory", lines(title, "memory of the guest, in MiB", &series))?;
    Ok(Section {
        name: "memory".to_owned(),
        title: title.to_owned(),
        about: "A guest with a VF, migrated between two emulated hosts, by the size of its memory. QEMU pins all of it for the VF, \
                after the guest has gone on at the destination: so that the guest stands no longer for it. Times are hybondd's \
                own, of its timelines; each share is from the end of the one before it. The hosts have 2 GiB, which bounds the \
                sizes."
            .to_owned(),
        figures,
        slopes,
        pictures: vec![("memory".to_owned(), "times over the memory of the guest".to_owned())],
    })
}
