//! Unix sockets with one request line for each connection.

use hybond_wire::line::{LineBuffer, LineError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// How long a client may take for its request, and for each read of an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {path}")]
pub struct ListenError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Why a request did not arrive, or an answer not leave.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The socket.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// Nothing came, or nothing was taken, for [`PATIENCE`].
    #[error("the client is silent")]
    Silent,
    /// The client closed before its line was whole.
    #[error("the client ended before its request")]
    Incomplete,
    /// The line.
    #[error("bad message")]
    Line(#[from] LineError),
}

/// Listens on a path; a socket that an earlier daemon left is replaced. `group`: who may connect beside root.
pub fn listen(path: &Path, group: Option<u32>) -> Result<UnixListener, ListenError> {
    let failed = |source| ListenError {
        path: path.to_owned(),
        source,
    };
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    std::os::unix::fs::chown(path, None, group).map_err(failed)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

/// Reads the request.
pub async fn read<T: DeserializeOwned>(stream: &mut UnixStream, limit: usize) -> Result<T, ExchangeError> {
    let mut buffer = LineBuffer::new(limit);
    let mut bytes = [0; 4096];
    let line = timeout(PATIENCE, async {
        loop {
            if let Some(line) = buffer.next_line()? {
                return Ok(line);
            }
            match stream.read(&mut bytes).await? {
                0 => return Err(ExchangeError::Incomplete),
                n => buffer.push(&bytes[..n]),
            }
        }
    })
    .await
    .map_err(|_| ExchangeError::Silent)??;
    Ok(hybond_wire::line::decode(&line, limit)?)
}

/// Writes an answer.
pub async fn write<T: Serialize>(stream: &mut UnixStream, message: &T, limit: usize) -> Result<(), ExchangeError> {
    let line = hybond_wire::line::encode(message, limit)?;
    timeout(PATIENCE, stream.write_all(&line))
        .await
        .map_err(|_| ExchangeError::Silent)??;
    Ok(())
}

/// Returns once the client has closed its end.
pub async fn closed(stream: &mut UnixStream) {
    let mut byte = [0; 64];
    // What a client sends after its request is of no use; an error is an end too.
    while stream.read(&mut byte).await.is_ok_and(|n| n > 0) {}
}
