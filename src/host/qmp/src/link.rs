//! Keeps a connection to a monitor for as long as the domain lives.

use crate::error::QmpError;
use crate::event::Stamped;
use crate::qmp::{GREETING, Qmp};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The guard is blind without a connection, so it is never long.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const QUEUE: usize = 64;

/// What happens to a link.
#[derive(Debug)]
pub enum LinkEvent {
    /// There is a connection, its guard has looked. Look at everything anew.
    Connected(Qmp),
    /// QEMU, or the guard, reports.
    Event(Stamped),
    /// The connection has ended; the link goes on trying.
    Lost {
        /// Why.
        reason: Arc<str>,
    },
    /// Connecting failed. Said once for each kind of failure, until a connection succeeds.
    Unreachable {
        /// Why.
        error: QmpError,
    },
}

/// A task that connects, and connects again.
#[derive(Debug)]
pub struct QmpLink {
    current: watch::Receiver<Option<Qmp>>,
    hint: Arc<Notify>,
    task: JoinHandle<()>,
}

impl QmpLink {
    /// Starts it. It ends, and with it the connection, when the link or the receiver is dropped.
    #[must_use]
    pub fn spawn(path: PathBuf) -> (Self, mpsc::Receiver<Box<LinkEvent>>) {
        let (events, receiver) = mpsc::channel(QUEUE);
        let (current_sender, current) = watch::channel(None);
        let hint = Arc::new(Notify::new());
        let hinted = Arc::clone(&hint);
        let task = tokio::spawn(async move {
            // An error means that nobody listens any more.
            let _gone: Option<()> = keep(path, events, current_sender, &hinted).await;
        });
        (Self { current, hint, task }, receiver)
    }

    /// QEMU may be there now: tries at once where there is no connection. On a migration's destination QEMU starts seconds
    /// after the link did, and the guest runs a moment later.
    pub fn try_now(&self) {
        self.hint.notify_one();
    }

    /// The connection, if there is one now.
    #[must_use]
    pub fn current(&self) -> Option<Qmp> {
        self.current.borrow().clone().filter(Qmp::is_connected)
    }

    /// Waits for a connection.
    pub async fn connected(&self, timeout: Duration) -> Option<Qmp> {
        let mut current = self.current.clone();
        let found = time::timeout(timeout, current.wait_for(|q| q.as_ref().is_some_and(Qmp::is_connected))).await;
        found.ok()?.ok()?.clone()
    }
}

/// Removes a monitor's socket that nobody listens on any more: a QEMU that is killed leaves its own behind. Returns whether
/// there was one to remove.
///
/// # Errors
/// It cannot be removed, or somebody listens on it (`AddrInUse`).
pub async fn remove_dead_socket(path: &Path) -> io::Result<bool> {
    let refused = match time::timeout(GREETING, UnixStream::connect(path)).await {
        Ok(Err(error)) => error,
        // A full backlog is a listener, too.
        Ok(Ok(_)) | Err(_) => return Err(io::ErrorKind::AddrInUse.into()),
    };
    match refused.kind() {
        io::ErrorKind::NotFound => Ok(false),
        io::ErrorKind::ConnectionRefused => tokio::fs::remove_file(path).await.map(|()| true),
        _ => Err(refused),
    }
}

impl Drop for QmpLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(
    path: PathBuf,
    events: mpsc::Sender<Box<LinkEvent>>,
    current: watch::Sender<Option<Qmp>>,
    hint: &Notify,
) -> Option<()> {
    let mut pause = FIRST_PAUSE;
    let mut said = None;
    loop {
        match Qmp::connect(&path, GREETING).await {
            Ok((qmp, reports)) => {
                pause = FIRST_PAUSE;
                said = None;
                current.send_replace(Some(qmp.clone()));
                events.send(Box::new(LinkEvent::Connected(qmp.clone()))).await.ok()?;
                let passed = pass_on(reports, &events).await;
                current.send_replace(None);
                passed?;
                let reason = qmp.ended().await;
                events.send(Box::new(LinkEvent::Lost { reason })).await.ok()?;
            }
            Err(error) => {
                let kind = std::mem::discriminant(&error);
                if said.replace(kind) != Some(kind) {
                    events.send(Box::new(LinkEvent::Unreachable { error })).await.ok()?;
                }
            }
        }
        tokio::select! {
            () = time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            () = hint.notified() => pause = FIRST_PAUSE,
            () = events.closed() => return None,
        }
    }
}

/// Passes events on until the connection ends; `None` where nobody takes them any more.
async fn pass_on(mut reports: mpsc::Receiver<Box<Stamped>>, events: &mpsc::Sender<Box<LinkEvent>>) -> Option<()> {
    loop {
        let report = tokio::select! {
            report = reports.recv() => report,
            () = events.closed() => return None,
        };
        match report {
            Some(stamped) => events.send(Box::new(LinkEvent::Event(*stamped))).await.ok()?,
            None => return Some(()),
        }
    }
}
