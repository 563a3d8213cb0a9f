//! Identifiers. Each is valid from the moment it exists: what comes from a file, a peer or a guest is parsed into one of
//! these or refused, so nothing behind this module checks again.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A text that is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct InvalidId {
    /// What was given, cut to 64 characters.
    pub text: String,
    /// What it should have been, with an example.
    pub expected: &'static str,
}

impl InvalidId {
    fn new(text: &str, expected: &'static str) -> Self {
        Self {
            text: text.chars().take(64).collect(),
            expected,
        }
    }
}

/// Bytes as hexadecimal digits, with a separator before the bytes that `separated` names; in one piece, as identifiers are
/// written all the time.
fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8], separator: char, separated: fn(usize) -> bool) -> fmt::Result {
    let mut text = String::with_capacity(bytes.len() * 3);
    for (i, byte) in bytes.iter().enumerate() {
        if i > 0 && separated(i) {
            text.push(separator);
        }
        let digits = [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]));
        text.extend(digits);
    }
    f.write_str(&text)
}

/// Serde through the textual form, so that JSON, TOML and XML all carry what a user would write.
macro_rules! textual {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(id: $type) -> String {
                id.to_string()
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

/// A unicast Ethernet address. Names a pair within its domain, and both NICs of the pair carry it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);
textual!(Mac);

impl Mac {
    /// The six octets, in wire order.
    #[must_use]
    pub fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Takes octets as the kernel reports them.
    ///
    /// # Errors
    /// Group addresses and the all-zero address are no one's.
    pub fn from_octets(octets: [u8; 6]) -> Result<Self, InvalidId> {
        if octets[0] & 1 == 1 || octets == [0; 6] {
            let text = octets.map(|o| format!("{o:02x}")).join(":");
            return Err(InvalidId::new(&text, "a unicast MAC address"));
        }
        Ok(Self(octets))
    }

    /// Twelve hexadecimal digits without separators, as used in device names and ids.
    #[must_use]
    pub fn compact(self) -> String {
        self.0.iter().map(|o| format!("{o:02x}")).collect()
    }

    /// Name of the macvtap of this pair on every host: `hb525400aa0001`. One short of IFNAMSIZ.
    #[must_use]
    pub fn standby_name(self) -> IfName {
        IfName(format!("hb{}", self.compact()))
    }

    /// QEMU id of the primary: `hbvf525400aa0001`.
    #[must_use]
    pub fn primary_id(self) -> String {
        format!("hbvf{}", self.compact())
    }

    /// QEMU id of the PCIe root port that is kept for the primary, outside libvirt's numbering: `hbrp525400aa0001`.
    #[must_use]
    pub fn root_port_id(self) -> String {
        format!("hbrp{}", self.compact())
    }
}

impl FromStr for Mac {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const EXPECTED: &str = "a unicast MAC address such as 52:54:00:aa:00:01";
        let mut octets = [0u8; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts
                .next()
                .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *octet = part
                .and_then(|p| u8::from_str_radix(p, 16).ok())
                .ok_or_else(|| InvalidId::new(text, EXPECTED))?;
        }
        if parts.next().is_some() {
            return Err(InvalidId::new(text, EXPECTED));
        }
        Self::from_octets(octets).map_err(|_| InvalidId::new(text, EXPECTED))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0, ':', |_| true)
    }
}

/// libvirt's UUID of a domain: the same on both ends of a migration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainId([u8; 16]);
textual!(DomainId);

impl DomainId {
    /// Takes the 16 bytes as libvirt's C interface gives them.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes, in the order in which they are written.
    #[must_use]
    pub fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl FromStr for DomainId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId::new(text, "a UUID such as a2a2a2a2-0000-4000-8000-000000000002");
        let groups: Vec<&str> = text.split('-').collect();
        if groups.iter().map(|g| g.len()).ne([8, 4, 4, 4, 12]) {
            return Err(invalid());
        }
        let digits = groups.concat();
        // `from_str_radix` would take "+a".
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        let mut bytes = [0u8; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| invalid())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| invalid())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0, '-', |i| matches!(i, 4 | 6 | 8 | 10))
    }
}

/// A PCI function: domain, bus, device, function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bdf {
    domain: u16,
    bus: u8,
    device: u8,
    function: u8,
}
textual!(Bdf);

impl Bdf {
    /// PCI domain (segment), bus, device (slot), function.
    #[must_use]
    pub fn parts(self) -> (u16, u8, u8, u8) {
        (self.domain, self.bus, self.device, self.function)
    }
}

