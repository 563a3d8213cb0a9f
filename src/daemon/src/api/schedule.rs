//! What schedulers ask of another host before they migrate a domain there: whether it would fit, and that VFs be held for it.
//! This host's end; the other's is [`super::peer`].

use super::RELEASE;
use super::control::failed;
use super::find::{Found, find};
use crate::adapters::chain;
use crate::shared::Shared;
use hybond_core::ids::PeerAddr;
use hybond_core::spec::Policy;
use hybond_peer::Patience;
use hybond_vfio::PlugWay;
use hybond_wire::control::{Check, DomainStatus, ErrorKind, Reserved, Response};
use hybond_wire::peer::{self, Fit, SCHEDULING};
use std::time::Duration;

/// The other host asks libvirt, and this host's hybondd in turn.
const WITHIN: Duration = Duration::from_secs(20);

/// Would it fit there?
pub async fn check(shared: &Shared, domain: &str, to: PeerAddr) -> Response {
    let found = match find(shared, domain).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let mut check = Check {
        domain: found.name.clone(),
        to: to.clone(),
        fit: Fit::No,
        plug: None,
        pairs: Vec::new(),
        obstacles: Vec::new(),
        notes: Vec::new(),
    };
    leave_here(shared, &found, &mut check);
    let request = peer::Request::Check {
        version: SCHEDULING,
        domain: found.id,
        pairs: found.pairs.clone(),
        source: shared.adapters.me.clone(),
    };
    match ask(shared, &to, &request).await {
        Ok(peer::Response::Fits {
            plug, pairs, obstacles, ..
        }) => {
            if plug == PlugWay::Libvirt.as_str() {
                check.notes.push(format!(
                    "{to} plugs VFs through libvirt: to leave it again takes 'hybondctl migrate', or 'hybondctl drain' first"
                ));
            }
            check.plug = Some(plug);
            check.pairs = pairs;
            stay_on_standby(&found, &mut check);
            check.obstacles.extend(obstacles);
        }
        Ok(other) => return not_understood(shared, &to, ("check", ErrorKind::Failed), &other).await,
        // Where it cannot be asked now, it cannot ask for the drain either.
        Err(error) => check.obstacles.push(error),
    }
    check.fit = fit(&check);
    Response::Check { check }
}

/// The other host was asked for no VF for those that can have none, and knows nothing of it.
fn stay_on_standby(found: &Found, check: &mut Check) {
    for pair in &mut check.pairs {
        let Some((policy, why)) = found.barred.get(&pair.mac) else {
            continue;
        };
        pair.policy = *policy;
        let without = match policy {
            Policy::Require => Fit::No,
            Policy::Prefer | Policy::Never => Fit::Standby,
        };
        pair.fit = pair.fit.max(without);
        pair.why.get_or_insert_with(|| why.clone());
    }
}

/// Of all pairs the worst.
fn fit(check: &Check) -> Fit {
    let worst = check.pairs.iter().map(|pair| pair.fit).max();
    match worst {
        Some(worst) if check.obstacles.is_empty() => worst,
        _ => Fit::No,
    }
}

/// What this host has to say.
fn leave_here(shared: &Shared, found: &Found, check: &mut Check) {
    let Some((_, status)) = &found.running else {
        check
            .notes
            .push("it does not run here; this is how it could be started there".to_owned());
        return;
    };
    let DomainStatus {
        stage, agent, pairs, ..
    } = status;
    let plugged = pairs.iter().any(|pair| pair.plugged);
    if stage != "running" {
        check
            .obstacles
            .push(format!("it is {stage} here; try again when it is running"));
    }
    if plugged && !agent && shared.adapters.config.guest.need_agent {
        check.obstacles.push(
            "hybond-agent does not answer in the guest, so that its VF cannot be drained: start it there".to_owned(),
        );
    }
    if plugged && shared.adapters.way == PlugWay::Libvirt {
        check.notes.push(
            "this host plugs VFs through libvirt: use 'hybondctl migrate', or 'hybondctl drain' first".to_owned(),
        );
    }
}

/// Holds VFs there.
pub async fn reserve(shared: &Shared, domain: &str, to: PeerAddr, seconds: u64) -> Response {
    let found = match find(shared, domain).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let request = peer::Request::Reserve {
        version: SCHEDULING,
        domain: found.id,
        name: found.name.clone(),
        pairs: found.pairs,
        for_ms: seconds.saturating_mul(1000),
    };
    match ask(shared, &to, &request).await {
        Ok(peer::Response::Reserved { held, until_ms }) => {
            let reserved = Reserved {
                domain: found.name,
                to,
                held,
                until_ms,
            };
            Response::Reserved { reserved }
        }
        Ok(other) => not_understood(shared, &to, ("reserve", ErrorKind::Refused), &other).await,
        Err(error) => failed(ErrorKind::Failed, error),
    }
}

