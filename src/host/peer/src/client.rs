//! The destination's end.

use crate::address::{self, Target};
use crate::error::{CertificateFault, PeerError};
use crate::files::{Current, TlsFiles};
use crate::line::{Lines, NoLine};
use crate::{ALPN, HEARTBEAT};
use hybond_core::ids::PeerAddr;
use hybond_wire::line::{decode, encode};
use hybond_wire::peer::{LIMIT, Request, Response};
use rustls::ClientConfig;
use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long a peer is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For each of: its address, its accepting the connection, the handshake.
    pub connect: Duration,
    /// Between two signs of life. A living server gives one every [`HEARTBEAT`].
    pub silence: Duration,
    /// For all of it.
    pub within: Duration,
}

impl Patience {
    /// `within`, and what suits a network between two hosts of one site.
    #[must_use]
    pub fn within(within: Duration) -> Self {
        Self {
            connect: Duration::from_secs(3),
            silence: HEARTBEAT * 4,
            within,
        }
    }
}

/// Asks other hosts.
pub struct PeerClient {
    config: Current<ClientConfig>,
}

impl PeerClient {
    /// The files are read when they are needed, and again when they have changed.
    #[must_use]
    pub fn new(files: TlsFiles) -> Self {
        Self {
            config: Current::new(files, TlsFiles::client_config),
        }
    }

    /// Sends one request and waits for its final answer; `progress` is called with each new phase. The peer may have
    /// begun, or even finished, when this fails: a request with the same migration id finds that out.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn ask(
        &self,
        to: &PeerAddr,
        request: &Request,
        patience: Patience,
        progress: impl FnMut(&str) + Send,
    ) -> Result<Response, PeerError> {
        let target = address::parse(to)?;
        let config = self.config.get().map_err(|source| PeerError::Files {
            address: to.clone(),
            source,
        })?;
        let call = Call {
            to,
            target,
            patience,
            deadline: Instant::now() + patience.within,
            certificate: self.config.files().client_pair().0.display().to_string(),
        };
        let line = encode(request, LIMIT).map_err(|source| call.protocol(source))?;
        let stream = call.connect().await?;
        let stream = call.handshake(stream, config).await?;
        call.converse(stream, &line, progress).await
    }
}

impl std::fmt::Debug for PeerClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerClient")
            .field("files", self.config.files())
            .finish()
    }
}

/// One request under way.
struct Call<'a> {
    to: &'a PeerAddr,
    target: Target,
    patience: Patience,
    deadline: Instant,
    /// This host's, for the peer's complaints about it.
    certificate: String,
}

