//! The frames that tell a network where an address is.

use hybond_core::ids::Mac;

use crate::nl::moved::{Address, INET};

const BROADCAST: [u8; 6] = [0xff; 6];
/// 33:33 and the last four octets of ff02::1.
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_RARP: [u8; 2] = [0x80, 0x35];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;

fn ethernet(to: [u8; 6], from: Mac, kind: [u8; 2]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(86);
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&from.octets());
    frame.extend_from_slice(&kind);
    frame
}

/// The frame that announces one address of a link; `router` where the guest forwards IPv6.
pub fn frame(mac: Mac, (family, octets): &Address, router: bool) -> Vec<u8> {
    if *family == INET {
        arp(mac, &octets[..4], 1, ETHERTYPE_ARP)
    } else {
        advertisement(mac, octets, router)
    }
}

/// The frame for a link without addresses (a bridge's port): switches learn from it, hosts ignore it. As QEMU's own.
pub fn bare(mac: Mac) -> Vec<u8> {
    arp(mac, &[0; 4], 3, ETHERTYPE_RARP)
}

/// A gratuitous ARP request, in the form that the kernel sends: sender and target are the address.
fn arp(mac: Mac, address: &[u8], operation: u8, kind: [u8; 2]) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, kind);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend_from_slice(&mac.octets());
    frame.extend_from_slice(address);
    // An ARP target is not known; RARP asks for its own (RFC 903).
    frame.extend_from_slice(&if operation == 1 { [0; 6] } else { mac.octets() });
    frame.extend_from_slice(address);
    frame.resize(60, 0);
    frame
}

/// An unsolicited neighbour advertisement to all nodes, overriding what they have (RFC 4861, 7.2.6).
fn advertisement(mac: Mac, address: &[u8; 16], router: bool) -> Vec<u8> {
    let mut body = vec![136, 0, 0, 0, if router { 0xa0 } else { 0x20 }, 0, 0, 0];
    body.extend_from_slice(address);
    body.extend_from_slice(&[2, 1]);
    body.extend_from_slice(&mac.octets());
    let length = body.len() as u8;
    let mut pseudo = Vec::with_capacity(72);
    pseudo.extend_from_slice(address);
    pseudo.extend_from_slice(&ALL_NODES);
    pseudo.extend_from_slice(&[0, 0, 0, length, 0, 0, 0, ICMPV6]);
    pseudo.extend_from_slice(&body);
    body[2..4].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    let mut frame = ethernet(ALL_NODES_MAC, mac, ETHERTYPE_IPV6);
    frame.extend_from_slice(&[0x60, 0, 0, 0, 0, length, ICMPV6, 255]);
    frame.extend_from_slice(address);
    frame.extend_from_slice(&ALL_NODES);
    frame.extend_from_slice(&body);
    frame
}

/// RFC 1071; the length is even.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac() -> Mac {
        "52:54:00:aa:00:01".parse().expect("a MAC")
    }

    #[test]
    fn a_gratuitous_arp_asks_for_its_own_address() {
        let mut address = [0u8; 16];
        address[..4].copy_from_slice(&[10, 88, 0, 50]);
        let frame = frame(mac(), &(INET, address), false);
        assert_eq!(frame.len(), 60);
        assert_eq!(&frame[..6], &[0xff; 6]);
        assert_eq!(&frame[12..22], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(&frame[28..32], &[10, 88, 0, 50]);
        assert_eq!(&frame[38..42], &[10, 88, 0, 50]);
    }

    #[test]
    fn an_advertisement_is_one_that_a_receiver_accepts() {
        let address: [u8; 16] = "fe80::5054:ff:feaa:1"
            .parse::<std::net::Ipv6Addr>()
            .expect("an address")
            .octets();
        let frame = frame(mac(), &(10, address), false);
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!(frame[14 + 7], 255, "receivers drop it unless the hop limit is 255");
        // The checksum over the pseudo header and the message, its own field included, is zero.
        let mut pseudo = frame[22..54].to_vec();
        pseudo.extend_from_slice(&[0, 0, 0, 32, 0, 0, 0, ICMPV6]);
        pseudo.extend_from_slice(&frame[54..]);
        assert_eq!(checksum(&pseudo), 0);
    }
}
