//! The host as the daemon reaches it, and each [`Action`] as calls to it. Thin: what is done, and when, was decided in
//! `hybond-core`; here it is carried out, and what came of it is told.

use crate::pools::Pools;
use crate::ports;
use crate::reservations;
use hybond_config::{Config, Pool};
use hybond_core::Millis;
use hybond_core::guest::{
    Action, AgentPair, DomainSeen, Failure, Job, MigrationSeen, Outcome, QmpSeen, Snapshot, StandbySeen,
};
use hybond_core::handover::SetMac;
use hybond_core::ids::{Bdf, DomainId, IfName, Mac, PeerAddr};
use hybond_core::paths::{MulticastPolicy, StandbyMode};
use hybond_core::pool::{Ask, Lease, PoolBook};
use hybond_core::spec::{Flavor, PairSpec};
use hybond_domxml::PairChange;
use hybond_guest::GuestHandle;
use hybond_libvirt::{DomainState, Libvirt};
use hybond_netlink::{Netlink, StandbySpec, VfConfig};
use hybond_peer::{Patience, PeerClient};
use hybond_qmp::{MigrationStatus, Qmp, QmpError};
use hybond_vfio::{PlugRequest, PlugWay, Plugger, Sysfs, Unplug, emulated, request_unplug};
use hybond_wire::agent::{PairState, Path as ActivePath};
use hybond_wire::peer;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::debug;

/// What every guest of this host shares.
pub struct Adapters {
    /// The configuration, without what is read again while guests run.
    pub config: Config,
    /// The pools and the further names of PFs as they are configured now.
    pub pools: Pools,
    /// What peers reach this host as.
    pub me: PeerAddr,
    /// How primaries are plugged.
    pub way: PlugWay,
    /// libvirt.
    pub libvirt: Libvirt,
    /// Network devices.
    pub netlink: Netlink,
    /// PCI.
    pub sysfs: Sysfs,
    /// VFIO.
    pub plugger: Plugger,
    /// Other hosts' daemons.
    pub peers: PeerClient,
    /// Who holds which VF.
    pub book: Mutex<PoolBook>,
    /// When the daemon started: the clock of those who wait for a VF.
    pub started: Instant,
}

/// A guest as its task reaches it.
#[derive(Clone)]
pub struct GuestLinks {
    /// The domain.
    pub id: DomainId,
    /// Its pairs.
    pub pairs: Vec<PairSpec>,
    /// Its monitor, while connected.
    pub qmp: Option<Qmp>,
    /// Its agent's channel, once known.
    pub agent: Option<GuestHandle>,
}

impl GuestLinks {
    /// The pair's VF stays the host's.
    pub(crate) fn is_indirect(&self, mac: Mac) -> bool {
        self.pair(mac).is_some_and(|pair| pair.flavor() == Flavor::Indirect)
    }

    pub(crate) fn pair(&self, mac: Mac) -> Option<&PairSpec> {
        self.pairs.iter().find(|pair| pair.mac == mac)
    }
}

/// An error with all its causes, on one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// An error of an adapter's, for people.
pub(crate) fn failure(error: impl Error) -> Failure {
    Failure { reason: chain(&error) }
}

/// What went wrong, for people.
pub(crate) fn because(reason: impl Into<String>) -> Failure {
    Failure { reason: reason.into() }
}

/// What the machine needs to know of what the agent says.
#[must_use]
pub fn agent_pair(state: &PairState) -> AgentPair {
    AgentPair {
        bonded: state.bond.is_some() && state.standby.is_some(),
        primary_ready: state.primary.is_some() && state.primary_up,
        on_primary: state.active == ActivePath::Primary,
    }
}

/// What the machine needs to know of QEMU's migration.
#[must_use]
pub fn migration_seen(status: &MigrationStatus) -> MigrationSeen {
    match status {
        MigrationStatus::Completed => MigrationSeen::Completed,
        status if status.is_over() => MigrationSeen::Idle,
        _ => MigrationSeen::Active,
    }
}

/// The pair whose primary has this QEMU id; libvirt puts `ua-` before the ids that its users choose.
#[must_use]
pub fn primary_of(pairs: &[PairSpec], device: &str) -> Option<Mac> {
    let device = device.strip_prefix("ua-").unwrap_or(device);
    pairs.iter().map(|pair| pair.mac).find(|mac| mac.primary_id() == device)
}

