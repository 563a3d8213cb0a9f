//! hybond between two namespaced hosts, with emulated NICs in the place of VFs: libvirt, QEMU, the hook, mutual TLS, the
//! guest's agent and its bond are real. Ignored by `cargo test`, because it wants root, the images and minutes:
//! `cargo test -p hybond-lab --test tier2 -- --ignored`.

use anyhow::{Result, ensure};
use hybond_lab::Machine;
use hybond_lab::probe::Record;
use hybond_lab::tier2::{Node, Pair};
use hybond_lab::tier2_hybond::{Daemon, Hybrid, Lost, Programs, STANDBY, Traffic, leftovers, on_stage, phase, results};
use hybond_wire::agent::Path;
use hybond_wire::control::Run;
use serde_json::json;
use std::fs;
use std::time::Duration;

/// The usual guest.
const GUEST: &str = "10.88.0.50";
/// Packets go on for so long after the last phase.
const AFTERWARDS: Duration = Duration::from_secs(3);
/// A host that a guest has left has taken everything away within this.
const CLEAN: Duration = Duration::from_secs(30);

#[test]
#[ignore = "boots a guest under TCG"]
fn a_hybrid_guest_moves_between_the_namespaced_hosts() -> Result<()> {
    on_stage("tier2", play)
}

fn play(pair: &Pair, programs: &Programs, [source, destination]: [Daemon; 2]) -> Result<()> {
    let (src, dst) = (pair.host("src"), pair.host("dst"));
    let guest = Hybrid::new("tier2");
    guest.start(src)?;
    let first = guest.wait_path(src, Path::Primary)?;
    ensure!(first.plugged && first.vf.is_some(), "{first:?}");
    both_families_reach_it(pair, &guest)?;
    let boot_id = boot_id(&guest, src)?;

    // There and back, by a plain `virsh migrate --live`.
    let mut migrations = Vec::new();
    for (from, to) in [(src, dst), (dst, src)] {
        migrations.push(migration(pair, programs, &guest, from, to)?);
        ensure!(boot_id == self::boot_id(&guest, to)?, "the guest has booted again");
    }
    let file = results()?.join("tier2.json");
    fs::write(
        &file,
        serde_json::to_string_pretty(&json!({ "migrations": migrations }))?,
    )?;
    eprintln!("figures are in {}", file.display());

    let source = source_is_away(&guest, src, dst, source)?;
    drain_and_plug(&guest, dst)?;

    dst.ok(&format!("virsh destroy {}", guest.name()))?;
    nothing_is_left(dst)?;
    source.stop()?;
    destination.stop()
}

/// One migration under traffic, and everything that must be true after it.
fn migration(pair: &Pair, programs: &Programs, guest: &Hybrid, from: &Node, to: &Node) -> Result<serde_json::Value> {
    let records = results()?.join(format!("tier2-from-{}.records", from.name()));
    let mut traffic = Traffic::start(pair.peer(), programs, GUEST, &records)?;
    guest.moves(from, to)?;
    let after = guest.wait_path(to, Path::Primary)?;
    ensure!(
        after.plugged && after.vf.is_some() && after.degraded.is_none(),
        "{after:?}"
    );
    traffic.flow(AFTERWARDS)?;
    let received = traffic.finish()?;

    let left = guest.last_run(from, "migration-out")?;
    let came = guest.last_run(to, "migration-in")?;
    the_phases_are_in_order(&left, &came)?;
    nothing_is_left(from)?;
    let listed = from.ok("hybondctl --json status")?;
    ensure!(
        !listed.contains(&guest.domain.uuid),
        "{} has it yet: {listed}",
        from.name()
    );
    the_definition_is_of(to, guest)?;
    figures(&received, from, to, &left, &came)
}

fn the_phases_are_in_order(left: &Run, came: &Run) -> Result<()> {
    ensure!(left.id == came.id, "two migrations: {left:?} {came:?}");
    ensure!(left.outcome.as_deref() == Some("ok"), "{left:?}");
    ensure!(came.outcome.as_deref() == Some("ok"), "{came:?}");
    let begins = |run: &Run, name: &str| phase(run, name).map(|(start, _)| start);
    for (run, names) in [
        (
            left,
            &[
                "failover",
                "unplug",
                "reset-vf",
                "migration",
                "remove-standby",
                // Until the guest is away, the VF is kept for it, should the migration fail.
                "release",
            ][..],
        ),
        (
            came,
            &[
                "lease",
                "make-standby",
                "drain-source",
                "announce",
                "prepare-vf",
                "plug",
                "primary-ready",
                "failback",
            ],
        ),
    ] {
        for pair in names.windows(2) {
            ensure!(
                begins(run, pair[0])? <= begins(run, pair[1])?,
                "{} begins after {}: {run:?}",
                pair[0],
                pair[1]
            );
        }
    }
    // Both hosts are of one clock. The guest has let go before QEMU begins, and nothing of the VF is there before.
    let (_, unplugged) = phase(left, "unplug")?;
    let (migration, completed) = phase(left, "migration")?;
    ensure!(
        unplugged <= migration,
        "QEMU began before the guest had let go: {left:?}"
    );
    ensure!(
        phase(came, "drain-source")?.1 <= migration,
        "QEMU began before the drain was over: {came:?}"
    );
    ensure!(
        phase(came, "plug")?.0 >= completed,
        "plugged before QEMU had ended: {left:?} {came:?}"
    );
    // Without the monitor, the standby would be set up long after the guest has begun to run.
    phase(came, "resume")?;
    Ok(())
}

