//! Answers hybondctl.

use super::inventory::inventory;
use super::socket::{self, ExchangeError};
use super::{RELEASE, change, schedule};
use crate::adapters::chain;
use crate::shared::Shared;
use hybond_core::guest::{Answer, Request as Ask};
use hybond_core::ids::{DomainId, Mac};
use hybond_libvirt::Libvirt;
use hybond_wire::control::{
    DomainStatus, ErrorKind, HostStatus, LeaseStatus, LibvirtStatus, PoolStatus, REQUEST_LIMIT, RESPONSE_LIMIT,
    Request, ReservationStatus, Response, Run, VfStatus,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;
use tracing::debug;

const AT_ONCE: socket::Limits = socket::Limits {
    // Who empties a host may ask for all of its guests at once; each waits for its guest, not for the daemon.
    root: 256,
    others: 64,
    each: 32,
};
/// Most runs that `timeline` gives.
const MAX_RUNS: usize = 50;
/// A plug waits for the guest's driver.
const PLUG_WITHIN: Duration = Duration::from_secs(90);

/// What the host says of itself.
#[derive(Debug, Clone)]
pub struct About {
    /// Why primaries are plugged as they are.
    pub plug_reason: String,
}

/// Serves until the daemon ends.
pub async fn serve(shared: Arc<Shared>, about: About, listener: UnixListener) {
    let full = failed(
        ErrorKind::Refused,
        "you have too many requests under way, or others have: end some ('hybondctl' processes that wait), and try again"
            .to_owned(),
    );
    // Short, and of our own words.
    let full = hybond_wire::line::encode(&full, RESPONSE_LIMIT).unwrap_or_default();
    let about = Arc::new(about);
    socket::serve(listener, "hybondctl", AT_ONCE, &full, |stream| {
        let (shared, about) = (Arc::clone(&shared), Arc::clone(&about));
        async move {
            if let Err(error) = connection(&shared, &about, stream).await {
                debug!(
                    error = chain(&error),
                    "a request of hybondctl's was not answered: {}",
                    chain(&error)
                );
            }
        }
    })
    .await;
}

async fn connection(shared: &Arc<Shared>, about: &About, mut stream: UnixStream) -> Result<(), ExchangeError> {
    let request = match socket::read(&mut stream, REQUEST_LIMIT).await {
        Ok(request) => request,
        Err(ExchangeError::Line(error)) => {
            let response = failed(
                ErrorKind::Invalid,
                format!("the daemon does not know this request: {}", chain(&error)),
            );
            return socket::write(&mut stream, &response, RESPONSE_LIMIT).await;
        }
        Err(error) => return Err(error),
    };
    let response = match request {
        Request::Status { domain } => status(shared, domain).await,
        Request::Pools => pools(shared),
        Request::Host => Response::Host {
            host: HostStatus {
                release: RELEASE.to_owned(),
                peer: shared.adapters.me.clone(),
                plug: shared.adapters.way.to_string(),
                plug_reason: about.plug_reason.clone(),
                libvirt: Some(libvirt(&shared.adapters.libvirt)),
                handover: shared.adapters.handovers(None),
            },
        },
        Request::Inventory => inventory(shared).await,
        Request::Drain { domain } => act(shared, &mut stream, &domain, Ask::HoldBack).await?,
        Request::Plug { domain } => act(shared, &mut stream, &domain, Ask::Plug).await?,
        Request::Set {
            domain,
            mac,
            policy,
            vlan,
        } => change::set(shared, &mut stream, &domain, change::Change { mac, policy, vlan }).await?,
        Request::Check { domain, to } => schedule::check(shared, &domain, to).await,
        Request::Reserve { domain, to, seconds } => schedule::reserve(shared, &domain, to, seconds).await,
        Request::CancelReservation { domain, to } => schedule::cancel(shared, &domain, &to).await,
        Request::Timeline { domain, limit } => timeline(shared, &domain, limit.min(MAX_RUNS)).await,
        Request::Watch { domain } => return watch(shared, &mut stream, &domain).await,
    };
    socket::write(&mut stream, &response, RESPONSE_LIMIT).await
}

fn libvirt(libvirt: &Libvirt) -> LibvirtStatus {
    LibvirtStatus {
        uri: libvirt.uri().to_owned(),
        daemon: libvirt.daemon().map(str::to_owned),
        problem: libvirt.disconnected_because(),
    }
}

pub(super) fn failed(kind: ErrorKind, message: String) -> Response {
    Response::Error { kind, message }
}

pub(super) fn not_found(domain: &str) -> Response {
    let hint = "hybondctl status lists those that it has; a domain is its from the first start after hybondctl enable";
    failed(
        ErrorKind::NotFound,
        format!("hybondd has no domain {domain:?} on this host: {hint}"),
    )
}

async fn status(shared: &Arc<Shared>, domain: Option<String>) -> Response {
    let tasks = match &domain {
        Some(domain) => match shared.find(domain) {
            Some(found) => vec![found],
            None => return not_found(domain),
        },
        None => shared.all(),
    };
    let mut domains: Vec<DomainStatus> = Vec::new();
    for (_, task) in tasks {
        domains.extend(task.view().await.map(|view| view.status));
    }
    domains.sort_by(|a, b| a.name.cmp(&b.name));
    Response::Status { domains }
}

fn pools(shared: &Arc<Shared>) -> Response {
    let book = shared.adapters.book();
    let name = |id: DomainId| shared.task(id).map_or_else(|| id.to_string(), |task| task.name);
    let who = |domain: DomainId, mac: Mac| LeaseStatus {
        domain,
        name: name(domain),
        mac,
    };
    let pools = book.pools().iter().map(|(pool, vfs)| PoolStatus {
        name: pool.clone(),
        handover: shared.adapters.handovers(Some(pool)),
        vfs: vfs
            .iter()
            .map(|vf| VfStatus {
                vf: vf.id.clone(),
                pf: vf.pf.clone(),
                numa_node: vf.numa_node,
                lease: book.holder(&vf.id).map(|lease| who(lease.domain, lease.mac)),
                reserved: book.reserved(&vf.id).map(|held| ReservationStatus {
                    domain: held.lease.domain,
                    name: held.name.clone(),
                    mac: held.lease.mac,
                    by: held.by.clone(),
                    until_ms: held.until,
                }),
            })
            .collect(),
        waiting: book.waiting(pool).map(|ask| who(ask.domain, ask.mac)).collect(),
    });
    Response::Pools { pools: pools.collect() }
}

/// Asks for a drain, a plug or another policy, and passes the phases on while it goes.
pub(super) async fn act(
    shared: &Arc<Shared>,
    stream: &mut UnixStream,
    domain: &str,
    ask: Ask,
) -> Result<Response, ExchangeError> {
    let Some((id, task)) = shared.find(domain) else {
        return Ok(not_found(domain));
    };
    let drain_within = Duration::from_millis(shared.adapters.config.guest.drain_within);
    let (done, within) = match ask {
        Ask::HoldBack => ("drained", drain_within + PLUG_WITHIN),
        Ask::SetPolicy(..) => ("set", drain_within + PLUG_WITHIN),
        _ => ("plugged", PLUG_WITHIN),
    };
    let mut feed = shared.feed.subscribe(id);
    let answer = tokio::time::timeout(within, task.ask(shared, ask));
    tokio::pin!(answer);
    loop {
        tokio::select! {
            answer = &mut answer => return Ok(match answer {
                Ok(Ok(Answer::Done(_))) => Response::Done { message: format!("{domain} is {done}") },
                Ok(Ok(Answer::Refused(reason))) => failed(ErrorKind::Refused, format!("{domain}: {reason}")),
                Ok(Err(ended)) => failed(ErrorKind::Failed, format!("{domain}: {ended}")),
                Err(_) => {
                    let s = within.as_secs();
                    failed(ErrorKind::Failed, format!("{domain} was not {done} within {s} s; see hybondctl status {domain}"))
                }
            }),
            told = feed.recv() => pass_on(stream, told, &mut feed).await?,
        }
    }
}

type Told = Result<Response, broadcast::error::RecvError>;

/// Together with what has been told since: the end of a phase is most often the beginning of the next.
async fn pass_on(
    stream: &mut UnixStream,
    told: Told,
    feed: &mut broadcast::Receiver<Response>,
) -> Result<(), ExchangeError> {
    // Some may have been missed: progress is for the eye.
    let mut all = Vec::from_iter(told);
    all.extend((0..feed.len()).map_while(|_| feed.try_recv().ok()));
    socket::write_all(stream, &all, RESPONSE_LIMIT).await
}

async fn watch(shared: &Arc<Shared>, stream: &mut UnixStream, domain: &str) -> Result<(), ExchangeError> {
    let Some((id, _)) = shared.find(domain) else {
        return socket::write(stream, &not_found(domain), RESPONSE_LIMIT).await;
    };
    let mut feed = shared.feed.subscribe(id);
    loop {
        let told = tokio::select! {
            told = feed.recv() => told,
            () = socket::closed(stream) => return Ok(()),
        };
        pass_on(stream, told, &mut feed).await?;
    }
}

async fn timeline(shared: &Arc<Shared>, domain: &str, limit: usize) -> Response {
    // A guest that has left is known by its UUID only.
    let found = shared.find(domain);
    let id = found.as_ref().map(|(id, _)| *id).or_else(|| domain.parse().ok());
    let Some(id) = id else { return not_found(domain) };
    let journal = shared.disk.journal();
    let read = tokio::task::spawn_blocking(move || journal.runs::<Run>(&id, MAX_RUNS)).await;
    let mut runs = match read {
        Ok(Ok(runs)) => runs,
        Ok(Err(error)) => return failed(ErrorKind::Failed, chain(&error)),
        Err(panic) => return failed(ErrorKind::Failed, panic.to_string()),
    };
    if let Some((_, task)) = found {
        runs.extend(task.view().await.and_then(|view| view.run));
    }
    let runs = runs.split_off(runs.len().saturating_sub(limit));
    Response::Timeline { runs }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hybond_wire::line::{self, LineBuffer};
    use tokio::io::AsyncReadExt;

    fn phase(name: &str) -> Response {
        Response::Progress {
            domain: "web1".to_owned(),
            phase: hybond_wire::control::Phase {
                name: name.to_owned(),
                start_ms: 1.0,
                end_ms: None,
                detail: None,
            },
        }
    }

    #[tokio::test]
    async fn phases_that_have_gathered_arrive_as_lines_of_their_own_in_their_order() {
        let (mut daemon, mut client) = UnixStream::pair().expect("sockets");
        let (teller, mut feed) = broadcast::channel(8);
        for name in ["failover", "tune-standby", "unplug"] {
            teller.send(phase(name)).expect("heard");
        }
        let first = feed.recv().await;
        pass_on(&mut daemon, first, &mut feed).await.expect("taken");
        drop(daemon);
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.expect("read");
        let mut lines = LineBuffer::new(RESPONSE_LIMIT);
        lines.push(&bytes);
        let mut names = Vec::new();
        while let Some(line) = lines.next_line().expect("whole lines") {
            match line::decode(&line, RESPONSE_LIMIT).expect("a response") {
                Response::Progress { phase, .. } => names.push(phase.name),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(names, ["failover", "tune-standby", "unplug"]);
    }
}
