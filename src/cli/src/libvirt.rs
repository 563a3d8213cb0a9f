//! libvirt, as enable, disable and migrate need it.

use crate::failure::{Failure, Kind};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt::sys;

/// Opens a connection.
pub fn open(uri: &str) -> Result<Connect, Failure> {
    // libvirt's own handler prints every error to stderr.
    virt::error::clear_error_callback();
    Connect::open(Some(uri)).map_err(|error| {
        Failure::new(
            Kind::Libvirt,
            format!("libvirt cannot be reached at {uri}: {}", error.message()),
        )
    })
}

/// A domain by name or UUID.
pub fn find(connection: &Connect, domain: &str) -> Result<Domain, Failure> {
    let by_name = match connection.lookup_domain_by_name(domain) {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    if let Ok(found) = connection.lookup_domain_by_uuid_string(domain) {
        return Ok(found);
    }
    if is(&by_name, ErrorNumber::NoDomain) {
        return Err(Failure::new(
            Kind::NotFound,
            format!("libvirt has no domain {domain:?} on this host; 'virsh list --all' lists those that it has"),
        ));
    }
    Err(failed(&format!("looking for domain {domain}"), &by_name))
}

/// The XML of the domain's next start.
pub fn inactive_xml(domain: &Domain, name: &str, with_secrets: bool) -> Result<String, Failure> {
    let persistent = domain.is_persistent().map_err(|e| failed("asking libvirt", &e))?;
    if !persistent {
        return Err(Failure::new(
            Kind::Refused,
            format!("domain {name} is transient, there is no XML to change: 'virsh define' it first"),
        ));
    }
    let secrets = if with_secrets { sys::VIR_DOMAIN_XML_SECURE } else { 0 };
    let xml = domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE | secrets);
    xml.map_err(|error| failed(&format!("reading the XML of domain {name}"), &error))
}

/// Whether the domain runs.
pub fn is_active(domain: &Domain) -> Result<bool, Failure> {
    domain.is_active().map_err(|error| failed("asking libvirt", &error))
}

/// Saves a domain's state to a file. virt has no `virDomainSaveFlags`.
#[allow(unsafe_code, reason = "a call of libvirt's that its binding has no safe form of")]
pub fn save(domain: &Domain, path: &str, flags: u32) -> Result<(), Error> {
    // A path with a NUL byte names no file; libvirt says so of an empty one.
    let path = std::ffi::CString::new(path).unwrap_or_default();
    // SAFETY: `domain` holds a reference on the libvirt object and `path` is a C string, both for as long as the call takes;
    // a null pointer leaves the XML as it is.
    match unsafe { sys::virDomainSaveFlags(domain.as_ptr(), path.as_ptr(), std::ptr::null(), flags) } {
        0 => Ok(()),
        _ => Err(Error::last_error()),
    }
}

/// A failed call of libvirt's. Where it was hybond's hook that refused, its sentence is all that counts:
/// `virHookCall` wraps it into "Hook script execution failed: internal error: Child process (…) unexpected exit status 1".
pub fn failed(what: &str, error: &Error) -> Failure {
    let message = error.message();
    if is(error, ErrorNumber::HookScriptFailed) {
        if let Some((_, sentence)) = message.rsplit_once("status 1: hybond: ") {
            return Failure::new(Kind::Refused, sentence.trim());
        }
    }
    let kind = if is(error, ErrorNumber::OperationInvalid) {
        Kind::Refused
    } else {
        Kind::Failed
    };
    Failure::new(kind, format!("{what} failed: {}", message.trim()))
}

fn is(error: &Error, number: ErrorNumber) -> bool {
    error.code().to_raw() == virt::error::ErrorNumberEnum::from(number).to_raw()
}
