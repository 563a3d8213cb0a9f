//! The persistent definition after a migration.
//!
//! With `--persistent` the source's definition travels in the migration cookie, past the hook that rewrites the XML, and
//! so its `<interface type='direct'>` may name lower devices of the source (`qemuMigrationDstPersist`).

use crate::call::Failure;
use crate::handle::Scope;
use crate::metadata;
use hybond_core::ids::{IfName, Mac};
use hybond_core::spec::StandbyKind;
use hybond_domxml::XmlError;
use roxmltree::{Document, Node};
use virt::domain::Domain;
use virt_sys as sys;

/// Sets the lower device of the `direct` interfaces with these MACs in the persistent definition. One interface at a time
/// and through the device call, so that the domain is never redefined from a text without its secrets. Returns the MACs
/// that were changed.
pub(crate) fn repair(domain: &Domain, sources: &[(Mac, IfName)]) -> Result<Vec<Mac>, Failure> {
    if sources.is_empty() || !domain.is_persistent()? {
        return Ok(Vec::new());
    }
    let xml = domain.xml_desc(Scope::Persistent.xml_flags())?;
    let mut changed = Vec::new();
    for (mac, interface) in wrong_interfaces(&xml, sources).map_err(metadata::invalid)? {
        domain.update_device_flags(&interface, sys::VIR_DOMAIN_AFFECT_CONFIG)?;
        changed.push(mac);
    }
    Ok(changed)
}

/// The `direct` interfaces of pairs that have another lower device than they should, as they should be. An interface of
/// another type is the same on every host.
fn wrong_interfaces(xml: &str, sources: &[(Mac, IfName)]) -> Result<Vec<(Mac, String)>, XmlError> {
    let Some(spec) = hybond_domxml::parse(xml)? else {
        return Ok(Vec::new());
    };
    let wrong = |(mac, wanted): &&(Mac, IfName)| {
        let pair = spec.pairs.iter().find(|pair| pair.mac == *mac);
        matches!(pair.map(|p| &p.standby), Some(StandbyKind::Direct { source }) if source != wanted)
    };
    let edits: Vec<(Mac, IfName)> = sources.iter().filter(wrong).cloned().collect();
    let edited = hybond_domxml::set_sources(xml, &edits)?;
    let document = Document::parse(&edited).map_err(|error| XmlError::NotXml(error.into()))?;
    Ok(edits
        .iter()
        .filter_map(|(mac, _)| Some((*mac, edited.get(interface(&document, *mac)?.range())?.to_owned())))
        .collect())
}

fn interface<'a>(document: &'a Document<'_>, mac: Mac) -> Option<Node<'a, 'a>> {
    let devices = document.root_element().children().find(|n| n.has_tag_name("devices"))?;
    devices.children().filter(|n| n.has_tag_name("interface")).find(|n| {
        let address = n
            .children()
            .find(|c| c.has_tag_name("mac"))
            .and_then(|c| c.attribute("address"));
        address.and_then(|a| a.parse::<Mac>().ok()) == Some(mac)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<domain type='kvm'>
  <name>web</name>
  <uuid>a2a2a2a2-0000-4000-8000-000000000002</uuid>
  <metadata><hybond:domain xmlns:hybond='urn:hybond:domain:1'>
    <hybond:pair mac='52:54:00:aa:00:01' pool='10GE'/>
    <hybond:pair mac='52:54:00:aa:00:02' pool='10GE'/>
  </hybond:domain></metadata>
  <devices>
    <interface type='ethernet'>
      <mac address='52:54:00:aa:00:02'/>
      <target dev='hb525400aa0002' managed='no'/>
      <model type='virtio'/>
    </interface>
    <interface type='direct'>
      <mac address='52:54:00:AA:00:01'/>
      <source dev='enp1s0f0' mode='private'/>
      <model type='virtio'/>
    </interface>
  </devices>
</domain>";

    fn wrong(sources: &[(&str, &str)]) -> Vec<(Mac, String)> {
        let sources: Vec<_> = sources
            .iter()
            .map(|(mac, name)| (mac.parse().expect("a MAC"), name.parse().expect("a name")))
            .collect();
        wrong_interfaces(XML, &sources).expect("valid")
    }

    #[test]
    fn only_the_lower_device_changes() {
        let interfaces = wrong(&[("52:54:00:aa:00:01", "ens3f1"), ("52:54:00:aa:00:02", "ens3f1")]);
        let expected = "<interface type='direct'>
      <mac address='52:54:00:AA:00:01'/>
      <source dev='ens3f1' mode='private'/>
      <model type='virtio'/>
    </interface>";
        let texts: Vec<_> = interfaces.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, [expected]);
    }

    #[test]
    fn what_is_right_or_unknown_is_left_alone() {
        assert_eq!(
            wrong(&[("52:54:00:aa:00:01", "enp1s0f0"), ("52:54:00:aa:00:09", "ens3f1")]),
            []
        );
    }
}
