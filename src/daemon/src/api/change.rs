//! `hybondctl set`: a pair is changed, at once where its domain runs, and for its next start.

use super::control::{act, failed};
use super::find::{Found, find};
use super::socket::ExchangeError;
use crate::adapters::chain;
use crate::shared::Shared;
use hybond_core::guest::Request as Ask;
use hybond_core::ids::Mac;
use hybond_core::spec::{Flavor, Policy};
use hybond_domxml::PairChange;
use hybond_wire::control::{ErrorKind, PairStatus, Response};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::net::UnixStream;

/// What is to be changed.
pub struct Change {
    /// Of this pair; of all without.
    pub mac: Option<Mac>,
    /// Its policy.
    pub policy: Option<Policy>,
    /// Its VLAN; 0 is untagged.
    pub vlan: Option<u16>,
}

/// Changes, and says what came of it.
///
/// # Errors
/// Who asks has gone.
pub async fn set(
    shared: &Arc<Shared>,
    stream: &mut UnixStream,
    domain: &str,
    change: Change,
) -> Result<Response, ExchangeError> {
    let found = match find(shared, domain).await {
        Ok(found) => found,
        Err(response) => return Ok(response),
    };
    let macs = match chosen(&found, &change) {
        Ok(macs) => macs,
        Err((kind, message)) => return Ok(failed(kind, message)),
    };
    let name = &found.name;
    let mut told = Vec::new();
    // The VLAN first: where libvirt does not take it, nothing has changed.
    let next_start = next_start(&macs, &change, found.running.is_some());
    if !next_start.is_empty() {
        if let Err(response) = write(shared, &found, next_start).await {
            return Ok(response);
        }
        if let Some(vlan) = change.vlan {
            let vlan = if vlan == 0 {
                "untagged".to_owned()
            } else {
                format!("VLAN {vlan}")
            };
            told.push(format!(
                "{vlan} from the next start: a running guest's standby cannot be moved"
            ));
        }
    }
    if let (Some(policy), true) = (change.policy, found.running.is_some()) {
        match act(shared, stream, domain, Ask::SetPolicy(macs.clone(), policy)).await? {
            Response::Done { .. } => {}
            other => return Ok(other),
        }
        let after = find(shared, domain).await.ok().and_then(|found| found.running);
        let pairs = after.map(|(_, status)| status.pairs).unwrap_or_default();
        let changed = pairs.iter().filter(|pair| macs.contains(&pair.mac));
        told.extend(changed.map(outcome));
    } else if change.policy.is_some() {
        told.push("it does not run; the policy holds from its next start".to_owned());
    }
    let message = format!("{name}: {}", told.join("; "));
    Ok(Response::Done { message })
}

fn chosen(found: &Found, change: &Change) -> Result<BTreeSet<Mac>, (ErrorKind, String)> {
    let name = &found.name;
    let macs: BTreeSet<Mac> = found.pairs.iter().map(|pair| pair.mac).collect();
    let list = || macs.iter().map(Mac::to_string).collect::<Vec<_>>().join(", ");
    match change.mac {
        Some(mac) if !macs.contains(&mac) => {
            let message = format!("{name} has no pair {mac}: it has {}", list());
            Err((ErrorKind::NotFound, message))
        }
        Some(mac) => Ok([mac].into()),
        None if change.vlan.is_some() && macs.len() > 1 => {
            let message = format!(
                "{name} has several pairs; say with --mac whose VLAN is meant: {}",
                list()
            );
            Err((ErrorKind::Invalid, message))
        }
        None => Ok(macs),
    }
}

/// What is written into the persistent definition here. The policy of a domain that runs is its task's to write.
fn next_start(macs: &BTreeSet<Mac>, change: &Change, runs: bool) -> Vec<(Mac, PairChange)> {
    let vlan = change.vlan.map(|vlan| PairChange::Vlan((vlan != 0).then_some(vlan)));
    let policy = change.policy.filter(|_| !runs).map(PairChange::Policy);
    let of = |mac: &Mac| {
        vlan.into_iter()
            .chain(policy)
            .map(|change| (*mac, change))
            .collect::<Vec<_>>()
    };
    macs.iter().flat_map(of).collect()
}

async fn write(shared: &Shared, found: &Found, changes: Vec<(Mac, PairChange)>) -> Result<(), Response> {
    let (id, name) = (found.id, &found.name);
    let libvirt = &shared.adapters.libvirt;
    match libvirt.is_persistent(id).await {
        Ok(true) => {}
        Ok(false) => {
            let text = format!("{name} is transient: there is no next start to change a VLAN for");
            return Err(failed(ErrorKind::Refused, text));
        }
        Err(error) => return Err(failed(ErrorKind::Failed, chain(&error))),
    }
    let written = libvirt.change_pairs(id, changes, false).await;
    written
        .map(drop)
        .map_err(|error| failed(ErrorKind::Failed, chain(&error)))
}

/// What has become of a pair.
fn outcome(pair: &PairStatus) -> String {
    let PairStatus { mac, policy, .. } = pair;
    let policy = match policy {
        Policy::Prefer => "prefer",
        Policy::Require => "require",
        Policy::Never => "never",
    };
    let on = match (&pair.vf, &pair.degraded) {
        (Some(vf), _) if pair.plugged => format!("on VF {vf}"),
        (Some(vf), _) if pair.flavor == Flavor::Indirect => format!("over VF {vf}"),
        _ if pair.drained => "on its standby, as it was drained; 'hybondctl plug' gives it a VF".to_owned(),
        (_, Some(why)) => format!("on its standby for now: {why}"),
        (_, None) if pair.flavor == Flavor::Virtual => "on its standby, as it is of flavor virtual".to_owned(),
        (_, None) => "on its standby".to_owned(),
    };
    format!("policy of {mac} is {policy}, {on}")
}
