//! One open connection with its callbacks.

use crate::callbacks::{self, Registration};
use crate::event::EventSink;
use tokio::sync::watch;
use virt::connect::Connect;

/// Seconds between keepalive messages, and how many may stay unanswered: a libvirtd that hangs is given up after about
/// twenty seconds, and with it every call that waits for it.
const KEEPALIVE: (i32, u32) = (5, 3);

/// Why the connection has ended, once it has.
#[derive(Debug, Clone)]
pub(crate) struct Closed(watch::Sender<Option<&'static str>>);

impl Closed {
    fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    pub(crate) fn set(&self, reason: &'static str) {
        self.0.send_replace(Some(reason));
    }

    /// Why the connection has ended; `None` while it stands.
    pub(crate) fn now(&self) -> Option<&'static str> {
        *self.0.borrow()
    }

    /// Waits for the end of the connection.
    pub(crate) async fn wait(&self) -> &'static str {
        let mut receiver = self.0.subscribe();
        loop {
            if let Some(reason) = *receiver.borrow_and_update() {
                return reason;
            }
            if receiver.changed().await.is_err() {
                return "closed by hybond";
            }
        }
    }
}

/// A connection that delivers events.
#[derive(Debug)]
pub(crate) struct Session {
    connect: Connect,
    registrations: Vec<Registration>,
    /// Set once libvirt has closed.
    pub(crate) closed: Closed,
}

impl Session {
    /// Opens, registers, and starts the keepalive. Blocks.
    pub(crate) fn open(uri: &str, sink: &EventSink) -> Result<Self, String> {
        crate::event_loop::ensure_running()?;
        let connect = Connect::open(Some(uri)).map_err(|e| e.message().to_owned())?;
        let closed = Closed::new();
        // In place before the first fallible step after it, so that what is registered is taken back by Drop.
        let mut session = Self {
            connect,
            registrations: Vec::new(),
            closed: closed.clone(),
        };
        // The test driver has neither; then only calls that fail tell that the connection is gone.
        if let Err(error) = callbacks::register_close(&session.connect, closed) {
            tracing::debug!(%error, "this driver has no close callback");
        }
        if let Err(error) = session.connect.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1) {
            tracing::debug!(%error, "this driver has no keepalive");
        }
        session.registrations =
            callbacks::register(&session.connect, sink).map_err(|e| format!("no domain events: {}", e.message()))?;
        Ok(session)
    }

    pub(crate) fn connect(&self) -> &Connect {
        &self.connect
    }
}

impl Drop for Session {
    /// Each callback holds a reference to the connection: without this its socket would stay open for ever.
    fn drop(&mut self) {
        for registration in self.registrations.drain(..) {
            callbacks::deregister(&self.connect, registration);
        }
        callbacks::deregister_close(&self.connect);
    }
}
