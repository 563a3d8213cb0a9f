//! What other hosts ask about domains that may come here: answered from the pools and the machine. A question changes
//! nothing; a reservation holds VFs and nothing else.

use crate::adapters::chain;
use crate::reservations;
use crate::shared::Shared;
use hybond_core::ids::{DomainId, IfName, PeerAddr};
use hybond_core::pool::{Ask, NoVf};
use hybond_core::spec::{MAX_PAIRS, Policy};
use hybond_peer::Patience;
use hybond_vfio::{PlugWay, detect};
use hybond_wire::peer::{Fit, Held, LONGEST_RESERVATION_MS, PairAsk, PairFit, Request, Response, VERSION};
use std::time::Duration;
use tracing::info;

/// The way back is asked for while the question itself waits.
const BACK_WITHIN: Duration = Duration::from_secs(8);

/// Would it fit here?
pub async fn fits(shared: &Shared, domain: DomainId, pairs: &[PairAsk], source: &PeerAddr) -> Response {
    if let Err(refused) = bounded(shared, pairs) {
        return refused;
    }
    let adapters = &shared.adapters;
    let mut fits = in_pools(shared, domain, pairs);
    for fit in &mut fits {
        if let Some(why) = pf_down(shared, fit.pf.as_ref()).await {
            (fit.fit, fit.why) = (Fit::No, Some(why));
        }
    }
    let mut obstacles = Vec::new();
    obstacles.extend(here_already(shared, domain).await);
    obstacles.extend(way_broken(shared));
    obstacles.extend(way_back(shared, source).await);
    Response::Fits {
        host: adapters.me.to_string(),
        plug: adapters.way.to_string(),
        pairs: fits,
        obstacles,
    }
}

fn asks(domain: DomainId, pairs: &[PairAsk]) -> Vec<Ask> {
    let with_vf = pairs.iter().filter(|pair| pair.policy != Policy::Never);
    with_vf.map(|pair| ask(domain, pair)).collect()
}

fn ask(domain: DomainId, pair: &PairAsk) -> Ask {
    Ask {
        pool: pair.pool.clone(),
        domain,
        mac: pair.mac,
        // A standby that arrives goes where the VF is.
        pf: None,
        numa_nodes: pair.numa_nodes.clone(),
    }
}

/// Each pair, as the pools are now.
fn in_pools(shared: &Shared, domain: DomainId, pairs: &[PairAsk]) -> Vec<PairFit> {
    let mut book = shared.adapters.book();
    book.expire(reservations::epoch_ms());
    let mut leases = book
        .would_lease(&asks(domain, pairs), shared.adapters.turn())
        .into_iter();
    let fit = |pair: &PairAsk| {
        let lease = match pair.policy {
            Policy::Never => None,
            Policy::Prefer | Policy::Require => leases.next(),
        };
        let pf = book.standby_pf(&ask(domain, pair));
        let (fit, vf, pf, why) = match lease {
            Some(Ok(lease)) => (Fit::Vf, Some(lease.vf.id), Some(lease.vf.pf), None),
            Some(Err(none)) => (
                without_vf(pair.policy, &none, pf.as_ref()),
                None,
                pf,
                Some(none.to_string()),
            ),
            None if pf.is_some() => (Fit::Vf, None, pf, None),
            None => (
                Fit::No,
                None,
                None,
                Some(format!("pool {} has no PF on this host", pair.pool)),
            ),
        };
        PairFit {
            mac: pair.mac,
            pool: pair.pool.clone(),
            policy: pair.policy,
            fit,
            vf,
            pf,
            why,
        }
    };
    pairs.iter().map(fit).collect()
}

fn without_vf(policy: Policy, none: &NoVf, pf: Option<&IfName>) -> Fit {
    match (policy, none, pf) {
        (Policy::Require, ..) | (_, NoVf::UnknownPool(_), _) | (_, _, None) => Fit::No,
        (Policy::Prefer | Policy::Never, _, Some(_)) => Fit::Standby,
    }
}

async fn pf_down(shared: &Shared, pf: Option<&IfName>) -> Option<String> {
    let pf = pf?;
    match shared.adapters.netlink.link(pf).await {
        Ok(Some(link)) if link.up => None,
        Ok(Some(_)) => Some(format!("PF {pf} is down: ip link set {pf} up")),
        Ok(None) => Some(format!("PF {pf} is gone")),
        Err(error) => Some(chain(&error)),
    }
}

