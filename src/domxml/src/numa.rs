//! The NUMA nodes of the host that a domain's memory comes from.

use crate::document::{child, children};
use roxmltree::Node;
use std::collections::BTreeSet;

/// libvirt's own bound on the nodes of a nodeset (`VIR_DOMAIN_CPUMASK_LEN`).
const NODES: u32 = 1024;

/// Nodes of `<numatune>`: those of `<memory nodeset=…>`, or of every `<memnode>` where the domain as a whole names none.
/// None where libvirt leaves the memory to the kernel or to numad (`placement='auto'`).
///
/// It says which VF is rather taken, and no more. So a nodeset that cannot be read is none here: libvirt refuses the domain
/// by itself, and hybond is not to refuse one that libvirt takes.
pub(crate) fn memory_nodes(domain: Node<'_, '_>) -> Vec<u32> {
    let Some(numatune) = child(domain, "numatune") else {
        return Vec::new();
    };
    let nodes = |element: Node<'_, '_>| element.attribute("nodeset").and_then(nodeset).unwrap_or_default();
    let whole = child(numatune, "memory").map(nodes).unwrap_or_default();
    let nodes = match whole.is_empty() {
        true => children(numatune, "memnode").flat_map(nodes).collect(),
        false => whole,
    };
    nodes.into_iter().collect()
}

/// libvirt's form of a set: numbers, ranges and, with `^`, what is taken out again, from left to right: `0-3,^2`.
fn nodeset(text: &str) -> Option<BTreeSet<u32>> {
    let mut nodes = BTreeSet::new();
    for part in text.split(',').map(str::trim) {
        let (out, part) = match part.strip_prefix('^') {
            Some(rest) => (true, rest),
            None => (false, part),
        };
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= NODES {
            return None;
        }
        for node in first..=last {
            if out {
                nodes.remove(&node);
            } else {
                nodes.insert(node);
            }
        }
    }
    Some(nodes)
}
