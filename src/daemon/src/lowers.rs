//! Lower devices of standbys that libvirt makes: as a domain's XML has them, and as this host calls them.
//!
//! A domain may name its lower device by a name that each host gives to a PF of its own (`eth02bc4aec-b4`): a further name
//! of the device in the kernel, which libvirt takes as well. Inside the daemon a PF has its own name only.

use crate::adapters::{Adapters, because, failure};
use crate::pools::Aliases;
use hybond_core::guest::Failure;
use hybond_core::ids::{IfName, Mac};
use hybond_core::spec::{DomainSpec, PairSpec, StandbyKind};
use hybond_libvirt::Scope;
use hybond_netlink::Lower;
use tracing::{info, warn};

impl Adapters {
    /// Gives the PFs of this host the further names that the configuration has for them. One that fails is told, and
    /// tried again when a domain asks for it.
    pub async fn name_pfs(&self) {
        for name in self.pools.aliases().keys() {
            match self.name_pf(name).await {
                Ok(Some(pf)) => info!(alias = %name, %pf, "PF {pf} is {name} as well"),
                Ok(None) => {}
                Err(failure) => warn!(alias = %name, reason = failure.reason, "alias {name}: {}", failure.reason),
            }
        }
    }

    /// After the configuration was read again: what it had named before and does not name so any more loses that name, and
    /// then as [`Self::name_pfs`].
    pub async fn name_pfs_anew(&self, before: &Aliases) {
        for name in before.keys() {
            if let Err(failure) = self.take_name(name).await {
                warn!(alias = %name, reason = failure.reason, "alias {name}: {}", failure.reason);
            }
        }
        self.name_pfs().await;
    }

    /// Takes a further name from the device that has it, unless that is the one which is to have it.
    async fn take_name(&self, name: &IfName) -> Result<(), Failure> {
        let Some(holder) = self.netlink.lower(name).await.map_err(failure)? else {
            return Ok(());
        };
        // One that has it as its own name was never given it.
        if holder.name == *name || self.named_by(name)?.is_some_and(|pf| pf == holder.name) {
            return Ok(());
        }
        self.netlink.remove_altname(&holder.name, name).await.map_err(failure)?;
        info!(alias = %name, pf = %holder.name, "{} is not {name} any more", holder.name);
        Ok(())
    }

    /// `None` where the configuration has no such alias.
    async fn name_pf(&self, name: &IfName) -> Result<Option<IfName>, Failure> {
        let Some(pf) = self.named_by(name)? else {
            return Ok(None);
        };
        self.netlink.add_altname(&pf, name).await.map_err(failure)?;
        Ok(Some(pf))
    }

    /// The PF that is to have a further name.
    fn named_by(&self, name: &IfName) -> Result<Option<IfName>, Failure> {
        let aliases = self.pools.aliases();
        let Some(target) = aliases.get(name) else {
            return Ok(None);
        };
        let of_pool = target.parse().ok().and_then(|pool| self.first_pf(&pool));
        match of_pool {
            Some(pf) => Ok(Some(pf)),
            None => target
                .parse()
                .map(Some)
                .map_err(|_| because(format!("{target:?} is neither a pool nor a PF"))),
        }
    }

    fn first_pf(&self, pool: &hybond_core::ids::PoolName) -> Option<IfName> {
        let book = self.book();
        book.pools().get(pool)?.first().map(|vf| vf.pf.clone())
    }

    /// The device of a name that a domain's XML has.
    async fn lower(&self, name: &IfName) -> Result<Option<Lower>, Failure> {
        let found = self.netlink.lower(name).await.map_err(failure)?;
        if found.is_some() || self.name_pf(name).await?.is_none() {
            return Ok(found);
        }
        self.netlink.lower(name).await.map_err(failure)
    }

    /// The same domain with PFs in place of the lower devices that its XML names.
    ///
    /// # Errors
    /// A device is not there, or is on another VLAN than its pair.
    pub async fn resolved(&self, mut domain: DomainSpec) -> Result<DomainSpec, Failure> {
        for pair in &mut domain.pairs {
            let Some(name) = pair.standby.source().cloned() else {
                continue;
            };
            let lower = self.lower(&name).await?.ok_or_else(|| no_device(pair.mac, &name))?;
            if lower.vlan != pair.vlan {
                return Err(other_vlan(pair, &lower));
            }
            match &mut pair.standby {
                StandbyKind::Direct { source } => *source = lower.pf,
                StandbyKind::Network { source } => *source = Some(lower.pf),
                StandbyKind::Ethernet => {}
            }
        }
        Ok(domain)
    }

