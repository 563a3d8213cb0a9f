//! The handle.

use crate::connection::{Connection, EVENTS, Request};
use crate::error::QmpError;
use crate::event::Stamped;
use crate::message::{self, Message};
use crate::socket::{Line, Outgoing, Socket};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time;

/// Commands that wait for their turn.
const QUEUE: usize = 32;
/// How long QEMU may take to greet. It does so at once unless another client is there or its main loop is busy.
pub const GREETING: Duration = Duration::from_secs(5);

/// A monitor. Clones share one connection, which ends with the last of them.
#[derive(Debug, Clone)]
pub struct Qmp {
    requests: mpsc::Sender<Box<Request>>,
    plugged: watch::Receiver<BTreeSet<String>>,
    /// Set before the other end of `requests` is dropped.
    ended: Arc<OnceLock<Arc<str>>>,
}

impl Qmp {
    /// Connects, and lets the guard look at what is plugged and whether a migration goes on, before anyone else may
    /// send anything. `patience` holds for each of: connecting, the greeting, and that look.
    ///
    /// # Errors
    /// Nobody listens, nobody greets within `patience`, or it is no monitor.
    pub async fn connect(path: &Path, patience: Duration) -> Result<(Self, mpsc::Receiver<Box<Stamped>>), QmpError> {
        let no_greeting = |_| QmpError::NoGreeting {
            path: path.to_owned(),
            after: patience,
        };
        let socket = time::timeout(patience, Socket::connect(path))
            .await
            .map_err(no_greeting)?
            .map_err(|source| QmpError::Connect {
                path: path.to_owned(),
                source,
            })?;
        let handshake = |detail: String| QmpError::Handshake {
            path: path.to_owned(),
            detail,
        };
        let socket = time::timeout(patience, greet(socket))
            .await
            .map_err(no_greeting)?
            .map_err(handshake)?;

        let (event_sender, events) = mpsc::channel(EVENTS);
        let (plugged_sender, plugged) = watch::channel(BTreeSet::new());
        let ended = Arc::new(OnceLock::new());
        let (ready_sender, ready) = oneshot::channel();
        let (requests, mut request_receiver) = mpsc::channel(QUEUE);
        let mut connection = Connection::new(socket, event_sender, plugged_sender, ready_sender);
        let reason = Arc::clone(&ended);
        tokio::spawn(async move {
            let ended = connection.run(&mut request_receiver).await;
            reason.get_or_init(|| Arc::from(ended));
        });
        let qmp = Self {
            requests,
            plugged,
            ended,
        };
        match time::timeout(patience, ready).await {
            Ok(Ok(())) => Ok((qmp, events)),
            Ok(Err(_)) => Err(handshake(qmp.ended().await.to_string())),
            Err(_) => Err(handshake(format!(
                "the guard's questions were not answered within {patience:?}"
            ))),
        }
    }

    /// Sends a command, with a descriptor if one is given (QEMU gets a duplicate), and waits for its answer.
    /// `arguments` is an object, or null for none.
    ///
    /// A `device_add` of an id that begins with [`crate::PRIMARY_PREFIX`] is known to the guard before it is sent.
    ///
    /// # Errors
    /// QEMU refuses it, the connection ends, or `timeout` passes, waiting for earlier commands included.
    pub async fn command(
        &self,
        name: &str,
        arguments: Value,
        fd: Option<BorrowedFd<'_>>,
        timeout: Duration,
    ) -> Result<Value, QmpError> {
        let arguments: Map<String, Value> = match arguments {
            Value::Null => Map::new(),
            other => serde_json::from_value(other).map_err(|source| QmpError::Arguments {
                command: name.to_owned(),
                source,
            })?,
        };
        let fd = fd
            .map(|fd| fd.try_clone_to_owned())
            .transpose()
            .map_err(|source| QmpError::Descriptor {
                command: name.to_owned(),
                source,
            })?;
        let sent = Arc::new(AtomicBool::new(false));
        let (reply, answer) = oneshot::channel();
        let request = Box::new(Request {
            name: name.to_owned(),
            arguments,
            fd,
            sent: sent.clone(),
            reply,
        });
        // On a timeout the future, and with it the receiving end, is dropped before `sent` is read.
        let outcome = time::timeout(timeout, async {
            self.requests.send(request).await.ok()?;
            answer.await.ok()
        })
        .await;
        match outcome {
            Ok(Some(Ok(value))) => Ok(value),
            Ok(Some(Err(refusal))) => Err(QmpError::Refused {
                command: name.to_owned(),
                class: refusal.class,
                desc: refusal.desc,
            }),
            Ok(None) => Err(QmpError::Gone {
                command: name.to_owned(),
                reason: self.ended().await,
            }),
            Err(_) => Err(QmpError::Timeout {
                command: name.to_owned(),
                after: timeout,
                sent: sent.load(Ordering::SeqCst),
            }),
        }
    }

    /// Sends a command of [`crate::types`] and reads its answer. An enum value that those types do not know makes the
    /// answer unreadable; where QEMU may have added some, use [`Self::command`].
    ///
    /// # Errors
    /// As [`Self::command`], or the answer is not understood.
    pub async fn execute<C: qapi::Command>(&self, command: &C, timeout: Duration) -> Result<C::Ok, QmpError> {
        let arguments = serde_json::to_value(command).map_err(|source| QmpError::Arguments {
            command: C::NAME.to_owned(),
            source,
        })?;
        let answer = self.command(C::NAME, arguments, None, timeout).await?;
        serde_json::from_value(answer).map_err(|source| QmpError::Answer {
            command: C::NAME.to_owned(),
            source,
        })
    }

    /// Ids of hybond's primaries that are plugged, or may be: from before `device_add` is sent until QEMU has reported
    /// them gone. [`watch::Receiver::wait_for`] waits for one to come or go.
    #[must_use]
    pub fn plugged(&self) -> watch::Receiver<BTreeSet<String>> {
        self.plugged.clone()
    }

    /// Waits until the connection has ended; gives the reason.
    pub async fn ended(&self) -> Arc<str> {
        self.requests.closed().await;
        let reason = self.ended.get().cloned();
        reason.unwrap_or_else(|| Arc::from("its task has ended"))
    }

    /// The connection is still there, as far as is known.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        !self.requests.is_closed()
    }
}

/// Waits for the greeting and leaves the negotiation mode. Out-of-band commands are not asked for: of those that QEMU
/// takes out of band none is needed here.
async fn greet(mut socket: Socket) -> Result<Socket, String> {
    if !matches!(next(&mut socket).await?, Message::Greeting) {
        return Err("its first line is no greeting".into());
    }
    let mut line = Outgoing::new(b"{\"execute\": \"qmp_capabilities\", \"id\": 0}\n".to_vec(), None);
    while !socket.send(&mut line).map_err(|e| e.to_string())? {
        socket.writable().await.map_err(|e| e.to_string())?;
    }
    match next(&mut socket).await? {
        Message::Answer { outcome: Ok(_), .. } => Ok(socket),
        Message::Answer {
            outcome: Err(refusal), ..
        } => Err(format!("qmp_capabilities was refused: {}", refusal.desc)),
        _ => Err("qmp_capabilities was not answered".into()),
    }
}

async fn next(socket: &mut Socket) -> Result<Message, String> {
    loop {
        match socket.line() {
            Some(Line::Whole(line)) => return message::decode(&line).map_err(|e| format!("not QMP: {e}")),
            Some(Line::TooLong) => return Err("not QMP: endless line".into()),
            None => socket.fill().await.map_err(|e| e.to_string())?,
        }
    }
}
