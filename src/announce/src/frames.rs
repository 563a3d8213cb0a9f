//! The frames.

use hybond_core::ids::Mac;

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

/// Announces an IPv4 address: a gratuitous ARP request, in the form that the kernel sends, in which sender and target are the
/// address.
#[must_use]
pub fn ipv4(mac: Mac, address: [u8; 4]) -> Vec<u8> {
    arp(mac, address, 1, ETHERTYPE_ARP)
}

/// Announces a MAC without an address: switches learn from it, hosts ignore it. As QEMU's own (RARP, RFC 903).
#[must_use]
pub fn rarp(mac: Mac) -> Vec<u8> {
    arp(mac, [0; 4], 3, ETHERTYPE_RARP)
}

fn arp(mac: Mac, address: [u8; 4], operation: u8, kind: [u8; 2]) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, kind);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend_from_slice(&mac.octets());
    frame.extend_from_slice(&address);
    // An ARP target is not known; RARP asks for its own (RFC 903).
    frame.extend_from_slice(&if operation == 1 { [0; 6] } else { mac.octets() });
    frame.extend_from_slice(&address);
    frame.resize(60, 0);
    frame
}

/// Announces an IPv6 address: an unsolicited neighbour advertisement to all nodes, overriding what they have (RFC 4861, 7.2.6).
/// `router`: whoever has it forwards IPv6.
#[must_use]
pub fn ipv6(mac: Mac, address: &[u8; 16], router: bool) -> Vec<u8> {
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
        let frame = ipv4(mac(), [10, 88, 0, 50]);
        assert_eq!(frame.len(), 60);
        assert_eq!(&frame[..6], &[0xff; 6]);
        assert_eq!(&frame[12..22], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(&frame[28..32], &[10, 88, 0, 50]);
        assert_eq!(&frame[38..42], &[10, 88, 0, 50]);
    }

    #[test]
    fn a_rarp_asks_for_the_address_of_its_own_mac() {
        let frame = rarp(mac());
        assert_eq!(frame.len(), 60);
        assert_eq!(&frame[6..12], &mac().octets());
        assert_eq!(&frame[12..22], &[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
        assert_eq!(&frame[32..38], &mac().octets());
    }

    #[test]
    fn an_advertisement_is_one_that_a_receiver_accepts() {
        let address: [u8; 16] = "fe80::5054:ff:feaa:1"
            .parse::<std::net::Ipv6Addr>()
            .expect("an address")
            .octets();
        let frame = ipv6(mac(), &address, false);
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!(frame[14 + 7], 255, "receivers drop it unless the hop limit is 255");
        // The checksum over the pseudo header and the message, its own field included, is zero.
        let mut pseudo = frame[22..54].to_vec();
        pseudo.extend_from_slice(&[0, 0, 0, 32, 0, 0, 0, ICMPV6]);
        pseudo.extend_from_slice(&frame[54..]);
        assert_eq!(checksum(&pseudo), 0);
    }
}
