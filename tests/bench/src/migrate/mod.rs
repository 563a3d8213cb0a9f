//! The same guest with the same traffic, migrated in different ways between two emulated hosts.
//!
//! Each go of a variant starts the guest anew: it is migrated once under packets in both directions, and back under a stream of
//! TCP. Packets and clocks are the peer's, a namespace of this machine.

mod events;
pub mod memory;
pub mod tcp;
mod way;

use crate::figures::{Figure, Section};
use crate::picture;
use crate::variant::{Measures, Variant, interleave, samples};
use anyhow::{Context, Result};
use events::Events;
use hybond_lab::probe::{Direction, Span, analyse, arrivals};
use hybond_lab::scenario::{HybridGuest, Packages, Stage, Traffic};
use hybond_lab::{Host, Lab};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tcp::Stream;
use way::Way;

const GUEST: &str = "bench";
/// Packets go on for so long after the VF carries them again.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// The hosts, with the packages and libvirt's network of VFs.
///
/// # Errors
/// They do not come up.
fn hosts(packages: &Packages) -> Result<Lab> {
    Lab::up_prepared("bench", &packages.key()?, |lab| {
        Stage::deploy(lab, packages)?;
        lab.each(way::prepare)?;
        Ok(())
    })
}

fn now_ms() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1e3)
}

/// The parts of a migration that every way has, whatever it calls them.
#[derive(Debug, Clone, Copy)]
struct Parts {
    begun: f64,
    /// The guest stopped on the source.
    stopped: f64,
    /// It went on at the destination.
    resumed: f64,
    /// Its VF carried its traffic again, or the migration was over.
    active: f64,
    end: f64,
}

impl Parts {
    fn spans(&self) -> [Span; 3] {
        [
            Span::new("until it stops", self.begun, self.stopped),
            Span::new("while it stands", self.stopped, self.resumed),
            Span::new("until the VF is back", self.resumed, self.end),
        ]
    }
}

/// The longest silence within a span: of one that goes beyond it, the part within. The blackout must not count as a silence of
/// the switches beside it.
fn silence(arrivals: &[f64], span: &Span) -> f64 {
    let inside = arrivals.windows(2).filter_map(|pair| match pair {
        [from, to] => Some(to.min(span.end_ms) - from.max(span.start_ms)),
        _ => None,
    });
    inside.fold(0.0, f64::max)
}

/// A way, on hosts that are up.
struct Migration<'a> {
    way: Way,
    lab: &'a Lab,
    packages: &'a Packages,
    folder: &'a Path,
}

impl Migration<'_> {
    /// Migrates the guest while `traffic` flows.
    fn go(&self, guest: &HybridGuest, from: &Host, to: &Host) -> Result<(Parts, Measures)> {
        let mut measures = Measures::new();
        let mut note = |what: &str, value: f64| drop(measures.insert(what.to_owned(), vec![value]));
        let (there, here) = (Events::listen(to)?, Events::listen(from)?);
        let begun = now_ms()?;
        let start = Instant::now();
        let told = self.way.migrate(guest, from, to)?;
        note("time of the whole migration", start.elapsed().as_secs_f64() * 1e3);
        self.way.wait_active(guest, to)?;
        let active = now_ms()?;
        let stopped = here.last(guest.name(), "Suspended")?;
        let resumed = there.last(guest.name(), "Resumed")?;
        note("stopped until resumed", resumed - stopped);
        if self.way.has_vf() {
            note("resumed until the VF is active", (active - resumed).max(0.0));
        }
        if let Some(drain) = self.way.told(guest, from, to, told)?.drain {
            note("drain", drain.as_secs_f64() * 1e3);
        }
        let parts = Parts {
            begun,
            stopped,
            resumed,
            active,
            end: active,
        };
        Ok((parts, measures))
    }

    fn under_packets(&self, guest: &HybridGuest, from: &Host, to: &Host) -> Result<Measures> {
        let mut traffic = Traffic::start(self.lab, self.packages, &guest.address())?;
        let (mut parts, mut measures) = self.go(guest, from, to)?;
        traffic.flow(AFTERWARDS)?;
        parts.end = parts.active + AFTERWARDS.as_secs_f64() * 1e3;
        let records = traffic.finish()?;
        let mut note = |what: String, value: f64| drop(measures.insert(what, vec![value]));
        for summary in analyse(&records, &parts.spans()) {
            let when = &summary.span.name;
            for (direction, count) in [
                ("to the guest", summary.to_guest),
                ("from the guest", summary.from_guest),
            ] {
                note(format!("lost {when}, {direction}"), f64::from(count.lost));
                note(format!("repeated {when}, {direction}"), f64::from(count.duplicates));
            }
            let silences = Direction::ALL.map(|direction| silence(&arrivals(&records, direction), &summary.span));
            note(format!("longest gap {when}"), silences.into_iter().fold(0.0, f64::max));
        }
        let all = Span::new("all", f64::NEG_INFINITY, f64::INFINITY);
        let all = analyse(&records, &[all]);
        note(
            "longest gap in all".to_owned(),
            all.first().context("nothing was measured")?.longest_gap_ms(),
        );
        Ok(measures)
    }

    fn under_tcp(&self, guest: &HybridGuest, from: &Host, to: &Host) -> Result<Measures> {
        let stream = Stream::start(self.lab, &guest.guest, from, self.folder)?;
        // What is usual is known from so long.
        std::thread::sleep(AFTERWARDS * 3);
        let (parts, _) = self.go(guest, from, to)?;
        std::thread::sleep(AFTERWARDS);
        let throughput = stream.finish()?;
        let end = parts.active + AFTERWARDS.as_secs_f64() * 1e3;
        let mut measures = Measures::from([(
            "longest stall of TCP".to_owned(),
            vec![throughput.stall_ms(parts.begun, end)],
        )]);
        let dip = throughput.dip_percent(parts.begun, end);
        measures.extend(dip.map(|dip| ("least of TCP in 1 s, of the usual".to_owned(), vec![dip])));
        Ok(measures)
    }
}

