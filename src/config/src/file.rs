//! One file of the configuration.

use crate::devices::Devices;
use crate::{ConfigError, Pool, Tls};
use hybond_core::ids::{IfName, PeerAddr};
use hybond_core::text::fit;
use hybond_vfio::PlugWay;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;

/// Longest configuration file, in bytes.
pub(crate) const LIMIT: u64 = 1024 * 1024;

/// Longest part of a line that is shown, in characters.
const SHOWN: usize = 256;

/// One file, every value optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fragment {
    #[serde(default)]
    pub(crate) host: Host,
    #[serde(default)]
    pub(crate) guest: GuestFragment,
    pub(crate) tls: Option<Tls>,
    #[serde(default)]
    pub(crate) pool: Vec<Spanned<Pool>>,
    #[serde(default)]
    pub(crate) alias: BTreeMap<IfName, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Host {
    pub(crate) peer: Option<PeerAddr>,
    #[serde(default, deserialize_with = "listen")]
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) libvirt: Option<String>,
    pub(crate) plug: Option<PlugWay>,
    pub(crate) devices: Option<Devices>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GuestFragment {
    pub(crate) drain_seconds: Option<Spanned<Seconds>>,
    pub(crate) unplug_seconds: Option<Spanned<Seconds>>,
    pub(crate) reservation_seconds: Option<Seconds>,
    pub(crate) retry_seconds: Option<Seconds>,
    pub(crate) overlap_ms: Option<u32>,
    pub(crate) need_agent: Option<bool>,
    pub(crate) preallocate: Option<bool>,
}

/// A time that the guests' machines add to their clocks, and that somebody waits for.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "u64")]
pub(crate) struct Seconds(u64);

impl Seconds {
    pub(crate) fn milliseconds(self) -> u64 {
        self.0 * 1000
    }
}

impl TryFrom<u64> for Seconds {
    type Error = String;
    fn try_from(seconds: u64) -> Result<Self, String> {
        // A day: nobody waits longer for a guest. Without a pause nothing else would be done.
        let allowed = 1..=24 * 60 * 60;
        let valid = allowed.contains(&seconds).then_some(Self(seconds));
        valid.ok_or_else(|| {
            format!(
                "{seconds} is not a number of seconds from {} to {}",
                allowed.start(),
                allowed.end()
            )
        })
    }
}

fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let expected = "an address and a port, such as \"[::]:16515\" or \"192.0.2.1:16515\"";
    let address = text.parse();
    address
        .map(Some)
        .map_err(|_| D::Error::custom(format!("{text:?} is not {expected}")))
}

/// A file that was read, with its text for naming places in it.
pub(crate) struct Read {
    pub(crate) fragment: Fragment,
    text: String,
}

impl Read {
    /// The line, from 1, that a place in the file is on.
    pub(crate) fn line(&self, place: &Range<usize>) -> usize {
        line(&self.text, place.start)
    }
}

fn line(text: &str, offset: usize) -> usize {
    let before = text.bytes().take(offset);
    before.filter(|byte| *byte == b'\n').count() + 1
}

/// Reads a file; `None` where there is none.
///
/// # Errors
/// It cannot be read, or makes no sense by itself.
pub(crate) fn read(path: &Path) -> Result<Option<Read>, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > LIMIT => return Err(ConfigError::TooLarge { path: path.to_owned() }),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    match toml::from_str(&text) {
        Ok(fragment) => Ok(Some(Read { fragment, text })),
        Err(error) => {
            let line = line(&text, error.span().map_or(0, |span| span.start));
            // The parser's sentence alone does not say which key's value it is about. It quotes what is written, too.
            let shown = fit(text.lines().nth(line - 1).unwrap_or_default().trim(), SHOWN);
            let said = fit(&error.message().trim().replace('\n', ", "), 4 * SHOWN);
            Err(ConfigError::Invalid {
                path: path.to_owned(),
                line,
                problem: format!("{said} (in {shown:?})"),
            })
        }
    }
}
