//! A migration under traffic, and what there is to say of it.

use super::follow::Stopwatch;
use super::interrupts::Interrupts;
use super::pair::{HybridGuest, MIGRATE};
use super::stage::Stage;
use super::timeline::{Timeline, timeline};
use super::traffic::Traffic;
use crate::probe::{Span, analyse};
use crate::report::{Migration, cover};
use crate::{Domain, Host, Machine};
use anyhow::{Context, Result, ensure};
use hybond_wire::control::PairStatus;
use std::time::{Duration, Instant};

/// Packets go on for so long after the last phase: as long as a loss counts as its own, and as the last packet may take.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// Interrupts are counted over so much traffic.
const COUNTED: Duration = Duration::from_secs(2);

/// A migration, measured.
#[derive(Debug, Clone)]
pub struct Measured {
    /// For the report.
    pub migration: Migration,
    /// Both hosts' accounts.
    pub timeline: Timeline,
    /// The pair before, on the source.
    pub before: PairStatus,
    /// The pair after, on the destination.
    pub after: PairStatus,
    /// Interrupts in the guest during two seconds of traffic after the failback.
    pub carried: Interrupts,
    /// How long the command took.
    pub virsh: Duration,
    /// From its end until the traffic went over the new VF.
    pub settled: Duration,
}

/// Migrates a guest, whose traffic goes over a VF, by a its command, and waits until its traffic goes over a VF of
/// the destination.
///
/// # Errors
/// The migration fails, or something cannot be measured.
pub fn measured_migration(
    stage: &Stage<'_>,
    guest: &HybridGuest,
    from: &Host,
    to: &Host,
    virtio_only_gap_ms: Option<f64>,
    stopwatch: Stopwatch,
) -> Result<Measured> {
    let before = guest.wait_primary(from)?;
    let mut traffic = Traffic::start(stage.lab, stage.packages, &guest.address())?;
    let start = Instant::now();
    let output = guest.migrate(from, to)?;
    let virsh = start.elapsed();
    ensure!(output.success(), "{}: {}", guest.migrate, output.stderr.trim());
    stopwatch.say(&format!(
        "{} has ended, after {:.1} s",
        guest.migrate,
        virsh.as_secs_f64()
    ));
    let after = guest.wait_primary(to)?;
    let settled = start.elapsed() - virsh;
    let then = traffic.received()?;
    let first = Interrupts::of(&guest.guest, to)?;
    traffic.flow(COUNTED)?;
    let carried = Interrupts::of(&guest.guest, to)?.since(first);
    let timeline = timeline(from, to, &guest.domain.uuid)?;
    traffic.flow_since(then, AFTERWARDS)?;
    let records = traffic.finish()?;

    let [failover, failback] = switches(&timeline)?;
    let migration = Migration {
        title: guest.migrate.to_owned(),
        from: from.name().to_owned(),
        to: to.name().to_owned(),
        vf_before: before.vf.as_ref().map(ToString::to_string),
        vf_after: after.vf.as_ref().map(ToString::to_string),
        pf_after: after.pf.as_ref().map(ToString::to_string),
        phases: timeline.phases(),
        failover,
        failback,
        virtio_only_gap_ms,
        records,
    };
    Ok(Measured {
        migration,
        timeline,
        before,
        after,
        carried,
        virsh,
        settled,
    })
}

/// The failover and the failback of a migration.
///
/// # Errors
/// One of them is not told of.
pub fn switches(timeline: &Timeline) -> Result<[Span; 2]> {
    let failover = drain(timeline).context("the timeline has no failover")?;
    // From the VF's preparation, when the PF may begin to send it the guest's frames.
    let failback = cover(&timeline.phases(), &["failback", "prepare-vf", "plug", "primary-ready"]);
    Ok([failover, failback.context("the timeline has no failback")?])
}

/// From the beginning of the failover until the VF is reset. When the guest has left, the source resets it once more.
fn drain(timeline: &Timeline) -> Option<Span> {
    let phases = &timeline.source.phases;
    let migration = phases.iter().find(|phase| phase.name == "migration")?.start_ms;
    let before: Vec<Span> = timeline
        .phases()
        .into_iter()
        .filter(|span| span.start_ms < migration)
        .collect();
    cover(&before, &["failover", "unplug", "reset-vf"])
}

/// Migrates an ordinary guest, which runs on `from` with a virtio NIC on a macvtap of libvirt's, in the same way, and
/// answers its longest time without a packet. hybond has no part in it.
///
/// # Errors
/// The migration fails, or something cannot be measured.
pub fn virtio_only_gap(stage: &Stage<'_>, domain: &Domain, address: &str, from: &Host, to: &Host) -> Result<f64> {
    // The PF has another name there, and nobody but us to say so.
    let mut there = domain.clone();
    for (_, pf) in &mut there.nics {
        pf.clone_from(to.pfs().first().context("no PF")?);
    }
    let file = format!("/root/{}-on-{}.xml", domain.name, to.name());
    from.write_file(&file, there.xml().as_bytes(), "644")?;
    let mut traffic = Traffic::start(stage.lab, stage.packages, address)?;
    let command = format!("{MIGRATE} {} qemu+tls://{}/system --xml {file}", domain.name, to.name());
    let output = from.run_within(&command, Duration::from_secs(400))?;
    ensure!(output.success(), "virsh migrate: {}", output.stderr.trim());
    traffic.flow(AFTERWARDS)?;
    let records = traffic.finish()?;
    let all = analyse(&records, &[Span::new("all", f64::NEG_INFINITY, f64::INFINITY)]);
    Ok(all.first().context("nothing was measured")?.longest_gap_ms())
}
