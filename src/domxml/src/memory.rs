//! Memory that is there before the guest comes.
//!
//! A VF's plug pins all of the guest's memory. What a migration has not filled (QEMU tells zero pages from others by reading
//! them, `ram_handle_zero()`) is then the kernel's one huge zero page, which is split at the first write: up to Linux 6.12
//! each small page of it is got by itself at the plug (`do_huge_pmd_wp_page()`). Memory that QEMU has got at its start is in
//! huge pages where the kernel gives them.

use crate::document::{child, devices, domain_document};
use crate::enable::{deeper, indent_of, insert_last};
use crate::error::XmlError;
use crate::splice::{Edit, apply};

const IMMEDIATE: &str = "<allocation mode='immediate'/>";

/// Has QEMU get all of the guest's memory when it starts: `<memoryBacking><allocation mode='immediate'/>`. `None` where the
/// domain says itself how it gets its memory, and where that is `<hugepages>`, which libvirt always has QEMU get at once.
///
/// # Errors
/// The XML is not a domain, or has no `<devices>`.
pub fn preallocate(xml: &str) -> Result<Option<String>, XmlError> {
    let document = domain_document(xml)?;
    let root = document.root_element();
    let edit = match child(root, "memoryBacking") {
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
            let devices = devices(&document)?;
            let indent = indent_of(xml, devices);
            let inner = deeper(indent);
            let text = format!("<memoryBacking>{inner}{IMMEDIATE}{indent}</memoryBacking>{indent}");
            Edit::insert(devices.range().start, text)
        }
    };
    apply(xml, vec![edit]).map(Some)
}
