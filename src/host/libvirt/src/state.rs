//! The state of a domain.
#![allow(unsafe_code, reason = "the safe binding's state() reports no error (virt 0.5)")]

use crate::call::{Failure, is};
use std::ffi::c_int;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt_sys as sys;

/// What a domain is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainState {
    /// libvirt knows no such domain.
    NotFound,
    /// Defined, and no QEMU.
    Shutoff,
    /// QEMU runs and the guest's CPUs do.
    Running,
    /// QEMU runs and the guest's CPUs stand.
    Paused(PausedBy),
    /// The guest is shutting down.
    ShuttingDown,
    /// The guest has crashed.
    Crashed,
    /// The guest sleeps.
    PmSuspended,
    /// A state that this release does not know.
    Unknown,
}

impl DomainState {
    /// Whether there is a QEMU.
    #[must_use]
    pub fn has_qemu(self) -> bool {
        matches!(
            self,
            Self::Running | Self::Paused(_) | Self::ShuttingDown | Self::PmSuspended
        )
    }
}

/// Why a guest's CPUs stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PausedBy {
    /// An administrator.
    User,
    /// A migration, at either end.
    Migration,
    /// A save.
    Save,
    /// A core dump.
    Dump,
    /// A disk error.
    IoError,
    /// QEMU is being started; on the destination of a migration, it waits for the guest.
    StartingUp,
    /// Post-copy, at either end.
    Postcopy,
    /// Something else.
    Other,
}

impl PausedBy {
    fn from_raw(reason: c_int) -> Self {
        match u32::try_from(reason) {
            Ok(sys::VIR_DOMAIN_PAUSED_USER) => Self::User,
            Ok(sys::VIR_DOMAIN_PAUSED_MIGRATION) => Self::Migration,
            Ok(sys::VIR_DOMAIN_PAUSED_SAVE) => Self::Save,
            Ok(sys::VIR_DOMAIN_PAUSED_DUMP) => Self::Dump,
            Ok(sys::VIR_DOMAIN_PAUSED_IOERROR) => Self::IoError,
            Ok(sys::VIR_DOMAIN_PAUSED_STARTING_UP) => Self::StartingUp,
            Ok(sys::VIR_DOMAIN_PAUSED_POSTCOPY | sys::VIR_DOMAIN_PAUSED_POSTCOPY_FAILED) => Self::Postcopy,
            _ => Self::Other,
        }
    }
}

/// Reads the state; takes no job.
pub(crate) fn of(domain: &Domain) -> Result<DomainState, Failure> {
    let (mut state, mut reason): (c_int, c_int) = (0, 0);
    // SAFETY: `domain` is a live reference, both results are ours.
    let result = unsafe { sys::virDomainGetState(domain.as_ptr(), &mut state, &mut reason, 0) };
    if result < 0 {
        let error = Error::last_error();
        // Gone between the look-up and this call.
        return if is(&error, ErrorNumber::NoDomain) {
            Ok(DomainState::NotFound)
        } else {
            Err(error.into())
        };
    }
    Ok(match u32::try_from(state) {
        Ok(sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED) => DomainState::Running,
        Ok(sys::VIR_DOMAIN_PAUSED) => DomainState::Paused(PausedBy::from_raw(reason)),
        Ok(sys::VIR_DOMAIN_SHUTDOWN) => DomainState::ShuttingDown,
        Ok(sys::VIR_DOMAIN_SHUTOFF) => DomainState::Shutoff,
        Ok(sys::VIR_DOMAIN_CRASHED) => DomainState::Crashed,
        Ok(sys::VIR_DOMAIN_PMSUSPENDED) => DomainState::PmSuspended,
        _ => DomainState::Unknown,
    })
}
