//! A daemon that dies at any point of anything it does. A hybondd with crash points passes each of them once undisturbed, and
//! tells which those are; then it is killed at each, one after the other, and started again, and everything has to be well.

mod operation;

pub use operation::Operation;

use crate::soak::{Identity, rests};
use crate::tier2::{Node, Pair};
use crate::tier2_hybond::{CRASH, Daemon, Hybrid, POOL, leftovers};
use crate::{Machine, Output, process};
use anyhow::{Context, Result, bail, ensure};
use operation::{ALL, Side};
use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Names of the hosts, by their number.
const HOSTS: [&str; 2] = ["src", "dst"];
/// For an operation whose daemon dies in the midst of it.
const OPERATION: Duration = Duration::from_secs(300);
/// From the daemon's next start until all is well.
const SETTLE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(300);
/// From its point on a daemon that kills itself is there for as long as its threads take to end and until it is reaped.
const DYING: Duration = Duration::from_secs(20);

/// A destination whose hook has answered waits as long for the guest, and cannot know that the answer died with its daemon.
/// Less than [`SETTLE`].
const TIMES: &str = "[guest]\nreservation_seconds = 60\n";

/// Points that no operation here passes, and why.
const ELSEWHERE: [(&str, &str); 1] = [(
    "lower-standby",
    "only with handover = { standby = \"drop\" }, for cards that need it",
)];

/// Effects that fall into an operation by chance, and why: nothing makes a daemon pass them in it again.
const BY_CHANCE: [(&str, Operation, &str); 1] = [(
    "tune-standby",
    Operation::Destroy,
    "it follows the guest's filters, which the end of a domain does not change",
)];

/// A point in an operation, on one of the hosts that take part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What is done.
    pub operation: Operation,
    /// Where the daemon dies.
    pub side: Side,
    /// At what.
    pub point: String,
}

impl Case {
    /// The effect that the point is before or after.
    #[must_use]
    pub fn effect(&self) -> &str {
        self.point.split_once(':').map_or(&self.point, |(_, effect)| effect)
    }

    fn is_by_chance(&self) -> bool {
        BY_CHANCE
            .iter()
            .any(|(effect, operation, _)| *effect == self.effect() && *operation == self.operation)
    }
}

/// A guest, the hosts, and their daemons.
pub struct Scene<'a> {
    nodes: [&'a Node; 2],
    daemons: [Daemon; 2],
    pair: &'a Pair,
    guest: Hybrid,
    identity: Identity,
    /// The host that the guest is on, or was last.
    at: usize,
}

impl<'a> Scene<'a> {
    /// Starts the guest on the first host.
    ///
    /// # Errors
    /// It does not come on its VF.
    pub fn new(pair: &'a Pair, mut daemons: [Daemon; 2]) -> Result<Self> {
        let guest = Hybrid::new("mortal");
        let nodes = HOSTS.map(|name| pair.host(name));
        for (node, daemon) in nodes.iter().zip(&mut daemons) {
            node.ok(&format!("mkdir -p {CRASH}"))?;
            node.write_file("/etc/hybond/hybond.d/10-times.toml", TIMES.as_bytes(), "644")?;
            daemon.renew()?;
        }
        guest.define(nodes[0], &format!("--pool {POOL}"))?;
        let scene = Self {
            nodes,
            daemons,
            pair,
            identity: Identity::of(&guest)?,
            guest,
            at: 0,
        };
        scene.make_ready(Operation::Drain)?;
        Ok(scene)
    }

