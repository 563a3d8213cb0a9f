//! libvirt's callbacks. They run on the event loop's thread, so all they do is copy and queue.
#![allow(
    unsafe_code,
    reason = "the safe binding has no domain events: C callbacks and their registration"
)]

use crate::event::{EventSink, LibvirtEvent, Lifecycle, Operation};
use crate::session::Closed;
use hybond_core::ids::DomainId;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::transmute;
use virt::connect::Connect;
use virt_sys as sys;

/// One callback, to be taken back with [`deregister`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registration(c_int);

/// Registers for every event that hybond uses and this libvirt has.
///
/// # Errors
/// Only the lifecycle events are a must; without one of the others the daemon falls back to looking.
pub(crate) fn register(connect: &Connect, sink: &EventSink) -> Result<Vec<Registration>, virt::error::Error> {
    let mut registrations = vec![register_one(connect, Callback::Lifecycle, sink)?];
    for callback in Callback::OPTIONAL {
        match register_one(connect, callback, sink) {
            Ok(registration) => registrations.push(registration),
            Err(error) => tracing::debug!(?callback, %error, "this libvirt has no such event, going on without"),
        }
    }
    Ok(registrations)
}

/// Takes a callback back. On a dead connection libvirt forgets it and then fails to tell the server: nothing is left.
pub(crate) fn deregister(connect: &Connect, registration: Registration) {
    // SAFETY: `connect` is a live reference, and the id came from a registration on this very connection.
    let result = unsafe { sys::virConnectDomainEventDeregisterAny(connect.as_ptr(), registration.0) };
    if result < 0 {
        tracing::debug!(error = %virt::error::Error::last_error(), "event callback taken back without the server");
    }
}

/// Registers for the end of the connection.
pub(crate) fn register_close(connect: &Connect, closed: Closed) -> Result<(), virt::error::Error> {
    let opaque = Box::into_raw(Box::new(closed)).cast::<c_void>();
    // SAFETY: `opaque` is a Box<Closed>, which is what both functions take it for; libvirt calls `free_closed` once, when
    // it has let go of the callback.
    let result =
        unsafe { sys::virConnectRegisterCloseCallback(connect.as_ptr(), Some(on_close), opaque, Some(free_closed)) };
    if result < 0 {
        let error = virt::error::Error::last_error();
        // SAFETY: a registration that failed neither keeps nor frees the pointer (virConnectRegisterCloseCallback).
        unsafe { free_closed(opaque) };
        return Err(error);
    }
    Ok(())
}

/// Takes the close callback back; it holds a reference to the connection.
pub(crate) fn deregister_close(connect: &Connect) {
    // SAFETY: `connect` is a live reference. Where nothing is registered libvirt returns an error.
    let result = unsafe { sys::virConnectUnregisterCloseCallback(connect.as_ptr(), Some(on_close)) };
    if result < 0 {
        tracing::debug!(error = %virt::error::Error::last_error(), "no close callback to take back");
    }
}

#[derive(Debug, Clone, Copy)]
enum Callback {
    Lifecycle,
    Reboot,
    DeviceRemoved,
    DeviceRemovalFailed,
    MigrationIteration,
    JobCompleted,
    MetadataChange,
}

impl Callback {
    const OPTIONAL: [Self; 6] = [
        Self::Reboot,
        Self::DeviceRemoved,
        Self::DeviceRemovalFailed,
        Self::MigrationIteration,
        Self::JobCompleted,
        Self::MetadataChange,
    ];

    fn event_id(self) -> c_int {
        let id = match self {
            Self::Lifecycle => sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE,
            Self::Reboot => sys::VIR_DOMAIN_EVENT_ID_REBOOT,
            Self::DeviceRemoved => sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
            Self::DeviceRemovalFailed => sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED,
            Self::MigrationIteration => sys::VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION,
            Self::JobCompleted => sys::VIR_DOMAIN_EVENT_ID_JOB_COMPLETED,
            Self::MetadataChange => sys::VIR_DOMAIN_EVENT_ID_METADATA_CHANGE,
        };
        id as c_int
    }

    /// The callback as libvirt wants it: of one type whatever the event, VIR_DOMAIN_EVENT_CALLBACK() in C.
    fn function(self) -> sys::virConnectDomainEventGenericCallback {
        type Lifecycle =
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
        type Device = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, *mut c_void);
        type Iteration = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, *mut c_void);
        type Job =
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, sys::virTypedParameterPtr, c_int, *mut c_void);
        type Metadata = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, *const c_char, *mut c_void);
        type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
        // SAFETY: function pointers of one size and ABI. libvirt calls each with the signature that belongs to the event
        // id it was registered for, and `event_id` and this function choose both by the same variant.
        let function: Generic = unsafe {
            match self {
                Self::Lifecycle => transmute::<Lifecycle, Generic>(on_lifecycle),
                Self::Reboot => on_reboot,
                Self::DeviceRemoved => transmute::<Device, Generic>(on_device_removed),
                Self::DeviceRemovalFailed => transmute::<Device, Generic>(on_device_removal_failed),
                Self::MigrationIteration => transmute::<Iteration, Generic>(on_migration_iteration),
                Self::JobCompleted => transmute::<Job, Generic>(on_job_completed),
                Self::MetadataChange => transmute::<Metadata, Generic>(on_metadata_change),
            }
        };
        Some(function)
    }
}

