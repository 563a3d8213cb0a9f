//! The list form: `devices = "28:00.1|10GE,28:00.2|10GE"`.

use crate::selector::many;
use hybond_core::ids::{Bdf, InvalidId, PoolName};
use serde::{Deserialize, Deserializer};

/// One entry: a VF, or a PF for all its VFs, and the pool that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) bdf: Bdf,
    pub(crate) pool: PoolName,
}

/// A text of any number of entries.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Text(Vec<Device>);

/// Why a text is no list of devices.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum InvalidDevices {
    #[error(
        "{0:?} is not <PCI address>|<pool>, such as \"28:00.1|10GE\" (domain 0000 may be left out, a PF means all its VFs); \
         entries are parted by commas"
    )]
    Entry(String),
    #[error("in {entry:?}: {source}")]
    Id { entry: String, source: InvalidId },
}

impl TryFrom<String> for Text {
    type Error = InvalidDevices;
    fn try_from(text: String) -> Result<Self, InvalidDevices> {
        // A comma at the end, and line breaks in a long list, are usual.
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let devices: Vec<Device> = entries.map(device).collect::<Result<_, _>>()?;
        if devices.is_empty() {
            return Err(InvalidDevices::Entry(text.chars().take(64).collect()));
        }
        Ok(Self(devices))
    }
}

fn device(entry: &str) -> Result<Device, InvalidDevices> {
    let shown = || entry.chars().take(64).collect::<String>();
    let (bdf, pool) = entry.split_once('|').ok_or_else(|| InvalidDevices::Entry(shown()))?;
    let id = |source| InvalidDevices::Id { entry: shown(), source };
    Ok(Device {
        bdf: bdf.trim().parse().map_err(id)?,
        pool: pool.trim().parse().map_err(id)?,
    })
}

/// `host.devices`: such a text, or a list of such texts.
#[derive(Debug)]
pub(crate) struct Devices(pub(crate) Vec<Device>);

impl<'de> Deserialize<'de> for Devices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts: Vec<Text> = many(deserializer)?;
        Ok(Self(texts.into_iter().flat_map(|text| text.0).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let Text(devices) = Text::try_from(text.to_owned()).map_err(|error| error.to_string())?;
        Ok(devices.iter().map(|d| format!("{} {}", d.bdf, d.pool)).collect())
    }

    #[test]
    fn the_list_that_others_use_is_read() {
        assert_eq!(
            read("28:00.1|10GE,28:00.2|10GE").expect("valid"),
            ["0000:28:00.1 10GE", "0000:28:00.2 10GE"]
        );
        assert_eq!(
            read("\n 0001:28:00.1 | 10GE,\n 28:00.1|gold,\n").expect("valid"),
            ["0001:28:00.1 10GE", "0000:28:00.1 gold"]
        );
    }

    #[test]
    fn an_entry_that_makes_no_sense_is_shown_with_what_would() {
        for (text, words) in [
            (
                "28:00.1",
                "\"28:00.1\" is not <PCI address>|<pool>, such as \"28:00.1|10GE\"",
            ),
            ("", "is not <PCI address>|<pool>"),
            (
                "28:00.1|a,28:00|b",
                "in \"28:00|b\": \"28:00\" is not a PCI address such as",
            ),
            ("28:00.1|", "is not a pool name of at most 64 letters"),
            ("28:00.1|a|b", "is not a pool name"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
