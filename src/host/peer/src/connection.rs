//! One connection at the source, from the request to the final answer.

use crate::HEARTBEAT;
use crate::line::Lines;
use crate::names::PeerIdentity;
use crate::server::Limits;
use hybond_wire::line::{decode, encode};
use hybond_wire::peer::{LIMIT, Request, Response, VERSION};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A request of another host, to be answered through its responder.
#[derive(Debug)]
pub struct IncomingRequest {
    /// Who asks.
    pub peer: PeerIdentity,
    /// For what.
    pub request: Request,
    /// Takes the answers.
    pub responder: Responder,
}

/// The answering end of a request. Dropped without a final answer, the peer is told that there is none.
#[derive(Debug)]
pub struct Responder {
    answers: mpsc::Sender<Response>,
}

/// The peer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer has closed the connection")]
pub struct ResponderError;

impl Responder {
    /// Tells that a phase has begun.
    ///
    /// # Errors
    /// Nobody listens any more.
    pub async fn progress(&self, phase: &str) -> Result<(), ResponderError> {
        let phase = cut(phase);
        self.answers
            .send(Response::Progress { phase })
            .await
            .map_err(|_| ResponderError)
    }

    /// Gives the final answer. [`Response::Progress`] is none: the peer is then told that there was no answer.
    ///
    /// # Errors
    /// Nobody listens any more.
    pub async fn finish(self, answer: Response) -> Result<(), ResponderError> {
        let answer = match answer {
            Response::Refused { reason } => Response::Refused { reason: cut(&reason) },
            other => other,
        };
        self.answers.send(answer).await.map_err(|_| ResponderError)
    }

    /// Waits until the peer is gone, or its connection has lasted too long.
    pub async fn closed(&self) {
        self.answers.closed().await;
    }
}

/// A text that fits a line however it is escaped: six bytes for each of one.
fn cut(text: &str) -> String {
    const LONGEST: usize = LIMIT / 8;
    match text.char_indices().map(|(at, _)| at).find(|at| *at > LONGEST) {
        Some(at) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Reads the request, hands it on, and writes the answers. `stream` is authenticated.
pub(crate) async fn serve<S>(stream: S, peer: PeerIdentity, requests: &mpsc::Sender<IncomingRequest>, limits: &Limits)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (reader, mut writer) = tokio::io::split(stream);
    let mut lines = Lines::new(reader, LIMIT);
    let name = peer.to_string();
    let last = match timeout(limits.request, lines.next()).await {
        Ok(Ok(line)) => match understand(&line) {
            Ok(request) => converse(&mut lines, &mut writer, (peer, request), requests, limits).await,
            Err(reason) => Some(Response::Refused { reason }),
        },
        Ok(Err(error)) => {
            tracing::debug!(peer = name, ?error, "no request");
            None
        }
        Err(_) => {
            tracing::debug!(peer = name, "no request in time");
            None
        }
    };
    if let Some(last) = last {
        if let Err(error) = write(&mut writer, &last).await {
            tracing::debug!(peer = name, error, "final answer not delivered");
        }
    }
    end(&mut lines, &mut writer).await;
}

/// Answers whatever is asked with a refusal. `stream` is authenticated.
pub(crate) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(stream: S, reason: &str) {
    let (reader, mut writer) = tokio::io::split(stream);
    let refused = Response::Refused {
        reason: reason.to_owned(),
    };
    if let Err(error) = write(&mut writer, &refused).await {
        tracing::debug!(error, "refusal not delivered");
    }
    end(&mut Lines::new(reader, LIMIT), &mut writer).await;
}

/// Bytes that nobody has read turn a close into a reset, which may overtake the answer.
async fn end<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(lines: &mut Lines<R>, writer: &mut W) {
    let end = async {
        writer.shutdown().await?;
        lines.discard().await
    };
    if let Ok(Err(error)) = timeout(Duration::from_secs(1), end).await {
        tracing::debug!(%error, "connection ended otherwise than by both sides");
    }
}

/// A request of this release, or what to tell about it.
fn understand(line: &[u8]) -> Result<Request, String> {
    let request: Request = decode(line, LIMIT).map_err(|_| {
        format!("request not understood; this host's hybond speaks version {VERSION}, do both have the same release?")
    })?;
    let (theirs, ours) = request.versions();
    if theirs != ours {
        return Err(format!(
            "this host's hybond speaks version {ours}, the peer's version {theirs}; install the same release on both"
        ));
    }
    Ok(request)
}

/// Until there is a final answer to write; `None` where nobody listens any more.
async fn converse<R, W>(
    lines: &mut Lines<R>,
    writer: &mut W,
    (peer, request): (PeerIdentity, Request),
    requests: &mpsc::Sender<IncomingRequest>,
    limits: &Limits,
) -> Option<Response>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let refused = |reason: &str| {
        Some(Response::Refused {
            reason: reason.to_owned(),
        })
    };
    let (answers, mut answered) = mpsc::channel(8);
    let incoming = IncomingRequest {
        peer,
        request,
        responder: Responder { answers },
    };
    match requests.try_send(incoming) {
        Ok(()) => {}
        Err(mpsc::error::TrySendError::Full(_)) => {
            return refused("hybondd has too many requests to answer; try again");
        }
        Err(mpsc::error::TrySendError::Closed(_)) => return refused("hybondd is ending there"),
    }
    let mut phase = "accepted".to_owned();
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let deadline = tokio::time::sleep(limits.answer);
    tokio::pin!(deadline);
    loop {
        // Each phase is told, in order, also where it is over by now: the peer keeps a timeline.
        let progress = Response::Progress { phase: phase.clone() };
        if let Err(error) = write(writer, &progress).await {
            tracing::debug!(error, "peer is gone");
            return None;
        }
        heartbeat.reset();
        tokio::select! {
            answer = answered.recv() => match answer {
                Some(Response::Progress { phase: begun }) => phase = begun,
                Some(last) => return Some(last),
                None => return refused("hybondd has not answered there; look at its journal (journalctl -u hybondd)"),
            },
            _ = heartbeat.tick() => {}
            // One request per connection: this is the end of it, or a peer that does not follow the protocol.
            _ = lines.next() => return None,
            () = &mut deadline => return refused("hybondd has not finished there in time"),
        }
    }
}

async fn write<W: AsyncWrite + Unpin>(writer: &mut W, answer: &Response) -> Result<(), String> {
    let line = encode(answer, LIMIT).map_err(|e| e.to_string())?;
    let written = async {
        writer.write_all(&line).await?;
        writer.flush().await
    };
    match timeout(Duration::from_secs(5), written).await {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("the peer takes nothing".to_owned()),
    }
}

/// Takes what the other side still sends, up to a bound, until it closes.
pub(crate) async fn discard<R: AsyncRead + Unpin>(from: &mut R) -> std::io::Result<()> {
    let mut from = from.take(64 * 1024);
    let mut chunk = [0u8; 1024];
    while from.read(&mut chunk).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_reason_fits_a_line() {
        let reason = cut(&"\u{1}".repeat(10 * LIMIT));
        encode(&Response::Refused { reason }, LIMIT).expect("short enough");
        assert_eq!(cut("short"), "short");
        let cut = cut(&"é".repeat(LIMIT));
        assert!(cut.ends_with('…') && cut.len() < LIMIT / 4);
    }
}
