//! Reading a domain.

use crate::document::{child, children, devices, domain_document, interface, mac_of};
use crate::error::{XmlError, cut};
use crate::metadata::{Metadata, PairMetadata};
use crate::virtualport::port_profile;
use crate::{AGENT_PORT, NAMESPACE};
use hybond_core::ids::{DomainId, Mac};
use hybond_core::spec::{DomainSpec, Flavor, PairSpec, StandbyKind};
use roxmltree::{Document, Node};
use std::path::PathBuf;

/// Whether the bytes name hybond's namespace at all. Where they do not, no domain in them is hybond's, whatever else is
/// wrong with them: that is what keeps the hook from ever failing for other domains.
#[must_use]
pub fn mentions_hybond(bytes: &[u8]) -> bool {
    bytes.windows(NAMESPACE.len()).any(|w| w == NAMESPACE.as_bytes())
}

/// Reads what a domain asks of hybond; `None` where it asks nothing. Takes what libvirt gives to hooks and what
/// `virsh dumpxml` prints, of a running domain or not.
///
/// # Errors
/// hybond's element, or an interface that it names, is not as it should be.
pub fn parse(xml: &str) -> Result<Option<DomainSpec>, XmlError> {
    if !mentions_hybond(xml.as_bytes()) {
        return Ok(None);
    }
    let document = domain_document(xml)?;
    let Some(metadata) = Metadata::of_domain(&document)? else {
        return Ok(None);
    };
    let root = document.root_element();
    let name = child(root, "name").and_then(|n| n.text()).unwrap_or_default();
    let pairs = metadata.pairs.into_iter().map(|pair| pair_spec(&document, pair));
    Ok(Some(DomainSpec {
        id: domain_id(root)?,
        name: name.trim().to_owned(),
        pairs: pairs.collect::<Result<_, _>>()?,
        source_peer: metadata.source_peer,
        numa_nodes: crate::numa::memory_nodes(root),
    }))
}

fn pair_spec(document: &Document<'_>, pair: PairMetadata) -> Result<PairSpec, XmlError> {
    let interface = interface(document, pair.mac)?;
    let standby = standby_of(interface, pair.mac, pair.flavor)?;
    Ok(PairSpec {
        mac: pair.mac,
        pool: pair.pool,
        flavor: pair.flavor,
        policy: pair.policy,
        vlan: pair.vlan,
        mtu: mtu(interface, pair.mac)?,
        port: port_profile(interface, pair.mac, &standby)?,
        standby,
    })
}

/// The standby of a pair of this flavor.
pub(crate) fn standby_of(interface: Node<'_, '_>, mac: Mac, flavor: Flavor) -> Result<StandbyKind, XmlError> {
    let kind = standby_kind(interface, mac)?;
    if flavor == Flavor::Indirect && kind != StandbyKind::Ethernet {
        let problem = "is kept as it was and of flavor 'indirect', whose macvtap hybond makes over the VF; run \
                       'hybondctl enable' without --keep-interface, or with another flavor";
        return Err(XmlError::Interface {
            mac,
            problem: problem.to_owned(),
        });
    }
    Ok(kind)
}

/// `<mtu size=…/>`, which QEMU tells the guest.
fn mtu(interface: Node<'_, '_>, mac: Mac) -> Result<Option<u32>, XmlError> {
    let size = child(interface, "mtu").and_then(|mtu| mtu.attribute("size"));
    let number = |text: &str| {
        text.parse().map_err(|_| XmlError::Interface {
            mac,
            problem: format!("has <mtu size='{}'/>, which is no number of bytes", cut(text)),
        })
    };
    size.map(number).transpose()
}

