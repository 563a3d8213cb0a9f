//! Lines with a bound, over whatever carries bytes.

use hybond_wire::line::{LineBuffer, LineError};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Reads lines; cancel safe, as what was read stays in here.
pub(crate) struct Lines<R> {
    from: R,
    buffer: LineBuffer,
}

/// Why there is no line.
#[derive(Debug)]
pub(crate) enum NoLine {
    /// The other side has closed, in the middle of a line or not.
    End,
    /// The connection broke.
    Io(std::io::Error),
    /// Too long.
    Line(LineError),
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(from: R, limit: usize) -> Self {
        Self {
            from,
            buffer: LineBuffer::new(limit),
        }
    }

    /// Takes what still comes, up to a bound, until the other side closes.
    pub(crate) async fn discard(&mut self) -> std::io::Result<()> {
        crate::connection::discard(&mut self.from).await
    }

    pub(crate) async fn next(&mut self) -> Result<Vec<u8>, NoLine> {
        loop {
            if let Some(line) = self.buffer.next_line().map_err(NoLine::Line)? {
                return Ok(line);
            }
            let mut chunk = [0u8; 4096];
            match self.from.read(&mut chunk).await {
                Ok(0) => return Err(NoLine::End),
                Ok(count) => self.buffer.push(chunk.get(..count).unwrap_or_default()),
                Err(error) => return Err(NoLine::Io(error)),
            }
        }
    }
}
