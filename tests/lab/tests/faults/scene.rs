//! The hosts, the guests, what is done to them and undone again, and what a user has read meanwhile.

use crate::table::Sight;
use anyhow::{Context, Result, bail, ensure};
use hybond_lab::domain::addresses;
use hybond_lab::soak::{Identity, View, rests};
use hybond_lab::tier2::{Node, Pair};
use hybond_lab::tier2_hybond::{Daemon, Hybrid, POOL, PoolOn, configure, leftovers};
use hybond_lab::{Guest, Machine, Output, process};
use hybond_wire::agent::Path;
use hybond_wire::control::{DomainStatus, PairStatus};
use serde::Deserialize;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Names of the hosts, by their number.
const HOSTS: [&str; 2] = ["src", "dst"];
/// Time-outs that a test can wait for. A switch has 15 s, whatever is configured.
const TIMES: &str = "[guest]\ndrain_seconds = 24\nunplug_seconds = 6\nreservation_seconds = 15\nretry_seconds = 2\n";
/// `virsh migrate`, with everything that it waits for.
const MIGRATION: Duration = Duration::from_secs(300);
/// Until a guest is where it is to be.
pub const SETTLE: Duration = Duration::from_secs(180);
/// Something happens in a guest or on a host.
pub const SOON: Duration = Duration::from_secs(60);
/// A guest without KVM on a busy machine takes its time.
const BOOT: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(200);
/// QEMU asks by ACPI's general purpose event 1 (`_E01`): masked, the guest's kernel does not hear it, and hears it
/// afterwards, for it is pending.
const GPE: &str = "/sys/firmware/acpi/interrupts/gpe01";

#[derive(Deserialize)]
struct Domains {
    domains: Vec<DomainStatus>,
}

/// A guest, and where it is.
pub struct Cast {
    /// The guest.
    pub hybrid: Hybrid,
    /// By which it is known in what is seen.
    pub identity: Identity,
    /// Its address on the data network.
    pub address: String,
    /// The host that it is on, or was last.
    pub at: usize,
}

/// How a fault is ended.
enum Undo {
    Host(usize, String),
    Guest(String),
    Start(usize),
    Stop(usize),
}

/// What people have read since the scenario began.
#[derive(Default)]
struct Heard {
    virsh: String,
    hybondctl: String,
    status: String,
}

/// A `virsh migrate` that has not ended.
pub struct UnderWay(JoinHandle<Result<Output>>);

impl UnderWay {
    /// Waits for its end.
    pub fn end(self) -> Result<Output> {
        match self.0.join() {
            Ok(output) => output,
            Err(_) => bail!("virsh migrate has panicked"),
        }
    }

    fn goes_on(&self) -> Result<()> {
        ensure!(!self.0.is_finished(), "virsh migrate has ended");
        Ok(())
    }
}

/// What every scenario plays with.
pub struct Scene<'a> {
    pair: &'a Pair,
    nodes: [&'a Node; 2],
    daemons: [Option<Daemon>; 2],
    /// The guest that every scenario is about.
    pub usual: Cast,
    /// Another one, which is off until a scenario wants it.
    pub second: Cast,
    undo: Vec<Undo>,
    heard: Heard,
    /// The scenario has ended the usual guest.
    pub is_off: bool,
}

impl<'a> Scene<'a> {
    /// Starts the daemons again with shorter times. No guest runs yet.
    pub fn new(pair: &'a Pair, daemons: [Daemon; 2]) -> Result<Self> {
        let nodes = HOSTS.map(|name| pair.host(name));
        daemons.into_iter().try_for_each(Daemon::stop)?;
        for node in nodes {
            node.write_file("/etc/hybond/hybond.d/10-times.toml", TIMES.as_bytes(), "644")?;
        }
        Ok(Self {
            pair,
            nodes,
            daemons: [Some(Daemon::start(nodes[0])?), Some(Daemon::start(nodes[1])?)],
            usual: cast("usual", 1)?,
            second: cast("second", 2)?,
            undo: Vec::new(),
            heard: Heard::default(),
            is_off: false,
        })
    }

    /// The lab.
    pub fn pair(&self) -> &Pair {
        self.pair
    }

