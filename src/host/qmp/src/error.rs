//! What can go wrong between us and a monitor.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A monitor could not be reached, or a command failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// Nobody listens on the socket.
    #[error("cannot connect to the QMP socket {}: is the domain running?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// QEMU greets one client at a time; a second one waits until the first has gone.
    #[error("no greeting from the QMP socket {} within {after:?}: another client holds it, or QEMU is busy", path.display())]
    NoGreeting {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        after: Duration,
    },
    /// What listens there does not speak QMP, or refused the first commands.
    #[error("the QMP socket {} does not behave like a monitor: {detail}", path.display())]
    Handshake {
        /// The socket.
        path: PathBuf,
        /// What it did.
        detail: String,
    },
    /// No answer in time. What was sent may still be carried out; its late answer is a [`Resync`](crate::Event::Resync).
    #[error("QEMU did not answer {command} within {after:?}; {}", if *sent { "it may still carry it out" } else { "it was not sent" })]
    Timeout {
        /// The command.
        command: String,
        /// How long was waited.
        after: Duration,
        /// `false`: QEMU has not seen it and never will.
        sent: bool,
    },
    /// QEMU refused the command.
    #[error("QEMU refused {command}: {desc} ({class})")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's class, mostly `GenericError`; `DeviceNotFound` and `CommandNotFound` are worth telling apart.
        class: String,
        /// QEMU's sentence.
        desc: String,
    },
    /// The answer is not what the command's documentation says.
    #[error("QEMU's answer to {command} was not understood")]
    Answer {
        /// The command.
        command: String,
        /// What did not fit.
        source: serde_json::Error,
    },
    /// The command could not be written down.
    #[error("the arguments of {command} cannot be sent")]
    Arguments {
        /// The command.
        command: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The descriptor could not be duplicated for sending.
    #[error("the descriptor for {command} cannot be duplicated")]
    Descriptor {
        /// The command.
        command: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The connection has ended; whether the command was carried out has to be looked up on the next one.
    #[error("the monitor connection ended before {command} was answered: {reason}")]
    Gone {
        /// The command.
        command: String,
        /// Why it ended.
        reason: Arc<str>,
    },
}

impl QmpError {
    /// QEMU knows no device or object of that id: for a removal, the aim is reached.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        // object-del and netdev_del say GenericError; their sentences have been the same since 2.x.
        matches!(self, Self::Refused { class, desc, .. }
            if class == "DeviceNotFound" || desc.ends_with("not found"))
    }
}