    /// What the XML has to name, for standbys that are to be on these PFs. Left out is what it names already.
    ///
    /// # Errors
    /// A PF has no sub-interface for the VLAN of its pair.
    pub async fn names_in_xml(
        &self,
        domain: &DomainSpec,
        pfs: Vec<(Mac, IfName)>,
    ) -> Result<Vec<(Mac, IfName)>, Failure> {
        let mut names = Vec::new();
        for (mac, pf) in pfs {
            let pair = domain.pairs.iter().find(|pair| pair.mac == mac);
            let vlan = pair.and_then(|pair| pair.vlan);
            if let Some(name) = pair.and_then(|pair| pair.standby.source()) {
                let lower = self.lower(name).await?;
                if lower.is_some_and(|lower| lower.pf == pf && lower.vlan == vlan) {
                    continue;
                }
            }
            let name = match vlan {
                None => pf,
                Some(vlan) => {
                    let found = self.netlink.sub_interface(&pf, vlan).await.map_err(failure)?;
                    found.ok_or_else(|| no_sub_interface(mac, &pf, vlan))?
                }
            };
            names.push((mac, name));
        }
        Ok(names)
    }

    /// Has the persistent XML name lower devices of this host, where it names one that this host has not, or that is not of
    /// the pair's pool: `--persistent` brings it from the source as it was there.
    ///
    /// # Errors
    /// libvirt does not answer, or does not take it.
    pub async fn repair_persistent(
        &self,
        id: hybond_core::ids::DomainId,
        pfs: Vec<(Mac, IfName)>,
    ) -> Result<(), Failure> {
        if pfs.is_empty() || !self.libvirt.is_persistent(id).await.map_err(failure)? {
            return Ok(());
        }
        let xml = self.libvirt.domain_xml(id, Scope::Persistent).await.map_err(failure)?;
        let spec = xml.map(|xml| hybond_domxml::parse(&xml)).transpose().map_err(failure)?;
        let Some(spec) = spec.flatten() else { return Ok(()) };
        let mut wrong = Vec::new();
        for (mac, pf) in pfs {
            let pair = spec.pairs.iter().find(|pair| pair.mac == mac);
            let Some(pair) = pair.filter(|pair| matches!(pair.standby, StandbyKind::Direct { .. })) else {
                continue;
            };
            if !self.is_of_pool(pair).await? {
                wrong.push((mac, pf));
            }
        }
        let names = self.names_in_xml(&spec, wrong).await?;
        if names.is_empty() {
            return Ok(());
        }
        let changed = self.libvirt.repair_persistent(id, names).await.map_err(failure)?;
        for mac in changed {
            info!(pair = %mac, "the persistent XML names this host's PF for pair {mac}");
        }
        Ok(())
    }

    async fn is_of_pool(&self, pair: &PairSpec) -> Result<bool, Failure> {
        let Some(name) = pair.standby.source() else {
            return Ok(false);
        };
        let lower = self.lower(name).await?;
        let book = self.book();
        let vfs = book.pools().get(&pair.pool);
        Ok(lower.is_some_and(|lower| {
            let of_pool = vfs.is_some_and(|vfs| vfs.iter().any(|vf| vf.pf == lower.pf));
            of_pool && lower.vlan == pair.vlan
        }))
    }
}

fn no_device(mac: Mac, name: &IfName) -> Failure {
    because(format!(
        "the interface of pair {mac} is on {name}, and this host has no such network device: give a PF of the pair's pool \
         that name, by [alias] in /etc/hybond/hybond.toml or 'ip link property add dev PF altname {name}'"
    ))
}

fn other_vlan(pair: &PairSpec, lower: &Lower) -> Failure {
    let say = |vlan: Option<u16>| vlan.map_or_else(|| "untagged".to_owned(), |vlan| format!("VLAN {vlan}"));
    because(format!(
        "pair {} is {} and its interface is on {}, which is {}: both paths must be the same, change one of them \
         ('hybondctl enable … --vlan', or <source dev=…>)",
        pair.mac,
        say(pair.vlan),
        lower.name,
        say(lower.vlan)
    ))
}

fn no_sub_interface(mac: Mac, pf: &IfName, vlan: u16) -> Failure {
    because(format!(
        "pair {mac} is on VLAN {vlan}, and PF {pf} has no sub-interface for it, which libvirt would need: \
         'ip link add link {pf} name {pf}.{vlan} type vlan id {vlan}', and set it up"
    ))
}
