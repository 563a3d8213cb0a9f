//! What is true of the hosts and guests.

use super::{Cast, PAUSE, SETTLE, SOON, Scene};
use anyhow::{Context, Result};
use hybond_lab::soak::{View, rests};
use hybond_lab::{Guest, Machine, process};
use hybond_wire::agent::Path;
use hybond_wire::control::{DomainStatus, PairStatus};
use serde::Deserialize;

#[derive(Deserialize)]
struct Domains {
    domains: Vec<DomainStatus>,
}

impl Scene<'_> {
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

    /// How often the journal of the usual guest's host has these words.
    pub fn journal_says(&self, words: &str) -> Result<usize> {
        let daemon = self.daemons[self.usual.at].as_ref().context("no hybondd")?;
        Ok(daemon.log()?.lines().filter(|line| line.contains(words)).count())
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
}
