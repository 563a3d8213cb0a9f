//! Answers other hosts' daemons. Of the guests that run here a peer may ask for one thing only, the drain of one that is in
//! an outgoing migration; whether it is, the guest's machine finds out from libvirt. Of guests that are to come here it may
//! ask whether they would fit, and have VFs held for them, for a bounded time.

use super::{RELEASE, arrivals};
use crate::adapters::chain;
use crate::shared::Shared;
use hybond_core::guest::{Answer, Event, Request as Ask};
use hybond_core::ids::{DomainId, PeerAddr};
use hybond_libvirt::{DomainState, LibvirtError};
use hybond_peer::IncomingRequest;
use hybond_wire::control::Response as Told;
use hybond_wire::peer::{Request, Response};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{info, warn};

/// The source gives up this much earlier than the destination, so that its reason arrives.
const MARGIN: Duration = Duration::from_secs(2);

/// Serves until the daemon ends.
pub async fn serve(shared: Arc<Shared>, mut requests: mpsc::Receiver<IncomingRequest>) {
    while let Some(incoming) = requests.recv().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move { connection(&shared, incoming).await });
    }
}

async fn connection(shared: &Arc<Shared>, mut incoming: IncomingRequest) {
    let (peer, request) = (incoming.peer.to_string(), incoming.request.clone());
    let response = match request {
        Request::Drain {
            migration,
            domain,
            within_ms,
            ..
        } => {
            info!(domain_uuid = %domain, migration_id = %migration, peer, "{peer} asks for a drain of {domain}");
            drain(
                shared,
                &mut incoming,
                domain,
                migration,
                Duration::from_millis(within_ms),
            )
            .await
        }
        Request::Abandon { domain, .. } => {
            if let Some(task) = shared.task(domain) {
                task.tell(Event::LookAgain).await;
            }
            hello(shared)
        }
        Request::Ping { .. } => hello(shared),
        Request::Check {
            domain, pairs, source, ..
        } => arrivals::fits(shared, domain, &pairs, &source).await,
        Request::Reserve {
            domain,
            name,
            pairs,
            for_ms,
            ..
        } => arrivals::reserve(shared, (domain, &name), &pairs, &peer, for_ms).await,
        Request::Cancel { domain, .. } => arrivals::cancel(shared, domain).await,
    };
    if let Err(error) = incoming.responder.finish(response).await {
        warn!(
            peer,
            error = chain(&error),
            "a peer's request was not answered: {}",
            chain(&error)
        );
    }
}

async fn drain(
    shared: &Arc<Shared>,
    incoming: &mut IncomingRequest,
    domain: DomainId,
    migration: hybond_core::ids::MigrationId,
    within: Duration,
) -> Response {
    let me = &shared.adapters.me;
    let Some(task) = shared.task(domain) else {
        return without_task(me, domain, shared.adapters.libvirt.state(domain).await);
    };
    let mut feed = shared.feed.subscribe(domain);
    let answer = task.ask(shared, Ask::Drain(migration));
    tokio::pin!(answer);
    let deadline = tokio::time::sleep(within.saturating_sub(MARGIN));
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            answer = &mut answer => return match answer {
                Ok(Answer::Done(_)) => Response::Drained,
                Ok(Answer::Refused(reason)) => Response::Refused { reason: format!("{me}: {reason}") },
                Err(ended) => Response::Refused { reason: format!("{me}: {ended}") },
            },
            () = &mut deadline => {
                let reason = format!("{me}: the drain did not end within {} s", within.as_secs());
                return Response::Refused { reason };
            }
            told = feed.recv() => {
                if let Ok(Told::Progress { phase, .. }) = told {
                    let begun = phase.end_ms.is_none();
                    if begun && incoming.responder.progress(&phase.name).await.is_err() {
                        return Response::Refused { reason: "the peer has gone".into() };
                    }
                }
            }
        }
    }
}

/// What is said of a domain of which nothing is known here. One that is off has no VF in it: of `virsh migrate --offline`, too,
/// libvirt calls hook `migrate` at the destination (`qemuMigrationDstPrepareAny()`).
fn without_task(me: &PeerAddr, domain: DomainId, state: Result<DomainState, LibvirtError>) -> Response {
    let reason = match state {
        Ok(DomainState::Shutoff) => return Response::Drained,
        Ok(_) => format!("{me} has no domain {domain} with hybond"),
        Err(error) => format!(
            "{me} has no domain {domain} with hybond, and cannot ask libvirt about it: {}",
            chain(&error)
        ),
    };
    Response::Refused { reason }
}

fn hello(shared: &Arc<Shared>) -> Response {
    Response::Hello {
        host: shared.adapters.me.to_string(),
        release: RELEASE.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said_of(state: DomainState) -> Response {
        without_task(
            &"src".parse().expect("a name"),
            DomainId::from_bytes([7; 16]),
            Ok(state),
        )
    }

    #[test]
    fn a_domain_that_is_off_has_nothing_to_drain_and_migrates_offline() {
        assert_eq!(said_of(DomainState::Shutoff), Response::Drained);
    }

    #[test]
    fn a_domain_that_runs_without_hybond_or_is_not_there_is_not_said_to_be_drained() {
        for state in [DomainState::Running, DomainState::NotFound, DomainState::Unknown] {
            assert!(matches!(said_of(state), Response::Refused { reason } if reason.contains("has no domain")));
        }
    }
}
