//! hybond as its users have it: packages, systemd, AppArmor, stock libvirt, emulated SR-IOV, and a plain `virsh migrate`.
//! Ignored by `cargo test`, because it wants root, the images and minutes: `cargo test -p hybond-lab -- --ignored`. Wants
//! the packages that `make packages` builds.
//!
//! A guest takes a minute to boot, so that one lab and one guest serve all the scenarios, one after the other. Each
//! begins with the guest on `src` and on its VF, and leaves it so; what a scenario has changed on a host is put back.

use anyhow::{Context, Result, bail, ensure};
use hybond_lab::scenario::{HybridGuest, POOL, Packages, Stage, Stopwatch, Timeline, measured_migration, runs};
use hybond_lab::{Host, Lab, Machine, Output};
use std::time::{Duration, Instant};

const MAC: &str = "52:54:00:aa:00:01";
/// The macvtap of that pair.
const STANDBY: &str = "hb525400aa0001";

type Scenario = fn(&Scene<'_>) -> Result<()>;

/// What is told at the end is told in this order.
const SCENARIOS: [(&str, Scenario); 9] = [
    ("there and back without losing a packet to hybond", there_and_back),
    (
        "no free VF: it arrives on its standby, and gets the VF that is freed",
        upgraded_later,
    ),
    ("no free VF, and one is required: refused", refused_for_want_of_a_vf),
    ("a guest that ignores the unplug keeps its VF", guest_ignores_the_unplug),
    ("the destination's daemon is down", destination_daemon_down),
    ("the source's daemon does not answer", source_daemon_down),
    ("the destination has a wrong certificate", wrong_certificate),
    (
        "the domain names another host as its source",
        domain_unknown_to_the_source,
    ),
    ("a save with a VF plugged is cancelled", save_is_cancelled),
];

#[test]
#[ignore = "boots two emulated hosts and a guest"]
fn a_hybrid_guest_migrates_or_keeps_its_vf() -> Result<()> {
    let packages = Packages::built()?;
    let lab = Lab::up()?;
    let stage = Stage::deploy(&lab, &packages)?;
    let (src, dst) = (lab.host("src"), lab.host("dst"));
    let guest = HybridGuest::new("web", src);
    let begun = Instant::now();
    guest.start(src)?;
    eprintln!("the guest is on its VF after {} s", begun.elapsed().as_secs());
    let scene = Scene { stage, src, dst, guest };

    let mut failed = Vec::new();
    for (name, scenario) in SCENARIOS.iter().filter(|(name, _)| is_wanted(name)) {
        let begun = Instant::now();
        eprintln!("scenario: {name}");
        // One that leaves the guest elsewhere makes the next ones meaningless.
        let result = scenario(&scene).and_then(|()| scene.is_home().context("afterwards"));
        let seconds = begun.elapsed().as_secs();
        match result {
            Ok(()) => eprintln!("scenario: {name}: ok, {seconds} s"),
            Err(error) => {
                eprintln!(
                    "scenario: {name}: FAILED after {seconds} s: {error:#}\n{}",
                    scene.journals()
                );
                failed.push(*name);
                scene
                    .mend()
                    .with_context(|| format!("after \"{name}\" the guest cannot be brought back"))?;
            }
        }
    }
    scene.guest.remove(lab.hosts())?;
    for host in lab.hosts() {
        nothing_is_left(&scene, host).context("after the guest's end")?;
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join("; "));
    lab.down()
}

/// `HYBOND_SCENARIO` chooses those whose names contain it.
fn is_wanted(name: &str) -> bool {
    std::env::var("HYBOND_SCENARIO").map_or(true, |part| name.contains(&part))
}

struct Scene<'a> {
    stage: Stage<'a>,
    src: &'a Host,
    dst: &'a Host,
    guest: HybridGuest,
}

impl<'a> Scene<'a> {
    fn parts(&self) -> (&'a Host, &'a Host, &HybridGuest, &Stage<'a>) {
        (self.src, self.dst, &self.guest, &self.stage)
    }

