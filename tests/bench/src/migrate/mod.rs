//! The same guest with the same traffic, migrated in different ways between two emulated hosts.
//!
//! Each way has a guest, which is started once and stands still while the others are migrated: booting them anew would take
//! most of the time. A round migrates each of them once, in one direction, and the next round back. Packets and clocks are the
//! peer's, a namespace of this machine.

mod events;
pub mod memory;
mod stand;
pub mod tcp;
mod way;

use crate::figures::{Figure, Point, Section};
use crate::picture;
use crate::variant::{Keep, Measures, Rounds, Taken, Variant, interleave};
use anyhow::{Context, Result};
use events::Events;
use hybond_lab::probe::{Direction, Record, Span, Summary, analyse, arrivals};
use hybond_lab::scenario::{HybridGuest, Packages, Traffic};
use hybond_lab::{Host, Lab, Machine};
use stand::Stand;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tcp::Stream;
use way::{Told, Way};

/// Traffic before the migration: what is usual is known from it.
const BEFORE: Duration = Duration::from_secs(3);
/// Packets go on for so long after the VF carries them again.
const AFTERWARDS: Duration = Duration::from_secs(3);
/// Emulated hosts fail now and then, and a go with them.
const FAILURES: usize = 2;

const WHOLE: &str = "time of the whole migration";
const BLACKOUT: &str = "stopped until resumed";
const ACTIVE: &str = "resumed until the VF is active";
const DRAIN: &str = "drain";
const GAP: &str = "longest gap in all";
const LOST: &str = "lost in all";
const REPEATED: &str = "repeated, of all packets";
const STALL: &str = "longest stall of TCP";
const DIP: &str = "least of TCP in 1 s, of the usual";
/// What the failover and the failback cost, and what was repeated when none of them was under way.
const SWITCHES: [&str; 2] = ["failover", "failback"];
const OUTSIDE: &str = "repeated outside of failover and failback";

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

/// Of both directions.
fn longest_silence(records: &[Record], span: &Span) -> f64 {
    let silences = Direction::ALL.map(|direction| silence(&arrivals(records, direction), span));
    silences.into_iter().fold(0.0, f64::max)
}

/// A way, and its guest.
struct Migration<'a> {
    way: Way,
    stand: &'a Stand<'a>,
    folder: &'a Path,
    /// The host that its guest stands still on, and the number of the lab that this is in.
    home: Option<(u32, String)>,
}

impl Migration<'_> {
    fn go(&mut self, round: usize) -> Result<Measures> {
        let lab = self.stand.lab()?;
        let number = self.stand.number();
        let (from, to) = if round % 2 == 0 { ("src", "dst") } else { ("dst", "src") };
        let (from, to) = (lab.host(from), lab.host(to));
        let guest = self.way.guest(from);
        if self.home.take() == Some((number, from.name().to_owned())) {
            self.way.wake(&guest, from)?;
        } else {
            guest.remove(lab.hosts())?;
            self.way.start(&guest, from, lab.hosts())?;
        }
        let measures = self.under_traffic(&lab, &guest, from, to)?;
        self.way.rest(&guest, to)?;
        self.home = Some((number, to.name().to_owned()));
        Ok(measures)
    }

    fn under_traffic(&self, lab: &Lab, guest: &HybridGuest, from: &Host, to: &Host) -> Result<Measures> {
        let stream = Stream::start(lab, &guest.guest, from, self.folder)?;
        let mut traffic = Traffic::start(lab, self.stand.packages, &guest.address())?;
        traffic.flow(BEFORE)?;
        let (mut parts, told, mut measures) = self.migrate(guest, from, to)?;
        traffic.flow(AFTERWARDS)?;
        parts.end = parts.active + AFTERWARDS.as_secs_f64() * 1e3;
        let throughput = stream.finish()?;
        let records = traffic.finish()?;
        let told = self.way.told(guest, from, to, told, &parts)?;

        measures.extend(packets(&records, &parts, &told)?);
        let mut note = |what: &str, value: f64| drop(measures.insert(what.to_owned(), vec![value]));
        if let Some(drain) = told.drain {
            note(DRAIN, drain.as_secs_f64() * 1e3);
        }
        note(STALL, throughput.stall_ms(parts.begun, parts.end));
        if let Some(dip) = throughput.dip_percent(parts.begun, parts.end) {
            note(DIP, dip);
        }
        Ok(measures)
    }

    fn migrate(&self, guest: &HybridGuest, from: &Host, to: &Host) -> Result<(Parts, Told, Measures)> {
        let mut measures = Measures::new();
        let mut note = |what: &str, value: f64| drop(measures.insert(what.to_owned(), vec![value]));
        let (there, here) = (Events::listen(to)?, Events::listen(from)?);
        let begun = now_ms()?;
        let start = Instant::now();
        let told = self.way.migrate(guest, from, to)?;
        note(WHOLE, start.elapsed().as_secs_f64() * 1e3);
        self.way.wait_active(guest, to)?;
        let active = now_ms()?;
        let stopped = here.last(guest.name(), "Suspended")?;
        let resumed = there.last(guest.name(), "Resumed")?;
        note(BLACKOUT, resumed - stopped);
        if self.way.has_vf() {
            note(ACTIVE, (active - resumed).max(0.0));
        }
        let parts = Parts {
            begun,
            stopped,
            resumed,
            active,
            end: active,
        };
        Ok((parts, told, measures))
    }
}

