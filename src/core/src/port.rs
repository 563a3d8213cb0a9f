//! Port profiles: what a switch knows the port of a pair by, as `<virtualport>` of its interface says.
//!
//! libvirt associates the standby by it. The VF has an association of its own, where that can be had:
//!
//! | type | standby (libvirt) | VF (hybond) |
//! |---|---|---|
//! | 802.1Qbh | by the kernel, of the macvtap's lower device | by the kernel, of the VF (`IFLA_VF_PORTS`) |
//! | 802.1Qbg | by lldpad, of MAC and VLAN on the PF | none: lldpad is asked for the PF's own port only (`virNetDevVPortProfileOp8021Qbg()` sets `PORT_SELF_VF` whatever VF is meant), and libvirt refuses it for a VF (`virHostdevNetConfigVirtPortProfile()`) |

use crate::ids::ProfileName;
use crate::spec::{Flavor, PairSpec};
use serde::{Deserialize, Serialize};
use std::fmt;

/// `<virtualport>` of a pair's interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub enum PortProfile {
    /// Cisco's VN-Link: a profile that the switch has, by name.
    #[serde(rename = "802.1Qbh")]
    Qbh {
        /// `profileid`.
        profile: ProfileName,
    },
    /// EVB. Its parameters are between libvirt and lldpad.
    #[serde(rename = "802.1Qbg")]
    Qbg {},
}

impl fmt::Display for PortProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Qbh { profile } => write!(f, "802.1Qbh port profile {:?}", profile.as_str()),
            Self::Qbg {} => f.write_str("802.1Qbg port profile"),
        }
    }
}

impl PairSpec {
    /// Why its guest can have no VF, whatever the pool has: a switch that wants a port profile would let nothing of a VF pass
    /// that has none, while its link is up and the guest believes in it.
    #[must_use]
    pub fn no_vf_because(&self) -> Option<String> {
        if self.flavor() != Flavor::Hybrid {
            return None;
        }
        let mac = self.mac;
        match (self.port.as_ref()?, self.vlan) {
            (port @ PortProfile::Qbg {}, _) => Some(format!(
                "pair {mac} stays on its standby: it has an {port}, and no VF can be associated by that type; \
                 'hybondctl enable … --mac {mac} --keep-interface --flavor virtual' if that is what you want"
            )),
            (port @ PortProfile::Qbh { .. }, Some(vlan)) => Some(format!(
                "pair {mac} stays on its standby: it has an {port}, which says the VLAN, and is on VLAN {vlan} as well; \
                 'hybondctl enable … --mac {mac} --keep-interface' without --vlan"
            )),
            (PortProfile::Qbh { .. }, None) => None,
        }
    }

    /// The profile that its VF has to be associated by.
    #[must_use]
    pub fn vf_profile(&self) -> Option<&ProfileName> {
        match self.port.as_ref()? {
            PortProfile::Qbh { profile } if self.flavor() == Flavor::Hybrid => Some(profile),
            PortProfile::Qbh { .. } | PortProfile::Qbg {} => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Policy;

    fn pair(port: PortProfile) -> PairSpec {
        let mac = "52:54:00:aa:00:01".parse().expect("mac");
        PairSpec {
            port: Some(port),
            ..PairSpec::new(mac, "lan".parse().expect("name"))
        }
    }

    fn qbh() -> PortProfile {
        PortProfile::Qbh {
            profile: "web servers".parse().expect("a profile"),
        }
    }

    #[test]
    fn of_what_cannot_be_had_for_a_vf_the_pair_and_the_remedy_are_named() {
        assert_eq!(pair(qbh()).no_vf_because(), None);
        let qbg = pair(PortProfile::Qbg {});
        let why = qbg.no_vf_because().expect("a reason");
        assert!(
            why.starts_with("pair 52:54:00:aa:00:01 stays on its standby: it has an 802.1Qbg port profile"),
            "{why}"
        );
        assert!(why.contains("--flavor virtual"), "{why}");
        let tagged = PairSpec {
            vlan: Some(42),
            ..pair(qbh())
        };
        let why = tagged.no_vf_because().expect("a reason");
        assert!(why.contains("\"web servers\"") && why.contains("VLAN 42"), "{why}");
    }

    #[test]
    fn a_pair_that_is_to_have_no_vf_lacks_none() {
        for (flavor, policy) in [(Flavor::Virtual, Policy::Prefer), (Flavor::Hybrid, Policy::Never)] {
            let pair = PairSpec {
                flavor,
                policy,
                ..pair(PortProfile::Qbg {})
            };
            assert_eq!((pair.no_vf_because(), pair.vf_profile()), (None, None));
        }
    }

    #[test]
    fn a_pair_of_before_has_no_port_profile_and_one_of_now_is_read_back() {
        let old = r#"{"mac":"52:54:00:aa:00:01","pool":"lan","policy":"prefer","standby":{"kind":"ethernet"}}"#;
        let read: PairSpec = serde_json::from_str(old).expect("as an older release has written it");
        assert_eq!(read.port, None);
        assert_eq!(
            serde_json::to_string(&read).expect("JSON"),
            old,
            "and as it can read it"
        );
        for port in [qbh(), PortProfile::Qbg {}] {
            let text = serde_json::to_string(&pair(port.clone())).expect("JSON");
            assert_eq!(
                serde_json::from_str::<PairSpec>(&text).expect("its own").port,
                Some(port)
            );
        }
    }
}
