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
    Malformed(#[source] Misfit),
}

/// What does not fit in a message. The parser quotes what the other side has sent, so it is cut and cleaned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misfit(String);

impl From<serde_json::Error> for Misfit {
    fn from(error: serde_json::Error) -> Self {
        const LONGEST: usize = 512;
        Self(hybond_core::text::fit(&error.to_string(), LONGEST))
    }
}

/// Encodes a message with its newline.
///
/// # Errors
/// [`LineError::TooLong`] where the receiver would refuse it.
pub fn encode<T: Serialize>(message: &T, limit: usize) -> Result<Vec<u8>, LineError> {
    let mut line = serde_json::to_vec(message).map_err(|error| LineError::Malformed(error.into()))?;
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
    serde_json::from_slice(line).map_err(|error| LineError::Malformed(error.into()))
}

/// Collects bytes as they arrive and gives out whole lines; holds no more than one line of `limit` bytes and what one
/// read brought after it.
#[derive(Debug)]
pub struct LineBuffer {
    held: Vec<u8>,
    /// So many of the held bytes are known to hold no newline: a long line comes in many reads.
    searched: usize,
    /// The rest of a line that was too long is on its way.
    skipping: bool,
    limit: usize,
}

impl LineBuffer {
    /// An empty buffer for lines of up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            held: Vec::new(),
            searched: 0,
            skipping: false,
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
    /// [`LineError::TooLong`], once for each line that is; all of it is dropped, also what comes of it later.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        loop {
            let unsearched = self.held.iter().skip(self.searched);
            let end = unsearched
                .copied()
                .position(|b| b == b'\n')
                .map(|at| self.searched + at);
            let Some(end) = end else {
                self.searched = self.held.len();
                let too_long = self.held.len() > self.limit;
                if too_long || self.skipping {
                    self.held.clear();
                    self.searched = 0;
                }
                if too_long && !std::mem::replace(&mut self.skipping, true) {
                    return Err(LineError::TooLong { limit: self.limit });
                }
                return Ok(None);
            };
            self.searched = 0;
            let mut line: Vec<u8> = self.held.drain(..=end).collect();
            line.pop();
            if self.held.is_empty() {
                // A line does not keep its memory for the life of its connection.
                self.held = Vec::new();
            }
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if line.len() > self.limit {
                return Err(LineError::TooLong { limit: self.limit });
            }
            return Ok(Some(line));
        }
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
        buffer.push(b"rest\nok\n");
        assert_eq!(buffer.next_line().expect("short").as_deref(), Some(&b"ok"[..]));
        assert!(buffer.next_line().expect("short").is_none());
    }

    #[test]
    fn what_is_wrong_with_a_message_is_told_in_few_words_that_steer_no_terminal() {
        let line = format!("{{\"type\":\"\\u001b[2J{}\"}}", "x".repeat(4000));
        let error = decode::<crate::control::Request>(line.as_bytes(), 8192).expect_err("unknown");
        let cause = std::error::Error::source(&error).expect("why").to_string();
        assert!(
            cause.starts_with("unknown variant ` [2Jxxx") && cause.len() <= 512,
            "{cause}"
        );
    }

    #[test]
    fn the_rest_of_a_line_that_is_too_long_is_no_message() {
        let mut buffer = LineBuffer::new(8);
        let mut seen = Vec::new();
        // However it arrives: it is told of once, and what follows its newline is the next line.
        for piece in b"0123456789abcdefghijklmnopqrstuvwxyz\nok\n0123456789\n".chunks(5) {
            buffer.push(piece);
            loop {
                match buffer.next_line() {
                    Ok(Some(line)) => seen.push(line),
                    Ok(None) => break,
                    Err(_) => seen.push(b"too long".to_vec()),
                }
            }
        }
        assert_eq!(seen, [&b"too long"[..], b"ok", b"too long"]);
        assert!(buffer.held.is_empty());
    }
}
