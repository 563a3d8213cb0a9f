//! Where the lab keeps what it builds, and how it has it built.

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// `$HYBOND_CACHE`, by default `/var/cache/hybond-lab`.
#[must_use]
pub fn root() -> PathBuf {
    std::env::var_os("HYBOND_CACHE").map_or_else(|| "/var/cache/hybond-lab".into(), PathBuf::from)
}

/// Says something to whoever waits. Standard error, because standard output belongs to the program's result.
pub fn progress(text: &str) {
    eprintln!("lab: {text}");
}

/// Runs one of the scripts of `tests/lab/images`, which builds an artifact if it is not there, and answers its folder.
///
/// # Errors
/// The script says on standard error what it lacks.
pub fn artifact(name: &str) -> Result<PathBuf> {
    let script = scripts().join(format!("{name}.sh"));
    let output = Command::new(&script)
        .env("HYBOND_CACHE", root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", script.display()))?;
    if !output.status.success() {
        bail!("{} failed ({}); it says why above", script.display(), output.status);
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("images")
}

/// Hash of texts or files, as part of a folder's name: an artifact made from the same things has the same name.
#[must_use]
pub fn key<T: AsRef<[u8]>>(parts: &[T]) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    for part in parts {
        hasher.write(part.as_ref());
        hasher.write_u8(0);
    }
    format!("{:012x}", hasher.finish() & 0xffff_ffff_ffff)
}

/// A lock on a file or folder, held until it is dropped or its process ends.
pub type Lock = Flock<File>;

/// Takes an exclusive lock, and says so when it has to wait for it.
///
/// # Errors
/// Whoever holds it has not let go within `patience`.
pub fn lock(path: &Path, what: &str, patience: Duration) -> Result<Lock> {
    let open = || {
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .with_context(|| format!("cannot open the lock {}", path.display()))
    };
    let start = Instant::now();
    let mut file = open()?;
    let mut told = false;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, nix::errno::Errno::EWOULDBLOCK)) => file = back,
            Err((_, errno)) => return Err(errno).with_context(|| format!("cannot lock {}", path.display())),
        }
        if !told {
            progress(&format!("waiting: {what} is in use by another run"));
            told = true;
        }
        if start.elapsed() > patience {
            bail!(
                "{what} has been in use for {} s; see who holds {}",
                patience.as_secs(),
                path.display()
            );
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Takes a shared lock on a folder: as long as it is held, [`prune`] leaves the folder alone.
///
/// # Errors
/// The folder does not exist.
pub fn hold(path: &Path) -> Result<Lock> {
    let folder = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Flock::lock(folder, FlockArg::LockShared)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("cannot hold {}", path.display()))
}

/// Removes the folders `<name>-<key>` of other keys than `keep`, unless someone holds them.
///
/// # Errors
/// A folder cannot be removed.
pub fn prune(name: &str, keep: Option<&Path>) -> Result<()> {
    let prefix = format!("{name}-");
    for entry in fs::read_dir(root()).context("cannot list the cache")? {
        let path = entry?.path();
        let ours = path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with(&prefix));
        if !ours || keep == Some(path.as_path()) || !path.is_dir() {
            continue;
        }
        let folder = File::open(&path)?;
        if Flock::lock(folder, FlockArg::LockExclusiveNonblock).is_ok() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}
