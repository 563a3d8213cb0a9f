//! One record, one file, with its version.
//!
//! Each line of the file is the whole record, and the last whole line counts. To add one takes the disk one flush; to replace the
//! file takes two (the file, the directory) and the kernel three times the work, in locks that all domains' writers share.

use crate::aside;
use crate::dir::{Dir, Durable};
use crate::error::{JournalError, io};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Version of the records. It is raised when an older daemon could misread a newer record.
pub const VERSION: u64 = 1;
/// Longest record, in bytes.
pub const LIMIT: usize = 1024 * 1024;

/// A file that would come to more is replaced: it is read at each start. Some thirty records of a domain with one pair.
const FILE: u64 = 16 * 1024;

pub(crate) const SUFFIX: &str = ".json";

#[derive(Serialize)]
struct Envelope<'a, T> {
    version: u64,
    record: &'a T,
}

/// The version is read before the record: a record of another version need not be understood.
#[derive(Deserialize)]
struct Opened {
    version: u64,
    record: serde_json::Value,
}

pub(crate) fn put<T: Serialize>(dir: &Dir, stem: &str, record: &T) -> Result<(), JournalError> {
    let path = dir.file(stem, SUFFIX);
    let envelope = Envelope {
        version: VERSION,
        record,
    };
    let mut content = match serde_json::to_vec(&envelope) {
        Ok(content) => content,
        Err(source) => return Err(JournalError::Encode { path, source }),
    };
    content.push(b'\n');
    if content.len() > LIMIT {
        return Err(JournalError::TooLarge {
            path,
            bytes: content.len(),
            limit: LIMIT,
        });
    }
    if dir.append(&path, &content, FILE)? {
        return Ok(());
    }
    dir.replace(&path, &content, Durable::Yes)
}

/// The last whole line: what follows it is a write that a crash has cut short. All of it where no line is whole.
fn last_line(content: &[u8]) -> &[u8] {
    let mut lines = content.rsplit(|byte| *byte == b'\n');
    match (lines.next(), lines.next()) {
        (_, Some(line)) => line,
        (rest, None) => rest.unwrap_or_default(),
    }
}

pub(crate) fn get<T: DeserializeOwned>(dir: &Dir, stem: &str) -> Result<Option<T>, JournalError> {
    let path = dir.file(stem, SUFFIX);
    let Some(content) = dir.read(&path, LIMIT)? else {
        return Ok(None);
    };
    if content.len() > LIMIT {
        return Err(set_aside(dir, &path, format!("more than {LIMIT} bytes").into()));
    }
    // Somebody may have set a record out for people, over several lines.
    let last = serde_json::from_slice(last_line(&content));
    let opened: Opened = match last.or_else(|_| serde_json::from_slice(&content)) {
        Ok(opened) => opened,
        Err(error) => return Err(set_aside(dir, &path, error.into())),
    };
    if opened.version != VERSION {
        return Err(JournalError::Version {
            path,
            found: opened.version,
        });
    }
    match serde_json::from_value(opened.record) {
        Ok(record) => Ok(Some(record)),
        Err(error) => Err(set_aside(dir, &path, error.into())),
    }
}

pub(crate) fn remove(dir: &Dir, stem: &str) -> Result<(), JournalError> {
    dir.remove(&dir.file(stem, SUFFIX)).map(drop)
}

/// Moves a file out of the way, for someone to look at: the next record of this name must find its place free, and the
/// next start must not stumble again.
fn set_aside(dir: &Dir, path: &Path, source: Box<dyn std::error::Error + Send + Sync>) -> JournalError {
    let aside = aside(path);
    if let Err(error) = std::fs::rename(path, &aside) {
        return io("set aside, and it is damaged,", path, error);
    }
    if let Err(error) = dir.flush() {
        return error;
    }
    JournalError::Damaged {
        path: path.to_owned(),
        aside,
        source,
    }
}
