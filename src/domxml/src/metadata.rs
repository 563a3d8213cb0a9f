//! hybond's element in `<metadata>`.

use crate::document::{document, domain_document, hybond_element, label, required};
use crate::error::{XmlError, cut};
use crate::splice::{escape_attribute, escape_text};
use crate::{NAMESPACE, PREFIX};
use hybond_core::ids::{InvalidId, Mac, PeerAddr, PoolName};
use hybond_core::spec::{Flavor, MAX_PAIRS, Policy};
use roxmltree::Node;
use std::str::FromStr;

/// The element, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) pairs: Vec<PairMetadata>,
    /// hybond has had the domain's memory got at its start, in `<memoryBacking>`.
    pub(crate) preallocated: bool,
    pub(crate) source_peer: Option<PeerAddr>,
}

/// `<hybond:pair>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PairMetadata {
    pub(crate) mac: Mac,
    pub(crate) pool: PoolName,
    pub(crate) flavor: Flavor,
    pub(crate) policy: Policy,
    pub(crate) vlan: Option<u16>,
    /// The `<interface>` before [`crate::enable`] turned it into hybond's.
    pub(crate) original: Option<String>,
}

impl Metadata {
    /// Reads the element of a domain; `None` where it has none.
    pub(crate) fn of_domain(document: &roxmltree::Document<'_>) -> Result<Option<Self>, XmlError> {
        hybond_element(document)?.map(Self::of_element).transpose()
    }

    fn of_element(element: Node<'_, '_>) -> Result<Self, XmlError> {
        let namespace = element.tag_name().namespace();
        only_attributes(element, &[])?;
        let mut metadata = Self {
            pairs: Vec::new(),
            preallocated: false,
            source_peer: None,
        };
        for child in element.children().filter(Node::is_element) {
            match child.tag_name().name() {
                _ if child.tag_name().namespace() != namespace => return Err(unknown_element(child, element)),
                "pair" => metadata.pairs.push(PairMetadata::of_element(child)?),
                "memory" if !metadata.preallocated => {
                    only_attributes(child, &["allocation"])?;
                    metadata.preallocated = match required(child, "allocation")? {
                        "immediate" => true,
                        other => return Err(invalid_value(child, "allocation", other, "'immediate'")),
                    };
                }
                "memory" => {
                    return Err(XmlError::Repeated {
                        element: "hybond:memory",
                    });
                }
                "source" if metadata.source_peer.is_none() => {
                    only_attributes(child, &["peer"])?;
                    metadata.source_peer = Some(id(child, "peer")?);
                }
                "source" => {
                    return Err(XmlError::Repeated {
                        element: "hybond:source",
                    });
                }
                _ => return Err(unknown_element(child, element)),
            }
        }
        metadata.check()?;
        Ok(metadata)
    }

    /// What must hold for the pairs together.
    pub(crate) fn check(&self) -> Result<(), XmlError> {
        match self.pairs.len() {
            0 => return Err(XmlError::NoPairs),
            1..=MAX_PAIRS => {}
            count => return Err(XmlError::TooManyPairs { count }),
        }
        for (i, pair) in self.pairs.iter().enumerate() {
            if self.pairs.iter().take(i).any(|earlier| earlier.mac == pair.mac) {
                return Err(XmlError::DuplicatePair { mac: pair.mac });
            }
        }
        Ok(())
    }

    /// The element as text, each of its lines but the first after `indent`.
    pub(crate) fn format(&self, prefix: Option<&str>, indent: &str) -> String {
        let tag = prefix.map_or(String::new(), |p| format!("{p}:"));
        let declaration = prefix.map_or(String::new(), |p| format!(" xmlns:{p}=\"{NAMESPACE}\""));
        let mut text = format!("<{tag}domain{declaration}>");
        for pair in &self.pairs {
            let PairMetadata { mac, pool, .. } = pair;
            let policy = policy_name(pair.policy);
            let pool = escape_attribute(pool.as_str());
            text += &format!("{indent}  <{tag}pair mac=\"{mac}\" pool=\"{pool}\" policy=\"{policy}\"");
            if !pair.flavor.is_default() {
                text += &format!(" flavor=\"{}\"", flavor_name(pair.flavor));
            }
            if let Some(vlan) = pair.vlan {
                text += &format!(" vlan=\"{vlan}\"");
            }
            match &pair.original {
                None => text.push_str("/>"),
                Some(original) => {
                    let original = escape_text(original);
                    text += &format!(">{indent}    <{tag}interface>{original}</{tag}interface>{indent}  </{tag}pair>");
                }
            }
        }
        if self.preallocated {
            text += &format!("{indent}  <{tag}memory allocation=\"immediate\"/>");
        }
        if let Some(peer) = &self.source_peer {
            let peer = escape_attribute(peer.as_str());
            text += &format!("{indent}  <{tag}source peer=\"{peer}\"/>");
        }
        text += &format!("{indent}</{tag}domain>");
        text
    }
}

impl PairMetadata {
    fn of_element(element: Node<'_, '_>) -> Result<Self, XmlError> {
        only_attributes(element, &["mac", "pool", "flavor", "policy", "vlan"])?;
        let mut original = None;
        for child in element.children().filter(Node::is_element) {
            let same = child.tag_name().namespace() == element.tag_name().namespace();
            if !same || child.tag_name().name() != "interface" {
                return Err(unknown_element(child, element));
            }
            let text: String = child.children().filter_map(|n| n.text()).collect();
            original = Some(text);
        }
        Ok(Self {
            mac: id(element, "mac")?,
            pool: id(element, "pool")?,
            flavor: flavor(element)?,
            policy: policy(element)?,
            vlan: vlan(element)?,
            original,
        })
    }
}