async fn here_already(shared: &Shared, domain: DomainId) -> Option<String> {
    let me = &shared.adapters.me;
    match shared.adapters.libvirt.state(domain).await {
        Ok(state) if state.has_qemu() => Some(format!("{me}: the domain is on this host already")),
        Ok(_) => None,
        Err(error) => Some(format!("{me}: {}", chain(&error))),
    }
}

/// The machine may have changed since the daemon found out how it plugs.
fn way_broken(shared: &Shared) -> Option<String> {
    let adapters = &shared.adapters;
    if !matches!(adapters.way, PlugWay::Iommufd | PlugWay::Group) {
        return None;
    }
    let rejected = detect(&adapters.sysfs).rejected.into_iter();
    let mut ours = rejected.filter(|(way, _)| *way == adapters.way);
    let (way, why) = ours.next()?;
    Some(format!("{}: VFs cannot be plugged by {way}: {why}", adapters.me))
}

/// The drain is asked for by this host: that connection goes the other way.
async fn way_back(shared: &Shared, source: &PeerAddr) -> Option<String> {
    let request = Request::Ping { version: VERSION };
    let answer = shared
        .adapters
        .peers
        .ask(source, &request, Patience::within(BACK_WITHIN), |_| ());
    let me = &shared.adapters.me;
    match answer.await {
        Ok(Response::Hello { .. }) => None,
        Ok(other) => Some(format!(
            "{me}: {source} gave an answer that fits no greeting: {other:?}"
        )),
        Err(error) => Some(format!("{me} cannot ask {source} for the drain: {}", chain(&error))),
    }
}

/// Holds VFs. `by`: whose certificate it was.
pub async fn reserve(
    shared: &Shared,
    (domain, name): (DomainId, &str),
    pairs: &[PairAsk],
    by: &str,
    for_ms: u64,
) -> Response {
    if let Err(refused) = bounded(shared, pairs) {
        return refused;
    }
    if let Some(reason) = here_already(shared, domain).await {
        return Response::Refused { reason };
    }
    let asks = asks(domain, pairs);
    if asks.is_empty() {
        return refused(
            shared,
            "there is no VF to reserve: every pair is of policy \"never\" or flavor \"virtual\"",
        );
    }
    let until = reservations::epoch_ms() + for_ms.min(LONGEST_RESERVATION_MS);
    let reserved = {
        let mut book = shared.adapters.book();
        book.expire(reservations::epoch_ms());
        book.reserve(&asks, (&cut(name), &cut(by)), until, shared.adapters.turn())
    };
    let reserved = match reserved {
        Ok(reserved) => reserved,
        Err(none) => return refused(shared, &none.to_string()),
    };
    if let Err(error) = reservations::keep(shared).await {
        // Not promised what a restart would forget.
        shared.adapters.book().cancel(domain);
        return refused(shared, &chain(&error));
    }
    shared.reserved.notify_one();
    info!(domain_uuid = %domain, peer = by, "{by} has {} VFs reserved for {}", reserved.len(), cut(name));
    let held = reserved.into_iter().map(|held| Held {
        mac: held.lease.mac,
        vf: held.lease.vf.id,
        pf: held.lease.vf.pf,
    });
    Response::Reserved {
        held: held.collect(),
        until_ms: until,
    }
}

/// Holds them no longer.
pub async fn cancel(shared: &Shared, domain: DomainId) -> Response {
    match reservations::give_up(shared, domain).await {
        Ok(held) => Response::Cancelled { held },
        Err(error) => refused(shared, &chain(&error)),
    }
}

fn bounded(shared: &Shared, pairs: &[PairAsk]) -> Result<(), Response> {
    match pairs.len() {
        1..=MAX_PAIRS => Ok(()),
        count => Err(refused(
            shared,
            &format!("a domain has 1 to {MAX_PAIRS} pairs, not {count}"),
        )),
    }
}

fn refused(shared: &Shared, reason: &str) -> Response {
    Response::Refused {
        reason: format!("{}: {reason}", shared.adapters.me),
    }
}

/// A name that another host sends: short, and without what could steer a terminal.
fn cut(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}
