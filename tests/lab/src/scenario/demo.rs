//! The demonstration: a hybrid guest migrated there and back by a plain `virsh migrate --live`, beside the same guest with
//! a virtio NIC only.

use super::follow::{Follow, Stopwatch};
use super::measured::{Measured, measured_migration, virtio_only_gap};
use super::packages::Packages;
use super::pair::{self, HybridGuest};
use super::stage::Stage;
use crate::probe;
use crate::report::{self, Entry};
use crate::{Domain, Guest, Host, Lab, Machine};
use anyhow::{Context, Result};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

const BOOT: Duration = Duration::from_secs(400);
/// Both guests are on one host at times, and its huge pages are for one of the usual size.
const MEMORY: u32 = 144;
const HYBRID: &str = "demo";
const PLAIN: &str = "plain";
const PLAIN_ADDRESS: &str = "10.88.0.51";

/// Runs it, and writes the report into `folder`. Answers whether nothing was lost at a failover or failback, and nothing
/// left behind.
///
/// # Errors
/// It cannot be carried out.
pub fn demo(migrations: usize, folder: &Path, out: &mut dyn Write) -> Result<bool> {
    let stopwatch = Stopwatch::default();
    let packages = Packages::built()?;
    stopwatch.say("bringing up two emulated hosts with SR-IOV, and guests on them");
    let lab = Lab::up_prepared("demo", &packages.key()?, |lab| prepare(lab, &packages, stopwatch))?;
    let well = play(&lab, &packages, migrations, folder, out, stopwatch).inspect_err(|_| journals(&lab))?;
    lab.down()?;
    Ok(well)
}

/// What the daemons and the guest have said, for whoever has to find out why it failed: the hosts are about to end.
fn journals(lab: &Lab) {
    for host in lab.hosts() {
        let lines = host.ok("journalctl -u hybondd -u libvirtd -o short-precise --no-pager -n 60");
        let lines = lines.unwrap_or_else(|error| format!("{error:#}"));
        eprintln!("journal of {}:\n{lines}", host.name());
        let guest = HybridGuest::new(HYBRID, host);
        if guest.runs_on(host).unwrap_or(false) {
            eprintln!("{}", guest.view(host));
        }
        let logs = host.ok("tail -n 15 /var/log/libvirt/qemu/*.log");
        eprintln!("guests on {}:\n{}", host.name(), logs.unwrap_or_default());
    }
}

/// Two hosts with hybond, a guest with a VF on `src`, and the same guest with virtio only on `dst`; both at rest.
fn prepare(lab: &Lab, packages: &Packages, stopwatch: Stopwatch) -> Result<()> {
    stopwatch.say("installing hybond on both");
    Stage::deploy(lab, packages)?;
    let (src, dst) = (lab.host("src"), lab.host("dst"));
    stopwatch.say("starting a guest with a VF on src, and the same guest with virtio only on dst");
    let guest = hybrid(src);
    let plain = plain(&guest.domain, &dst.pfs()[0]);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| start_plain(&plain, dst));
        guest.start(src)?;
        other.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
    })
    .inspect_err(|_| journals(lab))?;
    guest.rest(src)?;
    dst.ok(&format!("virsh suspend {PLAIN}"))?;
    Ok(())
}

fn play(
    lab: &Lab,
    packages: &Packages,
    migrations: usize,
    folder: &Path,
    out: &mut dyn Write,
    stopwatch: Stopwatch,
) -> Result<bool> {
    let stage = Stage::restored(lab, packages)?;
    let (src, dst) = (lab.host("src"), lab.host("dst"));
    let guest = hybrid(src);
    let plain = plain(&guest.domain, &dst.pfs()[0]);
    dst.ok(&format!("virsh resume {PLAIN}"))?;
    let vf = guest.wake(src)?;
    stopwatch.say(&format!(
        "demo runs on src, its traffic goes over VF {}",
        word(vf.vf.as_ref())
    ));

    // Each takes a minute here; two of them where the rest takes long anyway.
    let mut directions = vec![(dst, src)];
    if migrations > 2 {
        directions.push((src, dst));
    }
    let mut gaps = Vec::new();
    for (from, to) in &directions {
        stopwatch.say(&format!(
            "virtio only: virsh migrate --live from {} to {}",
            from.name(),
            to.name()
        ));
        let gap = virtio_only_gap(&stage, &plain, PLAIN_ADDRESS, from, to)?;
        stopwatch.say(&format!("virtio only: longest gap {gap:.0} ms"));
        gaps.push(gap);
    }
    // What is left is definitions, which end with the hosts.
    if let Some((_, there)) = directions.last() {
        there.ok(&format!("virsh destroy {PLAIN}"))?;
    }

    let mut measured: Vec<Measured> = Vec::new();
    let mut left = Vec::new();
    for number in 0..migrations {
        let (from, to) = if number % 2 == 0 { (src, dst) } else { (dst, src) };
        stopwatch.say(&format!(
            "hybrid: virsh migrate --live from {} to {}",
            from.name(),
            to.name()
        ));
        let follow = Follow::start(lab, stopwatch)?;
        let one = measured_migration(&stage, &guest, from, to, median(&mut gaps), stopwatch)?;
        drop(follow);
        let figures = one.migration.entry();
        stopwatch.say(&format!(
            "the traffic goes over VF {} of {}; lost at the failover {}, at the failback {}, longest gap {:.0} ms",
            word(figures.vf_after.as_ref()),
            to.name(),
            figures.lost_failover,
            figures.lost_failback,
            figures.longest_gap_ms
        ));
        for thing in stage.settled_leftovers(from, Duration::from_secs(20))? {
            left.push(format!("on {}: {thing}", from.name()));
        }
        measured.push(one);
    }

    let last = if migrations % 2 == 0 { src } else { dst };
    let text = last.ok(&format!("hybondctl timeline -n 1 {}", guest.name()))?;
    lab.each(|host| pair::remove(host, guest.name()))?;
    for thing in stage.settled_leftovers(last, Duration::from_secs(20))? {
        left.push(format!("on {}, after the guest's end: {thing}", last.name()));
    }
    let entries: Vec<report::Migration> = measured.iter().map(|one| one.migration.clone()).collect();
    report::write(folder, &entries)?;
    for (number, one) in entries.iter().enumerate() {
        probe::write(&folder.join(format!("packets-{}.jsonl", number + 1)), &one.records)?;
    }
    stopwatch.say(&format!(
        "report.json, report.svg and report.png are in {}",
        folder.display()
    ));

    let entries: Vec<Entry> = entries.iter().map(report::Migration::entry).collect();
    writeln!(out, "\nThe last migration, as {} tells it:\n\n{text}", last.name())?;
    writeln!(out, "{}", table(&entries))?;
    for thing in &left {
        writeln!(out, "left behind {thing}")?;
    }
    let lost = entries
        .iter()
        .any(|entry| entry.lost_failover + entry.lost_failback > 0);
    Ok(!lost && left.is_empty())
}

