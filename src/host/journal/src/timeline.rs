//! The last runs of each domain: a line each, added at the end, cut from time to time.

use crate::dir::{self, Dir, Durable};
use crate::error::{JournalError, io};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write;
use std::time::SystemTime;

/// How many runs of a domain are kept at least.
pub const RUNS: usize = 50;
/// Longest run, in bytes.
pub const RUN_LIMIT: usize = 64 * 1024;

/// A file is cut back to [`RUNS`] lines when it has reached this many, so that most runs cost one small write.
const CUT_AT: usize = 2 * RUNS;
/// More than a file can come to.
const FILE_LIMIT: usize = (CUT_AT + 1) * (RUN_LIMIT + 1);
/// How many domains have a timeline: those that have moved on leave theirs behind.
const FILES: usize = 2000;

const SUFFIX: &str = ".jsonl";

pub(crate) fn append<T: Serialize>(dir: &Dir, stem: &str, run: &T) -> Result<(), JournalError> {
    let path = dir.file(stem, SUFFIX);
    let mut line = match serde_json::to_vec(run) {
        Ok(line) => line,
        Err(source) => return Err(JournalError::Encode { path, source }),
    };
    if line.len() > RUN_LIMIT {
        return Err(JournalError::TooLarge {
            path,
            bytes: line.len(),
            limit: RUN_LIMIT,
        });
    }
    line.push(b'\n');
    let content = dir.read(&path, FILE_LIMIT)?.unwrap_or_default();
    if lines(&content).count() + 1 >= CUT_AT || content.len() > FILE_LIMIT {
        let mut kept = last(&content, RUNS - 1).join(&b'\n');
        kept.push(b'\n');
        kept.extend_from_slice(&line);
        return dir.replace(&path, &kept, Durable::No);
    }
    // A line that a crash has cut short stands alone, and is left out when read.
    if content.last().is_some_and(|b| *b != b'\n') {
        line.insert(0, b'\n');
    }
    let file = dir::options().append(true).create(true).open(&path);
    let mut file = file.map_err(|e| io("opened", &path, e))?;
    file.write_all(&line).map_err(|e| io("written", &path, e))
}

pub(crate) fn read<T: DeserializeOwned>(dir: &Dir, stem: &str, limit: usize) -> Result<Vec<T>, JournalError> {
    let path = dir.file(stem, SUFFIX);
    let content = dir.read(&path, FILE_LIMIT)?.unwrap_or_default();
    let mut runs: Vec<T> = Vec::new();
    for line in lines(&content) {
        match serde_json::from_slice(line) {
            Ok(run) => runs.push(run),
            Err(error) => tracing::debug!(file = %path.display(), %error, "run not understood, leaving it out"),
        }
    }
    let surplus = runs.len().saturating_sub(limit.min(RUNS));
    Ok(runs.split_off(surplus))
}

pub(crate) fn remove(dir: &Dir, stem: &str) -> Result<(), JournalError> {
    dir.remove(&dir.file(stem, SUFFIX)).map(drop)
}

/// Removes the timelines that were not added to for longest, where there are too many.
pub(crate) fn prune(dir: &Dir) {
    keep_newest(dir, FILES);
}

fn keep_newest(dir: &Dir, count: usize) {
    let stems = match dir.stems(SUFFIX) {
        Ok(stems) => stems,
        Err(error) => return tracing::debug!(%error, "timelines not counted, ignoring"),
    };
    if stems.len() <= count {
        return;
    }
    let mut files: Vec<_> = stems.iter().map(|stem| dir.file(stem, SUFFIX)).collect();
    let age = |path: &std::path::PathBuf| {
        path.metadata()
            .and_then(|m| m.modified())
            .unwrap_or(SystemTime::UNIX_EPOCH)
    };
    files.sort_by_cached_key(age);
    let surplus = files.len() - count;
    for file in files.iter().take(surplus) {
        if let Err(error) = dir.remove(file) {
            tracing::debug!(%error, "old timeline not removed, ignoring");
        }
    }
}

fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content.split(|b| *b == b'\n').filter(|line| !line.is_empty())
}

fn last(content: &[u8], count: usize) -> Vec<&[u8]> {
    let mut all: Vec<&[u8]> = lines(content).collect();
    let surplus = all.len().saturating_sub(count);
    all.split_off(surplus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timelines_of_domains_long_gone_make_room() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = Dir::open(temp.path().join("timelines")).expect("opened");
        for (age, stem) in [(300, "oldest"), (200, "older"), (100, "newer")] {
            append(&dir, stem, &1).expect("written");
            let then = SystemTime::now() - std::time::Duration::from_secs(age);
            let file = std::fs::File::options()
                .append(true)
                .open(dir.file(stem, SUFFIX))
                .expect("opened");
            file.set_modified(then).expect("set");
        }
        append(&dir, "oldest", &2).expect("written");
        keep_newest(&dir, 2);
        let mut left = dir.stems(SUFFIX).expect("listed");
        left.sort();
        assert_eq!(left, ["newer", "oldest"]);
    }
}
