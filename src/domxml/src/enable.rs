//! Making a domain hybond's.

use crate::AGENT_PORT;
use crate::disable::disable;
use crate::document::{child, children, devices, document, domain_document, interface};
use crate::error::{XmlError, cut};
use crate::metadata::{Metadata, PairMetadata, prefixed};
use crate::pcie::{check_machine, free_slots};
use crate::read::{domain_id, is_agent_channel, is_virtio, qmp_path, standby_kind, standby_of};
use crate::splice::{Edit, apply, escape_attribute};
use crate::virtualport::check_replaced;
use hybond_core::ids::{DomainId, Mac};
use hybond_core::spec::{PairSpec, StandbyKind};
use roxmltree::{Document, Node};

/// libvirt's namespace for arguments that it hands to QEMU as they are.
pub(crate) const QEMU_NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";
/// id of hybond's monitor, and of its character device.
pub(crate) const QMP_ID: &str = "hybond-qmp";
/// Chassis numbers from here: libvirt's are its controllers' indexes, 255 at most in one domain and far fewer in use.
const CHASSIS: usize = 200;
/// What of an interface says where it is connected, and is gone or another in one of type 'ethernet'.
pub(crate) const CONNECTION: [&str; 5] = ["source", "target", "virtualport", "vlan", "port"];

/// Makes an inactive domain XML hybond's: metadata, standby, the agent's port, a monitor and a root port for each
/// pair's primary. A pair of a domain that has pairs already is added, or replaced where the MAC is the same.
///
/// A pair of [`StandbyKind::Direct`] or [`StandbyKind::Network`] keeps its interface, whatever of the two it is in the XML
/// (its `source` is not looked at: it is what the XML says); one
/// of [`StandbyKind::Ethernet`] becomes `<interface type='ethernet'>`, and what it was is kept in the metadata for
/// [`disable`].
///
/// # Errors
/// The machine has no PCIe, or the XML cannot have such pairs; it names which and why.
pub fn enable(xml: &str, pairs: &[PairSpec]) -> Result<String, XmlError> {
    let before = Metadata::of_domain(&domain_document(xml)?)?;
    let Some(before) = before else {
        return enable_fresh(xml, pairs, None);
    };
    // Taking all of it away and starting afresh is what keeps a second `enable` from being a second implementation.
    let plain = disable(xml)?;
    // Each stays where it was: its root port's slot is the primary's address in the guest.
    let mut all = kept_pairs(&plain, &before, pairs)?;
    all.extend(
        pairs
            .iter()
            .filter(|new| !before.pairs.iter().any(|old| old.mac == new.mac))
            .cloned(),
    );
    enable_fresh(&plain, &all, Some(before))
}

/// The pairs that a domain had, with those that `pairs` names as they are there.
fn kept_pairs(plain: &str, before: &Metadata, pairs: &[PairSpec]) -> Result<Vec<PairSpec>, XmlError> {
    let document = domain_document(plain)?;
    let spec = |old: &PairMetadata| {
        if let Some(new) = pairs.iter().find(|new| new.mac == old.mac) {
            return Ok(new.clone());
        }
        let standby = match &old.original {
            Some(_) => StandbyKind::Ethernet,
            None => standby_kind(interface(&document, old.mac)?, old.mac)?,
        };
        Ok(PairSpec {
            mac: old.mac,
            pool: old.pool.clone(),
            flavor: old.flavor,
            policy: old.policy,
            vlan: old.vlan,
            mtu: None,
            port: None,
            standby,
        })
    };
    before.pairs.iter().map(spec).collect()
}

fn enable_fresh(xml: &str, pairs: &[PairSpec], before: Option<Metadata>) -> Result<String, XmlError> {
    let document = domain_document(xml)?;
    check_machine(&document)?;
    let id = domain_id(document.root_element())?;
    let mut metadata = Metadata {
        pairs: Vec::new(),
        preallocated: false,
        source_peer: before.and_then(|b| b.source_peer),
    };
    let mut edits = Vec::new();
    for pair in pairs {
        let interface = interface(&document, pair.mac)?;
        check_interface(interface, pair.mac)?;
        let text = slice(xml, interface);
        let original = match pair.standby {
            StandbyKind::Ethernet => {
                check_replaced(interface, pair.mac)?;
                edits.push(Edit::replace(interface.range(), ethernet(text, pair.mac)?));
                Some(text.to_owned())
            }
            StandbyKind::Direct { .. } | StandbyKind::Network { .. } => {
                check_kept(interface, pair.mac)?;
                standby_of(interface, pair.mac, pair.flavor)?;
                None
            }
        };
        metadata.pairs.push(PairMetadata {
            mac: pair.mac,
            pool: pair.pool.clone(),
            flavor: pair.flavor,
            policy: pair.policy,
            vlan: pair.vlan,
            original,
        });
    }
    metadata.check()?;
    edits.push(metadata_edit(xml, &document, &metadata)?);
    edits.extend(channel_edit(xml, &document)?);
    edits.extend(commandline_edits(xml, &document, id, pairs)?);
    apply(xml, edits)
}

