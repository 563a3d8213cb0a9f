//! `status`, `pool` and `host`.

use crate::control::{host as ask_host, query, unexpected};
use crate::failure::{Failure, Kind};
use crate::output::{Output, or_dash, plain, table};
use crate::time::{ago, now_ms};
use hybond_core::ids::PoolName;
use hybond_core::spec::{Flavor, Policy};
use hybond_wire::agent;
use hybond_wire::control::{DomainStatus, HostStatus, PairStatus, PoolStatus, Request, Response};
use serde::Serialize;
use std::path::Path;

#[derive(Serialize)]
struct Domains {
    domains: Vec<DomainStatus>,
}

#[derive(Serialize)]
struct Pools {
    pools: Vec<PoolStatus>,
}

/// `hybondctl status`.
pub fn status(socket: &Path, domain: Option<String>, output: &Output) -> Result<(), Failure> {
    let one = domain.is_some();
    match query(socket, &Request::Status { domain })? {
        Response::Status { domains } => {
            let json = Domains { domains };
            output.result(&json, || {
                let mut text = status_text(&json.domains);
                if one {
                    text += &slots_text(&json.domains);
                }
                text
            })
        }
        other => Err(unexpected(&other)),
    }
}

/// Where a domain's NICs are in the guest.
fn slots_text(domains: &[DomainStatus]) -> String {
    let mut rows = vec![
        ["PAIR", "PRIMARY IN THE GUEST", "STANDBY IN THE GUEST (lspci -P)"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for pair in domains.iter().flat_map(|domain| &domain.pairs) {
        let slot = |slot: &Option<String>| or_dash(slot.as_deref().map(plain));
        rows.push(vec![
            pair.mac.to_string(),
            slot(&pair.primary_slot),
            slot(&pair.standby_slot),
        ]);
    }
    table(&rows)
}

/// The domains that were asked for, as a script of `hybondctl migrate` needs one.
pub fn domain_status(socket: &Path, domain: &str) -> Result<DomainStatus, Failure> {
    let domain = Some(domain.to_owned());
    match query(socket, &Request::Status { domain })? {
        Response::Status { domains } => domains
            .into_iter()
            .next()
            .ok_or_else(|| Failure::new(Kind::Daemon, "hybondd answered with no domain at all")),
        other => Err(unexpected(&other)),
    }
}

fn status_text(domains: &[DomainStatus]) -> String {
    if domains.is_empty() {
        return "no hybrid domain runs on this host; 'hybondctl enable' makes one\n".to_owned();
    }
    let head = [
        "DOMAIN", "STAGE", "AGENT", "PAIR", "POOL", "FLAVOR", "POLICY", "PATH", "VF", "PF", "SINCE",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let now = now_ms();
    for domain in domains {
        for pair in &domain.pairs {
            rows.push(pair_row(domain, pair, now));
        }
    }
    let mut text = table(&rows);
    for domain in domains {
        for pair in &domain.pairs {
            if let Some(why) = &pair.degraded {
                text += &format!("{} {}: {}\n", plain(&domain.name), pair.mac, plain(why));
            }
        }
    }
    text
}

fn pair_row(domain: &DomainStatus, pair: &PairStatus, now: u64) -> Vec<String> {
    let vf = match (&pair.vf, pair.plugged) {
        (Some(vf), false) if pair.flavor == Flavor::Indirect => format!("{vf} (the host's)"),
        (Some(vf), false) => format!("{vf} (not plugged)"),
        (vf, _) => or_dash(vf.as_ref()),
    };
    vec![
        plain(&domain.name),
        plain(&domain.stage),
        if domain.agent { "yes" } else { "no" }.to_owned(),
        pair.mac.to_string(),
        pair.pool.to_string(),
        flavor(pair).to_owned(),
        policy(pair.policy).to_owned(),
        path(pair.active).to_owned(),
        vf,
        or_dash(pair.pf.as_ref()),
        or_dash(pair.since_ms.map(|since| ago(since, now))),
    ]
}

fn flavor(pair: &PairStatus) -> &'static str {
    match (pair.flavor, pair.policy) {
        (Flavor::Virtual, _) | (_, Policy::Never) => "virtual",
        (Flavor::Hybrid, _) => "hybrid",
        (Flavor::Indirect, _) => "indirect",
    }
}

fn policy(policy: Policy) -> &'static str {
    match policy {
        Policy::Prefer => "prefer",
        Policy::Require => "require",
        // Of an earlier release: the flavor says it.
        Policy::Never => "prefer",
    }
}

fn path(path: Option<agent::Path>) -> &'static str {
    match path {
        Some(agent::Path::Primary) => "primary",
        Some(agent::Path::Standby) => "standby",
        Some(agent::Path::None) => "none",
        None => "?",
    }
}

/// `hybondctl pool`.
pub fn pools(socket: &Path, pool: Option<&PoolName>, output: &Output) -> Result<(), Failure> {
    match query(socket, &Request::Pools)? {
        Response::Pools { mut pools } => {
            if let Some(name) = pool {
                let known: Vec<String> = pools.iter().map(|p| p.name.to_string()).collect();
                pools.retain(|p| p.name == *name);
                if pools.is_empty() {
                    return Err(no_pool(name, &known));
                }
            }
            let json = Pools { pools };
            output.result(&json, || pools_text(&json.pools))
        }
        other => Err(unexpected(&other)),
    }
}

fn no_pool(name: &PoolName, known: &[String]) -> Failure {
    let known = if known.is_empty() {
        "it has none; pools are in /etc/hybond/hybond.toml".to_owned()
    } else {
        format!("it has {}", known.join(", "))
    };
    Failure::new(Kind::NotFound, format!("this host has no pool {name}: {known}"))
}

fn pools_text(pools: &[PoolStatus]) -> String {
    if pools.is_empty() {
        return "this host has no pool; pools are in /etc/hybond/hybond.toml\n".to_owned();
    }
    let mut rows = vec![["POOL", "VF", "PF", "NUMA", "HELD BY"].map(str::to_owned).to_vec()];
    for pool in pools {
        for vf in &pool.vfs {
            let holder = vf.lease.as_ref().map(|l| format!("{} {}", plain(&l.name), l.mac));
            rows.push(vec![
                pool.name.to_string(),
                vf.vf.to_string(),
                vf.pf.to_string(),
                or_dash(vf.numa_node),
                or_dash(holder),
            ]);
        }
    }
    let mut text = table(&rows);
    for pool in pools {
        let free = pool.vfs.iter().filter(|vf| vf.lease.is_none()).count();
        text += &format!("{}: {free} of {} free\n", pool.name, pool.vfs.len());
    }
    text
}

/// `hybondctl host`.
pub fn host(socket: &Path, output: &Output) -> Result<(), Failure> {
    let host = ask_host(socket)?;
    output.result(&host, || host_text(&host))
}

fn host_text(host: &HostStatus) -> String {
    let mut text = table(&[
        vec!["release".to_owned(), plain(&host.release)],
        vec!["peers reach it as".to_owned(), host.peer.to_string()],
        vec!["plugs VFs by".to_owned(), plain(&host.plug)],
        vec!["because".to_owned(), plain(&host.plug_reason)],
    ]);
    if host.plug == "libvirt" {
        text.push_str(
            "A domain with a plugged VF is refused by 'virsh migrate' here; use 'hybondctl migrate', or 'hybondctl drain' first.\n",
        );
    }
    text
}