impl Variant for Migration<'_> {
    fn name(&self) -> String {
        self.way.name().to_owned()
    }

    fn once(&mut self, round: usize) -> Result<Measures> {
        let done = self.go(round);
        if done.is_err() {
            // What is left of it must not be in the way of the others.
            self.stand.mend(self.way.domain());
        }
        done
    }
}

/// What became of the packets.
fn packets(records: &[Record], parts: &Parts, told: &Told) -> Result<Measures> {
    let mut measures = Measures::new();
    let mut note = |what: &str, value: f64| drop(measures.insert(what.to_owned(), vec![value]));
    let both = |summary: &Summary| {
        [
            ("to the guest", summary.to_guest),
            ("from the guest", summary.from_guest),
        ]
    };
    for summary in analyse(records, &parts.spans()) {
        let when = &summary.span.name;
        for (direction, count) in both(&summary) {
            note(&format!("lost {when}, {direction}"), f64::from(count.lost));
            note(&format!("repeated {when}, {direction}"), f64::from(count.duplicates));
        }
        note(&format!("longest gap {when}"), longest_silence(records, &summary.span));
    }
    let all = analyse(records, &[Span::new("all", f64::NEG_INFINITY, f64::INFINITY)]);
    let all = all.first().context("nothing was measured")?;
    note(GAP, all.longest_gap_ms());
    note(LOST, f64::from(all.lost()));
    let sent = f64::from(all.to_guest.sent + all.from_guest.sent).max(1.0);
    note(REPEATED, 100.0 * f64::from(all.duplicates()) / sent);
    if let Some(switches) = &told.switches {
        let summaries = analyse(records, switches);
        for (name, summary) in SWITCHES.iter().zip(&summaries) {
            note(
                &format!("longest gap at the {name}"),
                longest_silence(records, &summary.span),
            );
            for (direction, count) in both(summary) {
                note(&lost_at(name, direction), f64::from(count.lost));
            }
        }
        let within: u32 = summaries.iter().map(Summary::duplicates).sum();
        note(OUTSIDE, f64::from(all.duplicates().saturating_sub(within)));
    }
    Ok(measures)
}

fn lost_at(switch: &str, direction: &str) -> String {
    format!("lost at the {switch}, {direction}")
}

/// What the pictures show.
const DRAWN: [(&str, &str); 4] = [
    ("migrate-gap", GAP),
    ("migrate-active", ACTIVE),
    ("migrate-lost", LOST),
    ("migrate-stall", STALL),
];

/// A figure of hybond's over the same of another way's, and what that must not exceed.
const RATIOS: [(&str, Way, f64); 3] = [
    (GAP, Way::Virtio, 1.05),
    (GAP, Way::Teaming, 0.5),
    (LOST, Way::Script, 0.5),
];

/// Measures it.
///
/// # Errors
/// The hosts do not come up, or one way after the other fails.
pub fn bench(folder: &Path, rounds: usize, keep: &mut Keep<'_>) -> Result<()> {
    let packages = Packages::built()?;
    let stand = Stand::new(&packages, way::MORE)?;
    let mut variants: Vec<Box<dyn Variant>> = Vec::new();
    for way in Way::ALL {
        variants.push(Box::new(Migration {
            way,
            stand: &stand,
            folder,
            home: None,
        }));
    }
    let rounds = Rounds {
        warm: 0,
        count: rounds,
        failures: FAILURES,
    };
    interleave(&mut variants, rounds, &mut |taken, rounds| {
        let (section, drawn) = section(taken);
        for (name, picture) in drawn {
            hybond_lab::svg::write(folder, name, picture)?;
        }
        keep(section, rounds)
    })?;
    drop(variants);
    stand.end()
}

fn held(figure: Figure, way: Way) -> Figure {
    let lost = SWITCHES
        .iter()
        .any(|switch| figure.what.starts_with(&lost_at(switch, "")));
    match figure.what.as_str() {
        _ if way != Way::Hybond => figure,
        OUTSIDE => figure.at_most(Point::Max, 0.0),
        REPEATED => figure.at_most(Point::Max, 1.0),
        _ if lost => figure.at_most(Point::Max, 0.0),
        _ => figure,
    }
}

