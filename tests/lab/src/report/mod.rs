//! What a demonstration shows: for each migration what was lost, when, and beside which phases; as `report.json` for
//! programs and as `report.svg` and `report.png` for people.

mod picture;

use crate::probe::{Record, Span, Summary, analyse};
use crate::svg;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// How long after its last phase a failover or failback still answers for what is lost.
pub const AFTERMATH_MS: f64 = 1000.0;

/// A migration, as it was carried out and measured.
#[derive(Debug, Clone)]
pub struct Migration {
    /// What it was, for the picture's title: `virsh migrate --live`, for example.
    pub title: String,
    /// Host that the guest left.
    pub from: String,
    /// Host that it went to.
    pub to: String,
    /// Its VF before.
    pub vf_before: Option<String>,
    /// Its VF after.
    pub vf_after: Option<String>,
    /// The PF below its standby after.
    pub pf_after: Option<String>,
    /// Phases of both hosts, by the peer's clock.
    pub phases: Vec<Span>,
    /// From the beginning of the failover until the drain's end.
    pub failover: Span,
    /// The failback.
    pub failback: Span,
    /// Longest gap of the same guest's migration with a virtio NIC only.
    pub virtio_only_gap_ms: Option<f64>,
    /// What became of the probe's packets.
    pub records: Vec<Record>,
}

/// A migration in `report.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What it was.
    pub title: String,
    /// Host that the guest left.
    pub from: String,
    /// Host that it went to.
    pub to: String,
    /// Its VF before.
    pub vf_before: Option<String>,
    /// Its VF after.
    pub vf_after: Option<String>,
    /// The PF below its standby after.
    pub pf_after: Option<String>,
    /// Packets lost at the failover, both directions.
    pub lost_failover: u32,
    /// Packets lost at the failback, both directions.
    pub lost_failback: u32,
    /// Packets lost in all, both directions.
    pub lost_total: u32,
    /// Packets that came more than once, each further copy counted, both directions.
    pub duplicates: u32,
    /// Longest time without a packet, of either direction.
    pub longest_gap_ms: f64,
    /// That of the same guest's migration with a virtio NIC only.
    pub virtio_only_gap_ms: Option<f64>,
    /// The phases.
    pub phases: Vec<Phase>,
    /// All packets, by direction.
    pub traffic: Summary,
    /// The same within each phase, in the phases' order.
    pub traffic_by_phase: Vec<Summary>,
}

/// A phase in `report.json`: milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Its start.
    pub start: f64,
    /// Its end.
    pub end: f64,
}

impl Migration {
    /// Its figures.
    #[must_use]
    pub fn entry(&self) -> Entry {
        let with_aftermath = |span: &Span| Span {
            end_ms: span.end_ms + AFTERMATH_MS,
            ..span.clone()
        };
        let lost = |span: &Span| one(&self.records, &with_aftermath(span)).lost();
        let traffic = one(&self.records, &self.whole());
        Entry {
            title: self.title.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            vf_before: self.vf_before.clone(),
            vf_after: self.vf_after.clone(),
            pf_after: self.pf_after.clone(),
            lost_failover: lost(&self.failover),
            lost_failback: lost(&self.failback),
            lost_total: traffic.lost(),
            duplicates: traffic.duplicates(),
            longest_gap_ms: traffic.longest_gap_ms(),
            virtio_only_gap_ms: self.virtio_only_gap_ms,
            phases: self
                .phases
                .iter()
                .map(|span| Phase {
                    name: span.name.clone(),
                    start: span.start_ms,
                    end: span.end_ms,
                })
                .collect(),
            traffic,
            traffic_by_phase: analyse(&self.records, &self.phases),
        }
    }

    /// From the first packet to after the last.
    fn whole(&self) -> Span {
        let sent = || self.records.iter().map(|record| record.sent_ms);
        let first = sent().fold(f64::INFINITY, f64::min);
        let last = sent().fold(f64::NEG_INFINITY, f64::max);
        Span::new("all", first, last + 1.0)
    }
}

fn one(records: &[Record], span: &Span) -> Summary {
    let empty = Summary {
        span: span.clone(),
        to_guest: Default::default(),
        from_guest: Default::default(),
    };
    analyse(records, std::slice::from_ref(span)).pop().unwrap_or(empty)
}

/// The span that the named phases cover together; `None` if none of them is there.
#[must_use]
pub fn cover(phases: &[Span], names: &[&str]) -> Option<Span> {
    let named = || phases.iter().filter(|phase| names.contains(&phase.name.as_str()));
    let first = named().map(|phase| phase.start_ms).reduce(f64::min)?;
    let last = named().map(|phase| phase.end_ms).reduce(f64::max)?;
    Some(Span::new(names.first()?, first, last))
}

