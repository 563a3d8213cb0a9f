//! A VF's port, as linux/if_link.h lays it out: what a switch is asked to know it by, and what it has answered. Bytes only;
//! [`crate::associate`] sends them.
//!
//! ```text
//! IFLA_VF_PORTS
//!   IFLA_VF_PORT                one for each VF
//!     IFLA_PORT_VF              u32, its number
//!     IFLA_PORT_PROFILE         a string in PORT_PROFILE_MAX bytes
//!     IFLA_PORT_INSTANCE_UUID   16 bytes: the domain
//!     IFLA_PORT_HOST_UUID       16 bytes: the host
//!     IFLA_PORT_REQUEST         u8 on the way in; the one driver that answers gives a u16 (`enic_get_vf_port()`)
//!     IFLA_PORT_RESPONSE        u16, on the way out only
//! ```
//! IFLA_PORT_VSI_TYPE is of 802.1Qbg, which is never asked of the kernel.

use hybond_core::ids::{DomainId, ProfileName};
use rtnetlink::packet_core::{DecodeError, NlasIterator};

pub(crate) const IFLA_VF_PORTS: u16 = 24;
const IFLA_VF_PORT: u16 = 1;
const IFLA_PORT_VF: u16 = 1;
const IFLA_PORT_PROFILE: u16 = 2;
const IFLA_PORT_INSTANCE_UUID: u16 = 4;
const IFLA_PORT_HOST_UUID: u16 = 5;
const IFLA_PORT_REQUEST: u16 = 6;
const IFLA_PORT_RESPONSE: u16 = 7;
const PORT_PROFILE_MAX: usize = 40;
const PORT_REQUEST_ASSOCIATE: u8 = 2;
const PORT_REQUEST_DISASSOCIATE: u8 = 3;
const PORT_VDP_RESPONSE_SUCCESS: u16 = 0;
const PORT_PROFILE_RESPONSE_SUCCESS: u16 = 0x100;
const PORT_PROFILE_RESPONSE_INPROGRESS: u16 = 0x101;

/// What a VF's port is to be associated by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortAssociation {
    /// A profile that the switch has.
    pub profile: ProfileName,
    /// For whom: libvirt gives the domain, so the switch sees one for both paths.
    pub instance: DomainId,
    /// The host; `None` where nobody knows its UUID.
    pub host: Option<[u8; 16]>,
    /// The address that the VF gets before; `None` leaves it alone.
    pub mac: Option<[u8; 6]>,
}

/// A VF's port, as the kernel reports it. A driver may leave out each of these.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortSeen {
    request: Option<u8>,
    response: Option<u16>,
    /// The profile that it was to be associated by.
    pub profile: Option<String>,
    /// For whom.
    pub instance: Option<DomainId>,
}

/// What has become of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The switch has agreed.
    Agreed,
    /// It has not answered yet.
    Open,
    /// The answer, for people.
    Refused(String),
}

impl PortSeen {
    /// It was associated, or somebody has asked for that, whatever came of it.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        self.request.is_some_and(|request| request != PORT_REQUEST_DISASSOCIATE)
    }

    /// It is associated by this profile, for this domain, as far as the driver says.
    #[must_use]
    pub fn is_by(&self, profile: &ProfileName, instance: DomainId) -> bool {
        self.request == Some(PORT_REQUEST_ASSOCIATE)
            && self.verdict() == Verdict::Agreed
            && self.profile.as_ref().is_none_or(|found| found == profile.as_str())
            && self.instance.is_none_or(|found| found == instance)
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let word = match self.response {
            Some(PORT_PROFILE_RESPONSE_SUCCESS | PORT_VDP_RESPONSE_SUCCESS) => return Verdict::Agreed,
            Some(PORT_PROFILE_RESPONSE_INPROGRESS) => return Verdict::Open,
            None => return Verdict::Refused("none: the driver took the request and reports no answer".to_owned()),
            Some(0x102) => "invalid profile",
            Some(0x103) => "bad state",
            Some(0x104) => "insufficient resources",
            Some(0x105) => "error",
            Some(_) => "not known here",
        };
        let number = self.response.unwrap_or_default();
        Verdict::Refused(format!("\"{word}\" ({number:#x})"))
    }
}