    /// The guest runs on `src`, over its VF, and can be reached; `dst` has nothing of it.
    fn is_home(&self) -> Result<()> {
        let pair = self.guest.wait_primary(self.src)?;
        ensure!(pair.degraded.is_none(), "degraded: {pair:?}");
        let address = self.guest.address();
        let ping = format!("ping -c 1 -W 2 {address}");
        self.stage
            .lab
            .peer()
            .until("ping of the guest", &ping, Duration::from_secs(30))?;
        nothing_is_left(self, self.dst)
    }

    /// After a failure: settings back, daemons up, the guest on `src`.
    fn mend(&self) -> Result<()> {
        for host in [self.src, self.dst] {
            self.stage.configure(host, "")?;
        }
        if self
            .dst
            .run(&format!("virsh -q list --name | grep -qx {}", self.guest.name()))?
            .success()
        {
            self.guest.wait_primary(self.dst)?;
            self.arrive(self.dst, self.src)?;
        }
        self.guest.wait_primary(self.src).map(drop)
    }

    /// A migration that has to succeed.
    fn arrive(&self, from: &Host, to: &Host) -> Result<()> {
        let output = self.guest.migrate(from, to)?;
        ensure!(
            output.success(),
            "from {} to {}: {}",
            from.name(),
            to.name(),
            output.stderr.trim()
        );
        Ok(())
    }

    /// A migration from `src` that has to be refused, with words that name what and where. The guest keeps its VF, or
    /// gets it back, and nothing is on `dst`.
    fn is_refused(&self, words: &[&str]) -> Result<String> {
        let before = self.guest.pair(self.src)?;
        let output = self.guest.migrate(self.src, self.dst)?;
        let said = refusal(&output, words)?;
        let after = self.guest.wait_primary(self.src)?;
        ensure!(
            after.vf == before.vf,
            "the VF was {:?} and is {:?}",
            before.vf,
            after.vf
        );
        nothing_is_left(self, self.dst)?;
        Ok(said)
    }

    /// The metadata of the running domain with one word in place of another, as an administrator may change it.
    fn edit_metadata(&self, from: &str, to: &str) -> Result<()> {
        let name = self.guest.name();
        let uri = "urn:hybond:domain:1";
        self.src.ok(&format!(
            "set -e\nold=$(virsh metadata {name} {uri} --live)\nnew=$(printf %s \"$old\" | sed \"s|{from}|{to}|\")\n\
             [ \"$old\" != \"$new\" ] || {{ echo \"no {from} in $old\" >&2; exit 1; }}\n\
             virsh metadata {name} {uri} --live --key hybond --set \"$new\""
        ))?;
        Ok(())
    }

    fn journals(&self) -> String {
        let mut text = String::new();
        for host in [self.src, self.dst] {
            let lines = host.ok("journalctl -u hybondd -o short-precise --no-pager -n 40");
            text += &format!(
                "journal of {}:\n{}\n",
                host.name(),
                lines.unwrap_or_else(|error| error.to_string())
            );
        }
        text
    }
}

/// What `virsh` has said, if it failed and said all of these.
fn refusal(output: &Output, words: &[&str]) -> Result<String> {
    let said = output.stderr.trim().to_owned();
    ensure!(!output.success(), "it was not refused");
    for word in words {
        ensure!(said.contains(word), "virsh does not say \"{word}\": {said}");
    }
    eprintln!("  virsh: {said}");
    Ok(said)
}

fn nothing_is_left(scene: &Scene<'_>, host: &Host) -> Result<()> {
    let left = scene.stage.settled_leftovers(host, Duration::from_secs(30))?;
    ensure!(left.is_empty(), "left on {}: {}", host.name(), left.join("; "));
    Ok(())
}

