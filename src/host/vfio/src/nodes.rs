//! Device nodes as QEMU sees them: in the private /dev that libvirt made for it, or the host's own (`namespaces = []`).
//!
//! libvirt mounts a private /dev with the domain's SELinux label as its context (`qemuDomainSetupDev()`), so nodes made in
//! it carry that label.
//!
//! Everything is opened from QEMU's root step by step and without following links, so that a QEMU that has taken over its
//! /dev cannot lead us elsewhere.

use crate::device::DevNumber;
use crate::error::GrantError;
use crate::process::Process;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstat, fstatat, mkdirat, mknodat, stat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, unlinkat};
use std::os::fd::OwnedFd;

/// `/dev/vfio/vfio`, a misc device with a minor number of its own (`VFIO_MINOR`).
pub(crate) const CONTAINER: DevNumber = DevNumber::new(10, 196);
pub(crate) const CONTAINER_NAME: &str = "vfio";

/// QEMU's /dev/vfio.
pub(crate) struct Nodes {
    pid: u32,
    dev: OwnedFd,
    /// Not the host's: what is in it is ours to make and to remove.
    private: bool,
}

impl Nodes {
    pub(crate) fn of(process: &Process) -> Result<Self, GrantError> {
        let pid = process.pid;
        let failed = |e: Errno| GrantError::Node {
            pid,
            path: String::new(),
            doing: "open",
            source: e.into(),
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dev = openat(process.root()?, "dev", flags, Mode::empty()).map_err(failed)?;
        // Mount namespaces are no measure: hybondd may have one of its own, with the same /dev.
        let (theirs, ours) = (fstat(&dev).map_err(failed)?, stat("/dev").map_err(failed)?);
        let private = (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino);
        Ok(Self { pid, dev, private })
    }

    /// The host's own, for a QEMU that is gone.
    pub(crate) fn host() -> Result<Self, GrantError> {
        let pid = std::process::id();
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dev = nix::fcntl::open("/dev", flags, Mode::empty()).map_err(|e| GrantError::Node {
            pid,
            path: String::new(),
            doing: "open",
            source: e.into(),
        })?;
        let private = false;
        Ok(Self { pid, dev, private })
    }

    fn failed(&self, name: &str, doing: &'static str) -> impl Fn(Errno) -> GrantError {
        let (pid, path) = (self.pid, format!("vfio/{name}"));
        move |e| GrantError::Node {
            pid,
            path: path.clone(),
            doing,
            source: e.into(),
        }
    }

    fn folder(&self) -> Result<Option<OwnedFd>, GrantError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&self.dev, "vfio", flags, Mode::empty()) {
            Ok(folder) => Ok(Some(folder)),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(self.failed("", "open")(e)),
        }
    }

    fn made_folder(&self) -> Result<OwnedFd, GrantError> {
        let mode = Mode::from_bits_truncate(0o755);
        let made = match mkdirat(&self.dev, "vfio", mode) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(e) => return Err(self.failed("", "make the folder of")(e)),
        };
        let folder = self.folder()?.ok_or_else(|| self.failed("", "open")(Errno::ENOENT))?;
        if made {
            // The umask of a daemon shuts others out, and QEMU is another.
            fchmod(&folder, mode).map_err(self.failed("", "set the mode of"))?;
        }
        Ok(folder)
    }

    /// The node, checked to be the device that it should be.
    fn look(&self, folder: &OwnedFd, name: &str, device: DevNumber) -> Result<Option<FileStat>, GrantError> {
        match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) if found.st_mode & libc::S_IFMT == libc::S_IFCHR && found.st_rdev == device.rdev() => {
                Ok(Some(found))
            }
            Ok(found) => Err(GrantError::ForeignNode {
                pid: self.pid,
                path: format!("vfio/{name}"),
                found: DevNumber::from_rdev(found.st_rdev).to_string(),
                expected: device.to_string(),
            }),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(self.failed(name, "look at")(e)),
        }
    }

    /// Makes the container's node, open to everybody as on the host: without a group it gives nothing.
    pub(crate) fn grant_container(&self) -> Result<(), GrantError> {
        let folder = self.made_folder()?;
        match self.look(&folder, CONTAINER_NAME, CONTAINER)? {
            Some(_) => Ok(()),
            None => self.make(&folder, CONTAINER_NAME, CONTAINER, (0, 0), 0o666),
        }
    }

    /// Whom the host's node of a group belongs to; `None` where QEMU does not see the host's nodes.
    pub(crate) fn owner_before(&self, group: u32, device: DevNumber) -> Result<Option<(u32, u32)>, GrantError> {
        if self.private {
            return Ok(None);
        }
        let Some(folder) = self.folder()? else { return Ok(None) };
        let found = self.look(&folder, &group.to_string(), device)?;
        Ok(found.map(|f| (f.st_uid, f.st_gid)))
    }

    /// Whether QEMU's user can open the group's node.
    pub(crate) fn is_granted(&self, group: u32, device: DevNumber) -> Result<bool, GrantError> {
        if !self.private {
            return Ok(self.owner_before(group, device)?.is_some_and(|(uid, _)| uid != 0));
        }
        let Some(folder) = self.folder()? else { return Ok(false) };
        Ok(self.look(&folder, &group.to_string(), device)?.is_some())
    }

    /// Makes the group's node, or hands over the host's: to QEMU's user and nobody else.
    pub(crate) fn grant_group(&self, group: u32, device: DevNumber, owner: (u32, u32)) -> Result<(), GrantError> {
        let folder = self.made_folder()?;
        let name = group.to_string();
        let found = match self.look(&folder, &name, device) {
            // Group numbers are used again: this one is left from an earlier device.
            Err(GrantError::ForeignNode { .. }) if self.private => {
                self.unlink(&folder, &name)?;
                None
            }
            other => other?,
        };
        match found {
            None => self.make(&folder, &name, device, owner, 0o600),
            Some(found) if (found.st_uid, found.st_gid) != owner => self.give(&folder, &name, owner),
            Some(_) => Ok(()),
        }
    }

    /// Takes the group's node away: removed from a private /dev, given back on the host's. A host's node without a record
    /// goes to root where a user has it, as libvirt does with what it has no record of.
    pub(crate) fn revoke_group(
        &self,
        group: u32,
        device: DevNumber,
        before: Option<(u32, u32)>,
    ) -> Result<(), GrantError> {
        let Some(folder) = self.folder()? else { return Ok(()) };
        let name = group.to_string();
        if self.private {
            return self.unlink(&folder, &name);
        }
        match (self.look(&folder, &name, device)?, before) {
            (Some(found), Some(before)) if (found.st_uid, found.st_gid) != before => self.give(&folder, &name, before),
            (Some(found), None) if found.st_uid != 0 => self.give(&folder, &name, (0, 0)),
            // The node went with the binding to VFIO, or it is as it was.
            _ => Ok(()),
        }
    }

    /// Other groups with a node here.
    pub(crate) fn other_groups(&self, group: u32) -> Result<bool, GrantError> {
        let Some(folder) = self.folder()? else { return Ok(false) };
        let failed = self.failed("", "list");
        let mut listing = nix::dir::Dir::from_fd(folder).map_err(&failed)?;
        for entry in listing.iter() {
            let entry = entry.map_err(&failed)?;
            let number = entry.file_name().to_str().ok().and_then(|n| n.parse::<u32>().ok());
            if number.is_some_and(|n| n != group) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes the container's node from a private /dev, and the folder if that leaves it empty.
    pub(crate) fn revoke_container(&self) -> Result<(), GrantError> {
        let Some(folder) = self.folder()? else { return Ok(()) };
        if !self.private {
            return Ok(());
        }
        self.unlink(&folder, CONTAINER_NAME)?;
        match unlinkat(&self.dev, "vfio", UnlinkatFlags::RemoveDir) {
            // EBUSY: someone mounted there. An empty folder that stays harms no one.
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EBUSY) => Ok(()),
            Err(e) => Err(self.failed("", "remove the folder of")(e)),
        }
    }

    pub(crate) fn private(&self) -> bool {
        self.private
    }

    fn make(
        &self,
        folder: &OwnedFd,
        name: &str,
        device: DevNumber,
        (uid, gid): (u32, u32),
        mode: libc::mode_t,
    ) -> Result<(), GrantError> {
        if !self.private {
            // devtmpfs makes the host's nodes with the device: a missing one means that VFIO does not have the group.
            return Err(self.failed(name, "find")(Errno::ENOENT));
        }
        mknodat(folder, name, SFlag::S_IFCHR, Mode::empty(), device.rdev()).map_err(self.failed(name, "make"))?;
        self.give(folder, name, (uid, gid))?;
        // Last, and not by mknod: its mode is cut by the umask, and until here the node is nobody's.
        fchmodat(
            folder,
            name,
            Mode::from_bits_truncate(mode),
            FchmodatFlags::FollowSymlink,
        )
        .map_err(self.failed(name, "set the mode of"))
    }

    fn give(&self, folder: &OwnedFd, name: &str, (uid, gid): (u32, u32)) -> Result<(), GrantError> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        fchownat(folder, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(self.failed(name, "give"))
    }

    fn unlink(&self, folder: &OwnedFd, name: &str) -> Result<(), GrantError> {
        match unlinkat(folder, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(e) => Err(self.failed(name, "remove")(e)),
        }
    }
}

#[cfg(test)]
#[path = "nodes_tests.rs"]
mod tests;
