//! hybondd's configuration, and what its pools are on a machine. hybondd and `hybondctl config check` both read it here.
//!
//! `/etc/hybond/hybond.toml` and the fragments of `/etc/hybond/hybond.d/*.toml`, merged in the order of their names. A
//! fragment's values replace earlier ones; its pools are added.
//!
//! ```text
//!   file ── one file, as it is written ── load ──▶ Config ── inventory ──▶ the VFs of each pool, and what matches nothing
//!                                                    └ Pool       ▲
//!                                                          Sysfs ─┘
//! ```

mod devices;
mod error;
mod file;
pub mod inventory;
mod load;
mod paths;
mod pool;
mod selector;
mod there;

pub use error::ConfigError;
pub use paths::paths;
pub use pool::{Emulated, Pool};
pub use selector::{PciId, Selector, VfRange};

use hybond_core::guest::Settings;
use hybond_core::ids::{IfName, PeerAddr, PoolName};
use hybond_vfio::PlugWay;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Where it is.
pub const FILE: &str = "/etc/hybond/hybond.toml";

/// The merged configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The files that it was read from.
    pub files: Vec<PathBuf>,
    /// What peers reach this host as; `None`: its host name.
    pub peer: Option<PeerAddr>,
    /// Where peers are listened for.
    pub listen: SocketAddr,
    /// libvirt's URI.
    pub libvirt: String,
    /// The way to plug; `None`: find out.
    pub plug: Option<PlugWay>,
    /// Times and needs of the guests' machines.
    pub guest: Settings,
    /// QEMU is to get all of the memory of a guest that comes and is to have a VF when it starts: the VF's plug pins it.
    pub preallocate: bool,
    /// How long a switch may take in the guest.
    pub switch_within: Duration,
    /// Certificates.
    pub tls: Tls,
    /// The pools, by name.
    pub pools: BTreeMap<PoolName, Pool>,
    /// Further names of PFs, by which domains' XML may call them: of a PF, or of the first PF of a pool.
    pub alias: BTreeMap<IfName, String>,
}

/// Files of the mutual TLS between peers. libvirt's own by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Authorities that peers' certificates are held against.
    pub ca: Option<PathBuf>,
    /// This host's certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            peer: None,
            listen: (Ipv6Addr::UNSPECIFIED, hybond_wire::peer::PORT).into(),
            libvirt: "qemu:///system".into(),
            plug: None,
            guest: Settings::default(),
            preallocate: true,
            switch_within: Duration::from_secs(15),
            tls: Tls::default(),
            pools: BTreeMap::new(),
            alias: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Whether anything but the pools and the further names differs: what counts only after a restart.
    #[must_use]
    pub fn needs_restart(&self, other: &Self) -> bool {
        let without = |config: &Self| Self {
            pools: BTreeMap::new(),
            alias: BTreeMap::new(),
            files: Vec::new(),
            ..config.clone()
        };
        without(self) != without(other)
    }
}

#[cfg(test)]
mod tests;