fn there_and_back(scene: &Scene<'_>) -> Result<()> {
    for (from, to) in [(scene.src, scene.dst), (scene.dst, scene.src)] {
        let measured = measured_migration(&scene.stage, &scene.guest, from, to, None, Stopwatch::default())?;
        let figures = measured.migration.entry();
        eprintln!(
            "  {} to {}: virsh {:.0} s, on the VF {:.0} s later; lost at the failover {}, at the failback {}, in all {}; \
             longest gap {:.0} ms; interrupts {:?}",
            from.name(),
            to.name(),
            measured.virsh.as_secs_f64(),
            measured.settled.as_secs_f64(),
            figures.lost_failover,
            figures.lost_failback,
            figures.lost_total,
            figures.longest_gap_ms,
            measured.carried
        );
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
    }
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
    ensure!(
        !xml.contains("hostdev"),
        "persistent XML of {domain} on {}: a VF in\n{xml}",
        host.name()
    );
    Ok(())
}

fn upgraded_later(scene: &Scene<'_>) -> Result<()> {
    let (src, dst, guest, stage) = scene.parts();
    let taken = take_all_vfs(scene)?;
    scene.arrive(src, dst)?;
    let pair = guest.wait_standby(dst)?;
    ensure!(pair.vf.is_none() && !pair.plugged, "it has a VF: {pair:?}");
    let why = pair.degraded.context("status does not say why it is on its standby")?;
    ensure!(why.contains(POOL) && why.contains("leased"), "status says: {why}");
    let ping = format!("ping -c 1 -W 2 {}", guest.address());
    stage
        .lab
        .peer()
        .until("ping over the standby", &ping, Duration::from_secs(30))?;
    taken.remove(std::slice::from_ref(dst))?;
    let pair = guest.wait_primary(dst)?;
    eprintln!("  \"{why}\"; then freed, and on {}", pair.vf.context("no VF")?);
    stage.configure(dst, "")?;
    scene.arrive(dst, src)
}

/// A domain that holds the only VF of the pool of `dst`. It is paused: only its lease is wanted.
fn take_all_vfs(scene: &Scene<'_>) -> Result<HybridGuest> {
    let (_, dst, _, stage) = scene.parts();
    let vf = dst.vfs(&dst.pfs()[1])?.remove(0);
    let toml = dst.read_file("/etc/hybond/hybond.toml")?;
    let only = format!("cat >/etc/hybond/hybond.toml <<'END'\n{toml}vf = [\"{vf}\"]\nEND\n");
    dst.ok(&only)?;
    stage.configure(dst, "")?;
    let mut other = HybridGuest::new("other", dst);
    other.domain.uuid = "a2a2a2a2-0000-4000-8000-000000000004".to_owned();
    other.domain.nics[0].0 = "52:54:00:aa:00:04".to_owned();
    (other.domain.memory, other.domain.huge_pages) = (64, false);
    other.define(dst)?;
    dst.ok("virsh start --paused other")?;
    Ok(other)
}

fn refused_for_want_of_a_vf(scene: &Scene<'_>) -> Result<()> {
    let (src, dst, guest, stage) = scene.parts();
    let taken = take_all_vfs(scene)?;
    scene.edit_metadata("prefer", "require")?;
    let before = guest.pair(src)?;
    let drains = count_runs(src, &guest.domain.uuid, "migration-out")?;
    let output = guest.migrate(src, dst)?;
    refusal(&output, &["on dst", POOL, "is leased", "require", MAC])?;
    // Before anything was changed: the source was not even asked.
    ensure!(
        count_runs(src, &guest.domain.uuid, "migration-out")? == drains,
        "the source was asked"
    );
    let after = guest.pair(src)?;
    ensure!(
        (&after.vf, after.since_ms) == (&before.vf, before.since_ms),
        "{before:?} became {after:?}"
    );
    scene.edit_metadata("require", "prefer")?;
    taken.remove(std::slice::from_ref(dst))?;
    stage.configure(dst, "")
}

fn count_runs(host: &Host, domain: &str, kind: &str) -> Result<usize> {
    Ok(runs(host, domain)?.iter().filter(|run| run.kind == kind).count())
}

