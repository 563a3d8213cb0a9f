//! Requests of hybondctl and of the hook, and the line protocol that every one of hybond's sockets has.

use crate::{fit_to_show, memory};
use hybond_wire::line::{LineBuffer, LineError, decode, encode};
use hybond_wire::{agent, control, hook, peer};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Takes the bytes for a stream: the first one says how it arrives in pieces, and what its limit is.
pub fn run(data: &[u8]) {
    let Some((first, stream)) = data.split_first() else {
        return;
    };
    let limit = if first & 4 == 0 { 64 } else { 16 * 1024 };
    // A line, and its pieces; a message takes a few times its text.
    memory::within(64 * 1024 + 64 * data.len(), || {
        let whole = lines(std::iter::once(stream), limit);
        assert_eq!(whole, expected(stream, limit), "lines are what stands between newlines");
        let size = usize::from(first >> 3) + 1;
        let cut = lines(stream.chunks(size), limit);
        assert_eq!(cut, whole, "the same lines, however they arrive");
    });
    for line in stream.split(|b| *b == b'\n') {
        memory::within(64 * 1024 + 64 * line.len(), || {
            same::<control::Request>(line, control::REQUEST_LIMIT);
            same::<control::Response>(line, control::RESPONSE_LIMIT);
            same::<hook::Request>(line, hook::LIMIT);
            same::<hook::Response>(line, hook::LIMIT);
            same::<peer::Request>(line, peer::LIMIT);
            same::<peer::Response>(line, peer::LIMIT);
            same::<agent::FromAgent>(line, agent::LIMIT);
            same::<agent::ToAgent>(line, agent::LIMIT);
        });
    }
}

/// `None`: one that was too long.
type Lines = Vec<Option<Vec<u8>>>;

fn lines<'a>(pieces: impl Iterator<Item = &'a [u8]>, limit: usize) -> Lines {
    let mut buffer = LineBuffer::new(limit);
    let mut lines = Lines::new();
    for piece in pieces {
        buffer.push(piece);
        loop {
            match buffer.next_line() {
                Ok(Some(line)) => lines.push(Some(line)),
                Ok(None) => break,
                Err(LineError::TooLong { limit: said }) => {
                    assert_eq!(said, limit);
                    lines.push(None);
                }
                Err(error) => panic!("{error:?} of a buffer"),
            }
        }
    }
    lines
}

fn expected(stream: &[u8], limit: usize) -> Lines {
    let mut parts: Vec<&[u8]> = stream.split(|b| *b == b'\n').collect();
    let rest = parts.pop().unwrap_or_default();
    let fit = |line: &[u8]| (line.len() <= limit).then(|| line.to_vec());
    let mut lines: Lines = parts.into_iter().map(fit).collect();
    if rest.len() > limit {
        lines.push(None);
    }
    lines
}

/// What is read is written so that it is read again; what is not is refused with a sentence.
fn same<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(line: &[u8], limit: usize) {
    match decode::<T>(line, limit) {
        Ok(message) => {
            // What was left out is written out, so it may be longer.
            let written = encode(&message, 16 * limit).expect("what was read can be written");
            let again: T = decode(&written, 16 * limit).expect("what was written can be read");
            assert_eq!(again, message);
            assert_eq!(written.iter().filter(|b| **b == b'\n').count(), 1, "one line");
        }
        Err(error) => {
            assert_eq!(matches!(error, LineError::TooLong { .. }), line.len() > limit);
            fit_to_show(&error);
        }
    }
}
