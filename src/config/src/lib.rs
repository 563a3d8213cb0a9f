//! hybondd's configuration, and what its pools are on a machine. hybondd and `hybondctl config check` both read it here.
//!
//! `/etc/hybond/hybond.toml` and the fragments of `/etc/hybond/hybond.d/*.toml`, merged in the order of their names. A
//! fragment's values replace earlier ones; its pools are added.
//!
//! ```text
//!   file ── one file, as it is written ──▶ Config, merged ── inventory ──▶ the VFs of each pool
//!                                            └ pool                ▲
//!                                                            Sysfs ┘
//! ```

mod error;
mod file;
pub mod inventory;
mod pool;

pub use error::ConfigError;
pub use pool::{Emulated, Pool};

use file::Fragment;
use hybond_core::guest::Settings;
use hybond_core::ids::{PeerAddr, PoolName};
use hybond_vfio::PlugWay;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The merged configuration.
#[derive(Debug, Clone)]
pub struct Config {
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
    /// How long a switch may take in the guest.
    pub switch_within: Duration,
    /// Certificates.
    pub tls: Tls,
    /// The pools, by name.
    pub pools: BTreeMap<PoolName, Pool>,
}

/// Files of the mutual TLS between peers. libvirt's own by default.
#[derive(Debug, Clone, Default, Deserialize)]
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
            peer: None,
            listen: (Ipv6Addr::UNSPECIFIED, hybond_wire::peer::PORT).into(),
            libvirt: "qemu:///system".into(),
            plug: None,
            guest: Settings::default(),
            switch_within: Duration::from_secs(15),
            tls: Tls::default(),
            pools: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Reads a file, and the fragments of the folder of the same name with `.d` in place of `.toml`. A file that is not
    /// there is an empty one.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let folder = path.with_extension("d");
        let mut files = vec![path.to_owned()];
        match std::fs::read_dir(&folder) {
            Ok(entries) => {
                let mut found = Vec::new();
                for entry in entries {
                    let entry = entry.map_err(|source| ConfigError::Read {
                        path: folder.clone(),
                        source,
                    })?;
                    if entry.path().extension().is_some_and(|e| e == "toml") {
                        found.push(entry.path());
                    }
                }
                found.sort();
                files.append(&mut found);
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(ConfigError::Read { path: folder, source }),
        }
        for file in files {
            if let Some(fragment) = file::read(&file)? {
                config.merge(&file, fragment)?;
            }
        }
        Ok(config)
    }

    fn merge(&mut self, path: &Path, fragment: Fragment) -> Result<(), ConfigError> {
        let Fragment { host, guest, tls, pool } = fragment;
        self.peer = host.peer.or(self.peer.take());
        self.plug = host.plug.or(self.plug);
        replace(&mut self.listen, host.listen);
        replace(&mut self.libvirt, host.libvirt);
        replace(&mut self.tls, tls);
        let seconds = |s: Option<u64>| s.map(|s| s.saturating_mul(1000));
        replace(&mut self.guest.drain_within, seconds(guest.drain_seconds));
        replace(&mut self.guest.unplug_within, seconds(guest.unplug_seconds));
        replace(&mut self.guest.reservation, seconds(guest.reservation_seconds));
        replace(&mut self.guest.retry_after, seconds(guest.retry_seconds));
        replace(&mut self.guest.overlap_ms, guest.overlap_ms);
        replace(&mut self.guest.need_agent, guest.need_agent);
        let wrong = |problem: String| ConfigError::Meaning {
            path: path.to_owned(),
            problem,
        };
        if self.guest.unplug_within >= self.guest.drain_within {
            return Err(wrong(
                "guest.unplug_seconds must be less than guest.drain_seconds".into(),
            ));
        }
        for pool in pool {
            if pool.pf.is_empty() {
                return Err(wrong(format!("pool {} has no PF: add pf = [\"<name>\"]", pool.name)));
            }
            let name = pool.name.clone();
            if self.pools.insert(name.clone(), pool).is_some() {
                return Err(wrong(format!(
                    "pool {name} is there twice; give each pool one [[pool]] section"
                )));
            }
        }
        Ok(())
    }
}

fn replace<T>(value: &mut T, with: Option<T>) {
    if let Some(with) = with {
        *value = with;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(main: &str, fragment: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("hybond.toml");
        std::fs::write(&path, main).expect("write");
        std::fs::create_dir(dir.path().join("hybond.d")).expect("mkdir");
        std::fs::write(dir.path().join("hybond.d/10.toml"), fragment).expect("write");
        Config::load(&path)
    }

    #[test]
    fn fragments_replace_values_and_add_pools() {
        let config = load(
            "[host]\npeer = 'a:1'\nplug = 'group'\n[[pool]]\nname = 'lan'\npf = ['pf0', 'pf1']\n",
            "[host]\npeer = 'b:2'\n[[pool]]\nname = 'dmz'\npf = ['pf2']\n[guest]\ndrain_seconds = 90\n",
        )
        .expect("valid");
        assert_eq!(config.peer.expect("given").as_str(), "b:2");
        assert_eq!(config.plug, Some(PlugWay::Group));
        assert_eq!(config.pools.len(), 2);
        assert_eq!(config.guest.drain_within, 90_000);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_file_and_line() {
        let error = load("[host]\npeers = 'a'\n", "").expect_err("unknown key");
        let ConfigError::Syntax { path, source } = &error else {
            panic!("{error:?}")
        };
        assert!(path.ends_with("hybond.toml"));
        let text = source.to_string();
        assert!(
            text.contains("line 2") && text.contains("peers") && text.contains("libvirt"),
            "{text}"
        );

        let error = load("[[pool]]\nname = 'lan'\n", "").expect_err("no PF");
        assert!(error.to_string().contains("pool lan has no PF"), "{error}");
        let twice = "[[pool]]\nname = 'lan'\npf = ['pf0']\n";
        let error = load(twice, twice).expect_err("twice");
        assert!(
            error.to_string().contains("10.toml: pool lan is there twice"),
            "{error}"
        );
    }
}
