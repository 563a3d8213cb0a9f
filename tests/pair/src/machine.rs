//! A host's machine: what survives the crash of its daemon, and ends with the host's power.

use hybond_core::Millis;
use hybond_core::guest::{AgentPair, Job, MigrationSeen, QmpSeen, StandbySeen};
use hybond_core::ids::{DomainId, Mac, VfId};
use hybond_core::paths::Multicast;
use std::collections::BTreeMap;

/// A pair in a guest.
#[derive(Debug, Clone, Default)]
pub struct Nic {
    /// The primary.
    pub plugged: Option<VfId>,
    /// device_del has been sent; the guest lets go then, if it obeys.
    pub gone_at: Option<Millis>,
    /// The guest's driver has the primary up then.
    pub ready_at: Option<Millis>,
    /// The guest's driver has the primary up.
    pub primary_ready: bool,
    /// The bond's active path.
    pub on_primary: bool,
    /// It has had a path since this QEMU runs.
    pub pathed: bool,
}

impl Nic {
    /// The multicast frames that the guest wants of its standby: those of its bond, where that has it in use.
    #[must_use]
    pub fn wants(&self) -> Multicast {
        let groups = [[0x33, 0x33, 0, 0, 0, 1], [0x33, 0x33, 0xff, 0, 0, 1]];
        let has = if self.on_primary { 0 } else { groups.len() };
        Multicast::asked(false, groups.into_iter().take(has))
    }

    /// The device is gone. The kernel's bond goes over by itself where its active slave vanishes.
    pub fn lose_primary(&mut self) {
        let pathed = self.pathed;
        *self = Self {
            pathed,
            ..Self::default()
        };
    }
}

/// A QEMU.
#[derive(Debug, Clone)]
pub struct Qemu {
    /// Which one: a domain's next QEMU is another.
    pub serial: u64,
    /// CPUs run.
    pub running: bool,
    /// It waits for a migration to arrive.
    pub incoming: bool,
    /// What `query-migrate` says.
    pub migration: MigrationSeen,
    /// RAM leaves it.
    pub copying: bool,
    /// The guest lets devices go.
    pub obedient: bool,
    /// The guest's agent answers.
    pub agent: bool,
    /// The pairs.
    pub nics: BTreeMap<Mac, Nic>,
}

impl Qemu {
    /// A primary is plugged.
    #[must_use]
    pub fn has_primary(&self) -> bool {
        self.nics.values().any(|nic| nic.plugged.is_some())
    }

    /// What the monitor says.
    #[must_use]
    pub fn monitor(&self) -> QmpSeen {
        let plugged = self.nics.iter().filter(|(_, nic)| nic.plugged.is_some());
        QmpSeen {
            running: self.running,
            migration: self.migration,
            plugged: plugged.map(|(mac, _)| *mac).collect(),
        }
    }

    /// What the guest's agent says; it speaks while the CPUs run.
    #[must_use]
    pub fn agent(&self) -> Option<BTreeMap<Mac, AgentPair>> {
        let pair = |nic: &Nic| AgentPair {
            bonded: true,
            primary_ready: nic.primary_ready,
            on_primary: nic.on_primary,
        };
        (self.running && self.agent).then(|| self.nics.iter().map(|(mac, nic)| (*mac, pair(nic))).collect())
    }
}

/// Network devices, VFs, QEMUs, and what libvirt knows.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Macvtaps of hybond's.
    pub standby: BTreeMap<Mac, StandbySeen>,
    /// Macvtaps of libvirt's, for standbys of `type='direct'`.
    pub direct: BTreeMap<Mac, StandbySeen>,
    /// VFs that carry a pair's MAC.
    pub dressed: BTreeMap<VfId, Mac>,
    /// At most one for each domain.
    pub qemu: BTreeMap<DomainId, Qemu>,
    /// Domains that are active for libvirt, with its job on them: from before their QEMU starts to after it has gone.
    pub active: BTreeMap<DomainId, Job>,
}

impl Machine {
    /// The standby's address is in the PF's filter.
    #[must_use]
    pub fn standby_up(&self, mac: Mac) -> bool {
        self.standby_of(mac).is_some_and(|standby| standby.up)
    }

    /// The macvtap of a pair, whoever has made it.
    #[must_use]
    pub fn standby_of(&self, mac: Mac) -> Option<&StandbySeen> {
        self.standby.get(&mac).or_else(|| self.direct.get(&mac))
    }

    /// Some standby is over the VF.
    #[must_use]
    pub fn is_below_standby(&self, vf: &VfId) -> bool {
        self.standby.values().any(|standby| standby.vf.as_ref() == Some(vf))
    }

    /// QEMU ends, and with it the macvtaps that libvirt has made for it.
    pub fn end_qemu(&mut self, id: DomainId) {
        let Some(qemu) = self.qemu.remove(&id) else { return };
        self.direct.retain(|mac, _| !qemu.nics.contains_key(mac));
    }

    /// libvirt sets its macvtaps up, right before the CPUs start.
    pub fn raise_direct(&mut self, id: DomainId) {
        let Some(qemu) = self.qemu.get(&id) else { return };
        let of = self.direct.iter_mut().filter(|(mac, _)| qemu.nics.contains_key(mac));
        of.for_each(|(_, standby)| standby.up = true);
    }
}
