//! What a PF says of its VFs, decoded here and not by netlink-packet-route: that folds "the driver does not report it"
//! into "off" for trust and spoof check, and drops the whole answer where one attribute of one VF is new to it.

use crate::port::{self, IFLA_VF_PORTS, PortSeen};
use crate::request::TIMEOUT;
use crate::{Error, Result, VfState};
use futures::StreamExt;
use hybond_core::ids::IfName;
use rtnetlink::packet_core::{
    DecodeError, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable, NlasIterator,
};
use rtnetlink::proto;
use rtnetlink::sys::{SocketAddr, protocols::NETLINK_ROUTE};
use std::pin::pin;

// linux/rtnetlink.h and linux/if_link.h.
const RTM_GETLINK: u16 = 18;
const IFINFOMSG_LEN: usize = 16;
const IFLA_NUM_VF: u16 = 21;
const IFLA_VFINFO_LIST: u16 = 22;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_VF: u32 = 1 << 0;
/// The counters make the answer four times as long, and it must fit the 64 KiB of one attribute.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const IFLA_VF_MAC: u16 = 1;
const IFLA_VF_VLAN: u16 = 2;
const IFLA_VF_SPOOFCHK: u16 = 4;
const IFLA_VF_RATE: u16 = 6;
const IFLA_VF_TRUST: u16 = 9;

/// Any rtnetlink message, undecoded.
#[derive(Debug)]
struct Raw {
    kind: u16,
    payload: Vec<u8>,
}

impl NetlinkSerializable for Raw {
    fn message_type(&self) -> u16 {
        self.kind
    }
    fn buffer_len(&self) -> usize {
        self.payload.len()
    }
    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.payload);
    }
}

impl NetlinkDeserializable for Raw {
    type Error = DecodeError;
    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> std::result::Result<Self, DecodeError> {
        Ok(Self {
            kind: header.message_type,
            payload: payload.to_vec(),
        })
    }
}

/// The VFs of a PF.
pub(crate) struct VfList {
    /// How many are enabled.
    pub count: u32,
    /// Number and state of each that the driver reports.
    pub vfs: Vec<(u32, VfState)>,
    /// Number and port of each that the driver reports. `None` where it knows no port profiles: of one that does, the kernel
    /// lists what there is, though it be nothing (`rtnl_vf_ports_fill()`).
    pub ports: Option<Vec<(u32, PortSeen)>>,
}

impl VfList {
    /// The driver has nothing to associate this VF with.
    pub fn knows_no_ports(&self, index: u32) -> bool {
        self.ports.is_none() && index < self.count
    }
}

/// Asks the PF of that index for its VFs, on a connection of its own that ends with this call.
pub(crate) async fn read(pf: &IfName, index: u32) -> Result<VfList> {
    let doing = format!("read the VFs of {pf}");
    let (connection, handle, unsolicited) = proto::new_connection::<Raw>(NETLINK_ROUTE).map_err(Error::Socket)?;
    drop(unsolicited);
    // Ends by itself once `handle` is gone.
    tokio::spawn(connection);
    let request = Raw {
        kind: RTM_GETLINK,
        payload: request(index),
    };
    let mut message = NetlinkMessage::from_inner(request);
    message.header.flags = NLM_F_REQUEST;
    let answers = handle.request(message, SocketAddr::new(0, 0));
    let Ok(answers) = answers else {
        return Err(Error::Lost { doing });
    };
    let answer = match tokio::time::timeout(TIMEOUT, pin!(answers).next()).await {
        Ok(answer) => answer.map(|message| message.payload),
        Err(_) => return Err(Error::Timeout { doing, after: TIMEOUT }),
    };
    match answer {
        Some(NetlinkPayload::InnerMessage(raw)) => decode(&raw.payload).map_err(|error| Error::Kernel {
            doing,
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string()),
        }),
        Some(NetlinkPayload::Error(error)) => Err(Error::Kernel {
            doing,
            source: error.to_io(),
        }),
        _ => Err(Error::Lost { doing }),
    }
}

trait FromInner {
    fn from_inner(raw: Raw) -> Self;
}

impl FromInner for NetlinkMessage<Raw> {
    fn from_inner(raw: Raw) -> Self {
        Self::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(raw))
    }
}

/// `struct ifinfomsg` with the index, and which extended attributes are wanted.
fn request(index: u32) -> Vec<u8> {
    let mut payload = vec![0; 4];
    payload.extend(index.to_ne_bytes());
    payload.resize(IFINFOMSG_LEN, 0);
    payload.extend(8u16.to_ne_bytes());
    payload.extend(IFLA_EXT_MASK.to_ne_bytes());
    payload.extend((RTEXT_FILTER_VF | RTEXT_FILTER_SKIP_STATS).to_ne_bytes());
    payload
}