    /// Every point that each operation passes, in the order of the operations and of the points.
    ///
    /// # Errors
    /// An operation fails though nobody dies, or there are points that none of them passes.
    pub fn cases(&mut self) -> Result<Vec<Case>> {
        let all = self.nodes[0].ok("hybondd --crash-points")?;
        let mut never: BTreeSet<&str> = all.lines().collect();
        let mut cases = Vec::new();
        for operation in ALL {
            self.make_ready(operation)?;
            let hosts = self.hosts_of(operation);
            for (_, host) in &hosts {
                self.nodes[*host].ok(&format!("rm -f {CRASH}/*"))?;
            }
            let output = self.run(operation)?;
            ensure!(output.success(), "{operation}: {}", output.stderr.trim());
            // What follows by itself belongs to it; what undoes it does not.
            if !operation.is_undone() {
                self.is_well(operation)?;
            }
            if operation == Operation::Migrate {
                // Something is done yet when the guest is on its VF.
                self.guest.last_run(self.nodes[self.at], "migration-in")?;
            }
            let mut passed = Vec::new();
            for (side, host) in hosts {
                passed.push((side, self.nodes[host].ok(&format!("sort -u {CRASH}/passed"))?));
            }
            self.is_well(operation)?;
            for (side, points) in passed {
                for point in points.lines() {
                    never.remove(point);
                    let case = Case {
                        operation,
                        side,
                        point: point.to_owned(),
                    };
                    if !case.is_by_chance() {
                        cases.push(case);
                    }
                }
            }
        }
        never.retain(|point| {
            ELSEWHERE
                .iter()
                .all(|(effect, _)| !point.ends_with(&format!(":{effect}")))
        });
        ensure!(never.is_empty(), "no operation here passes {never:?}");
        Ok(cases)
    }

    /// Has the daemon die there, starts it again, and answers a line of what was seen.
    ///
    /// # Errors
    /// The daemon does not die, or not everything is well afterwards.
    pub fn play(&mut self, case: &Case) -> Result<String> {
        let Case { operation, side, point } = case;
        self.make_ready(*operation)?;
        let hosts = self.hosts_of(*operation);
        let host = hosts.iter().find(|(at, _)| at == side).context("a side of it")?.1;
        self.nodes[host].ok(&format!("echo {point} >{CRASH}/armed"))?;
        let name = self.nodes[host].name();

        let (node, script) = (self.nodes[self.at], self.script(*operation));
        let node = node.clone();
        let under_way = thread::spawn(move || node.run_within(&script, OPERATION));
        let mut passed = None;
        process::until_every(
            PAUSE,
            &format!("end of hybondd on {name} at {point}"),
            OPERATION,
            || {
                // In this order: what has happened in between speaks for it.
                let over =
                    under_way.is_finished() && !self.nodes[host].run(&format!("[ -e {CRASH}/armed ]"))?.success();
                let dead = !self.daemons[host].runs()?;
                if over && !dead {
                    let since = *passed.get_or_insert_with(Instant::now);
                    ensure!(since.elapsed() < DYING, "the point is passed, and hybondd lives");
                }
                Ok(dead.then_some(()))
            },
        )?;
        self.daemons[host].renew()?;
        let begun = Instant::now();
        let Ok(output) = under_way.join() else {
            bail!("{operation} has panicked")
        };
        let said = self.after(*operation, &output?)?;
        self.is_well(*operation)?;
        let seconds = begun.elapsed().as_secs_f32();
        Ok(format!("{said}; all well {seconds:.1} s after the next start"))
    }

    /// After a point at which not everything was well: what that has left is ended, so that the next one shows something
    /// of its own. What the hosts have said is kept in `folder`.
    ///
    /// # Errors
    /// The hosts are in such a state that nothing more can be shown.
    pub fn recover(&mut self, folder: &Path) -> Result<()> {
        for (node, daemon) in self.nodes.iter().zip(&mut self.daemons) {
            Daemon::keep_logs(node, folder)?;
            // On a host where it is off, it is.
            node.run(&format!("virsh destroy {}", self.guest.name()))?;
            node.ok(&format!("rm -f {CRASH}/armed"))?;
            daemon.renew()?;
        }
        self.nothing_is_left()
    }

    /// Ends the guest; the daemons are whoever's called.
    ///
    /// # Errors
    /// Something is left of it.
    pub fn end(mut self) -> Result<()> {
        self.make_ready(Operation::Destroy)?;
        let output = self.run(Operation::Destroy)?;
        ensure!(output.success(), "{}", output.stderr.trim());
        self.is_well(Operation::Destroy)?;
        self.daemons.into_iter().try_for_each(Daemon::stop)
    }

