//! Finding things in a parsed domain.

use crate::error::{XmlError, cut};
use crate::{MAX_XML, NAMESPACE, bounds};
use hybond_core::ids::Mac;
use roxmltree::{Document, Node, ParsingOptions};

/// More nodes than any domain has, fewer than would cost much memory.
const MAX_NODES: u32 = 400_000;

/// Parses a whole domain.
pub(crate) fn domain_document(xml: &str) -> Result<Document<'_>, XmlError> {
    let document = document(xml)?;
    let root = document.root_element();
    if !is(root, "domain") {
        let found = cut(root.tag_name().name());
        return Err(XmlError::NotADomain { found });
    }
    Ok(document)
}

/// Parses any XML within the bounds. No DTD, hence no entities that grow.
pub(crate) fn document(xml: &str) -> Result<Document<'_>, XmlError> {
    if xml.len() > MAX_XML {
        return Err(XmlError::TooLarge { bytes: xml.len() });
    }
    bounds::check(xml)?;
    let options = ParsingOptions {
        allow_dtd: false,
        nodes_limit: MAX_NODES,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(xml, options).map_err(|error| XmlError::NotXml(error.into()))
}

/// An element of this name in no namespace. roxmltree's `has_tag_name` with a bare name takes any namespace.
pub(crate) fn is(node: Node<'_, '_>, name: &str) -> bool {
    node.is_element() && node.tag_name().namespace().is_none() && node.tag_name().name() == name
}

/// Child elements of this name in no namespace.
pub(crate) fn children<'a, 'i: 'a>(node: Node<'a, 'i>, name: &'a str) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(move |child| is(*child, name))
}

/// The first child element of this name.
pub(crate) fn child<'a, 'i: 'a>(node: Node<'a, 'i>, name: &'a str) -> Option<Node<'a, 'i>> {
    children(node, name).next()
}

/// `<domain><devices>`.
pub(crate) fn devices<'a, 'i>(document: &'a Document<'i>) -> Result<Node<'a, 'i>, XmlError> {
    child(document.root_element(), "devices").ok_or(XmlError::MissingElement {
        element: "devices",
        parent: "domain",
    })
}

/// `<domain><metadata><hybond:domain>`, whatever its prefix is.
pub(crate) fn hybond_element<'a, 'i>(document: &'a Document<'i>) -> Result<Option<Node<'a, 'i>>, XmlError> {
    let mut found = children(document.root_element(), "metadata")
        .flat_map(|metadata| metadata.children())
        .filter(|n| n.is_element() && n.tag_name().namespace() == Some(NAMESPACE) && n.tag_name().name() == "domain");
    let first = found.next();
    if found.next().is_some() {
        return Err(XmlError::Repeated {
            element: "hybond:domain",
        });
    }
    Ok(first)
}

/// The MAC of an `<interface>`.
pub(crate) fn mac_of(interface: Node<'_, '_>) -> Option<Mac> {
    child(interface, "mac")?.attribute("address")?.parse().ok()
}

/// The interface that is the standby of a pair. One of `type='hostdev'` is not: where primaries are attached through
/// libvirt's API, the running domain has one with the same MAC, and that is the primary.
pub(crate) fn interface<'a, 'i>(document: &'a Document<'i>, mac: Mac) -> Result<Node<'a, 'i>, XmlError> {
    let mut found = children(devices(document)?, "interface")
        .filter(|n| n.attribute("type") != Some("hostdev") && mac_of(*n) == Some(mac));
    let first = found.next().ok_or(XmlError::NoInterface { mac })?;
    if found.next().is_some() {
        return Err(XmlError::Interface {
            mac,
            problem: "is there twice; give one of them another MAC".to_owned(),
        });
    }
    Ok(first)
}

/// The value of an attribute that has to be there.
pub(crate) fn required<'a>(node: Node<'a, '_>, attribute: &'static str) -> Result<&'a str, XmlError> {
    node.attribute(attribute).ok_or_else(|| XmlError::MissingAttribute {
        element: label(node),
        attribute,
    })
}

/// How an element is called in error texts: `pair` in hybond's namespace is `hybond:pair`.
pub(crate) fn label(node: Node<'_, '_>) -> String {
    let name = node.tag_name().name();
    if node.tag_name().namespace() == Some(NAMESPACE) {
        return cut(&format!("hybond:{name}"));
    }
    cut(name)
}
