//! Taking hybond out of a domain again.

use crate::document::{children, devices, document, domain_document, hybond_element, interface};
use crate::enable::{QEMU_NAMESPACE, QMP_ID, connection_of, ethernet, indent_of, prefix_of, slice};
use crate::error::XmlError;
use crate::memory::without_immediate;
use crate::metadata::{Metadata, PairMetadata};
use crate::read::is_agent_channel;
use crate::splice::{Edit, apply};
use hybond_core::ids::Mac;
use roxmltree::{Document, Node};
use std::ops::Range;

/// Takes out of an inactive domain XML what [`crate::enable`] put in, and gives each standby the connection that it had.
/// What was changed otherwise in between stays: a user's queues, the addresses that libvirt gave out, and the virtio-serial
/// controller that libvirt added for the agent's port.
///
/// # Errors
/// The domain is not enabled, or an interface of type 'ethernet' has nothing in the metadata that says what it was.
pub fn disable(xml: &str) -> Result<String, XmlError> {
    let document = domain_document(xml)?;
    let element = hybond_element(&document)?.ok_or(XmlError::NotEnabled)?;
    let metadata = Metadata::of_domain(&document)?.ok_or(XmlError::NotEnabled)?;
    let mut edits = Vec::new();
    for pair in &metadata.pairs {
        edits.extend(restored_interface(xml, &document, pair)?);
    }
    edits.push(with_empty_parent(xml, element, &[element]));
    if metadata.preallocated {
        edits.extend(without_immediate(xml, &document));
    }
    edits.extend(
        children(devices(&document)?, "channel")
            .filter(|n| is_agent_channel(*n))
            .map(|n| Edit::remove(xml, n)),
    );
    edits.extend(commandline_edits(xml, &document, &metadata));
    drop_unused_declaration(&apply(xml, edits)?)
}