fn register_one(connect: &Connect, callback: Callback, sink: &EventSink) -> Result<Registration, virt::error::Error> {
    let opaque = Box::into_raw(Box::new(sink.clone())).cast::<c_void>();
    // SAFETY: `connect` is a live reference; a null domain means all of them; `opaque` is a Box<EventSink>, which is what
    // every callback and `free_sink` take it for; libvirt calls `free_sink` once, when it has let go of the callback.
    let id = unsafe {
        sys::virConnectDomainEventRegisterAny(
            connect.as_ptr(),
            std::ptr::null_mut(),
            callback.event_id(),
            callback.function(),
            opaque,
            Some(free_sink),
        )
    };
    if id < 0 {
        let error = virt::error::Error::last_error();
        // SAFETY: a registration that failed neither keeps nor frees the pointer (virConnectDomainEventRegisterAny).
        unsafe { free_sink(opaque) };
        return Err(error);
    }
    Ok(Registration(id))
}

/// # Safety
/// `opaque` came from `Box::into_raw` of a `Box<EventSink>` and is not used after.
unsafe extern "C" fn free_sink(opaque: *mut c_void) {
    // SAFETY: as above.
    drop(unsafe { Box::from_raw(opaque.cast::<EventSink>()) });
}

/// # Safety
/// `opaque` came from `Box::into_raw` of a `Box<Closed>` and is not used after.
unsafe extern "C" fn free_closed(opaque: *mut c_void) {
    // SAFETY: as above.
    drop(unsafe { Box::from_raw(opaque.cast::<Closed>()) });
}

/// Queues what `event` makes of the domain that a callback was given.
///
/// # Safety
/// `domain` is the domain of a running callback, `opaque` what that callback was registered with.
unsafe fn forward(
    domain: sys::virDomainPtr,
    opaque: *mut c_void,
    event: impl FnOnce(DomainId, String) -> Option<LibvirtEvent>,
) {
    let mut uuid = [0u8; sys::VIR_UUID_BUFLEN as usize];
    // SAFETY: libvirt holds the domain for the time of the callback; the buffer has VIR_UUID_BUFLEN bytes.
    if unsafe { sys::virDomainGetUUID(domain, uuid.as_mut_ptr()) } < 0 {
        // Only an invalid pointer does that. Nothing can be said of a domain without a name.
        return;
    }
    // SAFETY: the name lives as long as the domain.
    let name = unsafe { text(sys::virDomainGetName(domain)) };
    // SAFETY: `register_one` has put an EventSink there, which lives until `free_sink`.
    let sink = unsafe { &*opaque.cast::<EventSink>() };
    if let Some(event) = event(DomainId::from_bytes(uuid), name) {
        sink.push(event);
    }
}

/// # Safety
/// `text` is null or a C string that lives during the call.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: called by libvirt for a registration of ours.
    unsafe {
        forward(domain, opaque, |id, name| {
            Some(LibvirtEvent::Lifecycle {
                id,
                name,
                event: Lifecycle::from_raw(event, detail),
            })
        });
    }
    0
}

unsafe extern "C" fn on_reboot(_: sys::virConnectPtr, domain: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: called by libvirt for a registration of ours.
    unsafe { forward(domain, opaque, |id, _| Some(LibvirtEvent::Reboot { id })) };
}

unsafe extern "C" fn on_device_removed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    alias: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: called by libvirt for a registration of ours; the alias lives during the callback.
    unsafe {
        let alias = text(alias);
        forward(domain, opaque, |id, _| Some(LibvirtEvent::DeviceRemoved { id, alias }));
    }
}

unsafe extern "C" fn on_device_removal_failed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    alias: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: called by libvirt for a registration of ours; the alias lives during the callback.
    unsafe {
        let alias = text(alias);
        forward(domain, opaque, |id, _| {
            Some(LibvirtEvent::DeviceRemovalFailed { id, alias })
        });
    }
}

unsafe extern "C" fn on_migration_iteration(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    iteration: c_int,
    opaque: *mut c_void,
) {
    let iteration = u32::try_from(iteration).unwrap_or(0);
    // SAFETY: called by libvirt for a registration of ours.
    unsafe {
        forward(domain, opaque, |id, _| {
            Some(LibvirtEvent::MigrationIteration { id, iteration })
        })
    };
}

unsafe extern "C" fn on_job_completed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    params: sys::virTypedParameterPtr,
    nparams: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: called by libvirt for a registration of ours; `params` are its `nparams` parameters during the callback.
    unsafe {
        let operation = crate::job::operation(params, nparams);
        let (success, error) = crate::job::outcome(params, nparams);
        forward(domain, opaque, |id, _| {
            Some(LibvirtEvent::JobCompleted {
                id,
                operation: operation.unwrap_or(Operation::Other),
                success,
                error,
            })
        });
    }
}

unsafe extern "C" fn on_metadata_change(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _kind: c_int,
    namespace: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: called by libvirt for a registration of ours; the namespace is null or lives during the callback.
    unsafe {
        let ours = text(namespace) == crate::metadata::NAMESPACE;
        forward(domain, opaque, |id, _| {
            ours.then_some(LibvirtEvent::MetadataChanged { id })
        });
    }
}

unsafe extern "C" fn on_close(_: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // SAFETY: `register_close` has put a Closed there, which lives until `free_closed`.
    let closed = unsafe { &*opaque.cast::<Closed>() };
    closed.set(match u32::try_from(reason) {
        Ok(sys::VIR_CONNECT_CLOSE_REASON_EOF) => "libvirt has closed the connection; it was stopped or restarted",
        Ok(sys::VIR_CONNECT_CLOSE_REASON_KEEPALIVE) => "libvirt has not answered its keepalive",
        Ok(sys::VIR_CONNECT_CLOSE_REASON_CLIENT) => "closed by hybond",
        _ => "the connection broke down",
    });
}