/// How the standby stands in the XML, if it can be one.
pub(crate) fn standby_kind(interface: Node<'_, '_>, mac: Mac) -> Result<StandbyKind, XmlError> {
    let wrong = |problem: String| XmlError::Interface { mac, problem };
    match interface.attribute("type").unwrap_or_default() {
        "ethernet" => {
            let target = child(interface, "target");
            let attribute = |name| target.and_then(|t| t.attribute(name));
            let expected = mac.standby_name();
            // With managed='yes', or another name, libvirt makes a tap device that is connected to nothing.
            if attribute("dev") != Some(expected.as_str()) || attribute("managed") != Some("no") {
                return Err(wrong(format!(
                    "is of type 'ethernet' without <target dev='{expected}' managed='no'/>; \
                     'hybondctl enable' writes it so"
                )));
            }
            Ok(StandbyKind::Ethernet)
        }
        "direct" => {
            let source = child(interface, "source");
            let dev = source.and_then(|s| s.attribute("dev"));
            let dev = dev.ok_or_else(|| wrong("is of type 'direct' and has no <source dev=…>".to_owned()))?;
            let dev = dev.parse().map_err(|source| XmlError::InvalidId {
                element: "source".to_owned(),
                attribute: "dev",
                source,
            })?;
            // Of a running domain, libvirt shows an interface of a network as what it has made of it.
            Ok(match source.and_then(|s| s.attribute("network")) {
                Some(_) => StandbyKind::Network { source: Some(dev) },
                None => StandbyKind::Direct { source: dev },
            })
        }
        "network" => match child(interface, "source").and_then(|s| s.attribute("network")) {
            Some(_) => Ok(StandbyKind::Network { source: None }),
            None => Err(wrong("is of type 'network' and has no <source network=…>".to_owned())),
        },
        other if child(interface, "source").is_some_and(|s| s.has_attribute("network")) => Err(wrong(format!(
            "is on a libvirt network that gives it no PF (libvirt made it of type '{}'); the network needs <forward \
             mode='bridge'> with the PFs of the pool, each as <interface dev=…/>",
            cut(other)
        ))),
        other => Err(wrong(format!(
            "is of type '{}', which cannot be a standby; 'hybondctl enable' makes it one of type 'ethernet'",
            cut(other)
        ))),
    }
}

/// libvirt's UUID of the domain.
pub(crate) fn domain_id(root: Node<'_, '_>) -> Result<DomainId, XmlError> {
    let uuid = child(root, "uuid").and_then(|n| n.text()).unwrap_or_default();
    if uuid.is_empty() {
        return Err(XmlError::MissingElement {
            element: "uuid",
            parent: "domain",
        });
    }
    uuid.trim().parse().map_err(|source| XmlError::InvalidId {
        element: "uuid".to_owned(),
        attribute: "(text)",
        source,
    })
}

/// MACs of the interfaces that [`crate::enable`] could take: virtio, and not the host's or another VM's function.
///
/// # Errors
/// The XML is not a domain.
pub fn candidates(xml: &str) -> Result<Vec<Mac>, XmlError> {
    let document = domain_document(xml)?;
    Ok(children(devices(&document)?, "interface")
        .filter(|n| is_virtio(*n) && n.attribute("type") != Some("hostdev"))
        .filter_map(mac_of)
        .collect())
}

/// `<model type='virtio'/>`, or virtio's transitional forms.
pub(crate) fn is_virtio(interface: Node<'_, '_>) -> bool {
    let model = child(interface, "model").and_then(|m| m.attribute("type"));
    matches!(
        model,
        Some("virtio" | "virtio-transitional" | "virtio-non-transitional")
    )
}

/// The guest agent's port, as the host has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentChannel {
    /// Its unix socket, which libvirt has chosen.
    pub path: PathBuf,
    /// Its id in QEMU, by which events name it. A domain that runs has one.
    pub alias: Option<String>,
}

/// The guest agent's port. `None` where the domain does not run, or has no such port.
///
/// # Errors
/// The XML is not a domain.
pub fn agent_channel(live_xml: &str) -> Result<Option<AgentChannel>, XmlError> {
    let document = domain_document(live_xml)?;
    let mut channels = children(devices(&document)?, "channel").filter(|n| is_agent_channel(*n));
    let channel = channels.find_map(|channel| {
        Some(AgentChannel {
            path: child(channel, "source")?.attribute("path")?.into(),
            alias: child(channel, "alias").and_then(|alias| Some(alias.attribute("name")?.to_owned())),
        })
    });
    Ok(channel)
}

/// A virtio-serial port of the agent's name, over a unix socket.
pub(crate) fn is_agent_channel(channel: Node<'_, '_>) -> bool {
    channel.attribute("type") == Some("unix")
        && child(channel, "target")
            .is_some_and(|t| t.attribute("type") == Some("virtio") && t.attribute("name") == Some(AGENT_PORT))
}

/// The QMP socket that a domain has for hybond alone.
#[must_use]
pub fn qmp_path(domain: DomainId) -> PathBuf {
    PathBuf::from(format!("/run/hybond/qmp/{domain}.qmp"))
}