impl Call<'_> {
    /// The smaller of a step's bound and of what is left in all.
    fn bound(&self, step: Duration) -> Duration {
        step.min(self.deadline.saturating_duration_since(Instant::now()))
    }

    async fn connect(&self) -> Result<TcpStream, PeerError> {
        let Target { host, port, .. } = &self.target;
        let unresolvable = |source| PeerError::Unresolvable {
            host: host.clone(),
            source,
        };
        let lookup = tokio::net::lookup_host((host.as_str(), *port));
        let addresses = match timeout(self.bound(self.patience.connect), lookup).await {
            Ok(result) => result.map_err(unresolvable)?,
            Err(_) => {
                return Err(unresolvable(Error::new(
                    ErrorKind::TimedOut,
                    "the resolver does not answer",
                )));
            }
        };
        let mut last = Error::new(ErrorKind::NotFound, "the name has no address");
        // A host has a few addresses; a name with hundreds is no host.
        for address in addresses.take(4) {
            match timeout(self.bound(self.patience.connect), TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "small messages may be delayed");
                    }
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = Error::new(ErrorKind::TimedOut, format!("{address} does not react")),
            }
        }
        Err(PeerError::Unreachable {
            host: host.clone(),
            port: *port,
            source: last,
        })
    }

    async fn handshake(&self, stream: TcpStream, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, PeerError> {
        let connect = TlsConnector::from(config).connect(self.target.name.clone(), stream);
        let bound = self.bound(self.patience.connect);
        let stream = match timeout(bound, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.broken(&error).unwrap_or_else(|| self.no_handshake(&error))),
            Err(_) => return Err(self.expired(bound, self.patience.connect, "handshake")),
        };
        // libvirt's TLS port, for one, has certificates of the same authority and knows no application protocols.
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(PeerError::NotHybond {
                address: self.to.clone(),
            });
        }
        Ok(stream)
    }

    async fn converse(
        &self,
        stream: TlsStream<TcpStream>,
        request: &[u8],
        mut progress: impl FnMut(&str) + Send,
    ) -> Result<Response, PeerError> {
        let (reader, mut writer) = tokio::io::split(stream);
        let mut lines = Lines::new(reader, LIMIT);
        let send = async {
            writer.write_all(request).await?;
            writer.flush().await
        };
        // In TLS 1.3 the client has finished before the server looks at its certificate. A refusal is an alert that
        // waits to be read, even where the writing has failed by then.
        let silence = self.patience.silence;
        let bound = self.bound(silence);
        match timeout(bound, send).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(peer = %self.to, %error, "request not sent, reading why"),
            Err(_) => return Err(self.expired(bound, silence, "request")),
        }
        let mut phase = String::new();
        let answer = loop {
            let bound = self.bound(silence);
            let line = match timeout(bound, lines.next()).await {
                Ok(Ok(line)) => line,
                Ok(Err(NoLine::Line(source))) => return Err(self.protocol(source)),
                Ok(Err(NoLine::Io(error))) => return Err(self.broken(&error).unwrap_or_else(|| self.closed())),
                Ok(Err(NoLine::End)) => return Err(self.closed()),
                Err(_) => return Err(self.expired(bound, silence, &phase)),
            };
            match decode(&line, LIMIT).map_err(|source| self.protocol(source))? {
                Response::Progress { phase: now } => {
                    if now != phase {
                        progress(&now);
                        phase = now;
                    }
                    // A peer that never stops telling of progress is bounded too.
                    if Instant::now() >= self.deadline {
                        return Err(self.too_slow(&phase));
                    }
                }
                last => break last,
            }
        };
        // What comes after the final answer is not looked at.
        if let Ok(Err(error)) = timeout(Duration::from_millis(200), writer.shutdown()).await {
            tracing::debug!(peer = %self.to, %error, "connection ended otherwise than by both sides");
        }
        Ok(answer)
    }

    /// Nothing came within `bound`, which is `step` or what was left in all: silence, or the end of all patience.
    fn expired(&self, bound: Duration, step: Duration, phase: &str) -> PeerError {
        if bound < step {
            return self.too_slow(phase);
        }
        PeerError::Silent {
            address: self.to.clone(),
            after: bound,
        }
    }

    fn too_slow(&self, phase: &str) -> PeerError {
        PeerError::TooSlow {
            address: self.to.clone(),
            within: self.patience.within,
            phase: phase.to_owned(),
        }
    }

    fn closed(&self) -> PeerError {
        PeerError::Closed {
            address: self.to.clone(),
        }
    }

    fn protocol(&self, source: hybond_wire::line::LineError) -> PeerError {
        PeerError::Protocol {
            address: self.to.clone(),
            source,
        }
    }

    /// What TLS says of certificates and protocols, if the error is TLS's.
    fn broken(&self, error: &Error) -> Option<PeerError> {
        let address = self.to.clone();
        let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        Some(match error {
            rustls::Error::InvalidCertificate(fault) => PeerError::TheirCertificate {
                address,
                fault: CertificateFault::found(fault, &self.target.host),
            },
            rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol) => {
                PeerError::NotHybond { address }
            }
            rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion)
            | rustls::Error::PeerIncompatible(_) => PeerError::Handshake {
                address,
                reason: "it speaks an older TLS only".into(),
            },
            rustls::Error::AlertReceived(alert) => match CertificateFault::told(*alert) {
                Some(fault) => PeerError::OurCertificate {
                    address,
                    file: self.certificate.clone(),
                    fault,
                },
                None => PeerError::Handshake {
                    address,
                    reason: format!("it has given up with {alert:?}"),
                },
            },
            rustls::Error::InvalidMessage(_) => PeerError::NotHybond { address },
            other => PeerError::Handshake {
                address,
                reason: other.to_string(),
            },
        })
    }

    fn no_handshake(&self, error: &Error) -> PeerError {
        let reason = match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => {
                "it has closed the connection; it may have too many, or be no hybondd".to_owned()
            }
            _ => error.to_string(),
        };
        PeerError::Handshake {
            address: self.to.clone(),
            reason,
        }
    }
}
