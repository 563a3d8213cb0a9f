//! What can be wrong with a domain's XML.

use hybond_core::ids::{InvalidId, Mac};

/// Why an XML is not read, or not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XmlError {
    /// More than [`crate::MAX_XML`].
    #[error("the domain's XML has {bytes} bytes; more than {} are not read", crate::MAX_XML)]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// More of something than any domain has, and than the parser takes in good time.
    #[error("the domain's XML has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many may be there.
        limit: usize,
    },
    /// Not well-formed.
    #[error("the domain's XML is not well-formed")]
    NotXml(#[source] Fault),
    /// Well-formed, but something else.
    #[error("the XML is no libvirt domain: its outermost element is <{found}>, not <domain>")]
    NotADomain {
        /// The outermost element.
        found: String,
    },
    /// An element that has to be there.
    #[error("<{parent}> has no <{element}>")]
    MissingElement {
        /// What is missing.
        element: &'static str,
        /// Where.
        parent: &'static str,
    },
    /// An attribute that has to be there.
    #[error("<{element}> has no attribute '{attribute}'")]
    MissingAttribute {
        /// The element.
        element: String,
        /// What is missing.
        attribute: &'static str,
    },
    /// An identifier that is none.
    #[error("the value of <{element}> or its attribute '{attribute}' is not valid")]
    InvalidId {
        /// The element.
        element: String,
        /// The attribute.
        attribute: &'static str,
        /// What it should have been.
        #[source]
        source: InvalidId,
    },
    /// A value that is not among the allowed ones.
    #[error("attribute '{attribute}' of <{element}> is {value:?}, not {expected}")]
    InvalidValue {
        /// The element.
        element: String,
        /// The attribute.
        attribute: &'static str,
        /// What it is, cut to 64 characters.
        value: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// Something in hybond's namespace that this release does not know.
    #[error("{what} in <{parent}> is not known to this release of hybond; is it misspelt, or from a newer release?")]
    Unknown {
        /// The element or attribute.
        what: String,
        /// Where.
        parent: String,
    },
    /// hybond's element is there twice, or an element in it that may be there once.
    #[error("there is more than one <{element}>")]
    Repeated {
        /// The element.
        element: &'static str,
    },
    /// hybond's element names no pair.
    #[error("<hybond:domain> names no pair; 'hybondctl enable' adds one, 'hybondctl disable' removes the element")]
    NoPairs,
    /// More than [`hybond_core::spec::MAX_PAIRS`].
    #[error("{count} pairs; a domain may have {} at most", hybond_core::spec::MAX_PAIRS)]
    TooManyPairs {
        /// How many there are.
        count: usize,
    },
    /// Two pairs of one MAC.
    #[error("two pairs have the MAC {mac}")]
    DuplicatePair {
        /// The MAC.
        mac: Mac,
    },
    /// A pair without its standby.
    #[error("the domain has no <interface> with the MAC {mac} for the pair's standby")]
    NoInterface {
        /// The pair.
        mac: Mac,
    },
    /// An interface that cannot be a standby, or not this way.
    #[error("the interface with the MAC {mac} {problem}")]
    Interface {
        /// Its MAC.
        mac: Mac,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// The domain cannot have PCIe hotplug.
    #[error(
        "the machine type is {machine:?}, which has no PCIe root bus for the primary's port; \
         hybond needs q35 (<type machine='q35'>)"
    )]
    NotPcie {
        /// The machine type.
        machine: String,
    },
    /// Every slot of bus 0 is taken.
    #[error("bus 0 has no free slot for a root port of the pair {mac}; remove an unused <controller>")]
    NoFreeSlot {
        /// The pair.
        mac: Mac,
    },
    /// `disable` of a domain that is not enabled.
    #[error(
        "the domain has no <hybond:domain> in its <metadata>: it is not enabled for hybond, 'hybondctl enable' does that"
    )]
    NotEnabled,
    /// The text after the change is not well-formed: a fault of hybond's, nothing was changed.
    #[error("the changed XML is not well-formed; nothing was changed, please report this")]
    Spliced(#[source] Fault),
}

/// A value, fit for an error text.
pub(crate) fn cut(text: &str) -> String {
    hybond_core::text::fit(text, 64)
}

/// Why and where a text is not well-formed. Never what stands there: it may be of any length, and part of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(String);

impl From<roxmltree::Error> for Fault {
    fn from(error: roxmltree::Error) -> Self {
        use roxmltree::Error;
        let at = |what: &str| format!("{what} at {}", error.pos());
        Self(match &error {
            Error::DuplicatedNamespace(..) => at("a namespace prefix is declared twice"),
            Error::UnknownNamespace(..) => at("a namespace prefix is not declared"),
            Error::UnexpectedCloseTag(..) => at("the end tag is another element's"),
            Error::UnknownEntityReference(..) => at("unknown entity"),
            Error::DuplicatedAttribute(..) => at("an attribute is there twice"),
            Error::NonXmlChar(..) | Error::InvalidChar(..) | Error::InvalidChar2(..) => at("unexpected character"),
            Error::EntityResolver(..) => at("unresolved entity"),
            Error::NodesLimitReached => "it has too many elements".to_owned(),
            // These say what was expected, and where.
            other => other.to_string(),
        })
    }
}
