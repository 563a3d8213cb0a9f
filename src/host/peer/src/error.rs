//! What can go wrong between two hosts. Each is a sentence that names what, where, and what to do.

use crate::files::FilesError;
use hybond_core::ids::PeerAddr;
use hybond_wire::line::LineError;
use std::time::Duration;

/// Why a peer was not asked, or has not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The address in the domain's metadata is none.
    #[error("{address} is no address of a peer: {reason}; set `peer` in hybond.toml of the host that wrote it")]
    Address {
        /// As it was given.
        address: PeerAddr,
        /// What is wrong with it.
        reason: String,
    },
    /// The host name has no address.
    #[error("the peer {host} has no address here; look at this host's DNS or /etc/hosts")]
    Unresolvable {
        /// The host name.
        host: String,
        /// What the resolver said.
        #[source]
        source: std::io::Error,
    },
    /// Nobody accepts a connection.
    #[error(
        "no hybondd answers at {host}, TCP port {port}; is it running there (systemctl status hybondd), and does the firewall let the port in?"
    )]
    Unreachable {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// This host's own files.
    #[error("no connection to {address}: this host's certificate files cannot be used")]
    Files {
        /// The peer.
        address: PeerAddr,
        /// Which file, and why.
        #[source]
        source: FilesError,
    },
    /// The peer's certificate was refused by this host.
    #[error("this host does not accept the certificate of {address}: {fault}")]
    TheirCertificate {
        /// The peer.
        address: PeerAddr,
        /// What is wrong with it.
        fault: CertificateFault,
    },
    /// This host's certificate was refused by the peer.
    #[error("{address} does not accept this host's certificate {file}: {fault}")]
    OurCertificate {
        /// The peer.
        address: PeerAddr,
        /// This host's file.
        file: String,
        /// What is wrong with it.
        fault: CertificateFault,
    },
    /// No TLS 1.3, or no TLS at all.
    #[error("no TLS 1.3 connection to {address}: {reason}")]
    Handshake {
        /// The peer.
        address: PeerAddr,
        /// What TLS said.
        reason: String,
    },
    /// Some other service, or a release of hybond that speaks otherwise.
    #[error("what answers at {address} is not hybondd; is the port right?")]
    NotHybond {
        /// The peer.
        address: PeerAddr,
    },
    /// The peer's words are not understood.
    #[error("{address} has sent what this release of hybond does not understand; do both hosts have the same release?")]
    Protocol {
        /// The peer.
        address: PeerAddr,
        /// Why.
        #[source]
        source: LineError,
    },
    /// The peer has hung up without a final answer.
    #[error("{address} has closed the connection without an answer; look at its journal (journalctl -u hybondd)")]
    Closed {
        /// The peer.
        address: PeerAddr,
    },
    /// The peer shows no sign of life any more.
    #[error("{address} has been silent for {} s; it is down, or the network between is", after.as_secs())]
    Silent {
        /// The peer.
        address: PeerAddr,
        /// For how long.
        after: Duration,
    },
    /// The peer is alive and has not finished.
    #[error("{address} has not finished within {} s, its last phase is {phase:?}", within.as_secs())]
    TooSlow {
        /// The peer.
        address: PeerAddr,
        /// The bound.
        within: Duration,
        /// The last phase that it told.
        phase: String,
    },
    /// This host's own files, while nothing is asked yet.
    #[error("hybondd cannot listen for peers: this host's certificate files cannot be used")]
    ListenFiles {
        /// Which file, and why.
        #[source]
        source: FilesError,
    },
    /// The port on which this host listens.
    #[error("hybondd cannot listen at {at}; is another program there (ss -ltnp), or the address not on this host?")]
    Listen {
        /// Address and port.
        at: std::net::SocketAddr,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateFault {
    /// Signed by an authority that the other side does not know.
    UnknownAuthority,
    /// Past its end, or before its begin.
    Expired,
    /// On the revocation list.
    Revoked,
    /// Names others.
    Name {
        /// What it should have named.
        expected: String,
        /// What it names.
        presented: Vec<String>,
    },
    /// Made for servers where a client shows it, or the other way round.
    Purpose,
    /// None was shown.
    Missing,
    /// Something else; TLS's own words.
    Other(String),
}

impl std::fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownAuthority => {
                f.write_str("it is not signed by an authority known there; all hosts need the same CA certificate")
            }
            Self::Expired => f.write_str("it is not valid today; renew it, and look at both hosts' clocks"),
            Self::Revoked => f.write_str("it has been revoked"),
            Self::Name { expected, presented } if presented.is_empty() => write!(
                f,
                "it names no host in its subject alternative names; a common name alone is not looked at, make it anew \
                 with dns_name or ip_address {expected}"
            ),
            Self::Name { expected, presented } => {
                write!(f, "it is for {}, not for {expected}; make it anew with that name, or ", presented.join(", "))?;
                f.write_str("set `peer` in hybond.toml there to a name that it has")
            }
            Self::Purpose => f.write_str(
                "its extended key usage does not fit; a host shows it as server and as client, so it needs both (certtool: \
                 tls_www_server and tls_www_client), or clientcert.pem beside it",
            ),
            Self::Missing => f.write_str("none was shown"),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

impl CertificateFault {
    /// From this side's own verification.
    pub(crate) fn found(error: &rustls::CertificateError, expected: &str) -> Self {
        use rustls::CertificateError as E;
        match error {
            E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. } => Self::Expired,
            E::Revoked => Self::Revoked,
            E::UnknownIssuer => Self::UnknownAuthority,
            // Of a signature that does not match an authority of the same name.
            E::BadSignature => Self::UnknownAuthority,
            E::NotValidForName => Self::Name {
                expected: expected.to_owned(),
                presented: Vec::new(),
            },
            E::NotValidForNameContext { presented, .. } => Self::Name {
                expected: expected.to_owned(),
                presented: presented.clone(),
            },
            E::InvalidPurpose | E::InvalidPurposeContext { .. } => Self::Purpose,
            other => Self::Other(other.to_string()),
        }
    }

    /// From the other side's alert, if that is about a certificate. The mapping is rustls's and RFC 8446's.
    pub(crate) fn told(alert: rustls::AlertDescription) -> Option<Self> {
        use rustls::AlertDescription as A;
        Some(match alert {
            A::UnknownCA => Self::UnknownAuthority,
            A::CertificateExpired => Self::Expired,
            A::CertificateRevoked => Self::Revoked,
            A::UnsupportedCertificate => Self::Purpose,
            A::CertificateRequired => Self::Missing,
            // decrypt_error is what a signature by an authority of the same name and another key comes to.
            A::DecryptError => Self::UnknownAuthority,
            A::BadCertificate | A::CertificateUnknown | A::AccessDenied => Self::Other(format!("{alert:?}")),
            _ => return None,
        })
    }
}
