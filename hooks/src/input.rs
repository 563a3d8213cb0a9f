//! The domain's XML from stdin.

use hybond_domxml::{MAX_XML, NAMESPACE, mentions_hybond};
use std::io::{ErrorKind, Read};

/// What came in.
pub struct Input {
    held: Vec<u8>,
    length: usize,
    error: Option<std::io::Error>,
    /// hybond's namespace is somewhere in it, also where it is too long to be held.
    pub mentions_hybond: bool,
}

impl Input {
    /// The XML, where it is whole and text.
    pub fn text(&self) -> Result<&str, String> {
        if let Some(error) = &self.error {
            return Err(format!("the domain's XML cannot be read: {error}"));
        }
        if self.length > self.held.len() {
            return Err(format!(
                "the domain's XML has {} bytes; more than {MAX_XML} are not read",
                self.length
            ));
        }
        std::str::from_utf8(&self.held).map_err(|error| format!("the domain's XML is not UTF-8: {error}"))
    }
}

/// Reads to the end, holds no more than [`MAX_XML`] bytes, and looks through all of it. An error is kept for whoever wants
/// the text: where hybond's namespace did not come before it, the domain is not known to be hybond's, and goes its way.
pub fn read(mut from: impl Read) -> Input {
    let mut input = Input {
        held: Vec::new(),
        length: 0,
        error: None,
        mentions_hybond: false,
    };
    let mut chunk = vec![0; 64 * 1024];
    // What was read last, with enough before it that the name is found across two reads.
    let mut window: Vec<u8> = Vec::new();
    loop {
        let length = match from.read(&mut chunk) {
            Ok(0) => return input,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                input.error = Some(error);
                return input;
            }
        };
        let new = chunk.get(..length).unwrap_or_default();
        input.length = input.length.saturating_add(length);
        let room = MAX_XML - input.held.len();
        input
            .held
            .extend_from_slice(new.get(..room.min(length)).unwrap_or_default());
        if !input.mentions_hybond {
            let keep = window.len().min(NAMESPACE.len());
            window.drain(..window.len() - keep);
            window.extend_from_slice(new);
            input.mentions_hybond = mentions_hybond(&window);
        }
    }
}