/// What no standby may have.
fn check_interface(interface: Node<'_, '_>, mac: Mac) -> Result<(), XmlError> {
    let wrong = |problem: &str| {
        Err(XmlError::Interface {
            mac,
            problem: problem.to_owned(),
        })
    };
    if !is_virtio(interface) {
        return wrong("is not virtio; the standby has to be, set <model type='virtio'/>");
    }
    if child(interface, "teaming").is_some() {
        return wrong("has <teaming>, libvirt's own failover, which unplugs the primary by itself; remove it");
    }
    if child(interface, "filterref").is_some() {
        return wrong("has a <filterref>; libvirt's network filters do not work on macvtap, remove it");
    }
    Ok(())
}

/// Of type 'direct', or of a libvirt network: what libvirt makes a macvtap of.
fn check_kept(interface: Node<'_, '_>, mac: Mac) -> Result<(), XmlError> {
    let source = |attribute| child(interface, "source").and_then(|s| s.attribute(attribute));
    let kept = match interface.attribute("type") {
        Some("direct") => source("dev"),
        Some("network") => source("network"),
        _ => None,
    };
    let port = child(interface, "virtualport").and_then(|port| port.attribute("type"));
    if let Some(port) = port.filter(|port| matches!(*port, "openvswitch" | "midonet")) {
        return Err(XmlError::Interface {
            mac,
            problem: format!(
                "cannot be kept: its <virtualport type='{port}'> is of a bridge, and a standby is on a PF"
            ),
        });
    }
    if kept.is_some() {
        return Ok(());
    }
    Err(XmlError::Interface {
        mac,
        problem: "cannot be kept: it is neither of type 'direct' with a <source dev=…> nor of type 'network' with a \
                  <source network=…>"
            .to_owned(),
    })
}

/// An `<interface>` on the macvtap that hybond makes. Model, MAC, address, driver, MTU, boot order and all else that
/// the guest sees stay, byte for byte.
pub(crate) fn ethernet(original: &str, mac: Mac) -> Result<String, XmlError> {
    let document = document(original)?;
    let interface = document.root_element();
    let kind = interface.attribute_node("type").ok_or(XmlError::MissingAttribute {
        element: "interface".to_owned(),
        attribute: "type",
    })?;
    if !matches!(kind.value(), "direct" | "network" | "bridge" | "ethernet") {
        return Err(XmlError::Interface {
            mac,
            problem: format!(
                "is of type '{}'; only of type 'direct', 'network', 'bridge' or 'ethernet' can become a standby",
                cut(kind.value())
            ),
        });
    }
    let mut edits = vec![Edit::value(kind, "ethernet")];
    let target = format!("<target dev='{}' managed='no'/>", mac.standby_name());
    let mut connection = connection_of(interface);
    match connection.next() {
        Some(first) => edits.push(Edit::replace(first.range(), target)),
        None => edits.push(insert_last(original, interface, &target)),
    }
    edits.extend(connection.map(|node| Edit::remove(original, node)));
    apply(original, edits)
}

/// The children of an interface that say where it is connected.
pub(crate) fn connection_of<'a, 'i: 'a>(interface: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    CONNECTION.into_iter().flat_map(move |name| children(interface, name))
}

fn metadata_edit(xml: &str, document: &Document<'_>, metadata: &Metadata) -> Result<Edit, XmlError> {
    let root = document.root_element();
    if let Some(element) = child(root, "metadata") {
        let text = prefixed(metadata, &deeper(indent_of(xml, element)));
        if element.has_children() {
            return Ok(insert_last(xml, element, &text));
        }
        let indent = indent_of(xml, element);
        let text = format!("<metadata>{}{text}{indent}</metadata>", deeper(indent));
        return Ok(Edit::replace(element.range(), text));
    }
    let uuid = child(root, "uuid").ok_or(XmlError::MissingElement {
        element: "uuid",
        parent: "domain",
    })?;
    let indent = indent_of(xml, uuid);
    let inner = deeper(indent);
    let text = prefixed(metadata, &inner);
    Ok(Edit::insert(
        uuid.range().end,
        format!("{indent}<metadata>{inner}{text}{indent}</metadata>"),
    ))
}

fn channel_edit(xml: &str, document: &Document<'_>) -> Result<Option<Edit>, XmlError> {
    let devices = devices(document)?;
    if children(devices, "channel").any(is_agent_channel) {
        return Ok(None);
    }
    let indent = devices.first_element_child().map_or("", |first| indent_of(xml, first));
    let text = format!(
        "<channel type='unix'>{inner}<target type='virtio' name='{AGENT_PORT}'/>{indent}</channel>",
        inner = deeper(indent)
    );
    Ok(Some(insert_last(xml, devices, &text)))
}

