//! Blocking calls that cannot hang their caller: each in a thread of its own, waited for with a bound.
//!
//! Not on the runtime's blocking threads: a runtime that is dropped waits for those, and a call that libvirt never
//! answers would keep the daemon from ending.

use crate::error::{LibvirtError, Said};
use crate::supervisor::Link;
use hybond_core::ids::DomainId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, oneshot};
use virt::connect::Connect;
use virt::error::{Error, ErrorNumber, ErrorNumberEnum};

/// Kinds of call that do not wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Takes a query job or none.
    Query,
    /// Takes a modify job, which libvirt lets wait 30 s for the domain's other jobs (`VIR_JOB_WAIT_TIME`).
    Modify,
    /// Takes the abort job, which never waits.
    Abort,
}

/// Why a call failed, before it is known which call that was.
#[derive(Debug)]
pub(crate) enum Failure {
    /// libvirt's error.
    Libvirt(Error),
    /// An answer of no use.
    Unusable(String),
    /// The domain's element is not valid.
    Spec(Box<dyn std::error::Error + Send + Sync>),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Libvirt(error)
    }
}

/// Whether `error` has this code.
pub(crate) fn is(error: &Error, code: ErrorNumber) -> bool {
    error.code() == ErrorNumberEnum::Known(code)
}

/// Bounds on the calls that are under way.
#[derive(Debug)]
pub(crate) struct Caller {
    link: Arc<Link>,
    query: Arc<Semaphore>,
    modify: Arc<Semaphore>,
    abort: Arc<Semaphore>,
    /// One call per domain and lane: a domain that libvirt does not let go of holds one slot, not all.
    turns: Mutex<HashMap<(DomainId, Lane), Turn>>,
}

/// A domain's turn in a lane, for as long as a call holds it or waits for it.
type Turn = Weak<AsyncMutex<()>>;

/// What is given back when the call's thread ends, however long after its caller has given up.
struct Slot {
    _lane: OwnedSemaphorePermit,
    _domain: Option<OwnedMutexGuard<()>>,
}

impl Caller {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        // libvirtd reads no further request of a client that has five under way (`max_client_requests`): two of the five
        // are kept from calls that wait for modify jobs.
        Self {
            link,
            query: Arc::new(Semaphore::new(16)),
            modify: Arc::new(Semaphore::new(2)),
            abort: Arc::new(Semaphore::new(1)),
            turns: Mutex::new(HashMap::new()),
        }
    }

    /// Runs `work` on a thread and waits for it for up to `bound`, the wait for its turn included.
    pub(crate) async fn run<T, F>(
        &self,
        (call, lane): (&'static str, Lane),
        domain: Option<DomainId>,
        bound: Duration,
        work: F,
    ) -> Result<T, LibvirtError>
    where
        T: Send + 'static,
        F: FnOnce(&Connect) -> Result<T, Failure> + Send + 'static,
    {
        let subject = domain.map_or_else(|| "this host".to_owned(), |id| id.to_string());
        let attempt = async {
            let slot = self.slot(lane, domain).await;
            let not_connected = |reason: String| LibvirtError::NotConnected {
                uri: self.link.uri().to_owned(),
                reason,
            };
            let session = self.link.session().map_err(not_connected)?;
            let (answer, answered) = oneshot::channel();
            let closed = session.closed.clone();
            std::thread::Builder::new()
                .name("libvirt-call".into())
                .spawn(move || {
                    let result = work(session.connect());
                    // The connection before the slot, the slot before the answer: who has the answer may ask again.
                    drop(session);
                    drop(slot);
                    // A caller that has given up wants no answer.
                    drop(answer.send(result));
                })
                .map_err(|source| LibvirtError::NoThread {
                    call,
                    subject: subject.clone(),
                    source,
                })?;
            match answered.await {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(failure)) => match closed.now() {
                    Some(reason) => Err(not_connected(reason.to_owned())),
                    None => Err(classify(call, subject.clone(), failure)),
                },
                Err(_) => Err(LibvirtError::Unusable {
                    call,
                    subject: subject.clone(),
                    reason: "the call's thread has broken down".into(),
                }),
            }
        };
        match tokio::time::timeout(bound, attempt).await {
            Ok(result) => result,
            Err(_) => Err(LibvirtError::Timeout {
                call,
                subject,
                after: bound,
            }),
        }
    }

    async fn slot(&self, lane: Lane, domain: Option<DomainId>) -> Slot {
        // The domain first: calls that wait for a stuck domain must not use up the lane.
        let domain = match domain {
            Some(id) => Some(self.turn(id, lane).lock_owned().await),
            None => None,
        };
        let semaphore = match lane {
            Lane::Query => &self.query,
            Lane::Modify => &self.modify,
            Lane::Abort => &self.abort,
        };
        let lane = match Arc::clone(semaphore).acquire_owned().await {
            Ok(permit) => permit,
            Err(_) => unreachable!("the semaphores are never closed"),
        };
        Slot {
            _lane: lane,
            _domain: domain,
        }
    }

    fn turn(&self, id: DomainId, lane: Lane) -> Arc<AsyncMutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(&(id, lane)).and_then(Weak::upgrade) {
            return turn;
        }
        // Only what is in use is kept: as many as there are calls under way.
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(AsyncMutex::new(()));
        turns.insert((id, lane), Arc::downgrade(&turn));
        turn
    }
}

fn classify(call: &'static str, subject: String, failure: Failure) -> LibvirtError {
    match failure {
        Failure::Libvirt(error) if is(&error, ErrorNumber::NoDomain) => LibvirtError::NotFound { subject },
        Failure::Libvirt(error) => LibvirtError::Refused {
            call,
            subject,
            // Without the numbers of its code and domain, which are for programs.
            source: Said(error.message().to_owned()),
        },
        Failure::Unusable(reason) => LibvirtError::Unusable { call, subject, reason },
        Failure::Spec(source) => LibvirtError::Spec { subject, source },
    }
}
