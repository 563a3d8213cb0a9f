//! The hosts and the guests. What users do is in `users`, what goes wrong in `wrong`, what is true then in `holds`.

mod holds;
mod users;
mod wrong;

pub use users::UnderWay;

use anyhow::{Result, ensure};
use hybond_lab::Machine;
use hybond_lab::domain::addresses;
use hybond_lab::soak::{Identity, rests};
use hybond_lab::tier2::{Node, Pair};
use hybond_lab::tier2_hybond::{Daemon, Hybrid, POOL, leftovers};
use std::time::Duration;
use users::Heard;
use wrong::Undo;

/// Names of the hosts, by their number.
const HOSTS: [&str; 2] = ["src", "dst"];
/// Time-outs that a test can wait for. A switch has 15 s, whatever is configured.
const TIMES: &str = "[guest]\ndrain_seconds = 24\nunplug_seconds = 6\nreservation_seconds = 15\nretry_seconds = 2\n";
/// Until a guest is where it is to be.
pub const SETTLE: Duration = Duration::from_secs(180);
/// Something happens in a guest or on a host.
pub const SOON: Duration = Duration::from_secs(60);
/// A guest without KVM on a busy machine takes its time.
const BOOT: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(200);
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

    /// After a scenario that has failed: whatever it has left is ended, so that the next one shows something of its own.
    pub fn recover(&mut self) -> Result<()> {
        // The scenario's own words tell more than what cannot be healed after it.
        self.heal().ok();
        for host in 0..2 {
            let node = self.nodes[host];
            if !node.run("timeout 20 virsh -q list")?.success() {
                node.crash_libvirt()?;
            }
            for name in ["usual", "second", "silent", "photo"] {
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
