//! `status`, `pool` and `host`.

use crate::control::{host as ask_host, query, unexpected};
use crate::failure::{Failure, Kind};
use crate::output::{Output, or_dash, plain, table};
use crate::time::{ago, now_ms};
use hybond_core::ids::PoolName;
use hybond_core::spec::{Flavor, Policy};
use hybond_wire::agent;
use hybond_wire::control::{
    DomainStatus, HandoverStatus, HostStatus, LibvirtStatus, PairStatus, PoolStatus, Request, ReservationStatus,
    Response, VfStatus,
};
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
            if pair.drained {
                let name = plain(&domain.name);
                text += &format!(
                    "{name} {}: drained; 'hybondctl plug {name}' gives it a VF again\n",
                    pair.mac
                );
            } else if let Some(why) = &pair.degraded {
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
        flavor(pair.flavor).to_owned(),
        policy(pair.policy).to_owned(),
        path(pair.active).to_owned(),
        vf,
        or_dash(pair.pf.as_ref()),
        or_dash(pair.since_ms.map(|since| ago(since, now))),
    ]
}

fn flavor(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::Hybrid => "hybrid",
        Flavor::Virtual => "virtual",
        Flavor::Indirect => "indirect",
    }
}

/// The word of a policy.
pub fn policy(policy: Policy) -> &'static str {
    match policy {
        Policy::Prefer => "prefer",
        Policy::Require => "require",
        Policy::Never => "never",
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
            let holder = holder.or_else(|| vf.reserved.as_ref().map(reserved));
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
        let is_free = |vf: &&VfStatus| vf.lease.is_none() && vf.reserved.is_none();
        let free = pool.vfs.iter().filter(is_free).count();
        text += &format!("{}: {free} of {} free", pool.name, pool.vfs.len());
        if !pool.waiting.is_empty() {
            let names: Vec<String> = pool
                .waiting
                .iter()
                .map(|who| format!("{} {}", plain(&who.name), who.mac))
                .collect();
            text += &format!("; waiting, the longest first: {}", names.join(", "));
        }
        text.push('\n');
    }
    text + &handover_text(&pools.iter().flat_map(|pool| &pool.handover).collect::<Vec<_>>(), false)
}

/// How MACs are handed over on each PF, and why if `whole`.
fn handover_text(rows: &[&HandoverStatus], whole: bool) -> String {
    let mut text = String::new();
    for (n, row) in rows.iter().enumerate() {
        // Two pools may share a PF.
        if rows.iter().position(|other| other == row) != Some(n) {
            continue;
        }
        let driver = row.driver.as_deref().map_or_else(|| "no driver".to_owned(), plain);
        text += &format!("{} ({driver}): {}\n", row.pf, plain(&row.row));
        if whole {
            text += &format!("  {}\n", plain(&row.source));
        }
    }
    match text.is_empty() {
        true => text,
        false => format!("\nhow MACs are handed over:\n{text}"),
    }
}

fn reserved(held: &ReservationStatus) -> String {
    let seconds = held.until_ms.saturating_sub(now_ms()).div_ceil(1000);
    format!("reserved for {} {}, {seconds} s", plain(&held.name), held.mac)
}

/// `hybondctl host`.
pub fn host(socket: &Path, output: &Output) -> Result<(), Failure> {
    let host = ask_host(socket)?;
    output.result(&host, || host_text(&host))
}

fn host_text(host: &HostStatus) -> String {
    let mut rows = vec![
        vec!["release".to_owned(), plain(&host.release)],
        vec!["peers reach it as".to_owned(), host.peer.to_string()],
        vec!["plugs VFs by".to_owned(), plain(&host.plug)],
        vec!["because".to_owned(), plain(&host.plug_reason)],
    ];
    rows.extend(
        host.libvirt
            .as_ref()
            .map(|libvirt| vec!["libvirt".to_owned(), libvirt_text(libvirt)]),
    );
    let mut text = table(&rows);
    text += &handover_text(&host.handover.iter().collect::<Vec<_>>(), true);
    if host.plug == "libvirt" {
        text.push_str(
            "A domain with a plugged VF is refused by 'virsh migrate' here; use 'hybondctl migrate', or 'hybondctl drain' first.\n",
        );
    }
    text
}

fn libvirt_text(libvirt: &LibvirtStatus) -> String {
    let daemon = libvirt
        .daemon
        .as_deref()
        .map_or_else(String::new, |daemon| format!("{}, ", plain(daemon)));
    match &libvirt.problem {
        None => format!("{daemon}connected at {}", plain(&libvirt.uri)),
        Some(problem) => format!("{daemon}not connected at {}: {}", plain(&libvirt.uri), plain(problem)),
    }
}
