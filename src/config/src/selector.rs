//! What a pool selects VFs by.

use hybond_core::ids::{Bdf, IfName, InvalidId};
use serde::Deserialize;
use serde::de::value::{StrDeserializer, U64Deserializer};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

/// VFs by address: one, or all from one to another. Written `0000:01:10.0` or `0000:01:10.0-0000:01:10.6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct VfRange {
    first: Bdf,
    last: Bdf,
}

impl VfRange {
    /// Whether an address is in it, both ends included.
    #[must_use]
    pub fn contains(&self, bdf: Bdf) -> bool {
        (self.first..=self.last).contains(&bdf)
    }
}

impl FromStr for VfRange {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId {
            text: text.chars().take(64).collect(),
            expected: "a VF's address such as \"0000:01:10.0\", or a range from the lower to the higher one such as \
                       \"0000:01:10.0-0000:01:10.6\"",
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let address = |part: &str| part.trim().parse::<Bdf>().map_err(|_| invalid());
        let (first, last) = (address(first)?, address(last)?);
        // A range over several PCI domains is a slip of the pen: they have nothing to do with each other.
        if first > last || first.parts().0 != last.parts().0 {
            return Err(invalid());
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for VfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// PCI vendor and device id, as `lspci -nn` prints them: `8086:10ca`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct PciId {
    /// Vendor and device.
    pub id: (u16, u16),
}

impl FromStr for PciId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let hex = |part: &str| {
            let valid = part.len() == 4 && part.bytes().all(|b| b.is_ascii_hexdigit());
            valid.then(|| u16::from_str_radix(part, 16).ok()).flatten()
        };
        let id = text
            .split_once(':')
            .and_then(|(vendor, device)| Some((hex(vendor)?, hex(device)?)));
        id.map(|id| Self { id }).ok_or_else(|| InvalidId {
            text: text.chars().take(64).collect(),
            expected: "vendor and device of a VF as lspci -nn prints them, such as \"8086:10ca\"",
        })
    }
}

impl fmt::Display for PciId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (vendor, device) = self.id;
        write!(f, "{vendor:04x}:{device:04x}")
    }
}

/// Serde through the text.
macro_rules! textual {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }
    };
}
textual!(VfRange);
textual!(PciId);

/// One value of one of a pool's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// `pf`
    Pf(IfName),
    /// `vf`
    Vf(VfRange),
    /// `pci_id`
    PciId(PciId),
    /// `numa_node`
    NumaNode(u32),
    /// `pf_driver`
    PfDriver(String),
    /// An entry of `host.devices`.
    Device(Bdf),
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pf(name) => write!(f, "pf \"{name}\""),
            Self::Vf(range) => write!(f, "vf \"{range}\""),
            Self::PciId(id) => write!(f, "pci_id \"{id}\""),
            Self::NumaNode(node) => write!(f, "numa_node {node}"),
            Self::PfDriver(driver) => write!(f, "pf_driver {driver:?}"),
            Self::Device(bdf) => write!(f, "host.devices \"{bdf}\""),
        }
    }
}

/// A list, or one value in place of a list of one.
pub(crate) fn many<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Many<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Many<T> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value or a list of values")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
            T::deserialize(StrDeserializer::new(text)).map(|value| vec![value])
        }
        fn visit_i64<E: Error>(self, number: i64) -> Result<Vec<T>, E> {
            let number = u64::try_from(number).map_err(|_| E::custom("a number below 0 is not allowed here"))?;
            T::deserialize(U64Deserializer::new(number)).map(|value| vec![value])
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut values = Vec::new();
            while let Some(value) = list.next_element()? {
                values.push(value);
            }
            Ok(values)
        }
    }
    deserializer.deserialize_any(Many(PhantomData))
}
