//! hybond's element in a domain's XML, read and written through libvirt's metadata calls: the rest of the XML, with what
//! secrets it may hold, is neither asked for nor written back.

use crate::call::{Failure, is};
use crate::handle::Scope;
use hybond_core::ids::{Mac, PeerAddr};
pub(crate) use hybond_domxml::NAMESPACE;
use hybond_domxml::{PairChange, XmlError};
use virt::domain::Domain;
use virt::error::ErrorNumber;
use virt_sys as sys;

/// Writes the peer into the element of the running and of the persistent domain, each where it is another one now.
/// Each is edited from its own text: a user may have changed one of them only. Returns whether anything was written.
pub(crate) fn set_source_peer(domain: &Domain, peer: &PeerAddr) -> Result<bool, Failure> {
    let mut written = false;
    let mut enabled = false;
    for scope in scopes(domain)? {
        let xml = domain.xml_desc(scope.xml_flags())?;
        // Enabled in one of the two only: the other one is no business of ours.
        let Some(spec) = hybond_domxml::parse(&xml).map_err(invalid)? else {
            continue;
        };
        enabled = true;
        if spec.source_peer.as_ref() == Some(peer) {
            continue;
        }
        let element = hybond_domxml::set_source_peer(&xml, peer).map_err(invalid)?;
        write(domain, &element, scope)?;
        written = true;
    }
    if enabled {
        Ok(written)
    } else {
        Err(invalid(XmlError::NotEnabled))
    }
}

/// Changes pairs in the element of the running and of the persistent domain, or of the latter only; each is edited from
/// its own text. Returns whether anything was written.
pub(crate) fn change_pairs(domain: &Domain, changes: &[(Mac, PairChange)], live: bool) -> Result<bool, Failure> {
    let mut written = false;
    let mut enabled = false;
    for scope in scopes(domain)? {
        if scope == Scope::Live && !live {
            continue;
        }
        let xml = domain.xml_desc(scope.xml_flags())?;
        match hybond_domxml::change_pairs(&xml, changes) {
            Ok(Some(element)) => write(domain, &element, scope)?,
            Ok(None) => {
                enabled = true;
                continue;
            }
            // Enabled in one of the two only: the other one is no business of ours.
            Err(XmlError::NotEnabled) => continue,
            Err(error) => return Err(invalid(error)),
        }
        (enabled, written) = (true, true);
    }
    if enabled {
        Ok(written)
    } else {
        Err(invalid(XmlError::NotEnabled))
    }
}

fn write(domain: &Domain, element: &str, scope: Scope) -> Result<(), Failure> {
    Ok(domain.set_metadata(
        sys::VIR_DOMAIN_METADATA_ELEMENT as i32,
        Some(element),
        Some(hybond_domxml::PREFIX),
        Some(NAMESPACE),
        scope.impact(),
    )?)
}

/// hybond's element alone, without its namespace, as libvirt gives it out; `None` where there is none.
pub(crate) fn read(domain: &Domain, scope: Scope) -> Result<Option<String>, Failure> {
    let kind = sys::VIR_DOMAIN_METADATA_ELEMENT as i32;
    match domain.metadata(kind, Some(NAMESPACE), scope.impact()) {
        Ok(element) => Ok(Some(element)),
        Err(error) if is(&error, ErrorNumber::NoDomainMetadata) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Where the domain exists.
pub(crate) fn scopes(domain: &Domain) -> Result<Vec<Scope>, Failure> {
    let mut scopes = Vec::with_capacity(2);
    if domain.is_active()? {
        scopes.push(Scope::Live);
    }
    if domain.is_persistent()? {
        scopes.push(Scope::Persistent);
    }
    Ok(scopes)
}

pub(crate) fn invalid(error: XmlError) -> Failure {
    Failure::Spec(Box::new(error))
}