async fn qmp_seen(links: &GuestLinks, qmp: &Qmp) -> Result<QmpSeen, QmpError> {
    let plugged = qmp.devices().await?;
    let plugged = plugged
        .iter()
        .filter_map(|device| primary_of(&links.pairs, device))
        .collect::<BTreeSet<_>>();
    // The migration before the CPUs: they start after it has completed.
    let migration = migration_seen(&qmp.query_migrate().await?);
    Ok(QmpSeen {
        running: qmp.is_running().await?,
        migration,
        plugged,
    })
}

impl Adapters {
    /// The book, for a moment.
    pub fn book(&self) -> MutexGuard<'_, PoolBook> {
        // The book is changed in single steps: a panic elsewhere leaves it whole.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries an action out.
    ///
    /// # Errors
    /// A sentence for people.
    pub async fn run(&self, links: GuestLinks, action: Action) -> Result<Outcome, Failure> {
        match action {
            Action::Look { libvirt } => self.look(&links, libvirt).await,
            Action::LookAtJob => {
                let domain = self.domain(links.id).await?;
                Ok(Outcome::Job(domain, self.job(links.id).await?))
            }
            Action::Lease(ask) => Ok(self.lease(&ask)),
            Action::ChoosePf(ask) => match self.book().standby_pf(&ask) {
                Some(pf) => Ok(Outcome::NoVf {
                    reason: String::new(),
                    pf: Some(pf),
                }),
                None => Err(because(format!("pool {} has no PF on this host", ask.pool))),
            },
            Action::MakeStandby {
                mac, vf: Some(lease), ..
            } => self.make_over_vf(&links, mac, &lease).await,
            Action::MakeStandby {
                mac,
                pf,
                vlan,
                vf: None,
            } => self.make_standby(&links, mac, pf, vlan).await,
            Action::RaiseStandby(mac) => {
                self.netlink
                    .set_standby_up(&mac.standby_name(), true)
                    .await
                    .map_err(failure)?;
                // What is sent to a guest that is about to run here need not be lost on the host that it has left.
                if let Err(error) = self.netlink.announce_standby(&mac.standby_name(), mac).await {
                    debug!(pair = %mac, error = chain(&error), "the standby is up and not announced");
                }
                self.standby(mac).await
            }
            Action::LowerStandby(mac) => {
                let name = mac.standby_name();
                self.netlink.set_standby_up(&name, false).await.map_err(failure)?;
                self.standby(mac).await
            }
            Action::ReadFilters => Self::read_filters(&links).await,
            Action::TuneStandby { mac, mode, multicast } => self.tune_standby(mac, mode, &multicast).await,
            Action::AskDrain { peer, migration } => {
                let within = self.config.guest.drain_within;
                let request = peer::Request::Drain {
                    version: peer::VERSION,
                    migration,
                    domain: links.id,
                    within_ms: within,
                };
                // The source gives up first, so that its reason arrives.
                let patience = Patience::within(Duration::from_millis(within) + Duration::from_secs(10));
                let answer = self
                    .peers
                    .ask(
                        &peer,
                        &request,
                        patience,
                        |phase| debug!(phase, %peer, "the source drains"),
                    )
                    .await;
                match answer.map_err(failure)? {
                    peer::Response::Drained => Ok(Outcome::Done),
                    peer::Response::Refused { reason } => Err(because(format!("{peer} does not drain: {reason}"))),
                    other => Err(because(format!("{peer} gave an answer that fits no drain: {other:?}"))),
                }
            }
            Action::PrepareVf { lease, vlan } if links.is_indirect(lease.mac) => {
                self.prepare_for_host(&links, &lease, vlan).await
            }
            Action::PrepareVf { lease, vlan } => self.prepare_vf(&links, &lease, vlan).await,
            Action::Plug(lease) => self.plug(&links, &lease).await,
            Action::Failover(mac) => self.switch(&links, mac, false).await,
            Action::Failback(mac) => self.switch(&links, mac, true).await,
            Action::Unplug(lease) => self.unplug(&links, &lease).await,
            Action::ResetVf(lease) => self.reset_vf(&links, &lease).await,
            Action::Release(lease) => {
                self.book().release(lease.domain, lease.mac);
                Ok(Outcome::Done)
            }
            Action::RemoveStandby(mac) => {
                self.netlink
                    .remove_standby(&mac.standby_name())
                    .await
                    .map_err(failure)?;
                Ok(Outcome::Done)
            }
            Action::Announce => self.announce(&links).await,
            Action::RepairXml { sources } => self.repair_xml(&links, sources).await,
            Action::WritePolicies(policies) => {
                let changes = policies.into_iter().map(|(mac, to)| (mac, PairChange::Policy(to)));
                let written = self.libvirt.change_pairs(links.id, changes.collect(), true).await;
                written.map(|_| Outcome::Done).map_err(failure)
            }
            Action::Answer { .. } => Ok(Outcome::Done),
        }
    }

