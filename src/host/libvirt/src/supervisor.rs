//! Keeps the connection open, and opens it again when libvirt was restarted.

use crate::event::{EventSink, LibvirtEvent};
use crate::session::Session;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// First and longest pause between two attempts. libvirtd with socket activation is back within a second; one that was
/// stopped by its administrator may stay away for days.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What handles and supervisor share.
#[derive(Debug)]
pub(crate) struct Link {
    uri: String,
    state: Mutex<State>,
    connected: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    session: Option<Arc<Session>>,
    reason: String,
}

impl Link {
    pub(crate) fn new(uri: &str) -> Self {
        Self {
            uri: uri.to_owned(),
            state: Mutex::new(State {
                session: None,
                reason: "it is being opened".into(),
            }),
            connected: watch::Sender::new(false),
        }
    }

    /// Where libvirt is.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// The connection, or why there is none.
    pub(crate) fn session(&self) -> Result<Arc<Session>, String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.session.clone().ok_or_else(|| state.reason.clone())
    }

    /// Follows the connection.
    pub(crate) fn connected(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }

    fn set(&self, session: Option<Arc<Session>>, reason: &str) -> Option<Arc<Session>> {
        let connected = session.is_some();
        let old = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            reason.clone_into(&mut state.reason);
            std::mem::replace(&mut state.session, session)
        };
        self.connected.send_replace(connected);
        old
    }
}

/// Runs until every handle is dropped, which closes `alive`.
pub(crate) async fn run(link: Arc<Link>, sink: EventSink, mut alive: mpsc::Receiver<()>) {
    let mut pause = PAUSE.0;
    let mut told = false;
    loop {
        match open(&link, &sink, &mut alive).await {
            Attempt::Open(session) => {
                pause = PAUSE.0;
                let closed = session.closed.clone();
                link.set(Some(session), "");
                tracing::debug!(uri = link.uri(), "connected to libvirt");
                sink.push(LibvirtEvent::Connected);
                let reason = tokio::select! {
                    reason = closed.wait() => Some(reason),
                    _ = alive.recv() => None,
                };
                close(link.set(None, reason.unwrap_or("closed by hybond")));
                let Some(reason) = reason else { return };
                told = true;
                sink.push(LibvirtEvent::Lost { reason: reason.into() });
            }
            Attempt::Failed(reason) => {
                tracing::debug!(uri = link.uri(), reason, "libvirt cannot be reached, trying again");
                link.set(None, &reason);
                if !told {
                    told = true;
                    sink.push(LibvirtEvent::Lost { reason });
                }
            }
            Attempt::Unwanted => return,
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = alive.recv() => return,
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

enum Attempt {
    Open(Arc<Session>),
    Failed(String),
    Unwanted,
}

/// One attempt, in a thread of its own: opening can hang as long as libvirtd does. There is never a second one meanwhile.
async fn open(link: &Arc<Link>, sink: &EventSink, alive: &mut mpsc::Receiver<()>) -> Attempt {
    const SLOW: Duration = Duration::from_secs(10);
    let (answer, mut answered) = oneshot::channel();
    let (uri, sink) = (link.uri().to_owned(), sink.clone());
    let thread = std::thread::Builder::new().name("libvirt-open".into()).spawn(move || {
        // Where nobody waits any more the session is dropped, and so closed, in here.
        drop(answer.send(Session::open(&uri, &sink)));
    });
    if let Err(error) = thread {
        return Attempt::Failed(format!("no thread to open it: {error}"));
    }
    loop {
        tokio::select! {
            result = &mut answered => return match result {
                Ok(Ok(session)) => Attempt::Open(Arc::new(session)),
                Ok(Err(reason)) => Attempt::Failed(reason),
                Err(_) => Attempt::Failed("the attempt to open it has broken down".into()),
            },
            () = tokio::time::sleep(SLOW) => drop(link.set(None, "libvirt accepts the connection and does not answer")),
            _ = alive.recv() => return Attempt::Unwanted,
        }
    }
}

/// Closes in a thread of its own: taking callbacks back are calls to a libvirt that may hang.
fn close(session: Option<Arc<Session>>) {
    let spawned = std::thread::Builder::new()
        .name("libvirt-close".into())
        .spawn(move || drop(session));
    if let Err(error) = spawned {
        // The closure, and with it the session, was dropped here instead: slower, not wrong.
        tracing::debug!(%error, "connection closed without a thread of its own");
    }
}