impl FromStr for Bdf {
    type Err = InvalidId;
    /// Takes `0000:01:10.2`, and `01:10.2` for domain 0 as `lspci` prints it.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId::new(text, "a PCI address such as 0000:01:10.2");
        fn hex(part: &str, digits: usize) -> Option<u16> {
            let valid = part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
            valid.then(|| u16::from_str_radix(part, 16).ok()).flatten()
        }
        let (head, function) = text.rsplit_once('.').ok_or_else(invalid)?;
        let mut parts = head.rsplit(':');
        let device = parts
            .next()
            .and_then(|p| hex(p, 2))
            .filter(|d| *d < 32)
            .ok_or_else(invalid)?;
        let bus = parts.next().and_then(|p| hex(p, 2)).ok_or_else(invalid)?;
        let domain = parts.next().map_or(Some(0), |p| hex(p, 4)).ok_or_else(invalid)?;
        let function = hex(function, 1).filter(|f| *f < 8).ok_or_else(invalid)?;
        if parts.next().is_some() {
            return Err(invalid());
        }
        Ok(Self {
            domain,
            bus: bus as u8,
            device: device as u8,
            function: function as u8,
        })
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{:x}",
            self.domain, self.bus, self.device, self.function
        )
    }
}

/// Declares a name: a non-empty text of limited length over a set of characters.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $max:literal, $expected:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);
        textual!($type);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let allowed: fn(char) -> bool = $ok;
                if text.is_empty() || text.len() > $max || !text.chars().all(allowed) || text == "." || text == ".." {
                    return Err(InvalidId::new(text, $expected));
                }
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// Name of a network interface, at most 15 bytes (IFNAMSIZ less its terminator; `dev_valid_name()` in the kernel).
    IfName, 15, "an interface name of at most 15 characters without '/', ':' or white space",
    |c| !c.is_whitespace() && !c.is_control() && c != '/' && c != ':'
);
name!(
    /// Name of a pool. The same name on two hosts means the same layer-2 network.
    PoolName, 64, "a pool name of at most 64 letters, digits, '-', '_' or '.'",
    |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
);
name!(
    /// Name of a port profile that a switch has. The kernel keeps 40 bytes with the terminator (`PORT_PROFILE_MAX`), and so does
    /// libvirt.
    ProfileName, 39, "a port profile's name of at most 39 bytes",
    |c| !c.is_control()
);
name!(
    /// A VF of a pool: its PCI address, or for an emulated primary `<pf>.<number>`.
    VfId, 64, "a VF such as 0000:01:10.2",
    |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':')
);
name!(
    /// Where a peer is reached: host name or address, with an optional `:port`. What its certificate must name.
    PeerAddr, 255, "a host name or address with an optional :port, such as node2.example.org:16515",
    |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '[' | ']')
);
name!(
    /// One migration, made up by its destination. Repeating a request with the same id repeats nothing else.
    MigrationId, 64, "a migration id of at most 64 letters, digits or '-'",
    |c| c.is_ascii_alphanumeric() || c == '-'
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_back() {
        let mac: Mac = "52:54:00:AA:00:01".parse().expect("upper case is fine");
        assert_eq!(mac.to_string(), "52:54:00:aa:00:01");
        assert_eq!(mac.standby_name().as_str(), "hb525400aa0001");
        assert_eq!(
            "01:10.2".parse::<Bdf>().expect("lspci's short form").to_string(),
            "0000:01:10.2"
        );
        let uuid = "a2a2a2a2-0000-4000-8000-000000000002";
        assert_eq!(uuid.parse::<DomainId>().expect("a UUID").to_string(), uuid);
    }

    #[test]
    fn what_is_not_valid_is_named() {
        for text in [
            "",
            "52:54:00:aa:00",
            "52:54:00:aa:00:01:02",
            "53:54:00:aa:00:01",
            "00:00:00:00:00:00",
            "+2:54:00:aa:00:01",
        ] {
            assert_eq!(text.parse::<Mac>().expect_err(text).text, text);
        }
        for text in [
            "a2a2a2a2-0000-4000-8000",
            "+aa2a2a2-0000-4000-8000-000000000002",
            "a2a2a2a2-0000-4000-8000-0000000000é",
        ] {
            assert!(text.parse::<DomainId>().is_err(), "{text}");
        }
        for text in ["01:10", "01:20.0", "01:10.8", "1:2:3:4.0", "00000:01:10.0"] {
            assert!(text.parse::<Bdf>().is_err(), "{text}");
        }
        for text in ["a/b", "", "0123456789abcdef", "a b", ".."] {
            assert!(text.parse::<IfName>().is_err(), "{text}");
        }
        let long = "x".repeat(1000).parse::<PoolName>().expect_err("too long");
        assert_eq!(long.text.len(), 64);
    }
}
