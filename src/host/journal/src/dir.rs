//! One directory of files that are replaced whole, or get another line.

use crate::error::{JournalError, io};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Begin of the names of files that are being written.
const TEMPORARY: &str = ".new-";

/// Whether a replaced file must survive a loss of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durable {
    Yes,
    No,
}

/// A directory of ours.
#[derive(Debug)]
pub(crate) struct Dir {
    path: PathBuf,
    /// Kept open to be flushed.
    handle: File,
    /// Makes the temporary names differ; the lock keeps other processes out.
    counter: AtomicU64,
}

/// Makes a directory that root alone may look into.
pub(crate) fn make(path: &Path) -> Result<(), JournalError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|e| io("made", path, e))?;
    // One that was there already: records name guests and hosts.
    let set = std::fs::set_permissions(path, Permissions::from_mode(0o700));
    set.map_err(|e| io("made private", path, e))
}

/// How every file here is made.
pub(crate) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

impl Dir {
    /// Makes or opens it, and removes the temporary files of a writer that has died.
    pub(crate) fn open(path: PathBuf) -> Result<Self, JournalError> {
        make(&path)?;
        let handle = File::open(&path).map_err(|e| io("opened", &path, e))?;
        let dir = Self {
            path,
            handle,
            counter: AtomicU64::new(0),
        };
        for name in dir.names()? {
            if name.starts_with(TEMPORARY) {
                let file = dir.path.join(&name);
                std::fs::remove_file(&file).map_err(|e| io("removed", &file, e))?;
            }
        }
        Ok(dir)
    }

    pub(crate) fn file(&self, stem: &str, suffix: &str) -> PathBuf {
        self.path.join(format!("{stem}{suffix}"))
    }

    /// Names of the files, without those whose names are no text: none of ours.
    pub(crate) fn names(&self) -> Result<Vec<String>, JournalError> {
        let failed = |e| io("listed", &self.path, e);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Names of the files that end in `suffix`, without it.
    pub(crate) fn stems(&self, suffix: &str) -> Result<Vec<String>, JournalError> {
        let names = self.names()?.into_iter();
        Ok(names
            .filter_map(|name| name.strip_suffix(suffix).map(str::to_owned))
            .filter(|stem| !stem.starts_with('.'))
            .collect())
    }

    /// Puts a whole file in place of the one before, or leaves that one as it is.
    pub(crate) fn replace(&self, target: &Path, content: &[u8], durable: Durable) -> Result<(), JournalError> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let temporary = self.path.join(format!("{TEMPORARY}{number}"));
        let written = write(&temporary, content, durable).and_then(|()| {
            let renamed = std::fs::rename(&temporary, target);
            renamed.map_err(|e| io("replaced", target, e))
        });
        if let Err(error) = written {
            // On a full disk its space is wanted. Where even this fails the next start removes it.
            match std::fs::remove_file(&temporary) {
                Err(left) if left.kind() != ErrorKind::NotFound => {
                    tracing::debug!(file = %temporary.display(), error = %left, "temporary file left behind");
                }
                _ => {}
            }
            return Err(error);
        }
        match durable {
            Durable::Yes => self.flush(),
            Durable::No => Ok(()),
        }
    }

    /// Adds a line, for good, to a file of whole lines. `false`: the file is to be replaced instead, as it is not there, a crash
    /// has cut its last line short, or it would come to more than `limit` bytes.
    ///
    /// An error leaves the lines from before as the only whole ones.
    pub(crate) fn append(&self, target: &Path, line: &[u8], limit: u64) -> Result<bool, JournalError> {
        let failed = |e| io("written", target, e);
        let mut file = match options().read(true).append(true).open(target) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(io("opened", target, error)),
        };
        let before = file.metadata().map_err(failed)?.len();
        let Some(end) = before.checked_sub(1).filter(|_| before + line.len() as u64 <= limit) else {
            return Ok(false);
        };
        let mut last = [0];
        file.read_exact_at(&mut last, end).map_err(failed)?;
        if last != [b'\n'] {
            return Ok(false);
        }
        // The new length is flushed with the data (fdatasync(2)); the directory's entry is there already.
        if let Err(error) = file.write_all(line).and_then(|()| file.sync_data()) {
            if let Err(left) = file.set_len(before) {
                tracing::debug!(file = %target.display(), error = %left, "half a line left behind");
            }
            return Err(failed(error));
        }
        Ok(true)
    }

    /// Removes a file for good. Returns whether it was there.
    pub(crate) fn remove(&self, target: &Path) -> Result<bool, JournalError> {
        match std::fs::remove_file(target) {
            Ok(()) => self.flush().map(|()| true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io("removed", target, error)),
        }
    }

    /// Makes what was renamed and removed durable: a rename is an entry of the directory.
    pub(crate) fn flush(&self) -> Result<(), JournalError> {
        self.handle.sync_all().map_err(|e| io("flushed", &self.path, e))
    }

    /// Reads a file up to one byte more than `limit`; `None` where it is not there.
    pub(crate) fn read(&self, path: &Path, limit: usize) -> Result<Option<Vec<u8>>, JournalError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("opened", path, error)),
        };
        let mut content = Vec::new();
        let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        file.take(bound)
            .read_to_end(&mut content)
            .map_err(|e| io("read", path, e))?;
        Ok(Some(content))
    }
}

fn write(path: &Path, content: &[u8], durable: Durable) -> Result<(), JournalError> {
    let failed = |e| io("written", path, e);
    let mut file = options().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(content).map_err(failed)?;
    match durable {
        // Before the rename: ext4 and xfs may order the new name before the data otherwise.
        Durable::Yes => file.sync_all().map_err(failed),
        Durable::No => Ok(()),
    }
}
