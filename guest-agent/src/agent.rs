//! The agent's decisions: what to do next, given what is there. No I/O, no clock.
//!
//! The loop around it tells it what the host said ([`Agent::host`]) and asks [`Agent::next`] for one action after the other,
//! with a fresh view each time, until there is none; then it sends [`Agent::output`] and sleeps until
//! [`Agent::deadline`], or until something happens.
//!
//! Who decides on which path the traffic goes: the host, from its first hello on, for as long as the agent lives. The
//! agent fails back by itself only where no host has ever spoken and a primary has had carrier for [`SILENCE`]; a host
//! that has spoken may be in the middle of a migration. Away from a path without carrier the kernel goes at once.

use crate::model::{Action, Kind, View};
use crate::outbox::Outbox;
use crate::pair::Pair;
use hybond_core::ids::Mac;
use hybond_wire::agent::{FromAgent, PairState, ToAgent, VERSION};
use std::collections::{BTreeMap, BTreeSet};

/// How long a host may stay silent before the agent decides by itself, in milliseconds.
pub const SILENCE: u64 = 5_000;
/// Pairs of one guest. A hello of [`hybond_wire::agent::LIMIT`] bytes holds about 200.
const PAIRS_MAX: usize = 256;

/// Which pairs the administrator of the guest named.
#[derive(Debug, Clone, Default)]
pub struct Named {
    /// By MAC.
    pub macs: Vec<Mac>,
    /// Every virtio NIC.
    pub all: bool,
}

/// The agent.
#[derive(Debug)]
pub struct Agent {
    named: Named,
    /// What the last hello named; `None` while no host has spoken.
    host: Option<Vec<Mac>>,
    hello: Option<u64>,
    greeted: bool,
    pairs: BTreeMap<Mac, Pair>,
    /// Since when two NICs of one MAC have been seen.
    twins: BTreeMap<Mac, u64>,
    current: Option<Mac>,
    out: Outbox,
}

impl Agent {
    /// An agent; `host` is what the last hello named, where an earlier run of the agent has heard one.
    pub fn new(named: Named, host: Option<Vec<Mac>>) -> Self {
        let mut agent = Self {
            named,
            host,
            hello: None,
            greeted: false,
            pairs: BTreeMap::new(),
            twins: BTreeMap::new(),
            current: None,
            out: Outbox::default(),
        };
        agent.manage();
        agent
    }

    /// What the last hello named.
    pub fn host_pairs(&self) -> Option<&[Mac]> {
        self.host.as_deref()
    }

    /// A host has said hello to this run of the agent, and the pairs that it named have their bonds.
    pub fn settled(&self, view: &View) -> bool {
        let named = self.host.iter().flatten();
        self.greeted
            && named
                .filter_map(|mac| self.pairs.get(mac))
                .all(|pair| pair.settled(view))
    }

    /// A host has said hello to this run of the agent.
    pub fn greeted(&self) -> bool {
        self.greeted
    }

    /// The host has closed its end; what it has not read is not for the next one.
    pub fn host_gone(&mut self) {
        self.hello = None;
        self.out.clear();
        for pair in self.pairs.values_mut() {
            pair.forget_host();
        }
    }

    /// The host has asked for something.
    pub fn host(&mut self, message: ToAgent, now: u64) {
        match message {
            ToAgent::Hello { id, version, mut pairs } => {
                log!(
                    info,
                    "host says hello, protocol {}, {} pairs",
                    version.min(VERSION),
                    pairs.len()
                );
                pairs.truncate(PAIRS_MAX);
                self.host_gone();
                self.greeted = true;
                self.hello = Some(id);
                self.host = Some(pairs);
                self.manage();
                for pair in self.pairs.values_mut() {
                    pair.try_now();
                }
            }
            ToAgent::Failover { id, mac, overlap_ms } => {
                self.ask(id, mac, |p, out| p.ask_switch(id, false, overlap_ms, out));
            }
            ToAgent::Failback { id, mac, overlap_ms } => {
                self.ask(id, mac, |p, out| p.ask_switch(id, true, overlap_ms, out));
            }
            ToAgent::Announce { id, mac } => self.ask(id, mac, |p, out| p.ask_announce(id, now, out)),
        }
    }

    /// The host has sent something that is no message.
    pub fn not_understood(&mut self, id: Option<u64>, reason: String) {
        if let Some(id) = id {
            self.out.push(FromAgent::Failed { id, reason });
        }
    }

