//! Slots of the PCIe root bus.

use crate::document::{child, children, devices};
use crate::error::{XmlError, cut};
use roxmltree::{Document, Node};

/// Slots for root ports of our own, best first. libvirt numbers devices from 1 upwards, so it is the upper end; those
/// that libvirt itself prefers for a device without an address come last (`qemuDomainValidateDevicePCISlotsQ35`: 0x1d
/// and 0x1a for USB 2, 0x1b for the sound card, 0x1e for dmi-to-pci-bridge). 0x1f is the chipset's.
const PREFERRED: [u8; 30] = [
    0x1c, 0x19, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0x10, 0x0f, 0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 0x09, 0x08,
    0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, 0x1e, 0x1d, 0x1b, 0x1a,
];

/// Refuses machines without a PCIe root bus: their hotplug cannot have a root port of our own.
pub(crate) fn check_machine(document: &Document<'_>) -> Result<(), XmlError> {
    let root = document.root_element();
    let machine = child(root, "os")
        .and_then(|os| child(os, "type"))
        .and_then(|t| t.attribute("machine"))
        .unwrap_or_default();
    // libvirt expands `q35` to `pc-q35-10.0` when it stores the domain; RHEL's are `pc-q35-rhel9.6.0`.
    let q35 = machine == "q35" || machine.starts_with("pc-q35");
    let mut controllers = children(devices(document)?, "controller");
    let pcie_root =
        controllers.any(|c| c.attribute("type") == Some("pci") && c.attribute("model") == Some("pcie-root"));
    if q35 || pcie_root {
        return Ok(());
    }
    Err(XmlError::NotPcie { machine: cut(machine) })
}

/// The slots of bus 0 that nothing uses, best first: not a device of libvirt's, nor one of `<qemu:commandline>`.
pub(crate) fn free_slots(document: &Document<'_>) -> Vec<u8> {
    let mut used = [false; 32];
    let mut mark = |slot: Option<u32>| {
        if let Some(taken) = slot.and_then(|s| used.get_mut(s as usize)) {
            *taken = true;
        }
    };
    for node in document.descendants().filter(Node::is_element) {
        match node.tag_name().name() {
            "address" if node.attribute("type") == Some("pci") && is_device_address(node) => {
                mark(node.attribute("slot").and_then(number));
            }
            "arg" => {
                mark(node.attribute("value").and_then(argument_slot));
            }
            _ => {}
        }
    }
    PREFERRED
        .into_iter()
        .filter(|slot| used.get(usize::from(*slot)) == Some(&false))
        .collect()
}

/// The address of a device in the guest, on bus 0. One in `<source>` is the host's.
fn is_device_address(address: Node<'_, '_>) -> bool {
    let zero = |name| address.attribute(name).and_then(number).unwrap_or(0) == 0;
    let in_source = address.parent().is_some_and(|p| p.tag_name().name() == "source");
    !in_source && zero("domain") && zero("bus")
}

/// The slot in a `-device …,bus=pcie.0,addr=0x1e[.f]`.
fn argument_slot(value: &str) -> Option<u32> {
    let options = || value.split(',');
    if !options().any(|o| o == "bus=pcie.0") {
        return None;
    }
    let address = options().find_map(|o| o.strip_prefix("addr="))?;
    let slot = address.split('.').next().unwrap_or_default();
    // QEMU reads a bare number as hexadecimal here (`set_pci_devfn`).
    u32::from_str_radix(slot.trim_start_matches("0x"), 16).ok()
}

/// A number as libvirt's XML has it: `0x1e` or `30`.
pub(crate) fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}
