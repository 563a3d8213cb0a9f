//! A domain's XML, as the hook gets it from libvirt, and what the daemon and hybondctl do with it.

use crate::{fit_to_show, memory};
use hybond_core::ids::{IfName, Mac, PeerAddr};
use hybond_core::spec::{DomainSpec, MAX_PAIRS, PairSpec, Policy, StandbyKind};
use hybond_domxml::{PairChange, XmlError};
use roxmltree::{Document, Node};
use std::ops::Range;

/// Reads and changes it in every way there is.
pub fn run(data: &[u8]) {
    let Ok(xml) = std::str::from_utf8(data) else {
        // The hook says so itself; whether it is hybond's at all is known before.
        let said = String::from_utf8_lossy(data).contains(hybond_domxml::NAMESPACE);
        return assert_eq!(hybond_domxml::mentions_hybond(data), said);
    };
    // A node of roxmltree's has about 100 bytes, and `<a/>` has four.
    let room = 64 * 1024 + 128 * data.len();
    let spec = memory::within(room, || hybond_domxml::parse(xml));
    match spec {
        Ok(Some(spec)) => memory::within(2 * room, || is_hybonds(xml, &spec)),
        Ok(None) => {}
        Err(error) => {
            assert!(
                hybond_domxml::mentions_hybond(data),
                "no error for domains of others: {error}"
            );
            fit(&error);
        }
    }
    memory::within(room, || match hybond_domxml::agent_channel(xml) {
        Ok(Some(channel)) => assert!(xml.contains(&*channel.path.to_string_lossy()) || xml.contains('&')),
        Ok(None) => {}
        Err(error) => fit(&error),
    });
    memory::within(8 * room, || enabled_and_disabled(xml));
}

fn fit(error: &XmlError) {
    fit_to_show(error);
    assert!(!matches!(error, XmlError::Spliced(_)), "a fault of hybond's: {error:?}");
}

fn is_hybonds(xml: &str, spec: &DomainSpec) {
    assert!((1..=MAX_PAIRS).contains(&spec.pairs.len()));
    let id = spec.id.to_string();
    assert_eq!(id.parse().as_ref(), Ok(&spec.id));
    let document = Document::parse(xml).expect("it was read");
    let uuid = child(document.root_element(), "uuid")
        .and_then(|n| n.text())
        .unwrap_or_default();
    assert_eq!(uuid.trim().to_lowercase(), id, "what is read is what is there");
    for pair in &spec.pairs {
        assert!(pair.vlan.is_none_or(|vlan| (1..=4094).contains(&vlan)));
    }
    sources(xml, spec);
    element(xml, spec);
}

/// New lower devices: those values change, and no other byte.
fn sources(xml: &str, spec: &DomainSpec) {
    let new: IfName = "fuzz0np1".parse().expect("a name");
    let direct = |pair: &&PairSpec| matches!(pair.standby, StandbyKind::Direct { .. });
    let macs: Vec<Mac> = spec.pairs.iter().filter(direct).map(|pair| pair.mac).collect();
    let edits: Vec<_> = macs.iter().map(|mac| (*mac, new.clone())).collect();
    let edited = hybond_domxml::set_sources(xml, &edits).expect("each of them has one");
    let document = Document::parse(xml).expect("it was read");
    let mut places: Vec<Range<usize>> = macs.iter().map(|mac| source_of(&document, *mac)).collect();
    places.sort_by_key(|place| place.start);
    let mut expected = String::new();
    let mut at = 0;
    for place in places {
        expected += xml.get(at..place.start).expect("in order");
        expected += new.as_str();
        at = place.end;
    }
    expected += xml.get(at..).expect("the rest");
    assert_eq!(edited, expected);
    let after = hybond_domxml::parse(&edited)
        .expect("readable")
        .expect("still hybond's");
    let source = new;
    let moved = |pair: &PairSpec| PairSpec {
        standby: match &pair.standby {
            StandbyKind::Direct { .. } => StandbyKind::Direct { source: source.clone() },
            other => other.clone(),
        },
        ..pair.clone()
    };
    let pairs = spec.pairs.iter().map(moved).collect();
    assert_eq!(after, DomainSpec { pairs, ..spec.clone() });
}

fn source_of(document: &Document<'_>, mac: Mac) -> Range<usize> {
    let devices = child(document.root_element(), "devices").expect("there");
    let address = |n: &Node<'_, '_>| child(*n, "mac").and_then(|m| m.attribute("address")?.parse::<Mac>().ok());
    let mut interfaces = devices
        .children()
        .filter(|n| is(*n, "interface") && n.attribute("type") == Some("direct") && address(n) == Some(mac));
    let interface = interfaces.next().expect("there");
    let source = child(interface, "source").and_then(|s| s.attribute_node("dev"));
    source.expect("there").range_value()
}