fn guest_ignores_the_unplug(scene: &Scene<'_>) -> Result<()> {
    let (src, _, guest, stage) = scene.parts();
    stage.configure(src, "[guest]\nunplug_seconds = 8\n")?;
    guest.wait_primary(src)?;
    // QEMU asks by ACPI's general purpose event 1 (`_E01`), which the guest's kernel no longer hears.
    let gpe = "/sys/firmware/acpi/interrupts/gpe01";
    guest.guest.ok(src, &format!("echo mask >{gpe}"))?;
    let refused = scene.is_refused(&["src", "did not let go", "within"]);
    // It hears the event that is pending, and lets go after all: the VF is plugged anew.
    guest.guest.ok(src, &format!("echo unmask >{gpe}"))?;
    refused?;
    stage.configure(src, "")?;
    guest.wait_primary(src).map(drop)
}

fn destination_daemon_down(scene: &Scene<'_>) -> Result<()> {
    scene.dst.ok("systemctl stop hybondd")?;
    let output = scene.guest.migrate(scene.src, scene.dst)?;
    scene.dst.ok("systemctl start hybondd")?;
    refusal(&output, &["hybondd is not running on dst", "systemctl start hybondd"])?;
    scene.guest.wait_primary(scene.src).map(drop)
}

fn source_daemon_down(scene: &Scene<'_>) -> Result<()> {
    let before = scene.guest.pair(scene.src)?;
    scene.src.ok("systemctl stop hybondd")?;
    let output = scene.guest.migrate(scene.src, scene.dst)?;
    scene.src.ok("systemctl start hybondd")?;
    refusal(&output, &["on dst", "src"])?;
    let after = scene.guest.wait_primary(scene.src)?;
    ensure!(before.vf == after.vf, "{before:?} became {after:?}");
    Ok(())
}

fn wrong_certificate(scene: &Scene<'_>) -> Result<()> {
    let (_, dst, _, stage) = scene.parts();
    let pki = "/var/lib/lab/wrong-pki/dst/libvirt";
    stage.configure(
        dst,
        &format!(
            "[tls]\nca = \"/etc/pki/CA/cacert.pem\"\ncert = \"{pki}/servercert.pem\"\nkey = \"{pki}/private/serverkey.pem\"\n"
        ),
    )?;
    let refused = scene.is_refused(&["on dst", "src", "certificate"]);
    stage.configure(dst, "")?;
    refused.map(drop)
}

fn domain_unknown_to_the_source(scene: &Scene<'_>) -> Result<()> {
    scene.edit_metadata("peer=.src.", "peer='dst'")?;
    let refused = scene.is_refused(&["on dst", "does not drain", "the domain does not run on this host"]);
    scene.edit_metadata("peer=.dst.", "peer='src'")?;
    refused.map(drop)
}

fn save_is_cancelled(scene: &Scene<'_>) -> Result<()> {
    let (src, _, guest, _) = scene.parts();
    let before = guest.pair(src)?;
    let since = src.ok("date '+%F %T'")?;
    let output = src.run_within(
        &format!("virsh save {} /var/tmp/saved", guest.name()),
        Duration::from_secs(300),
    )?;
    if output.success() {
        bail!("the guest was saved with its VF: {}", output.stdout.trim());
    }
    eprintln!("  virsh: {}", output.stderr.trim());
    let journal = format!(
        "journalctl -u hybondd -o cat --no-pager --since '{}' | grep 'with a VF plugged, and was cancelled'",
        since.trim()
    );
    let said = src.until("the guard's word in the journal", &journal, Duration::from_secs(20))?;
    ensure!(
        said.contains(guest.name()) && said.contains("hybondctl drain"),
        "{said}"
    );
    ensure!(
        src.ok(&format!("virsh domstate {}", guest.name()))?.trim() == "running",
        "the guest does not run"
    );
    let after = guest.pair(src)?;
    ensure!(
        (&after.vf, after.plugged, after.active) == (&before.vf, true, before.active),
        "{before:?} became {after:?}"
    );
    ensure!(!src.run("test -e /var/tmp/saved")?.success(), "libvirt has left a file");
    Ok(())
}
