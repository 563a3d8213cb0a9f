//! Entries in the device map of a domain's cgroup.
//!
//! libvirt attaches one program to `…/machine-qemu….scope/libvirt` and keeps its rules in a hash map beside it: key
//! `major << 32 | minor` (all ones for "any"), value `access << 16 | type` (`virCgroupV2DevicesGetKey()` and
//! `…GetPerms()`). When libvirt outgrows the map it copies every entry into a larger one, ours too, and after a restart
//! it counts what it finds; so an entry of ours disturbs nothing.

use crate::bpf::{self, Map};
use crate::device::DevNumber;
use crate::error::GrantError;
use crate::process::Process;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::fs;
use std::io::{self, Read};

/// `BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE`, and `BPF_DEVCG_DEV_CHAR`.
const CHAR_READ_WRITE: u32 = 6 << 16 | 2;
const MOUNTS_MAX: u64 = 4 * 1024 * 1024;

pub(crate) fn key(device: DevNumber) -> u64 {
    u64::from(device.major) << 32 | u64::from(device.minor)
}

/// Where the unified hierarchy is mounted; `None` on a host that has only the old one.
pub(crate) fn mount_point() -> io::Result<Option<String>> {
    let mut text = String::new();
    fs::File::open("/proc/self/mountinfo")?
        .take(MOUNTS_MAX)
        .read_to_string(&mut text)?;
    // "36 35 98:0 / /sys/fs/cgroup rw,… shared:1 - cgroup2 cgroup2 rw": root is the 4th field, the mount point the 5th.
    Ok(text.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (root == "/" && kind.starts_with("cgroup2 ")).then(|| point.to_owned())
    }))
}

/// The maps that decide about devices for one process.
pub(crate) struct DeviceMaps {
    pid: u32,
    cgroup: String,
    maps: Vec<Map>,
}

impl DeviceMaps {
    /// Finds them. None where no device program is attached: then nothing needs to be granted, nor taken back.
    pub(crate) fn of(process: &Process) -> Result<Self, GrantError> {
        let cgroup = process.cgroup()?.unwrap_or_default();
        let failed = |doing, source| GrantError::Bpf {
            doing,
            cgroup: cgroup.clone(),
            source,
        };
        let mut found = Self {
            pid: process.pid,
            cgroup: cgroup.clone(),
            maps: Vec::new(),
        };
        let Some(point) = mount_point().map_err(|e| failed("find the mount point", e))? else {
            return Ok(found);
        };
        let fd = open(
            format!("{point}{cgroup}").as_str(),
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| failed("open the folder", e.into()))?;
        let programs = bpf::device_programs(&fd).map_err(|e| failed("list the device programs", e))?;
        for program in programs {
            let maps = match bpf::maps_of(program) {
                Ok(maps) => maps,
                // libvirt replaced it by one with a larger map; that one is in the list as well.
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => continue,
                Err(e) => return Err(failed("look at a device program", e)),
            };
            // systemd's programs (DevicePolicy=) carry their rules in their code. They can only be judged by trying.
            for id in maps {
                match Map::open(id).map_err(|e| failed("open the map of a device program", e))? {
                    Ok(map) => found.add(map)?,
                    Err(info) => tracing::debug!(cgroup, ?info, "a map of another kind, left alone"),
                }
            }
        }
        Ok(found)
    }

    fn add(&mut self, map: Map) -> Result<(), GrantError> {
        let entries = map.entries().map_err(|e| self.failed("read the device map", e))?;
        // A hash of the same sizes could still mean something else: types are 1 (block), 2 (char), 3; accesses 1 to 7.
        let foreign = entries
            .iter()
            .find(|(_, value)| !matches!(value & 0xffff, 1..=3) || !matches!(value >> 16, 1..=7));
        if let Some((key, value)) = foreign {
            return Err(GrantError::ForeignProgram {
                cgroup: self.cgroup.clone(),
                found: format!("entry {key:#x} = {value:#x}"),
            });
        }
        self.maps.push(map);
        Ok(())
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> GrantError {
        GrantError::Bpf {
            doing,
            cgroup: self.cgroup.clone(),
            source,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.maps.len()
    }

    /// Allows reading and writing a character device.
    pub(crate) fn allow(&self, device: DevNumber) -> Result<(), GrantError> {
        for map in &self.maps {
            let now = map
                .get(key(device))
                .map_err(|e| self.failed("read the device map", e))?;
            // What libvirt allows already, perhaps with mknod, stays as it is.
            if now.is_some_and(|v| v & CHAR_READ_WRITE == CHAR_READ_WRITE) {
                continue;
            }
            map.set(key(device), CHAR_READ_WRITE)
                .map_err(|e| self.failed("allow a device in the map", e))?;
        }
        Ok(())
    }

    /// Takes the permission back.
    pub(crate) fn deny(&self, device: DevNumber) -> Result<(), GrantError> {
        for map in &self.maps {
            map.remove(key(device))
                .map_err(|e| self.failed("remove a device from the map", e))?;
            let left = map
                .get(key(device))
                .map_err(|e| self.failed("read the device map", e))?;
            if let Some(value) = left {
                return Err(GrantError::ReadBack {
                    pid: self.pid,
                    what: format!("device {device} in the map of cgroup {}", self.cgroup),
                    found: format!("allowed ({value:#x})"),
                });
            }
        }
        Ok(())
    }

    /// Minor numbers of a major that are allowed one by one.
    pub(crate) fn allowed_of(&self, major: u32) -> Result<Vec<u32>, GrantError> {
        let mut minors = Vec::new();
        for map in &self.maps {
            let entries = map.entries().map_err(|e| self.failed("read the device map", e))?;
            let of_major = entries.iter().filter(|(key, _)| key >> 32 == u64::from(major));
            minors.extend(of_major.map(|(key, _)| *key as u32));
        }
        Ok(minors)
    }
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
