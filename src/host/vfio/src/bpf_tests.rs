use super::*;

const MAP_CREATE: libc::c_long = 0;
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ALLOW_MULTI: u32 = 2;

#[repr(C)]
#[derive(Default)]
struct Create {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target_fd: u32,
    program_fd: u32,
    attach_type: u32,
    flags: u32,
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: called on what bpf(2) has just returned as a new descriptor.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).expect("a descriptor")) }
}

pub(crate) fn create_map(key_size: u32, value_size: u32) -> OwnedFd {
    let mut attr = Create {
        kind: HASH,
        key_size,
        value_size,
        max_entries: 64,
        ..Create::default()
    };
    // SAFETY: the layout of BPF_MAP_CREATE; no pointers.
    owned(unsafe { bpf(MAP_CREATE, &mut attr) }.expect("a map"))
}

pub(crate) fn own(fd: OwnedFd) -> Map {
    Map { fd, max_entries: 64 }
}

fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(code)
        | u64::from(source << 4 | destination) << 8
        | u64::from(offset as u16) << 16
        | u64::from(immediate as u32) << 32
}

/// A device program like libvirt's, without its wildcards: allowed is what the map's entry for the device allows.
pub(crate) fn load_program(map: &OwnedFd) -> OwnedFd {
    let program = [
        instruction(0xbf, 6, 1, 0, 0),               // r6 = r1
        instruction(0x61, 2, 6, 4, 0),               // r2 = ctx->major
        instruction(0x67, 2, 0, 0, 32),              // r2 <<= 32
        instruction(0x61, 1, 6, 8, 0),               // r1 = ctx->minor
        instruction(0x4f, 2, 1, 0, 0),               // r2 |= r1
        instruction(0x7b, 10, 2, -8, 0),             // *(r10 - 8) = r2
        instruction(0xbf, 2, 10, 0, 0),              // r2 = r10
        instruction(0x07, 2, 0, 0, -8),              // r2 -= 8
        instruction(0x18, 1, 1, 0, map.as_raw_fd()), // r1 = map
        0,                                           // (its second half)
        instruction(0x85, 0, 0, 0, 1),               // map_lookup_elem
        instruction(0x15, 0, 0, 4, 0),               // if r0 == 0 goto deny
        instruction(0x61, 1, 0, 0, 0),               // r1 = *r0
        instruction(0x61, 2, 6, 0, 0),               // r2 = ctx->access_type
        instruction(0x5f, 1, 2, 0, 0),               // r1 &= r2
        instruction(0x1d, 1, 2, 2, 0),               // if r1 == r2 goto allow
        instruction(0xb7, 0, 0, 0, 0),               // deny: r0 = 0
        instruction(0x95, 0, 0, 0, 0),               // exit
        instruction(0xb7, 0, 0, 0, 1),               // allow: r0 = 1
        instruction(0x95, 0, 0, 0, 0),               // exit
    ];
    let mut log = vec![0u8; 65_536];
    let mut attr = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log: log.as_mut_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: the layout of BPF_PROG_LOAD; instructions, license and log are as long as it says, and live until it returns.
    let loaded = unsafe { bpf(PROG_LOAD, &mut attr) };
    match loaded {
        Ok(fd) => owned(fd),
        Err(e) => panic!("{e}: {}", String::from_utf8_lossy(&log).trim_end_matches('\0')),
    }
}

pub(crate) fn attach(program: &OwnedFd, cgroup: &impl AsFd) {
    let mut attr = Attach {
        target_fd: raw(cgroup),
        program_fd: raw(program),
        attach_type: CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the layout of BPF_PROG_ATTACH; no pointers.
    unsafe { bpf(PROG_ATTACH, &mut attr) }.expect("attached");
}