/// The word of a flavor in XML.
fn flavor_name(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::Hybrid => "hybrid",
        Flavor::Virtual => "virtual",
        Flavor::Indirect => "indirect",
    }
}

fn flavor(element: Node<'_, '_>) -> Result<Flavor, XmlError> {
    match element.attribute("flavor") {
        None => Ok(Flavor::default()),
        Some("hybrid") => Ok(Flavor::Hybrid),
        Some("virtual") => Ok(Flavor::Virtual),
        Some("indirect") => Ok(Flavor::Indirect),
        Some(value) => Err(invalid_value(
            element,
            "flavor",
            value,
            "'hybrid', 'virtual' or 'indirect'",
        )),
    }
}

/// The word of a policy in XML.
fn policy_name(policy: Policy) -> &'static str {
    match policy {
        Policy::Prefer => "prefer",
        Policy::Require => "require",
        Policy::Never => "never",
    }
}

fn policy(element: Node<'_, '_>) -> Result<Policy, XmlError> {
    match element.attribute("policy") {
        None => Ok(Policy::default()),
        Some("prefer") => Ok(Policy::Prefer),
        Some("require") => Ok(Policy::Require),
        Some("never") => Ok(Policy::Never),
        Some(value) => Err(invalid_value(
            element,
            "policy",
            value,
            "'prefer', 'require' or 'never'",
        )),
    }
}

fn vlan(element: Node<'_, '_>) -> Result<Option<u16>, XmlError> {
    let Some(value) = element.attribute("vlan") else {
        return Ok(None);
    };
    // `parse` would take "+42".
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    let vlan = digits.then(|| value.parse::<u16>().ok()).flatten();
    vlan.filter(|v| (1..=4094).contains(v))
        .map(Some)
        .ok_or_else(|| invalid_value(element, "vlan", value, "a VLAN from 1 to 4094"))
}

fn invalid_value(element: Node<'_, '_>, attribute: &'static str, value: &str, expected: &'static str) -> XmlError {
    XmlError::InvalidValue {
        element: label(element),
        attribute,
        value: cut(value),
        expected,
    }
}

fn id<T: FromStr<Err = InvalidId>>(element: Node<'_, '_>, attribute: &'static str) -> Result<T, XmlError> {
    required(element, attribute)?
        .parse()
        .map_err(|source| XmlError::InvalidId {
            element: label(element),
            attribute,
            source,
        })
}

/// A misspelt `vlan` must not be a pair without VLAN.
fn only_attributes(element: Node<'_, '_>, known: &[&str]) -> Result<(), XmlError> {
    match element
        .attributes()
        .find(|a| a.namespace().is_none() && !known.contains(&a.name()))
    {
        None => Ok(()),
        Some(attribute) => Err(XmlError::Unknown {
            what: format!("attribute '{}'", cut(attribute.name())),
            parent: label(element),
        }),
    }
}

fn unknown_element(element: Node<'_, '_>, parent: Node<'_, '_>) -> XmlError {
    XmlError::Unknown {
        what: format!("element <{}>", cut(&label(element))),
        parent: label(parent),
    }
}

/// The element for `virDomainSetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, …, PREFIX, NAMESPACE, …)` with the peer
/// set; everything else as it is in `xml`, a whole domain.
///
/// libvirt declares the namespace on the element by itself and fails where the text already does
/// (`virXMLInjectNamespace`), so the text has none.
///
/// # Errors
/// The XML is not a domain, or not hybond's ([`XmlError::NotEnabled`]).
pub fn set_source_peer(xml: &str, peer: &PeerAddr) -> Result<String, XmlError> {
    let mut metadata = Metadata::of_domain(&domain_document(xml)?)?.ok_or(XmlError::NotEnabled)?;
    metadata.source_peer = Some(peer.clone());
    element(&metadata)
}

/// What may be changed of a pair without touching the rest of the domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairChange {
    /// Another policy.
    Policy(Policy),
    /// Another VLAN; `None` is untagged.
    Vlan(Option<u16>),
}

/// As [`set_source_peer`], with pairs changed. Pairs that the domain does not have are passed over. `None` where nothing is
/// another than before.
///
/// # Errors
/// As [`set_source_peer`].
pub fn change_pairs(xml: &str, changes: &[(Mac, PairChange)]) -> Result<Option<String>, XmlError> {
    let before = Metadata::of_domain(&domain_document(xml)?)?.ok_or(XmlError::NotEnabled)?;
    let mut metadata = before.clone();
    for (mac, change) in changes {
        let Some(pair) = metadata.pairs.iter_mut().find(|pair| pair.mac == *mac) else {
            continue;
        };
        match change {
            PairChange::Policy(policy) => pair.policy = *policy,
            PairChange::Vlan(vlan) => pair.vlan = *vlan,
        }
    }
    if metadata == before {
        return Ok(None);
    }
    element(&metadata).map(Some)
}

fn element(metadata: &Metadata) -> Result<String, XmlError> {
    let text = metadata.format(None, "");
    document(&text).map_err(|error| match error {
        XmlError::NotXml(source) => XmlError::Spliced(source),
        other => other,
    })?;
    Ok(text)
}

/// The default prefix, for documents of our own making.
pub(crate) fn prefixed(metadata: &Metadata, indent: &str) -> String {
    metadata.format(Some(PREFIX), indent)
}
