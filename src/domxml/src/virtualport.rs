//! `<virtualport>` of a pair's interface, as far as it is about a switch that knows ports by profiles.

use crate::document::child;
use crate::error::XmlError;
use crate::splice::escape_attribute;
use hybond_core::ids::Mac;
use hybond_core::port::PortProfile;
use hybond_core::spec::StandbyKind;
use roxmltree::Node;

const QBH: &str = "802.1Qbh";
const QBG: &str = "802.1Qbg";

/// The port profile of an interface that is kept. One of hybond's own has none: libvirt takes no `<virtualport>` in
/// `type='ethernet'`.
///
/// Of an interface of a network the network's portgroup may say what is left out here; from hook `start` on, the interface has
/// all of it.
pub(crate) fn port_profile(
    interface: Node<'_, '_>,
    mac: Mac,
    standby: &StandbyKind,
) -> Result<Option<PortProfile>, XmlError> {
    let port = child(interface, "virtualport").filter(|_| *standby != StandbyKind::Ethernet);
    let Some((port, kind)) = port.and_then(|port| Some((port, port.attribute("type")?))) else {
        return Ok(None);
    };
    let profile = child(port, "parameters").and_then(|parameters| parameters.attribute("profileid"));
    match (kind, profile) {
        (QBG, _) => Ok(Some(PortProfile::Qbg {})),
        (QBH, Some(profile)) => {
            let profile = profile.parse().map_err(|source| XmlError::InvalidId {
                element: "parameters".to_owned(),
                attribute: "profileid",
                source,
            })?;
            Ok(Some(PortProfile::Qbh { profile }))
        }
        (QBH, None) if *standby == (StandbyKind::Network { source: None }) => Ok(None),
        (QBH, None) => Err(XmlError::Interface {
            mac,
            problem: "has <virtualport type='802.1Qbh'> without <parameters profileid=…/>".to_owned(),
        }),
        _ => Ok(None),
    }
}

/// An interface that loses its `<virtualport>` would be on a macvtap that nobody associates.
pub(crate) fn check_replaced(interface: Node<'_, '_>, mac: Mac) -> Result<(), XmlError> {
    let kind = child(interface, "virtualport").and_then(|port| port.attribute("type"));
    match kind {
        Some(kind @ (QBG | QBH)) => Err(XmlError::Interface {
            mac,
            problem: format!(
                "has <virtualport type='{kind}'>, by which libvirt associates it with the switch; hybond's own macvtap would \
                 have no association and the guest perhaps no network: use --keep-interface, or take the <virtualport> out"
            ),
        }),
        _ => Ok(()),
    }
}

/// The `<virtualport>` of a VF that libvirt attaches, and associates.
#[must_use]
pub fn virtualport(port: &PortProfile) -> String {
    match port {
        PortProfile::Qbh { profile } => {
            let profile = escape_attribute(profile.as_str());
            format!("<virtualport type='{QBH}'><parameters profileid='{profile}'/></virtualport>")
        }
        PortProfile::Qbg {} => String::new(),
    }
}
