//! There and back under traffic, and everything that must hold afterwards.

use crate::scene::{Scene, nothing_is_left};
use anyhow::{Context, Result, ensure};
use hybond_lab::probe::BURST;
use hybond_lab::scenario::{POOL, Pages, Stopwatch, Timeline, measured_migration};
use hybond_lab::{Host, Machine};
use std::time::Duration;

const MAC: &str = "52:54:00:aa:00:01";
/// The macvtap of that pair.
const STANDBY: &str = "hb525400aa0001";
/// What a guest that comes gets, on the host that it has come to only.
const MEMORY: &str = "<allocation mode='immediate'/>";
const FILE: &str = "/var/tmp/saved-guest";
const SAVE: Duration = Duration::from_secs(180);

pub fn there_and_back(scene: &Scene<'_>) -> Result<()> {
    moved(scene, scene.src, scene.dst)?;
    moved(scene, scene.dst, scene.src)
}

pub fn there(scene: &Scene<'_>) -> Result<()> {
    moved(scene, scene.src, scene.dst)
}

/// From a file a guest comes as it does from another host. One that has been elsewhere has in its XML what it got there: it is
/// restored without that.
pub fn out_of_a_file(scene: &Scene<'_>) -> Result<()> {
    let (src, _, guest, _) = scene.parts();
    let name = guest.name();
    let saved = src.run_within(&format!("hybondctl save {name} {FILE}"), SAVE)?;
    ensure!(saved.success(), "{}", saved.stderr.trim());
    let restore = format!(
        "virsh save-image-dumpxml {FILE} | sed '/<allocation /d' >{FILE}.xml && ! grep '<allocation' {FILE}.xml && \
         virsh restore {FILE} --xml {FILE}.xml && rm {FILE} {FILE}.xml"
    );
    let restored = src.run_within(&restore, SAVE)?;
    ensure!(restored.success(), "{}", restored.stderr.trim());
    guest.wait_primary(src)?;
    memory_was_there(src, name)
}

fn moved(scene: &Scene<'_>, from: &Host, to: &Host) -> Result<()> {
    let lab = scene.stage.lab;
    // Most of them come by DMA over the VF, which no hypervisor notices: all must be there afterwards.
    let pages = Pages::send(lab, scene.stage.packages, &scene.guest.address())?;
    let measured = measured_migration(&scene.stage, &scene.guest, from, to, None, Stopwatch::default())?;
    let kept = pages.compare()?;
    let figures = measured.migration.entry();
    eprintln!(
        "  {} to {}: virsh {:.0} s, on the VF {:.0} s later; lost at the failover {}, at the failback {}, in all {}; \
         longest gap {:.0} ms; interrupts {:?}; of {} pages kept through it {} altered, with a wrong checksum {}, of its \
         other memory {}",
        from.name(),
        to.name(),
        measured.virsh.as_secs_f64(),
        measured.settled.as_secs_f64(),
        figures.lost_failover,
        figures.lost_failback,
        figures.lost_total,
        figures.longest_gap_ms,
        measured.carried,
        kept.pages,
        kept.altered,
        kept.checksum_errors,
        kept.memory_altered
    );
    ensure!(kept.is_unaltered(), "memory of the guest has been altered: {kept:?}");
    ensure!(kept.pages > BURST / 2, "few pages have come to be kept: {kept:?}");
    let timeline = &measured.timeline;
    let setup = begin(timeline, "migration")?;
    let gone = end(timeline, "unplug")?;
    ensure!(
        gone < setup,
        "the VF was gone {:.1} ms after QEMU's setup",
        gone - setup
    );
    ensure!(begin(timeline, "failover")? < gone, "unplugged before the failover");

    let vf = measured.after.vf.as_ref().context("no VF")?.to_string();
    let pf = measured.after.pf.as_ref().context("no PF")?.to_string();
    ensure!(
        to.vfs(&pf)?.contains(&vf),
        "VF {vf} is none of {pf}, where the standby is"
    );
    let below = to.ok(&format!("cd /sys/class/net/{STANDBY} && echo lower_*"))?;
    ensure!(below.trim() == format!("lower_{pf}"), "the standby is on {below}");
    ensure!(
        measured.carried.primary > 100,
        "the new VF does not carry the traffic: {:?}",
        measured.carried
    );
    memory_was_there(to, scene.guest.name())?;
    is_right(to, scene.guest.name(), to.name())?;
    is_right(from, scene.guest.name(), from.name())?;
    nothing_is_left(scene, from)?;
    ensure!(
        figures.lost_failover == 0,
        "lost at the failover: {}",
        figures.lost_failover
    );
    ensure!(
        figures.lost_failback == 0,
        "lost at the failback: {}",
        figures.lost_failback
    );
    Ok(())
}

fn begin(timeline: &Timeline, name: &str) -> Result<f64> {
    let phase = timeline.source.phases.iter().find(|phase| phase.name == name);
    Ok(phase.with_context(|| format!("no phase {name}"))?.start_ms)
}

fn end(timeline: &Timeline, name: &str) -> Result<f64> {
    let phase = timeline.source.phases.iter().find(|phase| phase.name == name);
    phase
        .and_then(|phase| phase.end_ms)
        .with_context(|| format!("no end of phase {name}"))
}

fn memory_was_there(host: &Host, domain: &str) -> Result<()> {
    let live = host.ok(&format!("virsh dumpxml {domain}"))?;
    ensure!(
        live.contains(MEMORY),
        "the memory of {domain} was not all there before it came to {}: {live}",
        host.name()
    );
    Ok(())
}

/// The persistent XML: the pair as it was enabled, this host as the one to ask, and no VF.
fn is_right(host: &Host, domain: &str, peer: &str) -> Result<()> {
    let xml = host
        .ok(&format!("virsh dumpxml --inactive {domain}"))?
        .replace('"', "'");
    let wanted = [
        format!("mac='{MAC}' pool='{POOL}' policy='prefer'"),
        format!("source peer='{peer}'"),
        "<interface type='ethernet'>".to_owned(),
        format!("<target dev='{STANDBY}' managed='no'/>"),
    ];
    for text in wanted {
        ensure!(
            xml.contains(&text),
            "persistent XML of {domain} on {}: no {text} in\n{xml}",
            host.name()
        );
    }
    for text in ["hostdev", MEMORY] {
        ensure!(
            !xml.contains(text),
            "persistent XML of {domain} on {}: {text} in\n{xml}",
            host.name()
        );
    }
    Ok(())
}