/// The value of IFLA_VF_PORTS that associates a VF.
pub(crate) fn associate(vf: u32, port: &PortAssociation) -> Vec<u8> {
    let mut profile = port.profile.as_str().as_bytes().to_vec();
    // All 40 bytes: since Linux 6.10 enic refuses any other length, before it read as many, whatever there was
    // (`enic_set_vf_port()`).
    profile.resize(PORT_PROFILE_MAX, 0);
    let mut values = vec![
        (IFLA_PORT_PROFILE, profile),
        (IFLA_PORT_INSTANCE_UUID, port.instance.bytes().to_vec()),
    ];
    values.extend(port.host.map(|host| (IFLA_PORT_HOST_UUID, host.to_vec())));
    of_vf(vf, PORT_REQUEST_ASSOCIATE, values)
}

/// The value of IFLA_VF_PORTS that takes a VF's association away.
pub(crate) fn disassociate(vf: u32) -> Vec<u8> {
    of_vf(vf, PORT_REQUEST_DISASSOCIATE, Vec::new())
}

fn of_vf(vf: u32, request: u8, mut values: Vec<(u16, Vec<u8>)>) -> Vec<u8> {
    values.push((IFLA_PORT_VF, vf.to_ne_bytes().to_vec()));
    values.push((IFLA_PORT_REQUEST, vec![request]));
    let mut port = Vec::new();
    for (kind, value) in values {
        put(&mut port, kind, &value);
    }
    let mut ports = Vec::new();
    put(&mut ports, IFLA_VF_PORT, &port);
    ports
}

/// `struct nlattr`, its value, and padding to four bytes. None here is longer than some hundred bytes.
fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Number and port of each VF, from the value of IFLA_VF_PORTS.
pub(crate) fn decode(value: &[u8]) -> Result<Vec<(u32, PortSeen)>, DecodeError> {
    let mut ports = Vec::new();
    for port in NlasIterator::new(value) {
        let port = port?;
        if port.kind() == IFLA_VF_PORT {
            ports.extend(decode_port(port.value())?);
        }
    }
    Ok(ports)
}

/// `None` if it does not say of which VF.
fn decode_port(value: &[u8]) -> Result<Option<(u32, PortSeen)>, DecodeError> {
    let mut vf = None;
    let mut seen = PortSeen::default();
    for attribute in NlasIterator::new(value) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            IFLA_PORT_VF => vf = value.try_into().ok().map(u32::from_ne_bytes),
            IFLA_PORT_PROFILE => {
                let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
                seen.profile = Some(String::from_utf8_lossy(text).into_owned());
            }
            IFLA_PORT_INSTANCE_UUID => seen.instance = value.try_into().ok().map(DomainId::from_bytes),
            IFLA_PORT_REQUEST => seen.request = number(value).and_then(|number| u8::try_from(number).ok()),
            IFLA_PORT_RESPONSE => seen.response = number(value),
            _ => {}
        }
    }
    Ok(vf.map(|vf| (vf, seen)))
}