fn decode(payload: &[u8]) -> std::result::Result<VfList, DecodeError> {
    let attributes = payload.get(IFINFOMSG_LEN..).unwrap_or_default();
    let mut list = VfList {
        count: 0,
        vfs: Vec::new(),
        ports: None,
    };
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            IFLA_NUM_VF => list.count = word(attribute.value(), 0).unwrap_or(0),
            IFLA_VFINFO_LIST => {
                for vf in NlasIterator::new(attribute.value()) {
                    list.vfs.extend(decode_vf(vf?.value())?);
                }
            }
            IFLA_VF_PORTS => list.ports = Some(port::decode(attribute.value())?),
            _ => {}
        }
    }
    Ok(list)
}

/// Every attribute of a VF begins with the VF's number. `None` if there is no attribute that is known here.
fn decode_vf(attributes: &[u8]) -> std::result::Result<Option<(u32, VfState)>, DecodeError> {
    let mut number = None;
    let mut state = VfState::default();
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            IFLA_VF_MAC => {
                number = word(value, 0);
                // Padded to MAX_ADDR_LEN.
                state.mac = value
                    .get(4..10)
                    .and_then(|octets| octets.try_into().ok())
                    .unwrap_or_default();
            }
            IFLA_VF_VLAN => {
                state.vlan = word(value, 1).and_then(|vlan| u16::try_from(vlan).ok()).unwrap_or(0);
                state.qos = word(value, 2).and_then(|qos| u8::try_from(qos).ok()).unwrap_or(0);
            }
            IFLA_VF_SPOOFCHK => state.spoofchk = setting(word(value, 1)),
            IFLA_VF_TRUST => state.trust = setting(word(value, 1)),
            IFLA_VF_RATE => {
                state.min_tx_mbps = word(value, 1).unwrap_or(0);
                state.max_tx_mbps = word(value, 2).unwrap_or(0);
            }
            _ => {}
        }
    }
    Ok(number.map(|number| (number, state)))
}

/// `rtnl_fill_vfinfo()` starts with -1, which a driver that does not report the setting leaves.
fn setting(word: Option<u32>) -> Option<bool> {
    word.filter(|value| *value != u32::MAX).map(|value| value != 0)
}

/// The nth 32-bit word.
fn word(value: &[u8], n: usize) -> Option<u32> {
    let bytes = value.get(n * 4..n * 4 + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn what_a_driver_does_not_report_is_not_taken_for_off() {
        let mut mac = words(&[3]);
        mac.extend([0x52, 0x54, 0, 0xaa, 0, 1]);
        mac.resize(36, 0);
        let vf = [
            attribute(IFLA_VF_MAC, &mac),
            attribute(IFLA_VF_VLAN, &words(&[3, 7, 5])),
            attribute(IFLA_VF_SPOOFCHK, &words(&[3, 1])),
            attribute(IFLA_VF_TRUST, &words(&[3, u32::MAX])),
            attribute(999, b"what next year's kernel says"),
        ]
        .concat();
        let mut payload = vec![0; IFINFOMSG_LEN];
        payload.extend(attribute(IFLA_NUM_VF, &words(&[7])));
        payload.extend(attribute(IFLA_VFINFO_LIST, &attribute(1, &vf)));
        let list = decode(&payload).expect("well formed");
        assert_eq!(list.count, 7);
        let expected = VfState {
            mac: [0x52, 0x54, 0, 0xaa, 0, 1],
            vlan: 7,
            qos: 5,
            trust: None,
            spoofchk: Some(true),
            ..VfState::default()
        };
        assert_eq!(list.vfs, [(3, expected)]);
    }

    #[test]
    fn a_driver_without_port_profiles_is_told_from_one_that_has_none_associated() {
        let mut payload = vec![0; IFINFOMSG_LEN];
        payload.extend(attribute(IFLA_NUM_VF, &words(&[7])));
        let list = decode(&payload).expect("well formed");
        assert!(list.ports.is_none() && list.knows_no_ports(3));
        assert!(!list.knows_no_ports(7), "of a VF that is not there nothing is known");
        payload.extend(attribute(IFLA_VF_PORTS, &[]));
        let list = decode(&payload).expect("well formed");
        assert!(list.ports.as_ref().is_some_and(Vec::is_empty) && !list.knows_no_ports(3));
    }

    #[test]
    fn a_cut_answer_is_refused() {
        let mut payload = vec![0; IFINFOMSG_LEN];
        payload.extend(attribute(IFLA_VFINFO_LIST, &[9, 0, 1, 0, 1]));
        assert!(decode(&payload).is_err());
    }
}
