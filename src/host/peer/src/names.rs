//! Whom a certificate names. The chain was verified before anything here looks at it; what is read here is for people and
//! for lists of allowed peers.

use rustls::pki_types::CertificateDer;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// Common name of the certificate's subject.
    pub common_name: Option<String>,
    /// DNS names among its subject alternative names.
    pub dns: Vec<String>,
    /// IP addresses among them.
    pub ips: Vec<IpAddr>,
}

impl PeerIdentity {
    pub(crate) fn new(address: SocketAddr, certificate: &CertificateDer<'_>) -> Self {
        let mut identity = Self {
            address,
            common_name: None,
            dns: Vec::new(),
            ips: Vec::new(),
        };
        // A certificate of another form than RFC 5280's names nobody.
        let _complete = identity.read(certificate);
        identity
    }

    /// Every name and address of the certificate, as text.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let names = self.dns.iter().cloned().chain(self.ips.iter().map(IpAddr::to_string));
        names.chain(self.common_name.clone()).collect()
    }

    /// RFC 5280, section 4.1: `Certificate ::= SEQUENCE { tbsCertificate SEQUENCE { … subject … [3] extensions } … }`.
    fn read(&mut self, certificate: &[u8]) -> Option<()> {
        let (_, certificate, _) = element(certificate)?;
        let (_, mut rest, _) = element(certificate)?;
        let mut fields = Vec::new();
        while let Some((tag, content, after)) = element(rest) {
            // Optional: version [0], which would shift the others, and unique ids [1], [2].
            match tag {
                0xa0 => {}
                0xa3 => self.read_extensions(content),
                _ => fields.push(content),
            }
            rest = after;
        }
        // Serial number, signature, issuer, validity, subject.
        self.common_name = common_name(fields.get(4)?);
        Some(())
    }

    fn read_extensions(&mut self, extensions: &[u8]) {
        const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
        let Some((_, mut rest, _)) = element(extensions) else {
            return;
        };
        while let Some((_, extension, after)) = element(rest) {
            rest = after;
            let Some((_, oid, mut tail)) = element(extension) else {
                continue;
            };
            if oid != SUBJECT_ALT_NAME {
                continue;
            }
            // An optional BOOLEAN, then the OCTET STRING.
            while let Some((tag, value, next)) = element(tail) {
                if tag == 0x04 {
                    self.read_names(value);
                }
                tail = next;
            }
        }
    }

    fn read_names(&mut self, value: &[u8]) {
        let Some((_, mut rest, _)) = element(value) else { return };
        while let Some((tag, name, after)) = element(rest) {
            rest = after;
            match tag {
                0x82 => self.dns.extend(text(name)),
                0x87 => self.ips.extend(ip(name)),
                _ => {}
            }
        }
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.names().first() {
            Some(name) => write!(f, "{name} ({})", self.address.ip()),
            None => write!(f, "{}", self.address.ip()),
        }
    }
}

/// `Name ::= SEQUENCE OF SET OF SEQUENCE { type, value }`; the last common name is the most specific one.
fn common_name(mut subject: &[u8]) -> Option<String> {
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    let mut found = None;
    while let Some((_, mut set, after)) = element(subject) {
        subject = after;
        while let Some((_, attribute, next)) = element(set) {
            set = next;
            if let Some((_, oid, tail)) = element(attribute) {
                if oid == COMMON_NAME {
                    found = element(tail).and_then(|(_, value, _)| text(value)).or(found);
                }
            }
        }
    }
    found
}

/// Printable text of a length that fits a log line.
fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.is_empty() && text.len() <= 255 && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// One DER element: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // Up to four bytes of length: a certificate in TLS has at most 2^24.
        let count = usize::from(first & 0x7f);
        let (bytes, rest) = rest.split_at_checked(count).filter(|_| (1..=4).contains(&count))?;
        (bytes.iter().fold(0usize, |n, b| n << 8 | usize::from(*b)), rest)
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn certificate() -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["node1.example.org".into(), "node1".into()]).expect("names");
        params
            .subject_alt_names
            .push(SanType::IpAddress("192.0.2.1".parse().expect("an address")));
        params
            .subject_alt_names
            .push(SanType::IpAddress("2001:db8::1".parse().expect("an address")));
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        params.distinguished_name.push(DnType::CommonName, "node1");
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    fn identity(der: &[u8]) -> PeerIdentity {
        let address = "192.0.2.7:1024".parse().expect("an address");
        PeerIdentity::new(address, &CertificateDer::from(der.to_vec()))
    }

    #[test]
    fn every_name_is_found() {
        let identity = identity(&certificate());
        assert_eq!(identity.common_name.as_deref(), Some("node1"));
        assert_eq!(identity.dns, ["node1.example.org", "node1"]);
        assert_eq!(
            identity.names(),
            ["node1.example.org", "node1", "192.0.2.1", "2001:db8::1", "node1"]
        );
        assert_eq!(identity.to_string(), "node1.example.org (192.0.2.7)");
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            identity(&bytes);
        }

        #[test]
        fn nor_does_a_certificate_with_a_wrong_byte(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut der = certificate().to_vec();
            let at = at.index(der.len());
            der[at] = byte;
            identity(&der);
        }
    }
}
