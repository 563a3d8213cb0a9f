//! `Starting` and `Incoming`: everything is laid out before libvirt looks for it, and stays until the guest runs or it is
//! sure that it will not come.

use super::act::{Action, Answer};
use super::record::Stage;
use super::seen::{DomainSeen, MigrationSeen};
use super::{Guest, Retry};
use crate::Millis;
use crate::ids::{IfName, Mac};
use crate::pool::Ask;
use crate::spec::StandbyKind;

impl Guest {
    pub(super) fn follow_arrival(&mut self, now: Millis) {
        let absent = self.seen.domain == DomainSeen::Absent;
        let expired = self.deadline.filter(|at| now >= *at);
        if self.seen.running() && self.seen.migration() != MigrationSeen::Active {
            let migrated = matches!(self.record.stage, Stage::Incoming { .. });
            self.record_mut().arrived = migrated;
            self.record_mut().xml_stale = true;
            self.answer_all(&Answer::Done(Vec::new()));
            self.enter(now, Stage::Running);
            if migrated {
                self.later(Retry::Anything, now);
            }
            // libvirt's standbys stay where it has put them; and a daemon that has started meanwhile does not know any more
            // what it had said.
            self.find_pfs();
        } else if self.ends() {
            self.leave(now, "the domain did not come up on this host");
        } else if self.record.answered.is_none() && self.waiters.is_empty() {
            // A hook that has lost its daemon refuses, too.
            self.leave(now, "libvirt waits no longer");
        } else if let Some(deadline) = expired {
            // libvirt's word must be younger than the deadline: a macvtap that is taken away from a guest is gone for good.
            let asked = self.job_seen.is_some_and(|at| at >= deadline);
            if asked && absent && self.waiters.is_empty() {
                self.leave(now, "the domain did not come to this host in time");
            } else if asked || !self.waiters.is_empty() || self.seen.qmp.is_some() {
                // It is there, and not yet running: as long as it takes. A hook has a deadline of its own.
                self.deadline = self.stage_ends(now);
            }
        }
    }

    pub(super) fn starting(&mut self, now: Millis) -> Option<Action> {
        // Laid out while somebody waits for it, and once: who comes back after a restart may be running elsewhere by now.
        if self.waiters.is_empty() {
            return self.ask_whether_it_comes(now);
        }
        let mut action = self.settle(now);
        if action.is_none() && !self.awaits_vf.is_empty() {
            return None;
        }
        if action.is_none() && self.is_preparing() {
            // Up before the guest runs; not earlier than libvirt has begun, or an address is claimed for nobody.
            action = self.raise(now);
        }
        if action.is_none() {
            self.answer_hooks();
        }
        action
    }

    pub(super) fn incoming(&mut self, now: Millis) -> Option<Action> {
        let Stage::Incoming { migration } = &self.record.stage else {
            return None;
        };
        let migration = migration.clone();
        if !self.waiters.is_empty() {
            if let Some(action) = self.settle(now) {
                return Some(action);
            }
            if !self.awaits_vf.is_empty() {
                return None;
            }
            if !self.drained && self.record.answered.is_none() {
                let peer = self.record.spec.source_peer.clone();
                return peer.map(|peer| Action::AskDrain { peer, migration });
            }
            self.answer_hooks();
        }
        // A macvtap's address is in the PF's filter while it is up. On the destination it goes up when QEMU has everything
        // (MIGRATION completed), 70-180 ms before the CPUs start: not earlier, or two hosts claim the address. In postcopy
        // the CPUs start first.
        let received = self.seen.migration() == MigrationSeen::Completed || self.seen.running();
        let raise = if received { self.raise(now) } else { None };
        raise.or_else(|| self.ask_whether_it_comes(now))
    }

    fn ask_whether_it_comes(&mut self, now: Millis) -> Option<Action> {
        let expired = self.deadline.is_some_and(|at| now >= at);
        (expired && self.waiters.is_empty() && self.may(Retry::Job, now)).then_some(Action::LookAtJob)
    }