/// Writes `report.json` (a list of [`Entry`]s), `report.svg` and `report.png` into a folder, which is made. The last
/// needs `rsvg-convert`, of Debian's librsvg2-bin.
///
/// # Errors
/// If one of them cannot be written.
pub fn write(folder: &Path, migrations: &[Migration]) -> Result<()> {
    let entries: Vec<Entry> = migrations.iter().map(Migration::entry).collect();
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let json = folder.join("report.json");
    fs::write(&json, serde_json::to_string_pretty(&entries)? + "\n")
        .with_context(|| format!("cannot write {}", json.display()))?;
    svg::write(folder, "report", picture::draw(migrations, &entries))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Direction;

    /// Thirty seconds at 200 packets/s: nothing lost at the failover, a pause with loss, one packet lost at the
    /// failback.
    fn migration() -> Migration {
        let start = 1e12;
        let mut records = Vec::new();
        for dir in Direction::ALL {
            for seq in 0..6000u32 {
                let at = f64::from(seq) * 5.0;
                let in_pause = (15_000.0..15_600.0).contains(&at);
                // Half of what is sent to a guest that stands still is kept for it.
                let is_lost = in_pause && at < 15_300.0 || dir == Direction::ToGuest && seq == 4400;
                let recv = if in_pause {
                    15_610.0
                } else {
                    at + 0.8 + f64::from(seq * 7 % 11) / 10.0
                };
                if in_pause && dir == Direction::FromGuest {
                    continue;
                }
                records.push(Record {
                    dir,
                    seq,
                    sent_ms: start + at,
                    recv_ms: (!is_lost).then_some(start + recv),
                    copies: u8::from(!is_lost) + u8::from((9_000.0..9_100.0).contains(&at)),
                });
            }
        }
        let phase = |name, from: f64, to: f64| Span::new(name, start + from, start + to);
        let phases = vec![
            phase("lease", 4_000.0, 4_120.0),
            phase("failover", 9_000.0, 9_110.0),
            phase("unplug", 9_110.0, 9_650.0),
            phase("release", 9_650.0, 9_720.0),
            phase("copy", 10_100.0, 15_000.0),
            phase("pause", 15_000.0, 15_600.0),
            phase("announce", 15_610.0, 15_640.0),
            phase("plug", 16_000.0, 18_300.0),
            phase("enslave", 18_300.0, 21_900.0),
            phase("failback", 21_900.0, 22_030.0),
        ];
        Migration {
            title: "virsh migrate --live".to_owned(),
            from: "src".to_owned(),
            to: "dst".to_owned(),
            vf_before: Some("0000:01:10.2".to_owned()),
            vf_after: Some("0000:02:10.0".to_owned()),
            pf_after: Some("enp2s0".to_owned()),
            failover: cover(&phases, &["failover", "unplug", "release"]).expect("they are there"),
            failback: cover(&phases, &["failback"]).expect("it is there"),
            phases,
            virtio_only_gap_ms: Some(702.0),
            records,
        }
    }

    #[test]
    fn losses_are_told_by_failover_failback_and_in_all() {
        let entry = migration().entry();
        assert_eq!((entry.lost_failover, entry.lost_failback, entry.lost_total), (0, 1, 61));
        assert_eq!(entry.duplicates, 40);
        assert!(
            (600.0..620.0).contains(&entry.longest_gap_ms),
            "{}",
            entry.longest_gap_ms
        );
        let json = serde_json::to_value(&entry).expect("JSON");
        assert_eq!(json["phases"][1]["name"], "failover");
        assert_eq!(json["phases"][1]["end"], 1e12 + 9_110.0);
        assert_eq!(json["virtio_only_gap_ms"], 702.0);
    }

    #[test]
    fn a_report_without_a_vf_or_a_packet_can_be_drawn() {
        let mut nothing = migration();
        nothing.records.clear();
        nothing.phases.clear();
        nothing.vf_after = None;
        let svg = picture::draw(&[nothing.clone()], &[nothing.entry()]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_balanced(&svg);
    }

    #[test]
    fn the_picture_names_hosts_phases_and_figures() {
        let both = [migration(), migration()];
        let entries: Vec<Entry> = both.iter().map(Migration::entry).collect();
        let svg = picture::draw(&both, &entries);
        for text in [
            "src → dst",
            "failover",
            "enslave",
            "0000:01:10.2",
            "lost at the failback: 1",
            "seconds",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.len() < 400_000, "{} bytes", svg.len());
        assert_balanced(&svg);
        if let Ok(folder) = std::env::var("HYBOND_REPORT_SAMPLE") {
            write(Path::new(&folder), &both).expect("a report");
        }
    }

    /// Every element that is opened is closed.
    fn assert_balanced(svg: &str) {
        let opened = svg.matches('<').count() - svg.matches("</").count();
        let closed = svg.matches("/>").count() + svg.matches("</").count();
        assert_eq!(opened, closed);
    }
}
