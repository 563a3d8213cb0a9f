//! Unix sockets with one request line for each connection.
//!
//! Root's programs are the host's: libvirt's hook, the drain before a shutdown. What others do, a group's members, must not
//! keep them waiting, so root has places of its own, and every other user has few.

use crate::sparing::Sparing;
use hybond_wire::line::{LineBuffer, LineError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::warn;

/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a client may take for its request, and for each read of an answer. Tests do not wait as long.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// Why a socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {path}")]
pub struct ListenError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Why a request did not arrive, or an answer not leave.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The socket.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// Nothing came, or nothing was taken, for [`PATIENCE`].
    #[error("the client is silent")]
    Silent,
    /// The client closed before its line was whole.
    #[error("the client ended before its request")]
    Incomplete,
    /// The line.
    #[error("bad message")]
    Line(#[from] LineError),
}

/// Listens on a path; a socket that an earlier daemon left is replaced. `group`: who may connect beside root.
pub fn listen(path: &Path, group: Option<u32>) -> Result<UnixListener, ListenError> {
    let failed = |source| ListenError {
        path: path.to_owned(),
        source,
    };
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    std::os::unix::fs::chown(path, None, group).map_err(failed)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

/// Reads the request.
pub async fn read<T: DeserializeOwned>(stream: &mut UnixStream, limit: usize) -> Result<T, ExchangeError> {
    let mut buffer = LineBuffer::new(limit);
    let mut bytes = [0; 4096];
    let line = timeout(PATIENCE, async {
        loop {
            if let Some(line) = buffer.next_line()? {
                return Ok(line);
            }
            match stream.read(&mut bytes).await? {
                0 => return Err(ExchangeError::Incomplete),
                n => buffer.push(&bytes[..n]),
            }
        }
    })
    .await
    .map_err(|_| ExchangeError::Silent)??;
    Ok(hybond_wire::line::decode(&line, limit)?)
}

/// Writes an answer.
pub async fn write<T: Serialize>(stream: &mut UnixStream, message: &T, limit: usize) -> Result<(), ExchangeError> {
    send(stream, &hybond_wire::line::encode(message, limit)?).await
}

/// Writes several lines, of `limit` bytes each, at once.
pub async fn write_all<T: Serialize>(
    stream: &mut UnixStream,
    messages: &[T],
    limit: usize,
) -> Result<(), ExchangeError> {
    let mut lines = Vec::new();
    for message in messages {
        lines.extend(hybond_wire::line::encode(message, limit)?);
    }
    send(stream, &lines).await
}

async fn send(stream: &mut UnixStream, bytes: &[u8]) -> Result<(), ExchangeError> {
    timeout(PATIENCE, stream.write_all(bytes))
        .await
        .map_err(|_| ExchangeError::Silent)??;
    Ok(())
}

/// How many are served at one time.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of root. More wait.
    pub root: usize,
    /// Of all others. More are refused.
    pub others: usize,
    /// Of one of the others.
    pub each: usize,
}

/// Accepts for as long as the daemon runs, and gives each connection a task. `refusal`: what is said to a user who has no
/// place left.
pub async fn serve<H, F>(listener: UnixListener, what: &'static str, limits: Limits, refusal: &[u8], handle: H)
where
    H: Fn(UnixStream) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    // A peer that cannot be told is one of the others.
    let user = |stream: &UnixStream| stream.peer_cred().map_or(u32::MAX, |who| who.uid());
    serve_users(listener, what, limits, refusal, user, handle).await;
}

async fn serve_users<H, F>(
    listener: UnixListener,
    what: &'static str,
    limits: Limits,
    refusal: &[u8],
    user: impl Fn(&UnixStream) -> u32,
    handle: H,
) where
    H: Fn(UnixStream) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let root = Arc::new(Semaphore::new(limits.root));
    let others = Arc::new(Others::new(limits));
    let mut sparing = Sparing::default();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                if let Some(others_before) = sparing.pass("accept", Instant::now()) {
                    warn!(%error, others_before, "a connection of {what} was not accepted: {error}");
                }
                // Mostly there are no descriptors left, which another try does not mend.
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let user = user(&stream);
        let place = if user == 0 {
            // Closed by nobody.
            Arc::clone(&root).acquire_owned().await.ok().map(Place::Root)
        } else {
            others.take(user).map(Place::Other)
        };
        match place {
            Some(place) => {
                let served = handle(stream);
                tokio::spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            None => {
                if let Some(others_before) = sparing.pass("refused", Instant::now()) {
                    warn!(
                        user,
                        others_before, "user {user} has too many connections: another of {what} was refused"
                    );
                }
                // At once: one line fits the socket of a connection that is new. Who has gone already needs no reason.
                drop(stream.into_std().and_then(|mut stream| stream.write_all(refusal)));
            }
        }
    }
}

/// Held, never read: it is given back when it is dropped.
enum Place {
    Root(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit),
    Other(#[expect(dead_code, reason = "held")] Ticket),
}

/// Places of users that are not root.
struct Others {
    limits: Limits,
    held: Mutex<HashMap<u32, usize>>,
}

struct Ticket {
    others: Arc<Others>,
    user: u32,
}

impl Others {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            held: Mutex::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, user: u32) -> Option<Ticket> {
        let mut held = self.held();
        if held.values().sum::<usize>() >= self.limits.others {
            return None;
        }
        let own = held.entry(user).or_default();
        if *own >= self.limits.each {
            return None;
        }
        *own += 1;
        let others = Arc::clone(self);
        Some(Ticket { others, user })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut held = self.others.held();
        if let Some(own) = held.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                held.remove(&self.user);
            }
        }
    }
}

/// Returns once the client has closed its end.
pub async fn closed(stream: &mut UnixStream) {
    let mut byte = [0; 64];
    // What a client sends after its request is of no use; an error is an end too.
    while stream.read(&mut byte).await.is_ok_and(|n| n > 0) {}
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
