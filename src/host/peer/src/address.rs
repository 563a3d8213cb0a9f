//! What a [`PeerAddr`] means.

use crate::error::PeerError;
use hybond_core::ids::PeerAddr;
use rustls::pki_types::ServerName;
use std::net::Ipv6Addr;

/// Host and port, and the name that the certificate must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) name: ServerName<'static>,
}

/// `host`, `host:port`, `192.0.2.1:port`, `2001:db8::1`, `[2001:db8::1]:port`.
pub(crate) fn parse(address: &PeerAddr) -> Result<Target, PeerError> {
    let text = address.as_str();
    let invalid = |reason: &str| PeerError::Address {
        address: address.clone(),
        reason: reason.to_owned(),
    };
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| invalid("'[' without ']'"))?;
        host.parse::<Ipv6Addr>()
            .map_err(|_| invalid("no IPv6 address between '[' and ']'"))?;
        match rest {
            "" => (host, None),
            _ => (
                host,
                Some(rest.strip_prefix(':').ok_or_else(|| invalid("text after ']'"))?),
            ),
        }
    } else if text.parse::<Ipv6Addr>().is_ok() {
        (text, None)
    } else {
        text.split_once(':')
            .map_or((text, None), |(host, port)| (host, Some(port)))
    };
    let port = match port {
        None => hybond_wire::peer::PORT,
        // `parse` would take "+1".
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
            let port = port.parse().ok().filter(|p| *p != 0);
            port.ok_or_else(|| invalid("the port is not between 1 and 65535"))?
        }
        Some(_) => {
            return Err(invalid(
                "the port is no number; an IPv6 address with a port is written [address]:port",
            ));
        }
    };
    let name = ServerName::try_from(host.to_owned());
    Ok(Target {
        name: name.map_err(|_| invalid("the host is neither a DNS name nor an IP address"))?,
        host: host.to_owned(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Result<(String, u16), PeerError> {
        parse(&text.parse().expect("a peer address")).map(|t| (t.host, t.port))
    }

    #[test]
    fn every_form_is_understood() {
        for (text, host, port) in [
            ("node1", "node1", 16515),
            ("node1.example.org:7", "node1.example.org", 7),
            ("192.0.2.1", "192.0.2.1", 16515),
            ("192.0.2.1:7", "192.0.2.1", 7),
            ("2001:db8::1", "2001:db8::1", 16515),
            ("[2001:db8::1]", "2001:db8::1", 16515),
            ("[2001:db8::1]:7", "2001:db8::1", 7),
        ] {
            assert_eq!(target(text).expect(text), (host.to_owned(), port));
        }
    }

    #[test]
    fn what_is_no_address_is_named() {
        for text in [
            ":7",
            "node1:",
            "node1:x",
            "node1:0",
            "node1:65536",
            "node1:1:2",
            "[node1]:7",
            "[::1",
            "[::1]7",
            "-",
        ] {
            let error = target(text).expect_err(text);
            assert!(matches!(error, PeerError::Address { .. }), "{text}: {error:?}");
        }
    }
}