/// hybond's element, written anew for libvirt's call that sets it.
fn element(xml: &str, spec: &DomainSpec) {
    let peer: PeerAddr = "node9.example.org:16515".parse().expect("a peer");
    let text = hybond_domxml::set_source_peer(xml, &peer).expect("it is hybond's");
    let whole = |element: &str| {
        let declared = element.replacen("<domain>", &format!("<domain xmlns='{}'>", hybond_domxml::NAMESPACE), 1);
        format!("<domain><metadata>{declared}</metadata></domain>")
    };
    let again = hybond_domxml::set_source_peer(&whole(&text), &peer).expect("what was written is read");
    assert_eq!(again, text);
    let all = |change: PairChange| spec.pairs.iter().map(|p| (p.mac, change)).collect::<Vec<_>>();
    let same: Vec<_> = spec
        .pairs
        .iter()
        .map(|p| (p.mac, PairChange::Policy(p.policy)))
        .collect();
    assert_eq!(hybond_domxml::change_pairs(xml, &same).expect("it is hybond's"), None);
    for change in [
        PairChange::Policy(Policy::Require),
        PairChange::Vlan(Some(7)),
        PairChange::Vlan(None),
    ] {
        if let Some(text) = hybond_domxml::change_pairs(xml, &all(change)).expect("it is hybond's") {
            let after = hybond_domxml::change_pairs(&whole(&text), &all(change)).expect("what was written is read");
            assert_eq!(after, None, "changed");
        }
    }
}

/// What `enable` puts in, `disable` takes out.
fn enabled_and_disabled(xml: &str) {
    let macs = match hybond_domxml::candidates(xml) {
        Ok(macs) => macs,
        Err(error) => return fit(&error),
    };
    let pool = "10GE".parse::<hybond_core::ids::PoolName>().expect("a name");
    let pair = |mac: &Mac| PairSpec {
        policy: Policy::Require,
        ..PairSpec::new(*mac, pool.clone())
    };
    let pairs: Vec<PairSpec> = macs.iter().take(MAX_PAIRS).map(pair).collect();
    let enabled = match hybond_domxml::enable(xml, &pairs) {
        Ok(enabled) => enabled,
        Err(error) => return fit(&error),
    };
    let spec = hybond_domxml::parse(&enabled).map_err(|error| fit(&error));
    if let Ok(spec) = spec {
        let spec = spec.expect("it is hybond's now");
        let named = |mac: &Mac| {
            spec.pairs
                .iter()
                .any(|pair| pair.mac == *mac && pair.policy == Policy::Require)
        };
        assert!(macs.iter().take(MAX_PAIRS).all(named));
    }
    let preallocated = match hybond_domxml::preallocate_at_start(&enabled) {
        Ok(preallocated) => preallocated,
        Err(error) => {
            fit(&error);
            None
        }
    };
    let disabled = match hybond_domxml::disable(&preallocated.unwrap_or(enabled)) {
        Ok(disabled) => disabled,
        Err(error) => panic!("enabled, and then: {}", fit_to_show(&error)),
    };
    assert_eq!(hybond_domxml::candidates(&disabled).expect("readable"), macs);
    // Of a domain that had something of hybond's already, that is gone too.
    let had = ["hybond", "hbrp"].iter().any(|word| xml.contains(word));
    if !had {
        assert_eq!(shape(&disabled), shape(xml), "as it was before");
    }
}

/// Every element with its attributes and its text, without white space between them, and without what libvirt would leave
/// out itself: empty `<metadata>`, `<memoryBacking>` and `<qemu:commandline>`.
fn shape(xml: &str) -> Vec<String> {
    let document = Document::parse(xml).expect("readable");
    let mut shape = Vec::new();
    flatten(document.root_element(), 0, &mut shape);
    shape
}

fn flatten(node: Node<'_, '_>, depth: usize, shape: &mut Vec<String>) {
    // A stack of our own would be as deep; the domains of the corpus are not.
    if depth > 200 {
        return;
    }
    let name = node.tag_name();
    let text: String = node
        .children()
        .filter(|n| n.is_text())
        .filter_map(|n| n.text())
        .collect();
    let text: String = text.split_whitespace().collect();
    let empty = text.is_empty() && !node.has_children_elements();
    if empty && (is(node, "metadata") || is(node, "memoryBacking") || name.name() == "commandline") {
        return;
    }
    let mut attributes: Vec<String> = node
        .attributes()
        .map(|a| format!("{}:{}={:?}", a.namespace().unwrap_or_default(), a.name(), a.value()))
        .collect();
    attributes.sort();
    let namespace = name.namespace().unwrap_or_default();
    shape.push(format!(
        "{depth} {namespace}:{} {} {text}",
        name.name(),
        attributes.join(" ")
    ));
    for child in node.children().filter(Node::is_element) {
        flatten(child, depth + 1, shape);
    }
}

trait Elements {
    fn has_children_elements(&self) -> bool;
}

impl Elements for Node<'_, '_> {
    fn has_children_elements(&self) -> bool {
        self.children().any(|n| n.is_element())
    }
}

fn is(node: Node<'_, '_>, name: &str) -> bool {
    node.is_element() && node.tag_name().namespace().is_none() && node.tag_name().name() == name
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|n| is(*n, name))
}