    /// The host that the usual guest is on.
    pub fn from(&self) -> &'a Node {
        self.nodes[self.usual.at]
    }

    /// The other one.
    pub fn to(&self) -> &'a Node {
        self.nodes[1 - self.usual.at]
    }

    /// The usual guest's name.
    pub fn name(&self) -> &str {
        self.usual.hybrid.name()
    }

    /// Before each scenario: the usual guest on its VF, and nothing heard.
    pub fn ready(&mut self) -> Result<()> {
        self.heard = Heard::default();
        self.is_off = false;
        self.usual = self.running(cast("usual", 1)?, self.usual.at)?;
        self.reachable(&self.usual.address)?;
        Ok(())
    }

    /// The second guest on its VF on that host.
    pub fn with_second(&mut self, at: usize) -> Result<()> {
        if let Some(there) = self.runs_on(&self.second)?.filter(|there| *there != at) {
            self.nodes[there].ok(&format!("virsh destroy {}", self.second.hybrid.name()))?;
            self.nothing_of(&self.second)?;
        }
        self.second = self.running(cast("second", 2)?, at)?;
        Ok(())
    }

    /// The guest on its VF, on that host where it does not run.
    fn running(&self, mut cast: Cast, at: usize) -> Result<Cast> {
        cast.at = match self.runs_on(&cast)? {
            Some(at) => at,
            None => {
                self.boot(&cast, at, "")?;
                at
            }
        };
        rests(self.nodes, &cast.identity, cast.at, SETTLE)?;
        Ok(cast)
    }

    /// Starts a guest, with further words on its kernel's command line.
    pub fn boot(&self, cast: &Cast, at: usize, words: &str) -> Result<()> {
        let (node, name) = (self.nodes[at], cast.hybrid.name());
        if !node.run(&format!("virsh dominfo {name}"))?.success() {
            let mut hybrid = cast.hybrid.clone();
            hybrid.domain.kernel_arguments += words;
            hybrid.define(node, &format!("--pool {POOL}"))?;
        }
        cast.hybrid.guest.forget_console(node)?;
        node.ok(&format!("virsh start {name}"))?;
        cast.hybrid.guest.wait_ready(node, BOOT)
    }

    fn runs_on(&self, cast: &Cast) -> Result<Option<usize>> {
        let mut found = None;
        for (host, node) in self.nodes.iter().enumerate() {
            let listed = node.ok("virsh -q list --name")?;
            if listed.lines().any(|line| line.trim() == cast.hybrid.name()) {
                ensure!(found.is_none(), "{} runs on both hosts", cast.hybrid.name());
                found = Some(host);
            }
        }
        Ok(found)
    }

    // What users do.

    /// The command by which the usual guest is migrated, with these words more.
    pub fn migration(&self, words: &str) -> String {
        let (name, to) = (self.name(), self.to().name());
        format!("virsh migrate --live --persistent {words} {name} qemu+tls://{to}/system")
    }

    /// Runs it to its end.
    pub fn migrate(&mut self, words: &str) -> Result<Output> {
        let output = self.from().run_within(&self.migration(words), MIGRATION)?;
        Ok(self.hear_virsh(output))
    }

    /// Starts it.
    pub fn begin(&self, words: &str) -> UnderWay {
        self.begin_as(self.migration(words))
    }

    /// Starts a script on the usual guest's host that migrates it.
    pub fn begin_as(&self, script: String) -> UnderWay {
        let node = self.from().clone();
        UnderWay(thread::spawn(move || node.run_within(&script, MIGRATION)))
    }

    /// A migration in the midst of its copy, which takes a minute unless [`Scene::hasten`] is called.
    pub fn copying(&self, words: &str) -> Result<UnderWay> {
        let under_way = self.begin(&format!("--bandwidth 1 {words}"));
        let line = format!("virsh domjobinfo {} | grep -E 'Memory processed: +[1-9]'", self.name());
        self.while_it_goes(&under_way, "a copy of memory", || {
            Ok(self.from().run(&line)?.success().then_some(()))
        })?;
        Ok(under_way)
    }

    /// Lets the copy go as fast as it can.
    pub fn hasten(&self) -> Result<()> {
        self.from()
            .ok(&format!("virsh migrate-setspeed {} 10000", self.name()))
            .map(drop)
    }

    /// A migration for which the guest has moved its traffic, and whose unplug it does not hear.
    pub fn unplugging(&mut self) -> Result<UnderWay> {
        self.deafen()?;
        let under_way = self.begin("");
        self.while_it_goes(&under_way, "the drain", || {
            let (domain, pair) = self.status()?;
            Ok((domain.stage == "draining" && pair.active == Some(Path::Standby)).then_some(()))
        })?;
        Ok(under_way)
    }

    fn while_it_goes(
        &self,
        under_way: &UnderWay,
        what: &str,
        mut ready: impl FnMut() -> Result<Option<()>>,
    ) -> Result<()> {
        process::until_every(PAUSE, what, SOON, || {
            let there = ready()?;
            if there.is_none() {
                under_way.goes_on()?;
            }
            Ok(there)
        })
    }

    /// Takes in how a migration ended that must not have succeeded.
    pub fn refused(&mut self, output: Output) -> Result<()> {
        let output = self.hear_virsh(output);
        ensure!(!output.success(), "virsh migrate has succeeded");
        Ok(())
    }

    /// Takes in how a migration ended that must have succeeded.
    pub fn arrived(&mut self, output: Output) -> Result<()> {
        let output = self.hear_virsh(output);
        ensure!(output.success(), "virsh migrate: {}", output.stderr.trim());
        self.usual.at = 1 - self.usual.at;
        Ok(())
    }

    /// Runs hybondctl where the usual guest is, and takes in what it says.
    pub fn hybondctl(&mut self, words: &str) -> Result<Output> {
        let output = self.from().run_within(&format!("hybondctl {words}"), MIGRATION)?;
        self.heard.hybondctl += &output.stderr;
        Ok(output)
    }

    /// Takes in what hybond says of a pair.
    pub fn hear_status(&mut self, pair: &PairStatus) {
        self.heard.status += pair.degraded.as_deref().unwrap_or_default();
        self.heard.status += "\n";
    }

    fn hear_virsh(&mut self, output: Output) -> Output {
        self.heard.virsh += &output.stderr;
        output
    }

    /// What of this has not been read.
    pub fn unseen(&self, sights: &[Sight]) -> Vec<String> {
        let heard = |sight: &Sight| match sight {
            Sight::Virsh(words) => says(&self.heard.virsh, words),
            Sight::Hybondctl(words) => says(&self.heard.hybondctl, words),
            Sight::Status(words) => says(&self.heard.status, words),
            Sight::Otherwise(_) => true,
        };
        let unseen = sights.iter().filter(|sight| !heard(sight));
        let Heard {
            virsh,
            hybondctl,
            status,
        } = &self.heard;
        let said = format!("virsh: {virsh}\nhybondctl: {hybondctl}\nstatus: {status}");
        unseen
            .map(|sight| format!("nobody was told {sight:?}\n{said}"))
            .collect()
    }

    // What goes wrong.

    /// Does this to a host until the scenario is healed.
    pub fn inject(&mut self, host: usize, script: &str, undo: &str) -> Result<()> {
        self.undo.push(Undo::Host(host, undo.to_owned()));
        self.nodes[host].ok(script).map(drop)
    }

    /// The number of the host that the usual guest is on.
    pub fn here(&self) -> usize {
        self.usual.at
    }

    /// The number of the other host.
    pub fn there(&self) -> usize {
        1 - self.usual.at
    }

    /// Does this to the usual guest until the scenario is healed.
    pub fn inject_into_guest(&mut self, line: &str, undo: &str) -> Result<()> {
        self.undo.push(Undo::Guest(undo.to_owned()));
        self.in_guest(line).map(drop)
    }

    /// A guest that does not hear that it is to let go of a device.
    pub fn deafen(&mut self) -> Result<()> {
        // One that has booted since hears, and one that hears cannot be made to.
        let undo = format!("echo unmask >{GPE} 2>/dev/null || true");
        self.inject_into_guest(&format!("echo mask >{GPE}"), &undo)
    }

    /// No hybondd on a host.
    pub fn stop_daemon(&mut self, host: usize) -> Result<()> {
        self.undo.push(Undo::Start(host));
        self.end_daemon(host)
    }

    /// One on a host where none is, which goes before what was done to the host is undone.
    pub fn start_daemon_until_healed(&mut self, host: usize) -> Result<()> {
        self.undo.push(Undo::Stop(host));
        self.start_daemon(host)
    }

    fn start_daemon(&mut self, host: usize) -> Result<()> {
        if self.daemons[host].is_none() {
            self.daemons[host] = Some(Daemon::start(self.nodes[host])?);
        }
        Ok(())
    }

    fn end_daemon(&mut self, host: usize) -> Result<()> {
        self.daemons[host].take().map_or(Ok(()), Daemon::stop)
    }

    /// A host whose pool has so many VFs of its first PF, and no other; `None` gives it what it had.
    pub fn set_pool(&mut self, host: usize, vfs: Option<usize>) -> Result<()> {
        let node = self.nodes[host];
        self.end_daemon(host)?;
        let (pfs, vfs) = match vfs {
            Some(vfs) => (&node.pfs()[..1], vfs),
            None => (&node.pfs()[..], 7),
        };
        configure(node, &[PoolOn { name: POOL, pfs, vfs }])?;
        self.start_daemon(host)
    }

    /// Ends the QEMU of the usual guest on a host, without a word.
    pub fn kill_qemu(&self, host: usize) -> Result<()> {
        let script = format!("kill -KILL $(cat /run/libvirt/qemu/{}.pid)", self.name());
        self.nodes[host].ok(&script).map(drop)
    }

    /// Ends what was done to hosts and guest, goes on past errors, and tells all of them.
    pub fn heal(&mut self) -> Result<()> {
        let mut errors = Vec::new();
        while let Some(undo) = self.undo.pop() {
            let healed = match undo {
                Undo::Host(host, script) => self.nodes[host].ok(&script).map(drop),
                // With its guest the fault has gone.
                Undo::Guest(_) if self.is_off => Ok(()),
                Undo::Guest(line) => self.in_guest(&line).map(drop),
                Undo::Start(host) => self.start_daemon(host),
                Undo::Stop(host) => self.end_daemon(host),
            };
            errors.extend(healed.err().map(|error| format!("{error:#}")));
        }
        ensure!(errors.is_empty(), "{}", errors.join("\n"));
        Ok(())
    }

    // What is true.

    /// Runs a line in the usual guest.
    pub fn in_guest(&self, line: &str) -> Result<String> {
        self.guest().ok(self.from(), line)
    }

    fn guest(&self) -> &Guest {
        &self.usual.hybrid.guest
    }

    /// The usual guest and its pair, as hybond says where it is.
    pub fn status(&self) -> Result<(DomainStatus, PairStatus)> {
        let text = self.from().ok(&format!("hybondctl --json status {}", self.name()))?;
        let domains: Domains = serde_json::from_str(&text).with_context(|| text.clone())?;
        let domain = domains.domains.into_iter().next().context("no domain")?;
        let pair = domain.pairs.first().cloned().context("no pair")?;
        Ok((domain, pair))
    }

    /// Waits until hybond says so of the usual guest.
    pub fn until_status(
        &self,
        what: &str,
        mut there: impl FnMut(&DomainStatus, &PairStatus) -> bool,
    ) -> Result<PairStatus> {
        let mut last = String::new();
        process::until_every(PAUSE, what, SOON, || {
            let (domain, pair) = self.status()?;
            last = format!("{domain:?}");
            Ok(there(&domain, &pair).then_some(pair))
        })
        .with_context(|| last.clone())
    }

    /// Waits until the usual guest is back on its VF where it was.
    pub fn back_on_its_vf(&self) -> Result<()> {
        self.usual.hybrid.wait_path(self.from(), Path::Primary).map(drop)
    }

    /// The number of the tap of the usual guest's primary, by which two of them are told apart.
    pub fn tap(&self) -> Result<String> {
        let mac = self.usual.identity.mac.compact();
        self.from().ok(&format!("cat /sys/class/net/hbe{mac}/ifindex"))
    }

    /// Waits until its primary has gone and another has come.
    pub fn another_tap_than(&self, before: &str) -> Result<()> {
        process::until_every(PAUSE, "another primary", SETTLE, || {
            // In between there is none.
            Ok(self.tap().ok().filter(|now| now != before).map(drop))
        })
    }

    /// The guest answers on the data network.
    pub fn reachable(&self, address: &str) -> Result<()> {
        let ping = format!("ping -c 1 -W 2 {address}");
        self.pair
            .peer()
            .until(&format!("ping of {address}"), &ping, SETTLE)
            .map(drop)
    }

    /// VFs that a host holds for the usual guest.
    pub fn held(&self, host: usize) -> Result<usize> {
        let held = View::of(self.nodes[host])?.held();
        Ok(held.iter().filter(|held| held.domain == self.usual.identity.id).count())
    }

    /// The second guest, too, is on its VF on that host.
    pub fn second_is_well(&self, at: usize) -> Result<()> {
        rests(self.nodes, &self.second.identity, at, SETTLE)?;
        self.reachable(&self.second.address)
    }

    /// At the end of each scenario: the usual guest on its VF where it is, with one lease, and nothing of it on the other
    /// host; or nothing of it anywhere.
    pub fn ends_well(&self) -> Result<()> {
        if self.is_off {
            return self.nothing_of(&self.usual);
        }
        rests(self.nodes, &self.usual.identity, self.usual.at, SETTLE)?;
        self.reachable(&self.usual.address)?;
        // hybond has said so; what the guest itself sends by is the guest's word.
        self.usual.hybrid.wait_sends_by_vf(self.from())
    }

    /// Nothing of a guest that is off is on either host.
    pub fn nothing_of(&self, cast: &Cast) -> Result<()> {
        let (id, mac) = (cast.identity.id.to_string(), cast.identity.mac.compact());
        let mut left = Vec::new();
        process::until_every(PAUSE, &format!("the end of {}", cast.identity.name), SETTLE, || {
            left.clear();
            for (node, view) in self
                .nodes
                .iter()
                .zip([View::of(self.nodes[0])?, View::of(self.nodes[1])?])
            {
                let held = view.held().into_iter().filter(|held| held.domain == cast.identity.id);
                left.extend(held.map(|held| format!("{}: {held:?}", node.name())));
                let names = view.links.keys().filter(|name| name.contains(&mac));
                let names = names.chain(view.files.iter().filter(|name| name.contains(&id)));
                let names = names.chain(view.domains.iter().filter(|name| **name == cast.identity.name));
                left.extend(names.map(|name| format!("{}: {name}", node.name())));
            }
            Ok(left.is_empty().then_some(()))
        })
        .with_context(|| left.join("\n"))
    }

    /// After a scenario that has failed: whatever it has left is ended, so that the next one shows something of its own.
    pub fn recover(&mut self) -> Result<()> {
        // The scenario's own words tell more than what cannot be healed after it.
        self.heal().ok();
        for host in 0..2 {
            let node = self.nodes[host];
            if !node.run("timeout 20 virsh -q list")?.success() {
                node.crash_libvirt()?;
            }
            for name in ["usual", "second", "silent"] {
                // Those that are off are.
                node.run(&format!("virsh destroy {name}"))?;
            }
            if let Some(daemon) = self.daemons[host].take() {
                if daemon.runs()? {
                    daemon.stop()?;
                }
            }
            self.set_pool(host, None)?;
        }
        Ok(())
    }

    /// Ends the guests; nothing is left on either host.
    pub fn end(mut self) -> Result<()> {
        for cast in [&self.usual, &self.second] {
            if let Some(at) = self.runs_on(cast)? {
                self.nodes[at].ok(&format!("virsh destroy {}", cast.hybrid.name()))?;
            }
        }
        for node in self.nodes {
            let left = leftovers(node, SOON)?;
            ensure!(left.is_empty(), "left on {}:\n{left}", node.name());
        }
        self.daemons
            .iter_mut()
            .filter_map(Option::take)
            .try_for_each(Daemon::stop)
    }

    /// A node by its number.
    pub fn node(&self, host: usize) -> &'a Node {
        self.nodes[host]
    }
}

/// One of many, small, and going on when it reboots.
pub fn cast(name: &str, number: u8) -> Result<Cast> {
    let mut hybrid = Hybrid::numbered(name, number);
    hybrid.domain.memory = 128;
    hybrid.domain.restarts = true;
    Ok(Cast {
        identity: Identity::of(&hybrid)?,
        hybrid,
        address: addresses(number).0,
        at: 0,
    })
}

/// Whether a line has these words, with anything where "…" is.
fn says(text: &str, words: &str) -> bool {
    text.lines().any(|line| {
        let mut rest = line;
        words.split('…').all(|part| match rest.split_once(part) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    })
}

#[test]
fn words_are_found_in_one_line_and_in_order() {
    let text = "error: hook: the guest did not\nlet go of VF pf0.1 within 6000 ms";
    assert!(says(text, "let go of VF … within … ms"));
    assert!(!says(text, "did not let go"));
    assert!(!says(text, "within … of VF"));
}