    fn hosts_of(&self, operation: Operation) -> Vec<(Side, usize)> {
        let mut hosts = vec![(Side::Own, self.at)];
        if operation == Operation::Migrate {
            hosts.push((Side::Destination, 1 - self.at));
        }
        hosts
    }

    fn script(&self, operation: Operation) -> String {
        operation.script(self.guest.name(), self.nodes[1 - self.at].name())
    }

    fn run(&mut self, operation: Operation) -> Result<Output> {
        let output = self.nodes[self.at].run_within(&self.script(operation), OPERATION)?;
        self.after(operation, &output)?;
        Ok(output)
    }

    /// Takes down where the guest is, and answers what a user has seen of the operation.
    fn after(&mut self, operation: Operation, output: &Output) -> Result<String> {
        if operation == Operation::Migrate {
            let runs = self.running_on()?;
            ensure!(runs.len() == 1, "the domain runs on {runs:?} of {HOSTS:?}");
            self.at = runs[0];
        }
        let said = output.stderr.trim().lines().last().unwrap_or_default().trim();
        let place = HOSTS[self.at];
        Ok(if output.success() {
            format!("{operation} succeeded ({place})")
        } else {
            format!("{operation} failed ({place}): {said}")
        })
    }

    fn running_on(&self) -> Result<Vec<usize>> {
        let mut runs = Vec::new();
        for (host, node) in self.nodes.iter().enumerate() {
            let listed = node.ok("virsh -q list --name")?;
            if listed.lines().any(|line| line.trim() == self.guest.name()) {
                runs.push(host);
            }
        }
        Ok(runs)
    }

    /// The guest as an operation wants to find it: off, drained, or on its VF.
    fn make_ready(&self, operation: Operation) -> Result<()> {
        let name = self.guest.name().to_owned();
        let runs = !self.running_on()?.is_empty();
        let node = self.nodes[self.at];
        if operation == Operation::Start {
            if runs {
                node.ok(&format!("virsh destroy {name}"))?;
            }
            return self.nothing_is_left();
        }
        if !runs {
            self.boot()?;
        }
        self.is_on_its_vf()?;
        if operation == Operation::Plug {
            self.nodes[self.at].ok(&format!("hybondctl drain {name}"))?;
        }
        Ok(())
    }

    fn boot(&self) -> Result<()> {
        let node = self.nodes[self.at];
        self.guest.boot(node)
    }

    /// What has to be true after an operation, whether or not a daemon has died in it.
    fn is_well(&self, operation: Operation) -> Result<()> {
        let name = self.guest.name().to_owned();
        match operation {
            Operation::Destroy => return self.nothing_is_left(),
            // A start that its hook has refused is one to be repeated.
            Operation::Start if self.running_on()?.is_empty() => {
                self.nothing_is_left()?;
                self.boot()?;
            }
            Operation::Start => self.guest.guest.wait_ready(self.nodes[self.at], OPERATION)?,
            // The daemon that has started again goes on with a drain, and takes no other order meanwhile.
            Operation::Drain | Operation::Plug => self.insist(&format!("hybondctl plug {name}"))?,
            Operation::Set => self.insist(&format!("hybondctl set {name} --policy prefer"))?,
            Operation::Migrate => {}
        }
        self.is_on_its_vf()
    }

    fn insist(&self, script: &str) -> Result<()> {
        self.nodes[self.at].until(script, script, SETTLE).map(drop)
    }

    /// On its VF, with one lease, its standby on the VF's PF; nothing of it on the other host; and it can be reached.
    fn is_on_its_vf(&self) -> Result<()> {
        rests(self.nodes, &self.identity, self.at, SETTLE)?;
        let ping = format!("ping -c 1 -W 2 {}", crate::domain::addresses(1).0);
        self.pair.peer().until("ping of the guest", &ping, SETTLE).map(drop)
    }

    fn nothing_is_left(&self) -> Result<()> {
        for node in self.nodes {
            let left = leftovers(node, SETTLE)?;
            ensure!(left.is_empty(), "left on {}:\n{left}", node.name());
        }
        Ok(())
    }
}
