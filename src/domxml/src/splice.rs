//! Replacing bytes of an XML text.

use crate::document::{child, document, domain_document, interface};
use crate::error::{XmlError, cut};
use hybond_core::ids::{IfName, Mac};
use roxmltree::{Attribute, Node};
use std::ops::Range;

/// New text for a range of bytes; an empty range inserts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) range: Range<usize>,
    pub(crate) text: String,
}

impl Edit {
    pub(crate) fn insert(at: usize, text: String) -> Self {
        Self { range: at..at, text }
    }

    pub(crate) fn replace(range: Range<usize>, text: String) -> Self {
        Self { range, text }
    }

    /// Takes an element out, with the white space before it.
    pub(crate) fn remove(xml: &str, node: Node<'_, '_>) -> Self {
        let range = node.range();
        let before = xml.get(..range.start).unwrap_or_default();
        Self::replace(before.trim_end().len()..range.end, String::new())
    }

    /// A new value for an attribute, between the quotes that are there.
    pub(crate) fn value(attribute: Attribute<'_, '_>, value: &str) -> Self {
        Self::replace(attribute.range_value(), escape_attribute(value))
    }
}

/// Applies edits that do not overlap, last one first so that the positions of the others hold, and parses the result.
/// Insertions at one place come out in the order given.
pub(crate) fn apply(xml: &str, mut edits: Vec<Edit>) -> Result<String, XmlError> {
    edits.sort_by_key(|edit| edit.range.start);
    let mut text = xml.to_owned();
    for edit in edits.iter().rev() {
        text.replace_range(edit.range.clone(), &edit.text);
    }
    document(&text).map_err(|error| match error {
        XmlError::NotXml(source) => XmlError::Spliced(source),
        other => other,
    })?;
    Ok(text)
}

/// Writes new lower devices into the interfaces that libvirt makes macvtaps of. Of `<interface type='direct'>` the value
/// of `<source dev=…>` changes and no other byte. One of `type='network'` becomes `type='direct'`, for nothing else names
/// a PF: its type and its `<source>` change.
///
/// # Errors
/// No such interface, one of another type, or one without `<source dev=…>` or `<source network=…>`.
pub fn set_sources(xml: &str, sources: &[(Mac, IfName)]) -> Result<String, XmlError> {
    let document = domain_document(xml)?;
    let mut edits: Vec<Edit> = Vec::new();
    for (i, (mac, name)) in sources.iter().enumerate() {
        if sources.iter().take(i).any(|(earlier, _)| earlier == mac) {
            return Err(XmlError::DuplicatePair { mac: *mac });
        }
        let interface = interface(&document, *mac)?;
        let wrong = |problem| XmlError::Interface { mac: *mac, problem };
        let kind = interface.attribute_node("type");
        let source = child(interface, "source");
        match (kind, kind.map(|kind| kind.value())) {
            (_, Some("direct")) => {
                let dev = source.and_then(|s| s.attribute_node("dev"));
                let dev = dev.ok_or_else(|| wrong("is of type 'direct' and has no <source dev=…>".to_owned()))?;
                edits.push(Edit::value(dev, name.as_str()));
            }
            (Some(kind), Some("network")) => {
                let source = source.filter(|s| s.has_attribute("network"));
                let source =
                    source.ok_or_else(|| wrong("is of type 'network' and has no <source network=…>".to_owned()))?;
                edits.push(Edit::value(kind, "direct"));
                let name = escape_attribute(name.as_str());
                // The mode of a network is not in the domain's XML; `bridge` is what lets the standby reach its neighbours.
                edits.push(Edit::replace(
                    source.range(),
                    format!("<source dev='{name}' mode='bridge'/>"),
                ));
            }
            (_, other) => {
                let other = cut(other.unwrap_or_default());
                let only = "only of type 'direct' or 'network' has a <source> to set";
                return Err(wrong(format!("is of type '{other}'; {only}")));
            }
        }
    }
    apply(xml, edits)
}

/// For an attribute's value in either kind of quotes.
pub(crate) fn escape_attribute(value: &str) -> String {
    escape(value, true)
}

/// For text between tags. A lone carriage return would come back as a newline.
pub(crate) fn escape_text(text: &str) -> String {
    escape(text, false)
}

fn escape(text: &str, quotes: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\r' => escaped.push_str("&#13;"),
            '"' if quotes => escaped.push_str("&quot;"),
            '\'' if quotes => escaped.push_str("&apos;"),
            c => escaped.push(c),
        }
    }
    escaped
}