    /// The kernel has announced links by itself. A standby does so where QEMU asks it to after a migration; that does not
    /// reach the bond above it, whose addresses are the ones to announce.
    pub fn announced(&mut self, view: &View, links: &BTreeSet<u32>, now: u64) {
        for pair in self.pairs.values_mut() {
            pair.slave_announced(view, links, now);
        }
    }

    fn ask(&mut self, id: u64, mac: Mac, ask: impl FnOnce(&mut Pair, &mut Outbox)) {
        match self.pairs.get_mut(&mac) {
            Some(pair) => ask(pair, &mut self.out),
            None => self.out.push(FromAgent::Failed {
                id,
                reason: format!("no pair {mac} here: name it in the hello first"),
            }),
        }
    }

    /// Makes `pairs` what host and administrator named.
    fn manage(&mut self) {
        let host = self.host.clone();
        let named: Vec<Mac> = self
            .named
            .macs
            .iter()
            .copied()
            .chain(host.into_iter().flatten())
            .collect();
        if self.host.is_some() && !self.named.all {
            // "The agent leaves other NICs alone": the bond of a pair that is no longer named stays as it is.
            self.pairs.retain(|mac, _| named.contains(mac));
        }
        for mac in named {
            self.pairs.entry(mac).or_insert_with(|| Pair::new(mac));
        }
    }

    /// Pairs that nobody named: every virtio NIC where the administrator said so; two NICs of one MAC where no host speaks.
    fn discover(&mut self, view: &View, now: u64) {
        if !self.named.all && self.host.is_some() {
            self.twins.clear();
            return;
        }
        let mut twins = BTreeMap::new();
        for link in view.links.values().filter(|l| l.kind == Kind::Virtio) {
            let Some(mac) = link.permanent.or(link.mac) else {
                continue;
            };
            if self.pairs.contains_key(&mac) || self.pairs.len() >= PAIRS_MAX {
                continue;
            }
            if self.named.all {
                self.pairs.insert(mac, Pair::new(mac));
                continue;
            }
            // A standby below net_failover's master has its primary already.
            let free = link
                .master
                .is_none_or(|m| view.get(m).is_none_or(|m| m.kind == Kind::Bond));
            if free && view.primary(mac, None).is_some() {
                let since = self.twins.get(&mac).copied().unwrap_or(now);
                if now >= since + SILENCE {
                    log!(
                        info,
                        "two NICs have the MAC {mac} and no host speaks: taking them for a pair"
                    );
                    self.pairs.insert(mac, Pair::new(mac));
                } else {
                    twins.insert(mac, since);
                }
            }
        }
        self.twins = twins;
    }

    /// The next thing to do; `None` when there is nothing before [`Agent::deadline`].
    pub fn next(&mut self, view: &View, now: u64) -> Option<Action> {
        self.discover(view, now);
        let alone = self.host.is_none();
        for (mac, pair) in &mut self.pairs {
            if let Some(action) = pair.next(view, alone, now, &mut self.out) {
                self.current = Some(*mac);
                return Some(action);
            }
        }
        self.report(view);
        None
    }

    /// How the action that [`Agent::next`] gave went; the view is fresh.
    pub fn done(&mut self, action: &Action, result: Result<(), String>, now: u64) {
        if let Some(pair) = self.current.take().and_then(|mac| self.pairs.get_mut(&mac)) {
            pair.done(action, result, now);
        }
    }

    /// Answers the hello, and tells of pairs that have changed.
    fn report(&mut self, view: &View) {
        if !self.greeted {
            return;
        }
        let host = self.host.clone().unwrap_or_default();
        if let Some(id) = self.hello.take() {
            let mut pairs: Vec<PairState> = Vec::new();
            for mac in &host {
                pairs.extend(self.pairs.get_mut(mac).and_then(|pair| pair.report(view, true)));
            }
            self.out.push_hello(id, env!("CARGO_PKG_VERSION"), pairs);
        }
        for mac in &host {
            if let Some(state) = self.pairs.get_mut(mac).and_then(|pair| pair.report(view, false)) {
                self.out.push(FromAgent::State { state });
            }
        }
    }

    /// When [`Agent::next`] has to be asked again although nothing happened.
    pub fn deadline(&self) -> Option<u64> {
        let twins = self.twins.values().map(|since| since + SILENCE);
        self.pairs.values().filter_map(Pair::deadline).chain(twins).min()
    }

    /// What waits for the host.
    pub fn output(&mut self) -> &mut Outbox {
        &mut self.out
    }
}