/// The rows, and the pictures by name.
fn section(taken: &Taken) -> (Section, Vec<(&'static str, String)>) {
    let floor = Way::Virtio.name();
    let mut figures = Vec::new();
    for (what, base, at_most) in RATIOS {
        let ratios = taken.ratios(Way::Hybond.name(), base.name(), what);
        let what = format!("{what}, over that of {}", base.name());
        let figure = Figure::of(&what, Way::Hybond.name(), "×", &ratios);
        figures.extend(figure.map(|figure| figure.at_most(Point::Median, at_most)));
    }
    for what in taken.figures() {
        for way in Way::ALL {
            let own = Figure::of(what, way.name(), unit(what), &taken.samples(way.name(), what));
            let own = own.map(|own| held(own, way));
            figures.extend(own.map(|own| {
                if way == Way::Virtio {
                    own
                } else {
                    own.against(floor, &taken.ratios(way.name(), floor, what))
                }
            }));
        }
    }
    let mut pictures = Vec::new();
    let mut drawn = Vec::new();
    for (name, what) in DRAWN {
        let own: Vec<&Figure> = figures.iter().filter(|figure| figure.what == what).collect();
        if own.is_empty() {
            continue;
        }
        drawn.push((name, picture::boxes("The same migration, in several ways", &own)));
        pictures.push((name.to_owned(), what.to_owned()));
    }
    let section = Section {
        name: "migrate".to_owned(),
        title: "A migration, beside other ways to migrate".to_owned(),
        about: format!(
            "Two emulated hosts with SR-IOV, libvirt and AppArmor; for each way a guest of {} MiB with one virtio NIC \
                and, but for the first way, a VF of the same address. How it gets its memory its XML does not \
                say, but for what hybond adds. The guests are migrated by virsh in turn, all in one direction and in the next round back, under 200 packets/s \
                in each direction and a stream of TCP of 2 Mbit/s from the guest; the others stand still meanwhile. The \
                ways: virtio only; hybond; libvirt's <teaming> (QEMU's failover, net_failover in the guest); a script that \
                does virsh detach-device, virsh migrate and virsh attach-device around a bond with miimon=100. Gaps and \
                losses are told for the time until the guest stops at the source, while it stands, and from its resume until \
                3 s after its VF carries its traffic again. Of a silence that goes over an edge of these, the part within \
                counts. hybond's failover and failback are as its own timelines tell, each from its beginning until the VF \
                is reset or in use; the script's are from detach-device until the VF has left, and from attach-device until a VF \
                carries the traffic; for teaming, of which nobody tells it, they are the time until the guest stops, and from its \
                resume until the VF carries the traffic. Emulated hosts are some ten times as slow as real ones: compare the ways, not the \
                milliseconds.",
            way::MEMORY
        ),
        figures,
        slopes: Vec::new(),
        failed: taken.failed().to_vec(),
        pictures,
    };
    (section, drawn)
}

fn unit(what: &str) -> &'static str {
    match what {
        REPEATED | DIP => "%",
        what if what.starts_with("lost") || what.starts_with("repeated") => "packets",
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
        assert_eq!(unit(DIP), "%");
        assert_eq!(unit(GAP), "ms");
    }

    #[test]
    fn goals_are_hybonds_and_ratios_are_taken_within_rounds() {
        let mut taken = Taken::default();
        let go = |gap: f64, lost: f64| Measures::from([(GAP.to_owned(), vec![gap]), (LOST.to_owned(), vec![lost])]);
        for (round, floor) in [100.0, 1000.0].into_iter().enumerate() {
            taken.put(Way::Virtio.name(), round, go(floor, 5.0));
            taken.put(Way::Script.name(), round, go(floor, 20.0));
            let mut own = go(floor * 1.1, 5.0);
            own.insert(lost_at("failback", "to the guest"), vec![round as f64]);
            taken.put(Way::Hybond.name(), round, own);
        }
        let (section, drawn) = section(&taken);
        let goals: Vec<(&str, bool)> = section
            .figures
            .iter()
            .filter_map(|figure| Some((figure.what.as_str(), figure.goal.as_ref()?.met)))
            .collect();
        assert_eq!(
            goals,
            [
                ("longest gap in all, over that of virtio only", false),
                ("lost in all, over that of script, miimon 100", true),
                ("lost at the failback, to the guest", false),
            ]
        );
        let names: Vec<&str> = drawn.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["migrate-gap", "migrate-lost"]);
    }
}
