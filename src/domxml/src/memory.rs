//! Memory that is there before the guest comes.
//!
//! A VF's plug pins all of the guest's memory. What a migration has not filled (QEMU tells zero pages from others by reading
//! them, `ram_handle_zero()`) is then the kernel's one huge zero page, which is split at the first write: up to Linux 6.12
//! each small page of it is got by itself at the plug (`do_huge_pmd_wp_page()`). Memory that QEMU has got at its start is in
//! huge pages where the kernel gives them.

use crate::disable::with_empty_parent;
use crate::document::{child, devices, domain_document, hybond_element};
use crate::enable::{deeper, indent_of, insert_last};
use crate::error::XmlError;
use crate::metadata::{Metadata, prefixed};
use crate::read::parse;
use crate::splice::{Edit, apply};
use roxmltree::Document;

const IMMEDIATE: &str = "<allocation mode='immediate'/>";

/// Has QEMU get all of the guest's memory when it starts: `<memoryBacking><allocation mode='immediate'/>`. `None` where the
/// domain says itself how it gets its memory, and where that is `<hugepages>`, which libvirt always has QEMU get at once.
///
/// # Errors
/// The XML is not a domain, or has no `<devices>`.
pub fn preallocate(xml: &str) -> Result<Option<String>, XmlError> {
    let document = domain_document(xml)?;
    let edit = immediate(xml, &document)?;
    edit.map(|edit| apply(xml, vec![edit])).transpose()
}

/// As [`preallocate`], in the XML that the domain keeps: for its starts, where no hook can change it. hybond's metadata says who
/// has added the element, so that [`disable`](crate::disable) takes it out again. `None`, too, where no VF is to be in the
/// guest, and where the domain is not hybond's.
///
/// # Errors
/// As [`preallocate`] and [`parse`].
pub fn preallocate_at_start(xml: &str) -> Result<Option<String>, XmlError> {
    let document = domain_document(xml)?;
    let pinned = parse(xml)?.is_some_and(|spec| spec.is_pinned());
    let (true, Some(element), Some(before)) = (pinned, hybond_element(&document)?, Metadata::of_domain(&document)?)
    else {
        return Ok(None);
    };
    let Some(edit) = immediate(xml, &document)? else {
        return Ok(None);
    };
    let metadata = Metadata {
        preallocated: true,
        ..before
    };
    let own = Edit::replace(element.range(), prefixed(&metadata, indent_of(xml, element)));
    apply(xml, vec![edit, own]).map(Some)
}

fn immediate(xml: &str, document: &Document<'_>) -> Result<Option<Edit>, XmlError> {
    Ok(Some(match child(document.root_element(), "memoryBacking") {
        Some(backing)
            if ["allocation", "hugepages"]
                .iter()
                .any(|name| child(backing, name).is_some()) =>
        {
            return Ok(None);
        }
        Some(backing) if backing.has_children() => insert_last(xml, backing, IMMEDIATE),
        Some(backing) => Edit::replace(backing.range(), format!("<memoryBacking>{IMMEDIATE}</memoryBacking>")),
        None => {
            let devices = devices(document)?;
            let indent = indent_of(xml, devices);
            let inner = deeper(indent);
            let text = format!("{indent}<memoryBacking>{inner}{IMMEDIATE}{indent}</memoryBacking>");
            // Before the white space, which may have carriage returns.
            let before = xml.get(..devices.range().start).unwrap_or_default();
            Edit::insert(before.trim_end().len(), text)
        }
    }))
}

/// Takes the element out again, unless it was changed since.
pub(crate) fn without_immediate(xml: &str, document: &Document<'_>) -> Option<Edit> {
    let allocation = child(child(document.root_element(), "memoryBacking")?, "allocation")?;
    let untouched = allocation.attribute("mode") == Some("immediate") && allocation.attributes().len() == 1;
    untouched.then(|| with_empty_parent(xml, allocation, &[allocation]))
}
