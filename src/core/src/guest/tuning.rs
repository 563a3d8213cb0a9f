//! How the standby of a pair stands beside its primary: up or down, in which mode, and with which multicast frames.
//!
//! A pair at rest takes what its guest asked for; one that is being moved takes everything, from before the traffic is on
//! its standby until it is known again what the guest wants of it. So nothing is lost to a group that is on the bond and not
//! yet on the macvtap.

use super::act::Action;
use super::record::Stage;
use super::{AgentPair, Guest, Retry};
use crate::Millis;
use crate::ids::Mac;
use crate::paths::{Multicast, MulticastPolicy, PoolPaths, StandbyMode};
use std::collections::{BTreeMap, BTreeSet};

/// Pause between two questions for the guest's filters: what a guest can make the host do in vain. Neighbour discovery waits
/// a second for an answer (RFC 4861, RETRANS_TIMER).
pub(super) const FILTERS_INTERVAL: Millis = 200;
/// How long after a switch the standby takes everything. A bond tells its groups to the slave that it turns to, and a guest's
/// virtio-net passes them on from a work queue (`virtnet_rx_mode_work()`), a little after the agent has reported.
pub(super) const AFTER_SWITCH: Millis = 1_000;

impl Guest {
    fn pool_paths(&self, mac: Mac) -> Option<&PoolPaths> {
        self.paths.pool(&self.record.pair_spec(mac)?.pool)
    }

    /// The next step towards standbys that are as they should be.
    pub(super) fn tune(&self, now: Millis) -> Option<Action> {
        let macs = self.record.macs().into_iter();
        macs.filter(|mac| self.record.owns_standby(*mac) && self.may(Retry::Tune(*mac), now))
            .find_map(|mac| self.tune_pair(mac))
    }

    fn tune_pair(&self, mac: Mac) -> Option<Action> {
        let seen = self.seen.standby.get(&mac)?;
        if seen.up && self.wants_standby_down(mac) {
            return Some(Action::LowerStandby(mac));
        }
        let multicast = self.wanted_multicast(mac)?;
        let mode = match self.seen.agent_pair(mac) {
            // Nobody can say that a VF is out of the guest while the monitor is away.
            _ if self.seen.qmp.is_none() || matches!(seen.mode, StandbyMode::Passthru | StandbyMode::Other) => {
                seen.mode
            }
            _ if !self.seen.plugged(mac) => StandbyMode::Bridge,
            Some(pair) if pair.on_primary => StandbyMode::Vepa,
            Some(_) => StandbyMode::Bridge,
            // Which path is in use is not known.
            None => seen.mode,
        };
        (seen.mode != mode || seen.multicast != multicast).then_some(Action::TuneStandby { mac, mode, multicast })
    }

    fn wanted_multicast(&self, mac: Mac) -> Option<Multicast> {
        Some(match self.pool_paths(mac)?.multicast {
            MulticastPolicy::Everything => Multicast::Everything,
            MulticastPolicy::Nothing => Multicast::Groups(BTreeSet::new()),
            MulticastPolicy::Follow if !self.is_at_rest(mac) => Multicast::Everything,
            MulticastPolicy::Follow => {
                let known = self.seen.filters.as_ref().and_then(|filters| filters.get(&mac));
                known.cloned().unwrap_or(Multicast::Everything)
            }
        })
    }

    /// It runs, and its traffic is where it is to stay.
    fn is_at_rest(&self, mac: Mac) -> bool {
        self.record.stage == Stage::Running
            && self.seen.qmp.is_some()
            && (self.record.pair(mac).lease.is_none() || self.on_primary(mac) || self.record.is_indirect(mac))
    }

    /// Its card delivers to one function only, and that is to be the VF.
    pub(super) fn wants_standby_down(&self, mac: Mac) -> bool {
        let (Some(pair), Some(pf)) = (self.record.pair_spec(mac), self.record.pair(mac).pf) else {
            return false;
        };
        // The guest has to say that it is on its VF; an unplugged one carries nothing, whatever the guest says.
        let on_primary = self.seen.agent_pair(mac).is_some_and(|pair| pair.on_primary) && self.seen.plugged(mac);
        on_primary && self.record.stage == Stage::Running && self.paths.drops_standby(&pair.pool, &pf)
    }

    /// What was asked of a standby counts for the path that was in use then: a bond has its groups on the slave in use only.
    pub(super) fn note_switch(&mut self, now: Millis, before: Option<&BTreeMap<Mac, AgentPair>>) {
        let paths = |agent: Option<&BTreeMap<Mac, AgentPair>>| -> Vec<(Mac, bool)> {
            let pairs = agent.into_iter().flatten();
            pairs.map(|(mac, pair)| (*mac, pair.on_primary)).collect()
        };
        if paths(before) != paths(self.seen.agent.as_ref()) {
            self.seen.filters = None;
            self.seen.filters_fresh = false;
            self.seen.filters_void = true;
            if self.record.macs().iter().any(|mac| self.follows(*mac)) {
                self.not_before.insert(Retry::Filters, now + AFTER_SWITCH);
            }
        }
    }

    /// Takes what the guest wants. What was asked before a switch and is answered after it is nobody's.
    pub(super) fn read(&mut self, now: Millis, filters: BTreeMap<Mac, Multicast>) {
        if !self.seen.filters_void {
            self.seen.filters = Some(filters);
        }
        let next = self.not_before.entry(Retry::Filters).or_insert(0);
        *next = (*next).max(now + FILTERS_INTERVAL);
    }

    /// What its guest wants decides what its standby takes.
    fn follows(&self, mac: Mac) -> bool {
        let policy = self.pool_paths(mac).map(|paths| paths.multicast);
        policy == Some(MulticastPolicy::Follow) && self.record.owns_standby(mac)
    }

    /// Asks what the guest wants of its standbys, where that decides anything and is not known.
    pub(super) fn read_filters(&mut self, now: Millis) -> Option<Action> {
        let open = |mac: &Mac| self.follows(*mac) && self.is_at_rest(*mac);
        if self.seen.filters_fresh || !self.may(Retry::Filters, now) || !self.record.macs().iter().any(open) {
            return None;
        }
        // From now on, for a change that is told before the answer is here is not in the answer.
        self.seen.filters_fresh = true;
        self.seen.filters_void = false;
        Some(Action::ReadFilters)
    }
}
