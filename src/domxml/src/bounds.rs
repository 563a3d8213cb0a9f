//! What the parser does not bound itself. It compares each attribute of an element with all before it, and gives an element
//! that declares a namespace a list of all that hold there (roxmltree's `parse.rs`): four megabytes of either cost minutes,
//! or gigabytes.

use crate::error::XmlError;

/// Most attributes of one element. libvirt's have a dozen.
const ATTRIBUTES: usize = 256;
/// Most declarations of namespaces. A domain has one for each program that keeps metadata in it.
const NAMESPACES: usize = 256;

/// Whether an XML, well-formed or not, is one that the parser may be given.
pub(crate) fn check(xml: &str) -> Result<(), XmlError> {
    let mut namespaces = 0;
    let mut rest = xml;
    while let Some((_, tag)) = rest.split_once('<') {
        rest = match (tag.strip_prefix("!--"), tag.strip_prefix("![CDATA[")) {
            (Some(comment), _) => after(comment, "-->"),
            (_, Some(data)) => after(data, "]]>"),
            (None, None) => {
                let (attributes, declared, behind) = attributes(tag);
                namespaces += declared;
                if attributes > ATTRIBUTES {
                    return Err(XmlError::TooMany {
                        what: "attributes in one element",
                        limit: ATTRIBUTES,
                    });
                }
                behind
            }
        };
        if namespaces > NAMESPACES {
            return Err(XmlError::TooMany {
                what: "declarations of namespaces",
                limit: NAMESPACES,
            });
        }
    }
    Ok(())
}

fn after<'x>(text: &'x str, end: &str) -> &'x str {
    text.split_once(end).map_or("", |(_, behind)| behind)
}

/// Attributes of a start tag, how many of them declare a namespace, and what follows the tag.
fn attributes(tag: &str) -> (usize, usize, &str) {
    let (mut attributes, mut declared) = (0, 0);
    let mut rest = tag;
    loop {
        let Some(at) = rest.find(['=', '>', '\'', '"']) else {
            return (attributes, declared, "");
        };
        let (before, here) = rest.split_at(at);
        let behind = here.get(1..).unwrap_or_default();
        rest = match here.as_bytes().first() {
            Some(b'>') => return (attributes, declared, behind),
            Some(b'=') => {
                attributes += 1;
                let name = before.trim_end().rsplit(|c: char| c.is_ascii_whitespace()).next();
                declared += usize::from(name.is_some_and(|name| name.starts_with("xmlns")));
                behind
            }
            Some(b'\'') => after(behind, "'"),
            _ => after(behind, "\""),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_counted_where_they_are_and_nowhere_else() {
        let counted = |tag: &str| {
            let (attributes, declared, behind) = attributes(tag);
            (attributes, declared, behind.to_owned())
        };
        assert_eq!(counted("a b='=>=' xmlns:c = \"'\" d='x'/>=e"), (3, 1, "=e".to_owned()));
        let many = "a='b' ".repeat(ATTRIBUTES + 1);
        check(&format!("<a><!-- <b {many}> --><![CDATA[<b {many}>]]>{many}</a>")).expect("none of an element");
        assert!(matches!(
            check(&format!("<a><b {many}/></a>")),
            Err(XmlError::TooMany { .. })
        ));
    }
}
