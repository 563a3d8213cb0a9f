//! The job that a domain is in, and typed parameters.
#![allow(
    unsafe_code,
    reason = "the safe binding frees libvirt's parameters with the wrong allocator, and does not free their texts (virt 0.5)"
)]

use crate::call::{Failure, is};
use crate::event::Operation;
use std::ffi::{CStr, CString, c_char, c_int};
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt_sys as sys;

/// The job that a domain is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// None, or no such domain, or no QEMU.
    None,
    /// Going out: from before the destination is asked until after it has confirmed.
    Outgoing(Progress),
    /// Coming in.
    Incoming,
    /// Being saved to a file.
    Save(Progress),
    /// Being restored from a file.
    Restore,
    /// A snapshot is taken, deleted or gone back to.
    Snapshot,
    /// Its core is being dumped.
    Dump,
    /// Its disks are being backed up.
    Backup,
    /// Something else.
    Other,
}

/// How far a job is. All zero while it prepares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Since its beginning.
    pub elapsed_ms: u64,
    /// RAM and disks together, in bytes.
    pub total: u64,
    /// Of these, sent.
    pub processed: u64,
    /// Of these, to send; grows where the guest writes faster.
    pub remaining: u64,
}

/// Reads the job. libvirt takes a query job for it, which it grants beside every long-running one.
pub(crate) fn of(domain: &Domain) -> Result<Job, Failure> {
    let (mut kind, mut params, mut count): (c_int, sys::virTypedParameterPtr, c_int) = (0, std::ptr::null_mut(), 0);
    // SAFETY: `domain` is a live reference, the results are ours.
    let result = unsafe { sys::virDomainGetJobStats(domain.as_ptr(), &mut kind, &mut params, &mut count, 0) };
    if result < 0 {
        return refused(domain, Error::last_error());
    }
    // SAFETY: libvirt gave out `count` parameters, or null and none.
    let (operation, progress) = unsafe { (operation(params, count), progress(params, count)) };
    // SAFETY: they were allocated by libvirt and are freed once, with their texts; null is allowed.
    unsafe { sys::virTypedParamsFree(params, count) };
    if kind == sys::VIR_DOMAIN_JOB_NONE as c_int {
        return Ok(Job::None);
    }
    Ok(match operation {
        Some(Operation::MigrationOut) => Job::Outgoing(progress),
        Some(Operation::MigrationIn) => Job::Incoming,
        Some(Operation::Save) => Job::Save(progress),
        Some(Operation::Restore) => Job::Restore,
        Some(Operation::Snapshot | Operation::SnapshotRevert | Operation::SnapshotDelete) => Job::Snapshot,
        Some(Operation::Dump) => Job::Dump,
        Some(Operation::Backup) => Job::Backup,
        Some(Operation::Start | Operation::Other) | None => Job::Other,
    })
}

/// At the destination libvirt has no statistics: "migration statistics are available only on the source host", invalid
/// in older releases, unsupported in newer ones (`qemuDomainGetJobStatsInternal`). A domain without QEMU is invalid too.
fn refused(domain: &Domain, error: Error) -> Result<Job, Failure> {
    if is(&error, ErrorNumber::NoDomain) {
        return Ok(Job::None);
    }
    if is(&error, ErrorNumber::OperationUnsupported) {
        return Ok(Job::Incoming);
    }
    if is(&error, ErrorNumber::OperationInvalid) {
        return match domain.is_active() {
            Ok(true) => Ok(Job::Incoming),
            Ok(false) => Ok(Job::None),
            Err(gone) if is(&gone, ErrorNumber::NoDomain) => Ok(Job::None),
            Err(other) => Err(other.into()),
        };
    }
    Err(error.into())
}

/// Cancels the job.
pub(crate) fn abort(domain: &Domain) -> Result<(), Failure> {
    // SAFETY: `domain` is a live reference.
    if unsafe { sys::virDomainAbortJob(domain.as_ptr()) } < 0 {
        return Err(Error::last_error().into());
    }
    Ok(())
}

/// Asks the running domain to give up the device with this alias.
pub(crate) fn detach_alias(domain: &Domain, alias: &str) -> Result<(), Failure> {
    let alias = CString::new(alias).map_err(|e| Failure::Unusable(format!("{alias:?} is no alias: {e}")))?;
    // SAFETY: `domain` is a live reference, the alias lives during the call.
    let result =
        unsafe { sys::virDomainDetachDeviceAlias(domain.as_ptr(), alias.as_ptr(), sys::VIR_DOMAIN_AFFECT_LIVE) };
    if result < 0 {
        return Err(Error::last_error().into());
    }
    Ok(())
}

/// # Safety
/// `params` are `count` parameters of libvirt's, or null.
pub(crate) unsafe fn operation(params: sys::virTypedParameterPtr, count: c_int) -> Option<Operation> {
    let mut value: c_int = 0;
    // SAFETY: as above; a missing parameter is 0, one of another type -1.
    let found = unsafe { sys::virTypedParamsGetInt(params, count, sys::VIR_DOMAIN_JOB_OPERATION.as_ptr(), &mut value) };
    (found == 1).then(|| Operation::from_raw(value))
}

/// Success and error text of a job that has ended.
///
/// # Safety
/// `params` are `count` parameters of libvirt's, or null.
pub(crate) unsafe fn outcome(params: sys::virTypedParameterPtr, count: c_int) -> (Option<bool>, Option<String>) {
    let mut success: c_int = 0;
    let mut text: *const c_char = std::ptr::null();
    // SAFETY: as above; the text belongs to the parameters and is copied here.
    unsafe {
        let name = sys::VIR_DOMAIN_JOB_SUCCESS.as_ptr();
        let found = sys::virTypedParamsGetBoolean(params, count, name, &mut success);
        let name = sys::VIR_DOMAIN_JOB_ERRMSG.as_ptr();
        let said = sys::virTypedParamsGetString(params, count, name, &mut text);
        let text = (said == 1 && !text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned());
        ((found == 1).then_some(success != 0), text)
    }
}

/// # Safety
/// `params` are `count` parameters of libvirt's, or null.
unsafe fn progress(params: sys::virTypedParameterPtr, count: c_int) -> Progress {
    let get = |name: &CStr| {
        let mut value = 0;
        // SAFETY: as above.
        let found = unsafe { sys::virTypedParamsGetULLong(params, count, name.as_ptr(), &mut value) };
        if found == 1 { value } else { 0 }
    };
    Progress {
        elapsed_ms: get(sys::VIR_DOMAIN_JOB_TIME_ELAPSED),
        total: get(sys::VIR_DOMAIN_JOB_DATA_TOTAL),
        processed: get(sys::VIR_DOMAIN_JOB_DATA_PROCESSED),
        remaining: get(sys::VIR_DOMAIN_JOB_DATA_REMAINING),
    }
}