fn commandline_edits(
    xml: &str,
    document: &Document<'_>,
    id: DomainId,
    pairs: &[PairSpec],
) -> Result<Vec<Edit>, XmlError> {
    let root = document.root_element();
    let mut edits = Vec::new();
    let prefix = match prefix_of(root, QEMU_NAMESPACE) {
        Some(prefix) => prefix.to_owned(),
        None => {
            // A prefix that is bound to something else on <domain> is someone else's.
            let prefix = if root.lookup_namespace_uri(Some("qemu")).is_none() {
                "qemu"
            } else {
                "hbqemu"
            };
            edits.push(Edit::insert(
                start_of_attributes(root),
                format!(" xmlns:{prefix}='{QEMU_NAMESPACE}'"),
            ));
            prefix.to_owned()
        }
    };
    let indent = root.first_element_child().map_or("", |first| indent_of(xml, first));
    let inner = deeper(indent);
    let arguments = arguments(document, id, pairs)?;
    let mut text = String::new();
    for (i, argument) in arguments.iter().enumerate() {
        let separator = if i == 0 { "" } else { inner.as_str() };
        let argument = escape_attribute(argument);
        text += &format!("{separator}<{prefix}:arg value='{argument}'/>");
    }
    let existing = root
        .children()
        .find(|n| n.has_tag_name((QEMU_NAMESPACE, "commandline")) && n.has_children());
    edits.push(match existing {
        Some(commandline) => insert_last(xml, commandline, &text),
        None => insert_last(
            xml,
            root,
            &format!("<{prefix}:commandline>{inner}{text}{indent}</{prefix}:commandline>"),
        ),
    });
    Ok(edits)
}

/// QEMU's arguments: a monitor of our own, and a root port for each primary. QEMU has libvirt's own ports by number, so
/// one outside that numbering is never given to another device.
fn arguments(document: &Document<'_>, id: DomainId, pairs: &[PairSpec]) -> Result<Vec<String>, XmlError> {
    let path = qmp_path(id);
    let mut arguments = vec![
        "-chardev".to_owned(),
        format!("socket,id={QMP_ID},path={},server=on,wait=off", path.display()),
        "-mon".to_owned(),
        format!("chardev={QMP_ID},mode=control"),
    ];
    let mut slots = free_slots(document).into_iter();
    for (n, pair) in pairs.iter().enumerate() {
        let slot = slots.next().ok_or(XmlError::NoFreeSlot { mac: pair.mac })?;
        let (port, chassis) = (pair.mac.root_port_id(), CHASSIS + n);
        arguments.push("-device".to_owned());
        arguments.push(format!(
            "pcie-root-port,id={port},chassis={chassis},bus=pcie.0,addr={slot:#x}"
        ));
    }
    Ok(arguments)
}

/// The prefix that a namespace has on the root element itself. The default namespace is none: `<domain>` would be in it.
pub(crate) fn prefix_of<'a>(root: Node<'a, '_>, namespace: &str) -> Option<&'a str> {
    root.namespaces().find(|n| n.uri() == namespace).and_then(|n| n.name())
}

/// Where the first attribute of an element would stand: after its name.
pub(crate) fn start_of_attributes(element: Node<'_, '_>) -> usize {
    element.range().start + 1 + element.tag_name().name().len()
}

/// The text of a node.
pub(crate) fn slice<'x>(xml: &'x str, node: Node<'_, '_>) -> &'x str {
    xml.get(node.range()).unwrap_or_default()
}

/// The white space before an element, from its newline on; nothing where it stands right after another.
pub(crate) fn indent_of<'x>(xml: &'x str, element: Node<'_, '_>) -> &'x str {
    let before = xml.get(..element.range().start).unwrap_or_default();
    let space = before.get(before.trim_end().len()..).unwrap_or_default();
    space
        .rfind('\n')
        .and_then(|newline| space.get(newline..))
        .unwrap_or_default()
}

/// One level further in.
pub(crate) fn deeper(indent: &str) -> String {
    if indent.is_empty() {
        String::new()
    } else {
        format!("{indent}  ")
    }
}

/// Inserts after the last child element, indented as that one is; without one, right before the end tag.
pub(crate) fn insert_last(xml: &str, parent: Node<'_, '_>, text: &str) -> Edit {
    if let Some(last) = parent.last_element_child() {
        let indent = parent.first_element_child().map_or("", |first| indent_of(xml, first));
        return Edit::insert(last.range().end, format!("{indent}{text}"));
    }
    let end = slice(xml, parent).rfind("</").unwrap_or(0);
    Edit::insert(parent.range().start + end, text.to_owned())
}
