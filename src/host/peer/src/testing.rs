//! What comes after the handshake, without one: for the fuzzer.

use crate::connection::{self, IncomingRequest};
use crate::names::PeerIdentity;
use crate::server::Limits;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// Whom a certificate names, whatever its bytes are.
#[must_use]
pub fn identity(address: SocketAddr, certificate: &[u8]) -> PeerIdentity {
    PeerIdentity::new(address, &CertificateDer::from(certificate))
}

/// Serves one connection as [`crate::PeerServer`] does once it knows who is there.
pub async fn serve<S>(stream: S, peer: PeerIdentity, requests: &mpsc::Sender<IncomingRequest>, limits: &Limits)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    connection::serve(stream, peer, requests, limits).await;
}
