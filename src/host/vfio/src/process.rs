//! A QEMU process, held by a descriptor of its `/proc/<pid>`: once the process has ended every look fails, also when the
//! number belongs to another process by then.

use crate::device::DevNumber;
use crate::error::GrantError;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, fstatat};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

/// Files of /proc/<pid> that are read here are shorter.
const FILE_MAX: u64 = 16 * 1024;

pub(crate) struct Process {
    pub(crate) pid: u32,
    dir: OwnedFd,
}

impl Process {
    pub(crate) fn open(pid: u32) -> Result<Self, GrantError> {
        match open(
            format!("/proc/{pid}").as_str(),
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        ) {
            Ok(dir) => Ok(Self { pid, dir }),
            Err(Errno::ENOENT) => Err(GrantError::Gone(pid)),
            Err(e) => Err(GrantError::Process {
                pid,
                file: "the folder",
                source: e.into(),
            }),
        }
    }

    fn failed(&self, file: &'static str, e: impl Into<io::Error>) -> GrantError {
        let source = e.into();
        match source.raw_os_error() {
            // ENOENT or ESRCH of a file that every process has: it is being reaped.
            Some(libc::ESRCH | libc::ENOENT) => GrantError::Gone(self.pid),
            _ => GrantError::Process {
                pid: self.pid,
                file,
                source,
            },
        }
    }

    fn read(&self, file: &'static str) -> Result<String, GrantError> {
        let fd = openat(&self.dir, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|e| self.failed(file, e))?;
        let mut text = String::new();
        File::from(fd)
            .take(FILE_MAX)
            .read_to_string(&mut text)
            .map_err(|e| self.failed(file, e))?;
        Ok(text)
    }

    fn status(&self, key: &str) -> Result<Option<String>, GrantError> {
        let text = self.read("status")?;
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
        Ok(line.map(|l| l.trim().to_owned()))
    }

    /// Effective user and group: who the nodes must belong to.
    pub(crate) fn owner(&self) -> Result<(u32, u32), GrantError> {
        let effective = |key| -> Result<u32, GrantError> {
            let ids = self.status(key)?.unwrap_or_default();
            ids.split_whitespace()
                .nth(1)
                .and_then(|id| id.parse().ok())
                .ok_or_else(|| self.failed("status", io::Error::from(io::ErrorKind::InvalidData)))
        };
        Ok((effective("Uid")?, effective("Gid")?))
    }

    /// Bytes that the process has locked, pinned guest memory included (`mm->locked_vm`).
    pub(crate) fn locked_bytes(&self) -> Result<u64, GrantError> {
        let text = self.status("VmLck")?.unwrap_or_default();
        let kib = text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok());
        Ok(kib.unwrap_or(0).saturating_mul(1024))
    }

    /// Soft and hard limit of locked memory, in bytes. prlimit(2) would want CAP_SYS_RESOURCE even for looking.
    pub(crate) fn memlock(&self) -> Result<(u64, u64), GrantError> {
        let text = self.read("limits")?;
        let line = text.lines().find_map(|l| l.strip_prefix("Max locked memory"));
        let mut values = line.unwrap_or_default().split_whitespace().map(|value| match value {
            "unlimited" => Some(libc::RLIM_INFINITY),
            number => number.parse().ok(),
        });
        match (values.next().flatten(), values.next().flatten()) {
            (Some(soft), Some(hard)) => Ok((soft, hard)),
            _ => Err(self.failed("limits", io::Error::from(io::ErrorKind::InvalidData))),
        }
    }

    /// When it started, in ticks since boot: with the pid it names the process for good.
    pub(crate) fn start_time(&self) -> Result<u64, GrantError> {
        let text = self.read("stat")?;
        // Field 22, counted behind the command's closing bracket, for a command may hold spaces and brackets.
        let fields = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        fields
            .split_whitespace()
            .nth(19)
            .and_then(|t| t.parse().ok())
            .ok_or_else(|| self.failed("stat", io::Error::from(io::ErrorKind::InvalidData)))
    }

    /// Path of its cgroup in the unified hierarchy, from that hierarchy's root as we see it.
    pub(crate) fn cgroup(&self) -> Result<Option<String>, GrantError> {
        let text = self.read("cgroup")?;
        Ok(text.lines().find_map(|l| l.strip_prefix("0::")).map(str::to_owned))
    }

    /// Its root folder, through which its own mounts are seen.
    pub(crate) fn root(&self) -> Result<OwnedFd, GrantError> {
        // The magic link itself has to be followed; what lies behind it is opened without following anything.
        openat(
            &self.dir,
            "root",
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| self.failed("root", e))
    }

    /// Whether it has the character device open.
    pub(crate) fn holds(&self, device: DevNumber) -> Result<bool, GrantError> {
        Ok(self.held()?.contains(&device))
    }

    /// Character devices that it has open.
    pub(crate) fn held(&self) -> Result<Vec<DevNumber>, GrantError> {
        let fds = openat(
            &self.dir,
            "fd",
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| self.failed("fd", e))?;
        let mut listing =
            Dir::from_fd(fds.try_clone().map_err(|e| self.failed("fd", e))?).map_err(|e| self.failed("fd", e))?;
        let mut held = Vec::new();
        // The process's own descriptor limit bounds the listing.
        for entry in listing.iter() {
            let name = entry.map_err(|e| self.failed("fd", e))?;
            match fstatat(&fds, name.file_name(), AtFlags::empty()) {
                Ok(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFCHR => {
                    held.push(DevNumber::from_rdev(stat.st_rdev))
                }
                // Closed between the listing and the look, or of another kind.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(held)
    }
}
