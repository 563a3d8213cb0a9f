//! Domains by name or UUID, whether hybondd looks after them or not.

use super::control::{failed, not_found};
use crate::adapters::chain;
use crate::shared::{Shared, TaskHandle};
use hybond_core::ids::{DomainId, Mac};
use hybond_core::spec::{DomainSpec, Flavor, PairSpec, Policy};
use hybond_wire::control::{DomainStatus, ErrorKind, Response};
use hybond_wire::peer::PairAsk;
use std::collections::BTreeMap;

/// A domain of hybond's.
pub struct Found {
    /// libvirt's UUID.
    pub id: DomainId,
    /// libvirt's name.
    pub name: String,
    /// What its pairs ask for.
    pub pairs: Vec<PairAsk>,
    /// Those that can have no VF on any host: what their policy is all the same, and why.
    pub barred: BTreeMap<Mac, (Policy, String)>,
    /// Its task and how it is, while hybondd looks after it: while it runs, that is.
    pub running: Option<(TaskHandle, DomainStatus)>,
}

/// A domain that runs, or that is defined only.
///
/// # Errors
/// There is none of hybond's, or libvirt does not answer: what to tell who asks.
pub async fn find(shared: &Shared, domain: &str) -> Result<Found, Response> {
    if let Some((id, task)) = shared.find(domain) {
        if let Some(view) = task.view().await {
            return Ok(Found {
                id,
                name: view.status.name.clone(),
                pairs: asks(&view.spec),
                barred: barred(&view.spec),
                running: Some((task, view.status)),
            });
        }
    }
    let (id, spec) = defined(shared, domain).await?;
    Ok(Found {
        id,
        pairs: asks(&spec),
        barred: barred(&spec),
        name: spec.name,
        running: None,
    })
}

fn asks(spec: &DomainSpec) -> Vec<PairAsk> {
    let ask = |pair: &PairSpec| PairAsk {
        mac: pair.mac,
        pool: pair.pool.clone(),
        // Hosts ask each other for VFs, not for what is done with them.
        policy: match pair.flavor() {
            _ if pair.no_vf_because().is_some() => Policy::Never,
            Flavor::Virtual => Policy::Never,
            Flavor::Hybrid | Flavor::Indirect => pair.policy,
        },
        numa_nodes: spec.numa_nodes.clone(),
    };
    spec.pairs.iter().map(ask).collect()
}

fn barred(spec: &DomainSpec) -> BTreeMap<Mac, (Policy, String)> {
    let why = |pair: &PairSpec| Some((pair.mac, (pair.policy, pair.no_vf_because()?)));
    spec.pairs.iter().filter_map(why).collect()
}

async fn defined(shared: &Shared, domain: &str) -> Result<(DomainId, DomainSpec), Response> {
    let unanswered = |error: &dyn std::error::Error| failed(ErrorKind::Failed, chain(error));
    let all = shared.adapters.libvirt.list_all().await;
    let all = all.map_err(|error| unanswered(&error))?;
    let by_id = domain.parse::<DomainId>().ok();
    let found = all.into_iter().find(|(id, name)| name == domain || Some(*id) == by_id);
    let (id, _) = found.ok_or_else(|| not_found(domain))?;
    let spec = shared.adapters.libvirt.spec(id).await;
    let spec = spec.map_err(|error| unanswered(&error))?;
    Ok((id, spec.ok_or_else(|| not_found(domain))?))
}