    async fn domain(&self, id: DomainId) -> Result<DomainSeen, Failure> {
        let state = self.libvirt.state(id).await.map_err(failure)?;
        // A crashed guest may still have its QEMU (`on_crash` preserve).
        let active = state.has_qemu() || matches!(state, DomainState::Crashed | DomainState::Unknown);
        Ok(if active { DomainSeen::Active } else { DomainSeen::Absent })
    }

    async fn job(&self, id: DomainId) -> Result<Job, Failure> {
        Ok(match self.libvirt.job(id).await.map_err(failure)? {
            hybond_libvirt::Job::None => Job::None,
            hybond_libvirt::Job::Outgoing(_) => Job::Outgoing,
            hybond_libvirt::Job::Incoming => Job::Incoming,
            _ => Job::Other,
        })
    }

    async fn look(&self, links: &GuestLinks, libvirt: bool) -> Result<Outcome, Failure> {
        let libvirt = match libvirt {
            true => Some((self.domain(links.id).await?, self.job(links.id).await?)),
            false => None,
        };
        let qmp = match &links.qmp {
            Some(qmp) => match qmp_seen(links, qmp).await {
                Ok(seen) => Some(seen),
                // It has just gone; the link reports that by itself.
                Err(error) => {
                    debug!(domain = %links.id, error = chain(&error), "the monitor does not answer");
                    None
                }
            },
            None => None,
        };
        let mut standby = BTreeMap::new();
        for pair in &links.pairs {
            if let Some(seen) = self.standby_seen(pair.mac).await? {
                standby.insert(pair.mac, seen);
            }
        }
        Ok(Outcome::Looked(Snapshot { libvirt, qmp, standby }))
    }

    async fn standby_seen(&self, mac: Mac) -> Result<Option<StandbySeen>, Failure> {
        let Some(link) = self.netlink.standby(&mac.standby_name()).await.map_err(failure)? else {
            return Ok(None);
        };
        let (pf, vf) = match link.mode {
            StandbyMode::Passthru => self.vf_behind(&link.lower),
            _ => (link.pf().clone(), None),
        };
        Ok(Some(StandbySeen {
            pf,
            vf,
            up: link.up,
            vlan: link.vlan.as_ref().map(|vlan| vlan.id),
            mode: link.mode,
            multicast: link.multicast,
        }))
    }

    pub(crate) async fn standby(&self, mac: Mac) -> Result<Outcome, Failure> {
        let seen = self.standby_seen(mac).await?;
        seen.map(Outcome::Standby)
            .ok_or_else(|| because(format!("macvtap {} has vanished", mac.standby_name())))
    }