fn nothing_is_left(node: &Node) -> Result<()> {
    let left = leftovers(node, CLEAN)?;
    ensure!(left.is_empty(), "left behind on {}:\n{left}", node.name());
    Ok(())
}

/// libvirt has copied the persistent definition from the source: it must name this host.
fn the_definition_is_of(node: &Node, guest: &Hybrid) -> Result<()> {
    let named = format!(
        "virsh dumpxml --inactive {} | tee /dev/stderr | grep 'source peer=\"{}\"'",
        guest.name(),
        node.name()
    );
    node.until("persistent definition", &named, CLEAN)?;
    let xml = node.ok(&format!("virsh dumpxml --inactive {}", guest.name()))?;
    for word in [
        "<target dev='hb525400aa0001' managed='no'/>",
        "name='org.hybond.agent.0'",
        "/run/hybond/qmp/",
    ] {
        ensure!(xml.contains(word), "{word} is not in {xml}");
    }
    ensure!(!xml.contains("hostdev"), "{xml}");
    Ok(())
}

/// A veth and a bridge are no NIC's embedded switch: what is lost here says nothing of what is lost there, and is
/// written down, not judged. For one thing, QEMU announces from emulated primaries, too, while it still repeats the
/// announcement that follows a migration, and the bridge then sends to a NIC that the guest does not listen to yet.
fn figures(records: &[Record], from: &Node, to: &Node, left: &Run, came: &Run) -> Result<serde_json::Value> {
    let lost = Lost::of(records, left, came)?;
    eprintln!(
        "{} to {}: lost at the failover {}, at the failback {}, in all {}; repeated {}; longest gap {:.0} ms",
        from.name(),
        to.name(),
        lost.failover.lost(),
        lost.failback.lost(),
        lost.whole.lost(),
        lost.whole.duplicates(),
        lost.whole.longest_gap_ms()
    );
    Ok(json!({
        "from": from.name(), "to": to.name(), "packets": lost, "source": left, "destination": came,
    }))
}

/// A migration is refused while the source's hybondd is away, in words that say so; back again, it goes on from where it
/// was.
fn source_is_away(guest: &Hybrid, src: &Node, dst: &Node, source: Daemon) -> Result<Daemon> {
    let before = guest.wait_path(src, Path::Primary)?;
    let nic = guest.active_nic(src)?;
    ensure!(
        nic.as_deref().is_some_and(|nic| nic != STANDBY),
        "the bond sends by {nic:?}"
    );
    source.stop()?;
    let refused = guest.migrate(src, dst)?;
    ensure!(!refused.success(), "a migration went on without the source's hybondd");
    eprintln!("refused: {}", refused.stderr.trim());
    ensure!(
        refused.stderr.contains("hybond: ") && refused.stderr.contains("no hybondd answers at src, TCP port 16515"),
        "{}",
        refused.stderr
    );
    ensure!(guest.active_nic(src)? == nic, "the guest has left its primary");
    nothing_is_left(dst)?;

    let source = Daemon::start(src)?;
    let after = guest.wait_path(src, Path::Primary)?;
    ensure!(after.vf == before.vf && after.pf == before.pf, "{before:?} {after:?}");
    ensure!(source.log()?.contains("taken up again"), "the record was not taken up");
    guest.moves(src, dst)?;
    guest.wait_path(dst, Path::Primary)?;
    nothing_is_left(src)?;
    Ok(source)
}

fn drain_and_plug(guest: &Hybrid, node: &Node) -> Result<()> {
    node.ok(&format!("hybondctl drain {}", guest.name()))?;
    let drained = guest.wait_path(node, Path::Standby)?;
    ensure!(!drained.plugged && drained.vf.is_none(), "{drained:?}");
    ensure!(
        guest.active_nic(node)?.as_deref() == Some(STANDBY),
        "the bond sends by another NIC"
    );
    node.ok(&format!("hybondctl plug {}", guest.name()))?;
    let plugged = guest.wait_path(node, Path::Primary)?;
    ensure!(plugged.plugged && plugged.vf.is_some(), "{plugged:?}");
    Ok(())
}

/// Both families, over whatever path there is.
fn both_families_reach_it(pair: &Pair, guest: &Hybrid) -> Result<()> {
    for address in [GUEST, "fd88::5054:ff:feaa:1"] {
        let ping = format!("ping -c 1 -W 2 {address}");
        let what = format!("ping of {} at {address}", guest.name());
        pair.peer().until(&what, &ping, Duration::from_secs(60))?;
    }
    Ok(())
}

fn boot_id(guest: &Hybrid, node: &Node) -> Result<String> {
    guest.guest.ok(node, "cat /proc/sys/kernel/random/boot_id")
}