impl Variant for Migration<'_> {
    fn name(&self) -> String {
        self.way.name().to_owned()
    }

    fn once(&mut self) -> Result<Measures> {
        let (src, dst) = (self.lab.host("src"), self.lab.host("dst"));
        let guest = HybridGuest::new(GUEST, src);
        guest.remove(self.lab.hosts())?;
        self.lab.each(|host| way::device_file(&guest, host))?;
        self.way.start(&guest, src)?;
        let mut measures = self.under_packets(&guest, src, dst)?;
        measures.extend(self.under_tcp(&guest, dst, src)?);
        guest.remove(self.lab.hosts())?;
        Ok(measures)
    }
}

/// What the pictures show.
const DRAWN: [(&str, &str); 3] = [
    ("migrate-gap", "longest gap in all"),
    ("migrate-active", "resumed until the VF is active"),
    ("migrate-stall", "longest stall of TCP"),
];

/// Measures it.
///
/// # Errors
/// The hosts do not come up, or a migration fails.
pub fn bench(folder: &Path, rounds: usize) -> Result<Section> {
    let packages = Packages::built()?;
    let lab = hosts(&packages)?;
    let mut variants: Vec<Box<dyn Variant>> = Vec::new();
    for way in Way::ALL {
        variants.push(Box::new(Migration {
            way,
            lab: &lab,
            packages: &packages,
            folder,
        }));
    }
    let taken = interleave(&mut variants, 0, rounds)?;
    drop(variants);
    lab.down()?;

    let floor = Way::Virtio.name();
    let mut whats: Vec<&String> = taken.values().flat_map(|own| own.keys()).collect();
    whats.sort();
    whats.dedup();
    let mut figures = Vec::new();
    for what in whats {
        let unit = unit(what);
        let base = Figure::of(what, floor, unit, samples(&taken, floor, what));
        for way in Way::ALL {
            let own = Figure::of(what, way.name(), unit, samples(&taken, way.name(), what));
            figures.extend(own.map(|own| match &base {
                Some(base) if way != Way::Virtio => own.against(base),
                _ => own,
            }));
        }
    }
    let mut pictures = Vec::new();
    for (name, what) in DRAWN {
        let own: Vec<&Figure> = figures.iter().filter(|figure| figure.what == what).collect();
        hybond_lab::svg::write(
            folder,
            name,
            picture::boxes("The same migration, in several ways", &own),
        )?;
        pictures.push((name.to_owned(), what.to_owned()));
    }
    Ok(Section {
        name: "migrate".to_owned(),
        title: "A migration, beside other ways to migrate".to_owned(),
        about: "Two emulated hosts with SR-IOV, libvirt and AppArmor; a guest with one virtio NIC and, but for the first way, a VF \
                of the same address. It is migrated by virsh under 200 packets/s in each direction, and back under a stream of \
                TCP. The ways: virtio only; hybond; libvirt's <teaming> (QEMU's failover, net_failover in the guest); a script \
                that does virsh detach-device, virsh migrate and virsh attach-device around a bond with miimon=100. Gaps and \
                losses are told for the time until the guest stops at the source, while it stands, and from its resume until 3 s \
                after its VF carries its traffic again. Of a silence that goes over an edge of these, the part within counts. \
                Emulated hosts are some ten times as slow as real ones: compare the ways, not the milliseconds."
            .to_owned(),
        figures,
        slopes: Vec::new(),
        pictures,
    })
}

fn unit(what: &str) -> &'static str {
    match what {
        what if what.starts_with("lost") || what.starts_with("repeated") => "packets",
        what if what.contains("of the usual") => "%",
        _ => "ms",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_blackout_only_its_part_counts_as_a_silence_of_a_switch() {
        let arrivals = [0.0, 10.0, 20.0, 520.0, 530.0, 600.0];
        let parts = Parts {
            begun: 0.0,
            stopped: 25.0,
            resumed: 510.0,
            active: 600.0,
            end: 700.0,
        };
        let silences = parts.spans().map(|span| silence(&arrivals, &span));
        assert_eq!(silences, [10.0, 485.0, 70.0]);
    }

    #[test]
    fn every_figure_has_its_unit() {
        assert_eq!(unit("lost until it stops, to the guest"), "packets");
        assert_eq!(unit("least of TCP in 1 s, of the usual"), "%");
        assert_eq!(unit("longest gap in all"), "ms");
    }
}
