//! Authorities, hosts and their files, as certtool would make them for libvirt.
#![allow(dead_code, reason = "each test binary uses a part")]

use hybond_core::ids::PeerAddr;
use hybond_peer::{IncomingRequest, Limits, Patience, PeerClient, PeerError, PeerServer, TlsFiles};
use hybond_wire::peer::{Request, Response, VERSION};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Longer than anything here takes; a bound, not an expectation.
pub const LONG: Duration = Duration::from_secs(20);

pub const ALPN: &[u8] = b"hybond-peer";

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Certificate and key of a host.
    pub fn host(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, "node");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    pub fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

/// The files of one host.
pub struct Pki {
    pub dir: TempDir,
    pub files: TlsFiles,
}

/// Files as libvirt has them, with one certificate for both roles.
pub fn pki(trusted: &Authority, (certificate, key): (String, String)) -> Pki {
    let dir = tempfile::tempdir().expect("a directory");
    let files = TlsFiles::in_dir(dir.path());
    write(&files.ca, &trusted.pem());
    write(&files.server_cert, &certificate);
    write(&files.server_key, &key);
    Pki { dir, files }
}

pub fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    // As a renewal does it: another inode.
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(new, path).expect("renamed");
}

/// A host of this machine's loopback.
pub fn good(authority: &Authority) -> Pki {
    pki(authority, authority.host(&["localhost", "127.0.0.1"], |_| {}))
}

pub async fn serve(pki: &Pki, limits: Limits) -> (PeerServer, mpsc::Receiver<IncomingRequest>) {
    let address: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    PeerServer::bind(address, pki.files.clone(), limits)
        .await
        .expect("listening")
}

pub fn at(server: &PeerServer) -> PeerAddr {
    peer(server.address())
}

pub fn peer(address: SocketAddr) -> PeerAddr {
    address.to_string().parse().expect("a peer address")
}

pub fn ping() -> Request {
    Request::Ping { version: VERSION }
}

pub fn hello() -> Response {
    Response::Hello {
        host: "node1".into(),
        release: "0.1.0".into(),
    }
}

/// Answers every request with a hello.
pub fn answer_all(mut requests: mpsc::Receiver<IncomingRequest>) {
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            // A client that is gone is that test's matter.
            request.responder.finish(hello()).await.ok();
        }
    });
}

pub async fn ask(client: &Pki, to: &PeerAddr) -> Result<Response, PeerError> {
    let client = PeerClient::new(client.files.clone());
    tokio::time::timeout(LONG, client.ask(to, &ping(), Patience::within(LONG), |_| {}))
        .await
        .expect("an end in time")
}

/// A client of raw bytes, with a good certificate.
pub async fn raw(pki: &Pki, to: SocketAddr) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&pki.files.ca).expect("PEM"))
        .expect("a root");
    let certificate = CertificateDer::from_pem_file(&pki.files.server_cert).expect("PEM");
    let key = PrivateKeyDer::from_pem_file(&pki.files.server_key).expect("PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .expect("a pair");
    config.alpn_protocols = vec![ALPN.to_vec()];
    let stream = TcpStream::connect(to).await.expect("connected");
    let name = ServerName::try_from("localhost").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.expect("a handshake")
}