fn restored_interface(xml: &str, document: &Document<'_>, pair: &PairMetadata) -> Result<Option<Edit>, XmlError> {
    let current = match interface(document, pair.mac) {
        Ok(current) => current,
        // The interface was taken out since: there is nothing to give back.
        Err(XmlError::NoInterface { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(original) = &pair.original else {
        if current.attribute("type") == Some("ethernet") {
            return Err(XmlError::Interface {
                mac: pair.mac,
                problem: "is of type 'ethernet' and <hybond:pair> does not say what it was; \
                          edit it and take <hybond:domain> out by hand (virsh edit)"
                    .to_owned(),
            });
        }
        return Ok(None);
    };
    let text = slice(xml, current);
    if ethernet(original, pair.mac).is_ok_and(|made| made == text) {
        return Ok(Some(Edit::replace(current.range(), original.clone())));
    }
    let restored = reconnect(text, original, pair.mac)?;
    Ok(Some(Edit::replace(current.range(), restored)))
}

/// The interface as it is now, with the type and the connection of the original.
fn reconnect(current: &str, original: &str, mac: Mac) -> Result<String, XmlError> {
    let was = document(original)?;
    let now = document(current)?;
    let kind = |node: Node<'_, '_>| node.attribute("type").unwrap_or_default().to_owned();
    let Some(kind_now) = now.root_element().attribute_node("type") else {
        return Err(XmlError::Interface {
            mac,
            problem: "has no type".to_owned(),
        });
    };
    let mut edits = vec![Edit::value(kind_now, &kind(was.root_element()))];
    let mut connection = connection_of(now.root_element());
    let parts = connection_of(was.root_element()).map(|part| slice(original, part));
    match connection.next() {
        Some(first) => {
            let text = parts.collect::<Vec<_>>().join(indent_of(current, first));
            edits.push(Edit::replace(first.range(), text));
        }
        None => {
            let end = current.rfind("</").unwrap_or(current.len());
            edits.push(Edit::insert(end, parts.collect()));
        }
    }
    edits.extend(connection.map(|node| Edit::remove(current, node)));
    apply(current, edits)
}

/// Takes elements out, and their parent as well where they are all that it holds.
pub(crate) fn with_empty_parent(xml: &str, element: Node<'_, '_>, going: &[Node<'_, '_>]) -> Edit {
    let Some(parent) = element.parent_element() else {
        return Edit::remove(xml, element);
    };
    let blank = |node: Node<'_, '_>| node.is_text() && node.text().is_some_and(|t| t.trim().is_empty());
    let empty = parent.children().all(|n| going.contains(&n) || blank(n));
    Edit::remove(xml, if empty { parent } else { element })
}

/// hybond's arguments are known by their ids.
fn commandline_edits(xml: &str, document: &Document<'_>, metadata: &Metadata) -> Vec<Edit> {
    let ours = |value: &str| {
        let mut options = value.split(',');
        options.any(|option| match option.split_once('=') {
            Some(("id" | "chardev", id)) => id == QMP_ID || metadata.pairs.iter().any(|p| p.mac.root_port_id() == id),
            _ => false,
        })
    };
    let lines = document
        .root_element()
        .children()
        .filter(|n| n.has_tag_name((QEMU_NAMESPACE, "commandline")));
    let mut edits = Vec::new();
    for commandline in lines {
        let arguments: Vec<_> = commandline
            .children()
            .filter(|n| n.has_tag_name((QEMU_NAMESPACE, "arg")))
            .collect();
        let mut going = Vec::new();
        for two in arguments.windows(2) {
            let [option, value] = two else { continue };
            let is_option = matches!(option.attribute("value"), Some("-chardev" | "-mon" | "-device"));
            if is_option && value.attribute("value").is_some_and(ours) {
                going.extend([*option, *value]);
            }
        }
        let mut removals: Vec<Edit> = Vec::new();
        for node in &going {
            let edit = with_empty_parent(xml, *node, &going);
            // The same one for each where the parent goes.
            if removals.last() != Some(&edit) {
                removals.push(edit);
            }
        }
        edits.extend(removals);
    }
    edits
}

/// Takes the declaration of QEMU's namespace out of `<domain>` where nothing uses it, as libvirt itself does.
fn drop_unused_declaration(xml: &str) -> Result<String, XmlError> {
    let document = domain_document(xml)?;
    let root = document.root_element();
    let used = document
        .descendants()
        .any(|n| n.is_element() && n.tag_name().namespace() == Some(QEMU_NAMESPACE));
    let Some(prefix) = prefix_of(root, QEMU_NAMESPACE).filter(|_| !used) else {
        return Ok(xml.to_owned());
    };
    match declaration(xml, root, prefix) {
        Some(range) => apply(xml, vec![Edit::replace(range, String::new())]),
        None => Ok(xml.to_owned()),
    }
}

/// Where ` xmlns:prefix='…'` stands in an element's start tag, with the white space before it. roxmltree keeps no
/// positions of declarations, so the tag is read once more; it is known to be well-formed.
fn declaration(xml: &str, element: Node<'_, '_>, prefix: &str) -> Option<Range<usize>> {
    let wanted = format!("xmlns:{prefix}");
    let mut at = element.range().start + 1 + element.tag_name().name().len();
    loop {
        let rest = xml.get(at..)?;
        let name_at = at + (rest.len() - rest.trim_start().len());
        let equals = name_at + xml.get(name_at..)?.find(['=', '>'])?;
        if xml.get(equals..)?.starts_with('>') {
            return None;
        }
        let quote_at = equals + xml.get(equals..)?.find(['"', '\''])?;
        let quote = xml.get(quote_at..)?.chars().next()?;
        let end = quote_at + 1 + xml.get(quote_at + 1..)?.find(quote)? + 1;
        if xml.get(name_at..equals)?.trim_end() == wanted {
            return Some(at..end);
        }
        at = end;
    }
}
