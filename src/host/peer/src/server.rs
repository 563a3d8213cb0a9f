//! The source's end: accepts, authenticates, and gives each connection a task.

use crate::admission::{Admission, Places, Ticket};
use crate::connection::{self, IncomingRequest};
use crate::error::{CertificateFault, PeerError};
use crate::files::{Current, TlsFiles};
use crate::names::PeerIdentity;
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Bounds of a server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections of hosts, in all.
    pub connections: usize,
    /// Connections of one host: as many domains as it takes in at once.
    pub per_address: usize,
    /// Connections that have not shown a certificate, nor has their address before, in all.
    pub strangers: usize,
    /// Those of one address: as many domains as a host takes in at once when nobody knows it yet.
    pub strangers_per_address: usize,
    /// From the connection to the end of the handshake.
    pub handshake: Duration,
    /// From there to the end of the request.
    pub request: Duration,
    /// From there to the final answer.
    pub answer: Duration,
    /// Requests that the daemon has not taken yet.
    pub queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            per_address: 64,
            strangers: 256,
            strangers_per_address: 32,
            handshake: Duration::from_secs(5),
            request: Duration::from_secs(5),
            answer: Duration::from_secs(600),
            queue: 64,
        }
    }
}

/// Listens for other hosts until dropped; then every connection is closed.
#[derive(Debug)]
pub struct PeerServer {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl PeerServer {
    /// Starts to listen. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The certificate files cannot be used, or the address cannot be listened at.
    pub async fn bind(
        address: SocketAddr,
        files: TlsFiles,
        limits: Limits,
    ) -> Result<(Self, mpsc::Receiver<IncomingRequest>), PeerError> {
        let config = Arc::new(Current::new(files, TlsFiles::server_config));
        config.get().map_err(|source| PeerError::ListenFiles { source })?;
        let failed = |source| PeerError::Listen { at: address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (requests, incoming) = mpsc::channel(limits.queue);
        let task = tokio::spawn(accept(listener, config, Arc::new(limits), requests));
        Ok((Self { address, task }, incoming))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for PeerServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    config: Arc<Current<ServerConfig>>,
    limits: Arc<Limits>,
    requests: mpsc::Sender<IncomingRequest>,
) {
    let places = |total, per_address| Places { total, per_address };
    let strangers = places(limits.strangers, limits.strangers_per_address);
    let hosts = places(limits.connections, limits.per_address);
    let admission = Arc::new(Admission::new(strangers, hosts));
    let (complaints, mut complained) = mpsc::channel(16);
    let mut log = ComplaintLog::default();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => match admission.admit(address.ip()) {
                    Some(ticket) => {
                        let (config, limits) = (Arc::clone(&config), Arc::clone(&limits));
                        let (requests, complaints) = (requests.clone(), complaints.clone());
                        connections.spawn(async move {
                            if let Err(reason) = one(stream, (address, ticket), &config, &limits, &requests).await {
                                // A full queue of complaints has enough to tell.
                                drop(complaints.try_send((address, reason)));
                            }
                        });
                    }
                    None => log.tell(address, "too many connections"),
                },
                Err(error) => {
                    // Of one connection (ECONNABORTED), or of this process (EMFILE): the latter needs a moment.
                    tracing::warn!(%error, "connection of a peer not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some((address, reason)) = complained.recv() => log.tell(address, &reason),
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, up to its end. The error is why the peer was not let in.
async fn one(
    stream: TcpStream,
    (address, mut ticket): (SocketAddr, Ticket),
    config: &Current<ServerConfig>,
    limits: &Limits,
    requests: &mpsc::Sender<IncomingRequest>,
) -> Result<(), String> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "small messages may be delayed");
    }
    let config = config.get().map_err(|e| e.to_string())?;
    let stream = timeout(limits.handshake, handshake(stream, config)).await;
    let stream = stream.map_err(|_| "no TLS handshake in time".to_owned())??;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or_else(|| "no certificate was shown".to_owned())?;
    let peer = PeerIdentity::new(address, certificate);
    if !ticket.becomes_hosts() {
        connection::refuse(stream, "hybondd has too many connections there; try again").await;
        return Err(format!("{peer} has too many connections"));
    }
    connection::serve(stream, peer, requests, limits).await;
    Ok(())
}

async fn handshake(stream: TcpStream, config: Arc<ServerConfig>) -> Result<TlsStream<TcpStream>, String> {
    match TlsAcceptor::from(config).accept(stream).into_fallible().await {
        Ok(stream) => Ok(stream),
        Err((error, mut stream)) => {
            let reason = refusal(&error);
            // In TLS 1.3 a client sends its certificate and its request in one go: without reading the latter, the close
            // becomes a reset that may overtake the alert which says why.
            let end = async {
                stream.shutdown().await?;
                connection::discard(&mut stream).await
            };
            match timeout(Duration::from_millis(500), end).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(error)) => tracing::debug!(%error, "refused peer has closed first"),
            }
            Err(reason)
        }
    }
}

fn refusal(error: &std::io::Error) -> String {
    let tls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(fault)) => {
            format!(
                "its certificate is not accepted: {}",
                CertificateFault::found(fault, "")
            )
        }
        Some(rustls::Error::NoCertificatesPresented) => "it has shown no certificate".to_owned(),
        Some(rustls::Error::AlertReceived(alert)) => match CertificateFault::told(*alert) {
            Some(fault) => format!("it does not accept this host's certificate: {fault}"),
            None => format!("it has given up with {alert:?}"),
        },
        Some(other) => other.to_string(),
        None => error.to_string(),
    }
}

/// Whoever can reach the port can be refused as often as he likes: a line every ten seconds is enough.
#[derive(Debug, Default)]
struct ComplaintLog {
    last: Option<Instant>,
    suppressed: u64,
}

impl ComplaintLog {
    fn tell(&mut self, address: SocketAddr, reason: &str) {
        const APART: Duration = Duration::from_secs(10);
        if self.last.is_some_and(|last| last.elapsed() < APART) {
            self.suppressed += 1;
            tracing::debug!(peer = %address.ip(), reason, "peer not let in");
            return;
        }
        tracing::warn!(peer = %address.ip(), reason, others_before = self.suppressed, "peer not let in");
        self.last = Some(Instant::now());
        self.suppressed = 0;
    }
}