    /// Now, and for how long who has asked for a VF is believed to wait for one: it asks again within half of that.
    #[must_use]
    pub fn turn(&self) -> (Millis, Millis) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        (now, self.config.guest.retry_after.saturating_mul(2))
    }

    fn lease(&self, ask: &Ask) -> Outcome {
        let mut book = self.book();
        let (now, patience) = self.turn();
        book.expire(reservations::epoch_ms());
        match book.lease_in_turn(ask, now, patience) {
            Ok(lease) => Outcome::Leased(lease),
            Err(none) => {
                let (reason, pf) = (none.to_string(), book.standby_pf(ask));
                match book.will_lease(ask, now, patience) {
                    true => Outcome::NotYet { reason, pf },
                    false => Outcome::NoVf { reason, pf },
                }
            }
        }
    }

    pub(crate) fn pool_of(&self, links: &GuestLinks, mac: Mac) -> Option<Pool> {
        self.pools.get(&links.pair(mac)?.pool)
    }

    async fn make_standby(
        &self,
        links: &GuestLinks,
        mac: Mac,
        pf: IfName,
        vlan: Option<u16>,
    ) -> Result<Outcome, Failure> {
        let spec = self.standby_spec(links, mac, pf)?;
        self.make(StandbySpec { vlan, ..spec }).await
    }

    /// A standby on a device as it is: untagged, and not for itself alone.
    pub(crate) fn standby_spec(&self, links: &GuestLinks, mac: Mac, lower: IfName) -> Result<StandbySpec, Failure> {
        let pool = self.pool_of(links, mac);
        let nothing = pool.is_some_and(|pool| pool.multicast() == MulticastPolicy::Nothing);
        // The domain does not run when this is asked for: one that is in the way is of an earlier life.
        Ok(StandbySpec {
            name: mac.standby_name(),
            mac,
            lower,
            passthru: false,
            vlan: None,
            // Until it is known what the guest wants.
            allmulticast: !nothing,
            mtu: self.mtu(links, mac)?,
            replace: true,
        })
    }

    pub(crate) async fn make(&self, spec: StandbySpec) -> Result<Outcome, Failure> {
        self.netlink.make_standby(&spec).await.map_err(failure)?;
        self.standby(spec.mac).await
    }

    async fn prepare_vf(&self, links: &GuestLinks, lease: &Lease, vlan: Option<u16>) -> Result<Outcome, Failure> {
        let Ok(bdf) = lease.vf.id.as_str().parse::<Bdf>() else {
            return Ok(Outcome::Done);
        };
        let pool = self.pool_of(links, lease.mac);
        // libvirt sets them from its XML when it attaches the VF, and puts back what it found when the VF is gone: after
        // `ResetVf`, so what it finds must not be the pair's.
        let ours = self.way != PlugWay::Libvirt;
        let profile = self.profile(links, lease);
        // The address of a VF that has one comes with its association, and its VLAN is the profile's.
        let sets = ours && profile.is_none();
        let gives_mac = sets && self.handover(links, lease).set_mac == SetMac::BeforePlug;
        let config = VfConfig {
            mac: gives_mac.then(|| lease.mac.octets()),
            vlan: sets.then(|| vlan.unwrap_or(0)),
            ..of_pool(pool.as_ref())
        };
        if let Some(profile) = profile {
            // Before anything is done to a VF that cannot be had, as often as it is tried.
            let (pf, index) = (&lease.vf.pf, lease.vf.index);
            let knows = self.netlink.expect_port_profiles(pf, index, profile).await;
            knows.map_err(failure)?;
        }
        // Not even looked at where there is nothing to set: the driver that knows port profiles need not report its VFs.
        if config != VfConfig::default() {
            self.netlink
                .set_vf(&lease.vf.pf, lease.vf.index, &config)
                .await
                .map_err(failure)?;
        }
        if ours {
            self.same_paths(links, lease.mac, Some(lease)).await?;
            self.sysfs.bind_vfio(bdf).await.map_err(failure)?;
        }
        if let Some(profile) = profile {
            // After the host's driver has let go of it, as libvirt does: what that makes of the VF comes first.
            self.associate(links, lease, profile).await?;
        }
        Ok(Outcome::Done)
    }

    async fn plug(&self, links: &GuestLinks, lease: &Lease) -> Result<Outcome, Failure> {
        let qmp = links
            .qmp
            .as_ref()
            .ok_or_else(|| because("QEMU's monitor is not connected"))?;
        let Ok(bdf) = lease.vf.id.as_str().parse::<Bdf>() else {
            return self.plug_emulated(links, lease, qmp).await;
        };
        if self.way == PlugWay::Libvirt {
            let xml = hostdev_xml(lease.mac, bdf, links.pair(lease.mac));
            self.libvirt.attach_device(links.id, xml).await.map_err(failure)?;
            return Ok(Outcome::Done);
        }
        let request = PlugRequest {
            pid: self.pid(links).await?,
            vf: bdf,
            id: lease.mac.primary_id(),
            bus: lease.mac.root_port_id(),
            guest_ram_bytes: self.libvirt.memory_bytes(links.id).await.map_err(failure)?,
        };
        self.plugger.plug(self.way, qmp, &request).await.map_err(failure)?;
        Ok(Outcome::Done)
    }

    async fn plug_emulated(&self, links: &GuestLinks, lease: &Lease, qmp: &Qmp) -> Result<Outcome, Failure> {
        let emulated = self.pool_of(links, lease.mac).and_then(|pool| pool.emulated);
        let emulated = emulated.ok_or_else(|| because(format!("the pool of {} is not emulated", lease.vf.id)))?;
        let tap = self
            .netlink
            .make_tap(&tap_name(lease.mac)?, &emulated.bridge)
            .await
            .map_err(failure)?;
        emulated::plug(qmp, lease.mac, emulated.model, tap.as_fd())
            .await
            .map_err(failure)?;
        Ok(Outcome::Done)
    }

    async fn pid(&self, links: &GuestLinks) -> Result<u32, Failure> {
        let pid = self.libvirt.pid(links.id).await.map_err(failure)?;
        pid.ok_or_else(|| because("libvirt names no QEMU process for the domain"))
    }

    async fn unplug(&self, links: &GuestLinks, lease: &Lease) -> Result<Outcome, Failure> {
        let qmp = links
            .qmp
            .as_ref()
            .ok_or_else(|| because("QEMU's monitor is not connected"))?;
        let mut id = lease.mac.primary_id();
        if self.way == PlugWay::Libvirt {
            id = format!("ua-{id}");
            self.libvirt.detach_alias(links.id, id).await.map_err(failure)?;
            return Ok(Outcome::Done);
        }
        match request_unplug(qmp, &id).await.map_err(failure)? {
            Unplug::Pending => Ok(Outcome::Done),
            Unplug::Gone => Ok(Outcome::NotPlugged),
        }
    }

    /// Goes on past errors, and tells all of them.
    async fn reset_vf(&self, links: &GuestLinks, lease: &Lease) -> Result<Outcome, Failure> {
        let mut errors = Vec::new();
        let Ok(bdf) = lease.vf.id.as_str().parse::<Bdf>() else {
            if let Some(qmp) = &links.qmp {
                collect(&mut errors, emulated::revoke(qmp, lease.mac).await);
            }
            let tap = tap_name(lease.mac)?;
            // QEMU's end of it was the last. To ask netlink for what is not there waits for whoever changes a device just now.
            match self.sysfs.has_interface(&tap) {
                Ok(true) => collect(&mut errors, self.netlink.remove_link(&tap).await),
                Ok(false) => {}
                Err(error) => errors.push(chain(&error)),
            }
            return all_well(errors);
        };
        if self.way != PlugWay::Libvirt {
            // A domain that is gone has no process; its grants on the host's own nodes are still to be taken back.
            let pid = self.libvirt.pid(links.id).await.ok().flatten();
            if let Err(kept) = self.plugger.revoke(self.way, pid, bdf, links.qmp.as_ref()).await {
                errors.extend(kept.iter().map(|error| chain(error)));
            }
        }
        match self.sysfs.is_there(bdf) {
            Ok(true) => {}
            // Somebody has taken it off its PF, and with it what the PF knew of it and what was over it: there is nothing else
            // to be reset, and who waited for that would keep a VF leased that does not exist.
            Ok(false) => return all_well(errors),
            // Its parts say the same.
            Err(error) => errors.push(chain(&error)),
        }
        // Of a pair that the domain no longer has it is not known what it was.
        if links
            .pair(lease.mac)
            .is_none_or(|pair| pair.flavor() == Flavor::Indirect)
        {
            self.narrow(bdf, &mut errors).await;
        }
        let asked = self.profile(links, lease).is_some();
        if self.way != PlugWay::Libvirt {
            // While the VF has its address, which the driver takes from the switch with that.
            self.disassociate(links, lease, &mut errors).await;
        }
        // After DEVICE_DELETED only: on igb a change of the MAC resets the VF, and while it is plugged both paths go silent.
        let pool = self.pool_of(links, lease.mac);
        let clear = VfConfig {
            mac: self.handover(links, lease).clear_mac.then_some([0; 6]),
            vlan: (!asked).then_some(0),
            // What drivers begin with, where the pool says otherwise.
            trust: pool.as_ref().and_then(|pool| pool.trust).map(|_| false),
            spoofchk: pool.as_ref().and_then(|pool| pool.spoofchk).map(|_| true),
            min_tx_mbps: pool.as_ref().and_then(|pool| pool.min_tx_rate).map(|_| 0),
            max_tx_mbps: pool.as_ref().and_then(|pool| pool.max_tx_rate).map(|_| 0),
        };
        match self.netlink.set_vf(&lease.vf.pf, lease.vf.index, &clear).await {
            // The driver took it, and no more can be known: the VF is not kept from the pool for ever for that.
            Err(hybond_netlink::Error::VfUnreported { .. }) => {}
            result => collect(&mut errors, result),
        }
        if self.way != PlugWay::Libvirt {
            collect(&mut errors, self.sysfs.unbind_vfio(bdf).await);
        }
        all_well(errors)
    }

    async fn switch(&self, links: &GuestLinks, mac: Mac, to_primary: bool) -> Result<Outcome, Failure> {
        let agent = links
            .agent
            .as_ref()
            .ok_or_else(|| because("the guest's agent channel is not known"))?;
        let lease = self.lease_of(links, mac);
        // The guest stays on the path that works where the other is not the same.
        self.same_paths(links, mac, lease.as_ref()).await?;
        if let Some(lease) = lease.as_ref().filter(|_| to_primary) {
            self.still_associated(links, lease).await?;
        }
        let own = lease.and_then(|lease| self.handover(links, &lease).overlap_ms);
        let overlap = own.unwrap_or(self.config.guest.overlap_ms);
        let within = self.config.switch_within;
        let state = if to_primary {
            agent.failback(mac, overlap, within).await
        } else {
            agent.failover(mac, overlap, within).await
        };
        let pair = agent_pair(&state.map_err(failure)?);
        if pair.on_primary != to_primary {
            return Err(because(format!(
                "the agent says that pair {mac} was switched, and reports the other path"
            )));
        }
        Ok(Outcome::Switched(pair))
    }

    async fn announce(&self, links: &GuestLinks) -> Result<Outcome, Failure> {
        let mut errors = Vec::new();
        for pair in &links.pairs {
            let announced = self.netlink.announce_standby(&pair.mac.standby_name(), pair.mac).await;
            errors.extend(announced.err().map(|error| chain(&error)));
        }
        all_well(errors)
    }

    async fn repair_xml(&self, links: &GuestLinks, sources: Vec<(Mac, IfName)>) -> Result<Outcome, Failure> {
        self.libvirt
            .set_source_peer(links.id, self.me.clone())
            .await
            .map_err(failure)?;
        self.repair_persistent(links.id, sources).await?;
        Ok(Outcome::Done)
    }
}

