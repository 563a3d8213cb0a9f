//! One file of the configuration.

use crate::{ConfigError, Pool, Tls};
use hybond_core::ids::PeerAddr;
use hybond_vfio::PlugWay;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::Path;

/// Longest configuration file, in bytes.
pub(crate) const LIMIT: u64 = 1024 * 1024;

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
    pub(crate) pool: Vec<Pool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Host {
    pub(crate) peer: Option<PeerAddr>,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) libvirt: Option<String>,
    pub(crate) plug: Option<PlugWay>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GuestFragment {
    pub(crate) drain_seconds: Option<u64>,
    pub(crate) unplug_seconds: Option<u64>,
    pub(crate) reservation_seconds: Option<u64>,
    pub(crate) retry_seconds: Option<u64>,
    pub(crate) overlap_ms: Option<u32>,
    pub(crate) need_agent: Option<bool>,
}

/// Reads a file; `None` where there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Fragment>, ConfigError> {
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
    let syntax = |source| ConfigError::Syntax {
        path: path.to_owned(),
        source: Box::new(source),
    };
    toml::from_str(&text).map(Some).map_err(syntax)
}