    /// Finds a PF and perhaps a VF for each pair, and makes the macvtaps.
    fn settle(&mut self, now: Millis) -> Option<Action> {
        if let Some(action) = self.tidy(now) {
            return Some(action);
        }
        for pair in &self.record.spec.pairs {
            let mac = pair.mac;
            if self.record.is_unplaced(mac) && self.must_stay() {
                // libvirt chooses after hook `prepare`, and says what in hook `start`.
                continue;
            }
            let has = self.record.pair(mac);
            let ask = || Ask {
                pool: pair.pool.clone(),
                domain: self.record.spec.id,
                mac,
                pf: self.pinned_pf(mac),
                numa_nodes: self.record.spec.numa_nodes.clone(),
            };
            let Some(pf) = has.pf else {
                if self.awaits_vf.contains_key(&mac) && !self.may(Retry::Lease(mac), now) {
                    continue;
                }
                return Some(if self.record.is_indirect(mac) || self.record.wants_primary(mac) {
                    Action::Lease(ask())
                } else {
                    Action::ChoosePf(ask())
                });
            };
            if self.record.owns_standby(mac) && !self.is_in_place(mac, &pf) {
                let (vf, vlan) = (self.record.vf_below(mac), pair.vlan);
                return Some(match vf {
                    Some(lease) if !self.seen.prepared.contains(&mac) => Action::PrepareVf { lease, vlan },
                    vf => Action::MakeStandby { mac, pf, vlan, vf },
                });
            }
        }
        None
    }

    /// The macvtap is on the PF and its VLAN, or on the VF, that it is to be on.
    fn is_in_place(&self, mac: Mac, pf: &IfName) -> bool {
        let vf = self.record.vf_below(mac).map(|lease| lease.vf.id);
        let vlan = self.record.pair_spec(mac).and_then(|pair| pair.vlan);
        // That of a VF is in the hardware.
        let vlan = vlan.filter(|_| vf.is_none());
        let seen = self.seen.standby.get(&mac);
        seen.is_some_and(|seen| seen.pf == *pf && seen.vf == vf && seen.vlan == vlan)
    }

    /// Takes back what serves no pair of the domain any more.
    fn tidy(&mut self, now: Millis) -> Option<Action> {
        let macs: Vec<Mac> = self.record.pairs.keys().copied().collect();
        for mac in macs {
            let lease = self.record.pair(mac).lease;
            let misplaced = match (&lease, self.pinned_pf(mac)) {
                (Some(lease), Some(pf)) => lease.vf.pf != pf,
                _ => false,
            };
            let dropped = self.record.pair_spec(mac).is_none();
            // Of an earlier stay whose standby is gone already; this time the pair is to have no VF, and asks for none.
            let takes = self.record.wants_primary(mac) || self.record.is_indirect(mac);
            let unwanted = lease.is_some() && self.record.pair(mac).pf.is_none() && !takes;
            // A VF that is plugged later is asked for again then; one below a standby would be used as it is.
            let stale = self.confirm.contains(&mac) && self.record.vf_below(mac).is_some();
            if !(misplaced || dropped || unwanted || stale) || !self.may(Retry::Clean(mac), now) {
                continue;
            }
            if (dropped || stale) && self.has_standby(mac) {
                return Some(Action::RemoveStandby(mac));
            }
            if let Some(lease) = lease {
                return Some(self.give_back(lease));
            }
            if dropped {
                self.record_mut().pairs.remove(&mac);
            }
        }
        None
    }

    /// A standby that libvirt makes is where it is: libvirt takes no other XML any more.
    fn must_stay(&self) -> bool {
        !self.rewritable && !matches!(self.record.stage, Stage::Incoming { .. })
    }

    /// The PF that a standby is on whatever hybond may want.
    pub(super) fn pinned_pf(&self, mac: Mac) -> Option<IfName> {
        let source = self.record.pair_spec(mac)?.standby.source();
        source.filter(|_| self.must_stay()).cloned()
    }

    /// The lower devices of standbys that libvirt makes itself.
    pub(super) fn sources(&self) -> Vec<(Mac, IfName)> {
        let pairs = self.record.spec.pairs.iter();
        let libvirts = pairs.filter(|pair| pair.standby != StandbyKind::Ethernet);
        libvirts
            .filter_map(|pair| Some((pair.mac, self.record.pair(pair.mac).pf?)))
            .collect()
    }

    /// A standby of hybond's that is gone under its guest: with its PF, whose driver was unloaded. QEMU has the end of a macvtap
    /// that is no more, and takes no other one before the next start.
    #[must_use]
    pub fn standby_is_gone(&self, mac: Mac) -> bool {
        let has_one = matches!(self.record.stage, Stage::Running | Stage::Draining { .. });
        has_one && self.seen.looked && self.record.owns_standby(mac) && !self.seen.standby.contains_key(&mac)
    }

    pub(super) fn raise(&self, now: Millis) -> Option<Action> {
        let down = |mac: &Mac| {
            self.record.owns_standby(*mac)
                && !self.seen.standby_up(*mac)
                && !self.wants_standby_down(*mac)
                && !self.standby_is_gone(*mac)
        };
        let macs = self.record.macs().into_iter();
        macs.filter(down)
            .find(|mac| self.may(Retry::RaiseStandby(*mac), now))
            .map(Action::RaiseStandby)
    }
}