/// What a pool sets on each of its VFs.
pub(crate) fn of_pool(pool: Option<&Pool>) -> VfConfig {
    VfConfig {
        trust: pool.and_then(|pool| pool.trust),
        spoofchk: pool.and_then(|pool| pool.spoofchk),
        min_tx_mbps: pool.and_then(|pool| pool.min_tx_rate),
        max_tx_mbps: pool.and_then(|pool| pool.max_tx_rate),
        ..VfConfig::default()
    }
}

fn tap_name(mac: Mac) -> Result<IfName, Failure> {
    format!("hbe{}", mac.compact()).parse().map_err(failure)
}

/// A VF as libvirt attaches it, for hosts where nothing else works.
fn hostdev_xml(mac: Mac, vf: Bdf, pair: Option<&PairSpec>) -> String {
    let (domain, bus, slot, function) = vf.parts();
    let id = mac.primary_id();
    let port = ports::virtualport(pair);
    let vlan = pair
        .and_then(|pair| pair.vlan)
        .map(|id| format!("<vlan><tag id='{id}'/></vlan>"))
        .unwrap_or_default();
    format!(
        "<interface type='hostdev' managed='yes'><mac address='{mac}'/><source><address type='pci' \
         domain='0x{domain:04x}' bus='0x{bus:02x}' slot='0x{slot:02x}' function='0x{function:x}'/></source>{vlan}{port}\
         <alias name='ua-{id}'/></interface>"
    )
}

pub(crate) fn collect<T>(errors: &mut Vec<String>, result: Result<T, impl Error>) {
    if let Err(error) = result {
        errors.push(chain(&error));
    }
}

fn all_well(errors: Vec<String>) -> Result<Outcome, Failure> {
    if errors.is_empty() {
        Ok(Outcome::Done)
    } else {
        Err(because(errors.join("; ")))
    }
}
