//! One message, one line.

use serde::{Serialize, de::DeserializeOwned};

/// Why a line is no message.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The other side sent more than a message of this kind may have, or never ended its line.
    #[error("message of more than {limit} bytes")]
    TooLong {
        /// The bound in bytes, without the newline.
        limit: usize,
    },
    /// Not the JSON that this end understands.
    #[error("message not understood")]
    Malformed(#[source] serde_json::Error),
}

/// Encodes a message with its newline.
///
/// # Errors
/// [`LineError::TooLong`] where the receiver would refuse it.
pub fn encode<T: Serialize>(message: &T, limit: usize) -> Result<Vec<u8>, LineError> {
    let mut line = serde_json::to_vec(message).map_err(LineError::Malformed)?;
    if line.len() > limit {
        return Err(LineError::TooLong { limit });
    }
    line.push(b'\n');
    Ok(line)
}

/// Decodes one line, with or without its newline.
///
/// # Errors
/// Longer than `limit`, or not a `T`.
pub fn decode<T: DeserializeOwned>(line: &[u8], limit: usize) -> Result<T, LineError> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    if line.len() > limit {
        return Err(LineError::TooLong { limit });
    }
    serde_json::from_slice(line).map_err(LineError::Malformed)
}

/// Collects bytes as they arrive and gives out whole lines; holds no more than one line of `limit` bytes and what one
/// read brought after it.
#[derive(Debug)]
pub struct LineBuffer {
    held: Vec<u8>,
    /// So many of the held bytes are known to hold no newline: a long line comes in many reads.
    searched: usize,
    limit: usize,
}

impl LineBuffer {
    /// An empty buffer for lines of up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            held: Vec::new(),
            searched: 0,
            limit,
        }
    }

    /// Adds what a read brought.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Takes the next whole line, without its newline.
    ///
    /// # Errors
    /// [`LineError::TooLong`]; what is held is dropped up to the next newline, or whole where there is none yet.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        let unsearched = self.held.iter().skip(self.searched);
        let end = unsearched
            .copied()
            .position(|b| b == b'\n')
            .map(|at| self.searched + at);
        self.searched = if end.is_some() { 0 } else { self.held.len() };
        if end.unwrap_or(self.held.len()) > self.limit {
            match end {
                Some(end) => drop(self.held.drain(..=end)),
                None => {
                    self.held.clear();
                    self.searched = 0;
                }
            }
            return Err(LineError::TooLong { limit: self.limit });
        }
        Ok(end.map(|end| {
            let mut line: Vec<u8> = self.held.drain(..=end).collect();
            line.pop();
            line
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_whatever_the_reads_were() {
        let mut buffer = LineBuffer::new(8);
        buffer.push(b"ab");
        assert!(buffer.next_line().expect("short").is_none());
        buffer.push(b"c\nde\nf");
        assert_eq!(buffer.next_line().expect("short").as_deref(), Some(&b"abc"[..]));
        assert_eq!(buffer.next_line().expect("short").as_deref(), Some(&b"de"[..]));
        assert!(buffer.next_line().expect("short").is_none());
    }

    #[test]
    fn a_line_without_end_is_refused_and_not_kept() {
        let mut buffer = LineBuffer::new(8);
        buffer.push(b"123456789");
        assert!(matches!(buffer.next_line(), Err(LineError::TooLong { limit: 8 })));
        buffer.push(b"ok\n");
        assert_eq!(buffer.next_line().expect("short").as_deref(), Some(&b"ok"[..]));
    }
}
