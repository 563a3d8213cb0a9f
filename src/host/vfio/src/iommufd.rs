//! Open descriptors for QEMU: an iommufd context and a VFIO device.
#![allow(unsafe_code, reason = "the option of iommufd is an ioctl")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// `_IO(IOMMUFD_TYPE, IOMMUFD_CMD_OPTION)`: type ';', command 0x87.
const IOMMU_OPTION: u64 = 0x3b87;
const OPTION_RLIMIT_MODE: u32 = 0;
const OPTION_OP_SET: u16 = 0;

/// `struct iommu_option` of `include/uapi/linux/iommufd.h`.
#[repr(C)]
struct IommuOption {
    size: u32,
    option_id: u32,
    op: u16,
    reserved: u16,
    object_id: u32,
    value: u64,
}

/// Opens a fresh context whose pinned memory counts per process. By default it counts per user: one limit for all QEMUs of
/// the host, since libvirt runs them as one user.
pub(crate) fn open_context(path: &Path) -> io::Result<(File, Counting)> {
    let context = open_node(path)?;
    let mut option = IommuOption {
        size: size_of::<IommuOption>() as u32,
        option_id: OPTION_RLIMIT_MODE,
        op: OPTION_OP_SET,
        reserved: 0,
        object_id: 0,
        value: 1,
    };
    let option_ptr: *mut IommuOption = &mut option;
    // SAFETY: the kernel reads and writes `size` bytes at the pointer, which is the structure's size.
    // The request's type differs between libcs, hence the cast.
    let result = unsafe { libc::ioctl(context.as_raw_fd(), IOMMU_OPTION as _, option_ptr) };
    if result == 0 {
        return Ok((context, Counting::PerProcess));
    }
    let refused = io::Error::last_os_error();
    tracing::debug!(%refused, "iommufd counts pinned memory per user (CAP_SYS_RESOURCE would change that)");
    Ok((context, Counting::PerUser))
}

/// Whom pinned memory is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counting {
    PerProcess,
    PerUser,
}

pub(crate) fn open_node(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}
