//! Why a command failed, and its exit code.

use hybond_domxml::XmlError;
use hybond_wire::control::ErrorKind;
use serde::Serialize;

/// Kinds of failure. Their codes are in `hybondctl --help` and part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Tried, and failed.
    Failed,
    /// Asked for what makes no sense.
    Usage,
    /// No such domain, pool or interface.
    NotFound,
    /// Not possible in the present state.
    Refused,
    /// hybondd does not answer.
    Daemon,
    /// libvirt does not answer.
    Libvirt,
}

impl Kind {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Refused => 4,
            Self::Daemon => 5,
            Self::Libvirt => 6,
        }
    }
}

impl From<ErrorKind> for Kind {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Refused => Self::Refused,
            ErrorKind::Failed => Self::Failed,
            ErrorKind::Invalid => Self::Usage,
        }
    }
}

/// A failure: its kind, and a sentence that names what, why and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For the exit code.
    pub kind: Kind,
    /// For people.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, message }
    }

    /// A fault in a domain's XML, or something that it has not.
    pub fn xml(domain: &str, error: &XmlError) -> Self {
        let kind = match error {
            XmlError::NoInterface { .. } => Kind::NotFound,
            XmlError::Interface { .. }
            | XmlError::NotPcie { .. }
            | XmlError::NoFreeSlot { .. }
            | XmlError::NotEnabled
            | XmlError::TooManyPairs { .. } => Kind::Refused,
            _ => Kind::Failed,
        };
        Self::new(kind, format!("domain {domain}: {}", chain(error)))
    }
}

/// An error with its causes, as one sentence.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
