//! Replacing bytes of an XML text.

use crate::document::{child, document, domain_document, interface};
use crate::error::XmlError;
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

/// Writes new lower devices into `<interface type='direct'>`: the value of `<source dev=…>` and no other byte.
///
/// # Errors
/// No such interface, one of another type, or one without `<source dev=…>`.
pub fn set_sources(xml: &str, sources: &[(Mac, IfName)]) -> Result<String, XmlError> {
    let document = domain_document(xml)?;
    let mut edits: Vec<Edit> = Vec::new();
    for (i, (mac, source)) in sources.iter().enumerate() {
        if sources.iter().take(i).any(|(earlier, _)| earlier == mac) {
            return Err(XmlError::DuplicatePair { mac: *mac });
        }
        let interface = interface(&document, *mac)?;
        let kind = interface.attribute("type").unwrap_or_default();
        if kind != "direct" {
            let problem = format!("is of type '{kind}'; only of type 'direct' has a <source dev=…> to set");
            return Err(XmlError::Interface { mac: *mac, problem });
        }
        let dev = child(interface, "source").and_then(|s| s.attribute_node("dev"));
        let dev = dev.ok_or_else(|| XmlError::Interface {
            mac: *mac,
            problem: "is of type 'direct' and has no <source dev=…>".to_owned(),
        })?;
        edits.push(Edit::value(dev, source.as_str()));
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