/// Holds them no longer.
pub async fn cancel(shared: &Shared, domain: &str, to: &PeerAddr) -> Response {
    let found = match find(shared, domain).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let (version, domain) = (SCHEDULING, found.id);
    match ask(shared, to, &peer::Request::Cancel { version, domain }).await {
        Ok(peer::Response::Cancelled { held }) => {
            let name = &found.name;
            let message = match held {
                true => format!("{to} holds no VF for {name} any more"),
                false => format!("{to} held no VF for {name}"),
            };
            Response::Done { message }
        }
        Ok(other) => not_understood(shared, to, ("cancel", ErrorKind::Failed), &other).await,
        Err(error) => failed(ErrorKind::Failed, error),
    }
}

async fn ask(shared: &Shared, to: &PeerAddr, request: &peer::Request) -> Result<peer::Response, String> {
    let answer = shared
        .adapters
        .peers
        .ask(to, request, Patience::within(WITHIN), |_| ())
        .await;
    answer.map_err(|error| chain(&error))
}

/// A refusal: for a reason, or by a host of an older release, which says only that it does not understand.
async fn not_understood(
    shared: &Shared,
    to: &PeerAddr,
    (what, kind): (&str, ErrorKind),
    answer: &peer::Response,
) -> Response {
    let peer::Response::Refused { reason } = answer else {
        return failed(
            ErrorKind::Failed,
            format!("{to} gave an answer that fits no {what}: {answer:?}"),
        );
    };
    let ping = peer::Request::Ping { version: peer::VERSION };
    match ask(shared, to, &ping).await {
        Ok(peer::Response::Hello { release, .. }) if release != RELEASE => failed(
            ErrorKind::Failed,
            format!("{to} runs hybond {release}, this host {RELEASE}; it says: {reason}"),
        ),
        _ => failed(kind, said_by(&to.to_string(), reason)),
    }
}

/// With the host's name, which most refusals begin with.
fn said_by(host: &str, reason: &str) -> String {
    match reason.strip_prefix(host) {
        Some(rest) if rest.starts_with([':', ' ']) => reason.to_owned(),
        _ => format!("{host}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hybond_wire::peer::PairFit;

    #[test]
    fn a_refusal_names_its_host_once() {
        assert_eq!(said_by("dst", "dst: every VF is leased"), "dst: every VF is leased");
        assert_eq!(said_by("dst", "dst cannot ask src"), "dst cannot ask src");
        assert_eq!(said_by("dst", "no such request"), "dst: no such request");
        assert_eq!(said_by("dst", "dst2 is full"), "dst: dst2 is full");
    }

    fn check(fits: &[Fit], obstacles: &[&str]) -> Check {
        let pair = |fit: &Fit| PairFit {
            mac: "52:54:00:aa:00:01".parse().expect("mac"),
            pool: "lan".parse().expect("name"),
            policy: hybond_core::spec::Policy::Prefer,
            fit: *fit,
            vf: None,
            pf: None,
            why: None,
        };
        Check {
            domain: "web".into(),
            to: "node2".parse().expect("peer"),
            fit: Fit::No,
            plug: None,
            pairs: fits.iter().map(pair).collect(),
            obstacles: obstacles.iter().map(|text| (*text).to_owned()).collect(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_pair_that_can_have_no_vf_would_run_on_its_standby_there_or_not_at_all() {
        let checked = |policy, fit| {
            let mut check = check(&[fit], &[]);
            let found = Found {
                id: hybond_core::ids::DomainId::from_bytes([7; 16]),
                name: "web".into(),
                pairs: Vec::new(),
                barred: [(
                    check.pairs[0].mac,
                    (policy, "it has an 802.1Qbg port profile".to_owned()),
                )]
                .into(),
                running: None,
            };
            stay_on_standby(&found, &mut check);
            let pair = &check.pairs[0];
            assert_eq!((pair.policy, pair.vf.is_none()), (policy, true));
            (pair.fit, pair.why.clone().expect("why"))
        };
        let why = "it has an 802.1Qbg port profile".to_owned();
        assert_eq!(checked(Policy::Prefer, Fit::Vf), (Fit::Standby, why.clone()));
        assert_eq!(checked(Policy::Require, Fit::Vf), (Fit::No, why.clone()));
        assert_eq!(checked(Policy::Prefer, Fit::No).0, Fit::No, "its PF is down there");
    }

    #[test]
    fn a_domain_fits_as_its_worst_pair_does() {
        assert_eq!(fit(&check(&[Fit::Vf, Fit::Vf], &[])), Fit::Vf);
        assert_eq!(fit(&check(&[Fit::Vf, Fit::Standby], &[])), Fit::Standby);
        assert_eq!(fit(&check(&[Fit::No, Fit::Standby], &[])), Fit::No);
        assert_eq!(fit(&check(&[Fit::Vf], &["it is here already"])), Fit::No);
        assert_eq!(fit(&check(&[], &[])), Fit::No, "nobody has answered");
    }
}
