//! What can go wrong with the journal.

use std::io;
use std::path::{Path, PathBuf};

/// Why a record was not written or not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another daemon runs.
    #[error("{} is locked: another hybondd runs with this state directory (systemctl status hybondd)", path.display())]
    InUse {
        /// The lock.
        path: PathBuf,
    },
    /// No space left, or no more than the quota.
    #[error("{} cannot be written: the file system is full; free space there (df {})", path.display(), path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file system takes no writes.
    #[error("{} cannot be written: the file system is read-only; look for disk errors (dmesg) and remount it", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something else that the kernel refused.
    #[error("{} cannot be {action}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Not a record any more; it was moved aside.
    #[error("{} is damaged and was set aside as {}", path.display(), aside.display())]
    Damaged {
        /// Where it was.
        path: PathBuf,
        /// Where it is.
        aside: PathBuf,
        /// What was found.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Written by another release. It is left where it is.
    #[error("{} has version {found}, this release of hybond reads {}; install the release that wrote it", path.display(), crate::VERSION)]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in it.
        found: u64,
    },
    /// More than a record may have.
    #[error("a record of {bytes} bytes for {} is more than {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// A value that JSON cannot hold.
    #[error("the record for {} has no form in JSON", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Not a name of a record.
    #[error("{name:?} is no record name: lower-case letters, digits and '-', at most 64")]
    Name {
        /// The name.
        name: String,
    },
}

/// Sorts an error of the kernel's by what has to be done about it.
pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> JournalError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => JournalError::Full { path, source },
        io::ErrorKind::ReadOnlyFilesystem => JournalError::ReadOnly { path, source },
        _ => JournalError::Io { action, path, source },
    }
}
