//! The daemon's durable memory: what it intends, written before it is done, so that a daemon that comes up after a crash
//! knows what to look at. And the timelines, which are for people and may be lost.
//!
//! ```text
//! <dir>/lock                     held while a daemon has the journal
//!       domains/<uuid>.json      one record per domain
//!       named/<name>.json        records of the host, such as its leases
//!       timelines/<uuid>.jsonl   last runs of a domain, one a line
//! ```
//!
//! A record is added as a line to its file, which is flushed; the last whole line counts. A file that is new or has grown long is
//! written anew beside the old one, flushed, renamed over it, and the directory is flushed. After a crash at any point the old
//! record is there whole, or the new one is.
//!
//! All calls block on the disk. None of them waits for another process.

mod dir;
mod error;
mod record;
mod timeline;

use dir::Dir;
pub use error::JournalError;
use hybond_core::ids::DomainId;
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::path::{Path, PathBuf};

pub use record::{LIMIT, VERSION};
pub use timeline::{RUN_LIMIT, RUNS};

/// Every domain that has a record, with the record or why it cannot be used.
pub type Loaded<T> = Vec<(DomainId, Result<T, JournalError>)>;

/// What is known of a domain or of the host across crashes.
#[derive(Debug)]
pub struct Journal {
    domains: Dir,
    named: Dir,
    timelines: Dir,
    /// Two daemons on one journal would give one VF to two guests.
    _lock: Flock<File>,
}

impl Journal {
    /// Opens the journal in `dir`, which is made where it is not there, and removes what a crash has left half-written.
    ///
    /// # Errors
    /// The directory cannot be made or read, or another process has the journal.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, JournalError> {
        let dir = dir.as_ref();
        dir::make(dir)?;
        let lock = lock(&dir.join("lock"))?;
        let journal = Self {
            domains: Dir::open(dir.join("domains"))?,
            named: Dir::open(dir.join("named"))?,
            timelines: Dir::open(dir.join("timelines"))?,
            _lock: lock,
        };
        timeline::prune(&journal.timelines);
        Ok(journal)
    }

    /// Writes the record of a domain in place of the one before. When this returns, it survives a loss of power.
    ///
    /// # Errors
    /// See [`JournalError`]; the record from before is still there.
    pub fn put<T: Serialize>(&self, id: &DomainId, record: &T) -> Result<(), JournalError> {
        record::put(&self.domains, &id.to_string(), record)
    }

    /// Reads the record of a domain; `None` where there is none.
    ///
    /// # Errors
    /// See [`JournalError`]; a damaged record was moved aside.
    pub fn get<T: DeserializeOwned>(&self, id: &DomainId) -> Result<Option<T>, JournalError> {
        record::get(&self.domains, &id.to_string())
    }

    /// Removes the record of a domain; one that is not there is as good as removed.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn remove(&self, id: &DomainId) -> Result<(), JournalError> {
        record::remove(&self.domains, &id.to_string())
    }

    /// Reads every domain's record, in the order of their ids. One that is damaged is moved aside and does not keep the
    /// others from being read.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn load_all<T: DeserializeOwned>(&self) -> Result<Loaded<T>, JournalError> {
        let mut records = Vec::new();
        for stem in self.domains.stems(record::SUFFIX)? {
            // Something that someone else has put there.
            let Ok(id) = stem.parse::<DomainId>() else {
                tracing::debug!(file = stem, "no record of hybond's, ignoring");
                continue;
            };
            match record::get(&self.domains, &stem) {
                Ok(Some(record)) => records.push((id, Ok(record))),
                // Removed since the directory was read.
                Ok(None) => {}
                Err(error) => records.push((id, Err(error))),
            }
        }
        records.sort_by_key(|(id, _)| *id);
        Ok(records)
    }

    /// As [`Self::put`], for a record of the host.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn put_named<T: Serialize>(&self, name: &str, record: &T) -> Result<(), JournalError> {
        record::put(&self.named, valid(name)?, record)
    }

    /// As [`Self::get`], for a record of the host.
    ///
    /// # Errors
    /// See [`JournalError`]; a damaged record was moved aside.
    pub fn get_named<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, JournalError> {
        record::get(&self.named, valid(name)?)
    }

    /// As [`Self::remove`], for a record of the host.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn remove_named(&self, name: &str) -> Result<(), JournalError> {
        record::remove(&self.named, valid(name)?)
    }

    /// Adds a run to a domain's timeline. Not flushed to the disk.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn append_run<T: Serialize>(&self, id: &DomainId, run: &T) -> Result<(), JournalError> {
        timeline::append(&self.timelines, &id.to_string(), run)
    }

    /// The last `limit` runs of a domain, at most [`RUNS`], oldest first. Lines that are not understood are left out.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn runs<T: DeserializeOwned>(&self, id: &DomainId, limit: usize) -> Result<Vec<T>, JournalError> {
        timeline::read(&self.timelines, &id.to_string(), limit)
    }

    /// Forgets a domain's timeline.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn remove_runs(&self, id: &DomainId) -> Result<(), JournalError> {
        timeline::remove(&self.timelines, &id.to_string())
    }
}

fn lock(path: &Path) -> Result<Flock<File>, JournalError> {
    let file = dir::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| error::io("opened", path, e))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => JournalError::InUse { path: path.to_owned() },
        other => error::io("locked", path, other.into()),
    })
}

fn valid(name: &str) -> Result<&str, JournalError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
        return Err(JournalError::Name {
            name: name.chars().take(64).collect(),
        });
    }
    Ok(name)
}

/// Where a file that could not be read is kept.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".damaged");
    PathBuf::from(name)
}