fn hybrid(host: &Host) -> HybridGuest {
    let mut guest = HybridGuest::new(HYBRID, host);
    guest.domain.memory = MEMORY;
    guest
}

/// The same guest without VF and agent, beside the other.
fn plain(hybrid: &Domain, pf: &str) -> Domain {
    Domain {
        name: PLAIN.to_owned(),
        uuid: "a2a2a2a2-0000-4000-8000-000000000003".to_owned(),
        nics: vec![("52:54:00:aa:00:02".to_owned(), pf.to_owned())],
        kernel_arguments: format!("lab.ip={PLAIN_ADDRESS}/24 lab.ip6=fd88::5054:ff:feaa:2/64 lab.virtio-only"),
        ..hybrid.clone()
    }
}

fn start_plain(domain: &Domain, host: &Host) -> Result<()> {
    pair::define(host, domain)?;
    host.ok(&format!("virsh start {}", domain.name))?;
    Guest::new(&domain.name).wait_ready(host, BOOT)
}

fn word(thing: Option<impl ToString>) -> String {
    thing.map_or_else(|| "none".to_owned(), |thing| thing.to_string())
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (
        values.get(values.len().checked_sub(1)? / 2)?,
        values.get(values.len() / 2)?,
    );
    Some((low + high) / 2.0)
}

fn table(entries: &[Entry]) -> String {
    let head = [
        "migration",
        "VF before",
        "VF after",
        "lost at failover",
        "at failback",
        "in all",
        "duplicates",
        "longest gap",
        "with virtio only",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(entries.iter().map(|entry| {
        vec![
            format!("{} to {}", entry.from, entry.to),
            word(entry.vf_before.as_ref()),
            word(entry.vf_after.as_ref()),
            entry.lost_failover.to_string(),
            entry.lost_failback.to_string(),
            entry.lost_total.to_string(),
            entry.duplicates.to_string(),
            format!("{:.0} ms", entry.longest_gap_ms),
            entry
                .virtio_only_gap_ms
                .map_or_else(|| "-".to_owned(), |gap| format!("{gap:.0} ms")),
        ]
    }));
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(String::len)
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// What the command line says: `[--migrations N] [--out FOLDER]`.
///
/// # Errors
/// It says something else.
pub fn arguments(words: &[&str]) -> Result<(usize, std::path::PathBuf)> {
    let (mut migrations, mut folder) = (2, std::path::PathBuf::from("target/demo"));
    for pair in words.chunks(2) {
        match pair {
            ["--migrations", number] => {
                let number = number.parse().ok().filter(|number| (1..=100).contains(number));
                migrations = number.context("--migrations takes a number from 1 to 100")?;
            }
            ["--out", path] => folder = path.into(),
            _ => anyhow::bail!("\"{}\" is not an option with its value", pair.join(" ")),
        }
    }
    Ok((migrations, folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_several_gaps() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0]), Some(3.0));
        assert_eq!(median(&mut [9.0, 1.0]), Some(5.0));
        assert_eq!(median(&mut [9.0, 1.0, 2.0]), Some(2.0));
    }

    #[test]
    fn options_have_values() {
        assert_eq!(arguments(&[]).expect("defaults"), (2, "target/demo".into()));
        assert_eq!(
            arguments(&["--migrations", "4", "--out", "x"]).expect("both"),
            (4, "x".into())
        );
        assert!(arguments(&["--migrations", "0"]).is_err());
        assert!(arguments(&["--out"]).is_err());
    }
}
