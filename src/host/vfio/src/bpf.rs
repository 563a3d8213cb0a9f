//! The few commands of bpf(2) that reading and changing a device program's map takes. The numbers and layouts are those of
//! `include/uapi/linux/bpf.h`, which only ever grows at its end.
#![allow(unsafe_code, reason = "bpf(2) has no wrapper in libc or nix")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;
const MAP_GET_NEXT_KEY: libc::c_long = 4;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const MAP_GET_FD_BY_ID: libc::c_long = 14;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;

const CGROUP_DEVICE: u32 = 6;
const QUERY_EFFECTIVE: u32 = 1;
/// `BPF_MAP_TYPE_HASH`.
pub(crate) const HASH: u32 = 1;

/// The kernel runs at most 64 programs per cgroup (`BPF_CGROUP_MAX_PROGS`), and as many on each level above.
const PROGRAMS_MAX: usize = 512;
/// `MAX_USED_MAPS` of the verifier.
const MAPS_MAX: usize = 64;

/// `union bpf_attr` in the shape of the commands on elements of a map.
#[repr(C)]
#[derive(Default)]
struct Element {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Info {
    fd: u32,
    info_len: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
}

/// `struct bpf_prog_info` up to `map_ids`.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
}

/// What matters of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapInfo {
    /// Kind of map.
    pub(crate) kind: u32,
    /// The kernel's id of the map.
    pub(crate) id: u32,
    /// Bytes of a key.
    pub(crate) key_size: u32,
    /// Bytes of a value.
    pub(crate) value_size: u32,
    /// Most entries.
    pub(crate) max_entries: u32,
}

/// Runs one command.
///
/// # Safety
/// `attr` must have the layout of the command's part of `union bpf_attr`, and every pointer in it must be null or point to
/// memory of the size that the command reads or writes, valid until this returns.
unsafe fn bpf<A>(command: libc::c_long, attr: &mut A) -> io::Result<libc::c_long> {
    let attr_ptr: *mut A = attr;
    // SAFETY: the pointer and the size describe `attr`; the caller answers for what is in it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr_ptr, size_of::<A>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn raw(fd: &impl AsFd) -> u32 {
    // A valid descriptor is not negative.
    fd.as_fd().as_raw_fd().unsigned_abs()
}

fn by_id(command: libc::c_long, id: u32) -> io::Result<OwnedFd> {
    let mut attr = ById { id, ..ById::default() };
    // SAFETY: the layout of the *_GET_FD_BY_ID commands; no pointers.
    let fd = unsafe { bpf(command, &mut attr) }?;
    let fd = i32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the command made this descriptor, close-on-exec, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Ids of the device programs that decide for a cgroup: its own and those of every cgroup above it.
pub(crate) fn device_programs(cgroup: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; PROGRAMS_MAX];
    let mut attr = Query {
        target_fd: raw(cgroup),
        attach_type: CGROUP_DEVICE,
        query_flags: QUERY_EFFECTIVE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: PROGRAMS_MAX as u32,
        ..Query::default()
    };
    // SAFETY: the layout of BPF_PROG_QUERY; prog_ids has room for prog_cnt ids.
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    ids.truncate(attr.prog_cnt as usize);
    Ok(ids)
}

/// Ids of the maps that a program uses.
pub(crate) fn maps_of(program: u32) -> io::Result<Vec<u32>> {
    let fd = by_id(PROG_GET_FD_BY_ID, program)?;
    let mut ids = vec![0u32; MAPS_MAX];
    let mut info = ProgInfo {
        nr_map_ids: MAPS_MAX as u32,
        map_ids: ids.as_mut_ptr() as u64,
        ..ProgInfo::default()
    };
    let info_ptr: *mut ProgInfo = &mut info;
    let mut attr = Info {
        fd: raw(&fd),
        info_len: size_of::<ProgInfo>() as u32,
        info: info_ptr as u64,
    };
    // SAFETY: info points to info_len bytes; map_ids in it has room for nr_map_ids ids, the other pointers are null with
    // lengths of 0.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    ids.truncate(info.nr_map_ids as usize);
    Ok(ids)
}

/// A map whose keys are 8 bytes and whose values are 4: checked when it is opened, for the kernel copies as many bytes as
/// the map was made with.
pub(crate) struct Map {
    fd: OwnedFd,
    max_entries: u32,
}

impl Map {
    /// Opens a map by id. `Err` holds its shape where it is another one.
    pub(crate) fn open(id: u32) -> io::Result<Result<Self, MapInfo>> {
        let fd = by_id(MAP_GET_FD_BY_ID, id)?;
        let mut info = MapInfo::default();
        let info_ptr: *mut MapInfo = &mut info;
        let mut attr = Info {
            fd: raw(&fd),
            info_len: size_of::<MapInfo>() as u32,
            info: info_ptr as u64,
        };
        // SAFETY: info points to info_len bytes, and the kernel copies no more than that.
        unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
        if (info.kind, info.key_size, info.value_size) != (HASH, 8, 4) {
            return Ok(Err(info));
        }
        let max_entries = info.max_entries;
        Ok(Ok(Self { fd, max_entries }))
    }

    pub(crate) fn get(&self, key: u64) -> io::Result<Option<u32>> {
        let mut value = 0u32;
        let value_ptr: *mut u32 = &mut value;
        let mut attr = self.element(&key, value_ptr as u64);
        // SAFETY: key and value point to 8 and 4 bytes, the sizes that `open` found.
        match unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) } {
            Ok(_) => Ok(Some(value)),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(crate) fn set(&self, key: u64, value: u32) -> io::Result<()> {
        let value_ptr: *const u32 = &value;
        let mut attr = self.element(&key, value_ptr as u64);
        // SAFETY: as in `get`.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }.map(drop)
    }

    /// Removes an entry; none is fine.
    pub(crate) fn remove(&self, key: u64) -> io::Result<()> {
        let mut attr = self.element(&key, 0);
        // SAFETY: key points to 8 bytes.
        match unsafe { bpf(MAP_DELETE_ELEM, &mut attr) } {
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => Err(e),
            _ => Ok(()),
        }
    }

    /// Every entry. The kernel starts again from the front when the key before was deleted meanwhile, hence the bound.
    pub(crate) fn entries(&self) -> io::Result<Vec<(u64, u32)>> {
        let mut entries = Vec::new();
        let mut last: Option<u64> = None;
        for _ in 0..=self.max_entries {
            let mut next = 0u64;
            let next_ptr: *mut u64 = &mut next;
            let mut attr = Element {
                map_fd: raw(&self.fd),
                key: last.as_ref().map_or(0, |key| std::ptr::from_ref(key) as u64),
                value: next_ptr as u64,
                ..Element::default()
            };
            // SAFETY: key is null, which means the first, or points to 8 bytes; the next key has 8 bytes.
            match unsafe { bpf(MAP_GET_NEXT_KEY, &mut attr) } {
                Ok(_) => {}
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => break,
                Err(e) => return Err(e),
            }
            if let Some(value) = self.get(next)? {
                entries.push((next, value));
            }
            last = Some(next);
        }
        Ok(entries)
    }

    fn element(&self, key: &u64, value: u64) -> Element {
        Element {
            map_fd: raw(&self.fd),
            key: std::ptr::from_ref(key) as u64,
            value,
            ..Element::default()
        }
    }
}

#[cfg(test)]
#[path = "bpf_tests.rs"]
pub(crate) mod tests;
