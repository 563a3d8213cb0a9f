//! Where in the guest the two NICs of a pair are.

use crate::document::{child, children, devices, domain_document, interface, mac_of};
use crate::enable::QEMU_NAMESPACE;
use crate::error::XmlError;
use crate::metadata::Metadata;
use crate::pcie::number;
use hybond_core::ids::Mac;
use roxmltree::{Document, Node};

/// Bridges between a device and the root bus. QEMU's own limit is the 256 buses that there can be.
const DEPTH: usize = 16;

/// Where the NICs of a pair are in the guest, as the way from the root bus that `lspci -P` prints: `00:1c.0/00.0` is
/// behind the root port 00:1c.0. Numbers of buses behind bridges are the guest's to give out, this way is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    /// The pair.
    pub mac: Mac,
    /// The virtio NIC; `None` where libvirt has not given it an address.
    pub standby: Option<String>,
    /// The VF, when it is plugged.
    pub primary: Option<String>,
}

/// The slots of every pair of a domain; none where it is not hybond's.
///
/// # Errors
/// The XML is not a domain, or hybond's element is not as it should be.
pub fn slots(xml: &str) -> Result<Vec<Slots>, XmlError> {
    let document = domain_document(xml)?;
    let Some(metadata) = Metadata::of_domain(&document)? else {
        return Ok(Vec::new());
    };
    let slots = |mac| {
        Ok(Slots {
            mac,
            standby: way(&document, interface(&document, mac)?)?,
            primary: root_port(&document, mac).map(|port| format!("{port}/00.0")),
        })
    };
    metadata.pairs.iter().map(|pair| slots(pair.mac)).collect()
}

/// Whether the NICs of a domain are its pairs' and no others.
///
/// # Errors
/// As [`slots`].
pub fn has_only_pairs(xml: &str) -> Result<bool, XmlError> {
    let document = domain_document(xml)?;
    let pairs = Metadata::of_domain(&document)?.map_or(Vec::new(), |metadata| metadata.pairs);
    let mut nics = children(devices(&document)?, "interface");
    Ok(nics.all(|nic| mac_of(nic).is_some_and(|mac| pairs.iter().any(|pair| pair.mac == mac))))
}

/// From the root bus to a device of libvirt's.
fn way(document: &Document<'_>, device: Node<'_, '_>) -> Result<Option<String>, XmlError> {
    let controllers: Vec<_> = children(devices(document)?, "controller")
        .filter(|c| c.attribute("type") == Some("pci"))
        .collect();
    let mut steps = Vec::new();
    let mut at = device;
    for _ in 0..DEPTH {
        let address = children(at, "address").find(|a| a.attribute("type") == Some("pci"));
        let Some(address) = address else { return Ok(None) };
        let part = |name| address.attribute(name).and_then(number).unwrap_or(0);
        let step = format!("{:02x}.{:x}", part("slot"), part("function"));
        let bus = part("bus");
        if bus == 0 {
            steps.push(format!("00:{step}"));
            steps.reverse();
            return Ok(Some(steps.join("/")));
        }
        steps.push(step);
        let index = |c: &&Node<'_, '_>| c.attribute("index").and_then(number) == Some(bus);
        let Some(bridge) = controllers.iter().find(index) else {
            return Ok(None);
        };
        at = *bridge;
    }
    Ok(None)
}

/// The slot of hybond's root port: `00:1c.0`.
fn root_port(document: &Document<'_>, mac: Mac) -> Option<String> {
    let lines = document.root_element().children();
    let arguments = lines
        .filter(|n| n.has_tag_name((QEMU_NAMESPACE, "commandline")))
        .flat_map(|line| line.children());
    let id = format!("id={}", mac.root_port_id());
    let port = arguments
        .filter_map(|argument| argument.attribute("value"))
        .find(|value| value.split(',').any(|option| option == id))?;
    let address = port.split(',').find_map(|option| option.strip_prefix("addr="))?;
    let (slot, function) = address.split_once('.').unwrap_or((address, "0"));
    let slot = u8::from_str_radix(slot.trim_start_matches("0x"), 16).ok()?;
    let function = function.parse::<u8>().ok()?;
    Some(format!("00:{slot:02x}.{function:x}"))
}

/// Gives each virtio interface that has no MAC one: what it is known by has to stay the same at each start. The first three
/// octets are QEMU's and KVM's, `draw` gives the others.
///
/// # Errors
/// The XML is not a domain.
pub fn give_macs(xml: &str, mut draw: impl FnMut() -> [u8; 3]) -> Result<String, XmlError> {
    let document = domain_document(xml)?;
    let interfaces: Vec<_> = children(devices(&document)?, "interface").collect();
    let mut taken: Vec<Mac> = interfaces.iter().filter_map(|i| crate::document::mac_of(*i)).collect();
    let mut edits = Vec::new();
    for interface in interfaces {
        let nameless = child(interface, "mac").is_none() && crate::read::is_virtio(interface);
        let Some(first) = interface.first_element_child().filter(|_| nameless) else {
            continue;
        };
        let mac = loop {
            let [a, b, c] = draw();
            match Mac::from_octets([0x52, 0x54, 0, a, b, c]) {
                Ok(mac) if !taken.contains(&mac) => break mac,
                _ => {}
            }
        };
        taken.push(mac);
        let indent = crate::enable::indent_of(xml, first);
        edits.push(crate::splice::Edit::insert(
            first.range().start,
            format!("<mac address='{mac}'/>{indent}"),
        ));
    }
    crate::splice::apply(xml, edits)
}
