//! Netlink messages and attributes, to and from bytes. Reading is total: whatever the bytes are, it ends, and hands out
//! only what lies within them.

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLM_F_ACK`.
pub const ACK: u16 = 4;
/// `NLM_F_DUMP`.
pub const DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`.
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`.
pub const EXCL: u16 = 0x200;
/// `NLM_F_CREATE`.
pub const CREATE: u16 = 0x400;

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLA_TYPE_MASK`: without the bits "nested" and "network byte order".
const TYPE_MASK: u16 = 0x3fff;

/// Rounds up to netlink's alignment.
pub fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// A message under construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// A request of that type with its fixed part.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        Self {
            kind,
            flags,
            body: fixed.to_vec(),
        }
    }

    /// Adds an attribute.
    pub fn put(mut self, kind: u16, value: &[u8]) -> Self {
        put(&mut self.body, kind, value);
        self
    }

    /// Adds an attribute of 32 bits.
    pub fn put_u32(self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Adds a text with its terminator.
    pub fn put_text(self, kind: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    /// The bytes to send.
    pub fn finish(&self, flags: u16, sequence: u32) -> Vec<u8> {
        let length = (HEADER + self.body.len()) as u32;
        let mut bytes = Vec::with_capacity(HEADER + self.body.len());
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&self.kind.to_ne_bytes());
        bytes.extend_from_slice(&(self.flags | flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The type, the flags and everything behind the header.
    pub fn parts(&self) -> (u16, u16, &[u8]) {
        (self.kind, self.flags, &self.body)
    }
}

/// Adds an attribute to bytes.
pub fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = (4 + value.len()) as u16;
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(align(bytes.len()), 0);
}

/// A message received.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Its type.
    pub kind: u16,
    /// Its sequence number.
    pub sequence: u32,
    /// What is behind the header.
    pub payload: &'a [u8],
}

impl Received<'_> {
    /// The end of an exchange: 0, or an errno.
    pub fn error(&self) -> Option<i32> {
        match self.kind {
            NLMSG_ERROR | NLMSG_DONE => Some(u32_at(self.payload, 0).unwrap_or(0).wrapping_neg() as i32),
            _ => None,
        }
    }
}

/// The messages of a datagram.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let payload = bytes.get(HEADER..length)?;
        let received = Received {
            kind: u16_at(bytes, 4)?,
            sequence: u32_at(bytes, 8)?,
            payload,
        };
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some(received)
    })
}

/// The attributes in bytes: type and value.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16_at(bytes, 0)? as usize;
        let value = bytes.get(4..length)?;
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of that type.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// Sixteen bits in the machine's order.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// Thirty-two bits in the machine's order.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// A text up to its terminator.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read_back() {
        let message = Message::new(16, CREATE, &[7; 16])
            .put_u32(4, 1500)
            .put_text(3, "eth0")
            .put(1, &[1, 2, 3]);
        let bytes = message.finish(ACK, 9);
        let received: Vec<_> = messages(&bytes).collect();
        assert_eq!(received.len(), 1);
        assert_eq!((received[0].kind, received[0].sequence), (16, 9));
        let attributes_of = &received[0].payload[16..];
        assert_eq!(attribute(attributes_of, 4), Some(&1500u32.to_ne_bytes()[..]));
        assert_eq!(text(attribute(attributes_of, 3).expect("the name")), "eth0");
        assert_eq!(attribute(attributes_of, 1), Some(&[1u8, 2, 3][..]));
        assert_eq!(attributes(attributes_of).count(), 3);
    }

    #[test]
    fn what_is_cut_or_lies_about_its_length_ends_without_harm() {
        let bytes = Message::new(16, 0, &[0; 16]).put_u32(4, 1500).finish(0, 1);
        for end in 0..bytes.len() {
            assert_eq!(messages(&bytes[..end]).count(), 0, "{end}");
        }
        for lie in [0u16, 1, 3, 9, 0xffff] {
            let mut one = Vec::new();
            put(&mut one, 4, &[1, 2, 3, 4]);
            one[..2].copy_from_slice(&lie.to_ne_bytes());
            assert_eq!(attributes(&one).count(), 0, "{lie}");
        }
    }
}