/// Of one byte or two.
fn number(value: &[u8]) -> Option<u16> {
    match value {
        [byte] => Some((*byte).into()),
        [first, second] => Some(u16::from_ne_bytes([*first, *second])),
        _ => None,
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    const DOMAIN: [u8; 16] = [0xa2, 0xa2, 0xa2, 0xa2, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 2];

    fn association() -> PortAssociation {
        PortAssociation {
            profile: "web".parse().expect("a profile"),
            instance: "a2a2a2a2-0000-4000-8000-000000000002".parse().expect("a UUID"),
            host: Some([0x11; 16]),
            mac: None,
        }
    }

    /// Of VF 5: 108 bytes with their headers, as `struct nlattr` has length and type, in the host's order.
    fn on_the_wire() -> Vec<u8> {
        let mut bytes = vec![108, 0, 1, 0]; // IFLA_VF_PORT
        bytes.extend([44, 0, 2, 0]); // IFLA_PORT_PROFILE, all of its 40 bytes
        bytes.extend(b"web");
        bytes.extend([0; 37]);
        bytes.extend([20, 0, 4, 0]); // IFLA_PORT_INSTANCE_UUID
        bytes.extend(DOMAIN);
        bytes.extend([20, 0, 5, 0]); // IFLA_PORT_HOST_UUID
        bytes.extend([0x11; 16]);
        bytes.extend([8, 0, 1, 0, 5, 0, 0, 0]); // IFLA_PORT_VF
        bytes.extend([5, 0, 6, 0, 2, 0, 0, 0]); // IFLA_PORT_REQUEST: associate, padded
        bytes.extend([6, 0, 7, 0]); // IFLA_PORT_RESPONSE
        bytes
    }

    #[test]
    fn an_association_is_laid_out_as_the_kernel_reads_it() {
        // The response is the kernel's to add.
        let mut expected = on_the_wire();
        expected.truncate(104);
        expected[0] = 104;
        assert_eq!(associate(5, &association()), expected);
        let unknown_host = PortAssociation {
            host: None,
            ..association()
        };
        assert_eq!(
            associate(5, &unknown_host).len(),
            84,
            "a host that nobody knows is left out"
        );
        let long = PortAssociation {
            profile: "x".repeat(39).parse().expect("the longest"),
            ..association()
        };
        assert_eq!(associate(5, &long)[8..48], *format!("{}\0", "x".repeat(39)).as_bytes());
    }

    #[test]
    fn a_disassociation_names_the_vf_and_nothing_else() {
        let expected = [20, 0, 1, 0, 8, 0, 1, 0, 7, 0, 0, 0, 5, 0, 6, 0, 3, 0, 0, 0];
        assert_eq!(disassociate(7), expected);
    }

    /// As the kernel gives it, with this answer.
    fn answered(response: [u8; 2]) -> PortSeen {
        let mut bytes = on_the_wire();
        bytes.extend(response);
        bytes.extend([0, 0]);
        // Another VF of the PF, of which the driver says nothing more, and what next year's kernel says.
        bytes.extend([12, 0, 1, 0, 8, 0, 1, 0, 6, 0, 0, 0]);
        bytes.extend([8, 0, 99, 0, 1, 2, 3, 4]);
        bytes[0] = 112;
        let ports = decode(&bytes).expect("well formed");
        assert_eq!(ports.len(), 2);
        assert_eq!(ports[1], (6, PortSeen::default()));
        assert!(!ports[1].1.is_claimed());
        assert_eq!(ports[0].0, 5);
        ports[0].1.clone()
    }

    #[test]
    fn the_switchs_answer_is_read_back() {
        let PortAssociation { profile, instance, .. } = association();
        let agreed = answered([0, 1]);
        assert_eq!(agreed.verdict(), Verdict::Agreed);
        assert!(agreed.is_claimed() && agreed.is_by(&profile, instance));
        assert!(!agreed.is_by(&"mail".parse().expect("a profile"), instance));
        assert!(!agreed.is_by(&profile, DomainId::from_bytes([9; 16])));
        let open = answered([1, 1]);
        assert_eq!(open.verdict(), Verdict::Open);
        assert!(!open.is_by(&profile, instance));
        for (response, expected) in [
            ([2, 1], "\"invalid profile\" (0x102)"),
            ([4, 1], "\"insufficient resources\" (0x104)"),
            ([7, 7], "\"not known here\" (0x707)"),
        ] {
            assert_eq!(answered(response).verdict(), Verdict::Refused(expected.to_owned()));
        }
    }

    #[test]
    fn a_request_of_two_bytes_is_the_same_and_a_cut_answer_is_refused() {
        // As enic gives it, of a port that was disassociated.
        let bytes = [
            28, 0, 1, 0, 8, 0, 1, 0, 5, 0, 0, 0, 6, 0, 6, 0, 3, 0, 0, 0, 6, 0, 7, 0, 0, 1, 0, 0,
        ];
        let ports = decode(&bytes).expect("well formed");
        let [(5, seen)] = ports.as_slice() else {
            panic!("{ports:?}")
        };
        assert!(!seen.is_claimed());
        assert_eq!(seen.verdict(), Verdict::Agreed);
        assert!(decode(&bytes[..20]).is_err());
        let silent = PortSeen::default().verdict();
        assert!(matches!(silent, Verdict::Refused(answer) if answer.contains("reports no answer")));
    }
}
