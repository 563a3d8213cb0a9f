//! Answers libvirt's hook. libvirt holds the domain's lock while it waits, so nothing on the way to an answer may call
//! libvirt about that domain.

use super::socket::{self, ExchangeError};
use crate::adapters::chain;
use crate::shared::{Ended, Shared};
use hybond_core::guest::{Answer, DomainSeen, Event, Record, Request as Ask, Stage};
use hybond_core::ids::MigrationId;
use hybond_core::spec::DomainSpec;
use hybond_vfio::PlugWay;
use hybond_wire::hook::{LIMIT, Operation, Request, Response, SourceEdit, VERSION};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, warn};

/// Hooks that are answered at one time. libvirt starts one for each domain that it starts; nobody but root may connect.
const AT_ONCE: socket::Limits = socket::Limits {
    root: 256,
    others: 0,
    each: 0,
};

/// Serves until the daemon ends.
pub async fn serve(shared: Arc<Shared>, listener: UnixListener) {
    socket::serve(listener, "a hook", AT_ONCE, b"", |stream| {
        let shared = Arc::clone(&shared);
        async move {
            if let Err(error) = connection(&shared, stream).await {
                warn!(error = chain(&error), "a hook was not answered: {}", chain(&error));
            }
        }
    })
    .await;
}

async fn connection(shared: &Arc<Shared>, mut stream: UnixStream) -> Result<(), ExchangeError> {
    let request: Request = socket::read(&mut stream, LIMIT).await?;
    let response = tokio::select! {
        response = answer(shared, request) => response,
        // libvirt has ended its hook, or the hook has given up.
        () = socket::closed(&mut stream) => return Ok(()),
    };
    socket::write(&mut stream, &response, LIMIT).await
}

async fn answer(shared: &Arc<Shared>, request: Request) -> Response {
    let Request {
        version,
        operation,
        reason,
        domain,
    } = request;
    if version != VERSION {
        return refuse(format!(
            "hybond-hook speaks version {version} of its protocol and hybondd version {VERSION}: restart hybondd"
        ));
    }
    debug!(?operation, reason, domain = domain.name, domain_uuid = %domain.id, "hook");
    let id = domain.id;
    match operation {
        Operation::Migrate => {
            let migration = migration_id();
            ask(shared, domain.clone(), Ask::Receive(domain, migration)).await
        }
        Operation::Prepare => {
            // No other XML is taken any more: what it names has to be there.
            match shared.adapters.resolved(domain).await {
                Ok(domain) => ask(shared, domain.clone(), Ask::Prepare(domain)).await,
                Err(failure) => refuse(failure.reason),
            }
        }
        Operation::Restore => ask(shared, domain.clone(), Ask::Restore(domain)).await,
        Operation::Start => match shared.adapters.resolved(domain).await {
            Ok(domain) => ask(shared, domain.clone(), Ask::Place(domain)).await,
            Err(failure) => refuse(failure.reason),
        },
        Operation::Started | Operation::Reconnect => {
            tell(shared, id, Event::LookAgain).await;
            Response::unchanged()
        }
        Operation::Release => {
            tell(shared, id, Event::Domain(DomainSeen::Absent)).await;
            if let Some(task) = shared.task(id) {
                // It has taken that in when it answers. libvirt may start a domain that waits for this one's VF right after
                // this hook; by then the pool has to know that it comes back.
                drop(task.view().await);
            }
            Response::unchanged()
        }
        Operation::Stopped => Response::unchanged(),
    }
}

/// Asks the guest's task, which is started where there is none; and again where it ends in this very moment.
async fn ask(shared: &Arc<Shared>, domain: DomainSpec, request: Ask) -> Response {
    // Later libvirt takes no other XML.
    let comes = matches!(request, Ask::Receive(..) | Ask::Restore(_));
    let record = Record::new(domain.clone(), Stage::Leaving);
    for _ in 0..3 {
        match shared
            .task_or_start(record.clone(), true)
            .ask(shared, request.clone())
            .await
        {
            Ok(Answer::Done(pfs)) => {
                return match shared.adapters.names_in_xml(&domain, pfs).await {
                    Ok(sources) => proceed(sources, comes && preallocates(shared, &domain)),
                    Err(failure) => refuse(failure.reason),
                };
            }
            Ok(Answer::Refused(reason)) => return refuse(reason),
            Err(Ended) => shared.ended(record.spec.id),
        }
    }
    refuse(Ended.to_string())
}

async fn tell(shared: &Arc<Shared>, id: hybond_core::ids::DomainId, event: Event) {
    if let Some(task) = shared.task(id) {
        task.tell(event).await;
    }
}

/// An emulated primary is QEMU's own, and nothing is pinned for it.
fn preallocates(shared: &Shared, domain: &DomainSpec) -> bool {
    let adapters = &shared.adapters;
    adapters.config.preallocate && adapters.way != PlugWay::Emulated && domain.is_pinned()
}

fn proceed(sources: Vec<(hybond_core::ids::Mac, hybond_core::ids::IfName)>, preallocate: bool) -> Response {
    let sources = sources
        .into_iter()
        .map(|(mac, source)| SourceEdit { mac, source })
        .collect();
    Response::Proceed { sources, preallocate }
}

fn refuse(reason: String) -> Response {
    Response::Refuse { reason }
}

/// Unique on this host, and told to the source: the time in nanoseconds, and a count.
fn migration_id() -> MigrationId {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    #[expect(
        clippy::expect_used,
        reason = "hexadecimal digits and a dash are what an id may have"
    )]
    format!("{nanos:x}-{count:x}").parse().expect("valid")
}
