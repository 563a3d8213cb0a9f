//! From files to one configuration.

use crate::devices::Devices;
use crate::file::{self, Fragment, Read, Seconds};
use crate::{Config, ConfigError, Pool};
use hybond_core::ids::PoolName;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// Where something is written.
#[derive(Clone)]
struct Place {
    path: PathBuf,
    line: usize,
}

impl Place {
    fn of(path: &Path, read: &Read, span: &Range<usize>) -> Self {
        Self {
            path: path.to_owned(),
            line: read.line(span),
        }
    }

    fn wrong(self, problem: String) -> ConfigError {
        let Self { path, line } = self;
        ConfigError::Invalid { path, line, problem }
    }
}

/// What is read so far, and where what can only be judged at the end was written.
#[derive(Default)]
struct Merge {
    config: Config,
    pools: BTreeMap<PoolName, Place>,
    drain: Option<Place>,
    devices: Option<Devices>,
}

impl Config {
    /// Reads a file, and the fragments of the folder of the same name with `.d` in place of `.toml`. A file that is not
    /// there is an empty one.
    ///
    /// # Errors
    /// The first fault that is found.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut merge = Merge::default();
        for file in files(path)? {
            if let Some(read) = file::read(&file)? {
                merge.take(&file, read)?;
                merge.config.files.push(file);
            }
        }
        merge.finish()
    }
}

/// The file itself, and the fragments by name.
fn files(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let folder = path.with_extension("d");
    let failed = |source| ConfigError::Read {
        path: folder.clone(),
        source,
    };
    let mut fragments = Vec::new();
    match std::fs::read_dir(&folder) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry.map_err(failed)?;
                if entry.path().extension().is_some_and(|e| e == "toml") {
                    fragments.push(entry.path());
                }
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(failed(source)),
    }
    fragments.sort();
    fragments.insert(0, path.to_owned());
    Ok(fragments)
}

impl Merge {
    fn take(&mut self, path: &Path, mut read: Read) -> Result<(), ConfigError> {
        let Fragment {
            host,
            guest,
            tls,
            pool,
            alias,
        } = std::mem::take(&mut read.fragment);
        let config = &mut self.config;
        config.alias.extend(alias);
        config.peer = host.peer.or(config.peer.take());
        config.plug = host.plug.or(config.plug);
        replace(&mut config.listen, host.listen);
        replace(&mut config.libvirt, host.libvirt);
        replace(&mut config.tls, tls);
        self.devices = host.devices.or(self.devices.take());
        let last = guest.unplug_seconds.as_ref().or(guest.drain_seconds.as_ref());
        let last = last.map(|seconds| Place::of(path, &read, &seconds.span()));
        self.drain = last.or(self.drain.take());
        let seconds = |s: Option<Seconds>| s.map(Seconds::milliseconds);
        let inner = |s: Option<Spanned<Seconds>>| seconds(s.map(Spanned::into_inner));
        replace(&mut config.guest.drain_within, inner(guest.drain_seconds));
        replace(&mut config.guest.unplug_within, inner(guest.unplug_seconds));
        replace(&mut config.guest.reservation, seconds(guest.reservation_seconds));
        replace(&mut config.guest.retry_after, seconds(guest.retry_seconds));
        replace(&mut config.guest.overlap_ms, guest.overlap_ms);
        replace(&mut config.guest.need_agent, guest.need_agent);
        replace(&mut config.preallocate, guest.preallocate);
        for pool in pool {
            let place = Place::of(path, &read, &pool.span());
            let pool = pool.into_inner();
            let name = pool.name.clone();
            if let Some(Place { path, line }) = self.pools.insert(name.clone(), place.clone()) {
                return Err(place.wrong(format!(
                    "pool {name} is in {}:{line} already; give each pool one [[pool]] section",
                    path.display()
                )));
            }
            config.pools.insert(name, pool);
        }
        Ok(())
    }

    /// What can be judged only when everything is there.
    fn finish(mut self) -> Result<Config, ConfigError> {
        let guest = &self.config.guest;
        if let (true, Some(place)) = (guest.unplug_within >= guest.drain_within, self.drain) {
            let (unplug, drain) = (guest.unplug_within / 1000, guest.drain_within / 1000);
            return Err(place.wrong(format!(
                "guest.unplug_seconds, {unplug}, must be less than guest.drain_seconds, {drain}"
            )));
        }
        for device in self.devices.into_iter().flat_map(|devices| devices.0) {
            let pools = &mut self.config.pools;
            let pool = pools
                .entry(device.pool.clone())
                .or_insert_with(|| Pool::named(device.pool));
            if !pool.devices.contains(&device.bdf) {
                pool.devices.push(device.bdf);
            }
        }
        for (name, place) in self.pools {
            if let Some(problem) = self.config.pools.get(&name).and_then(Pool::problem) {
                return Err(place.wrong(problem));
            }
        }
        Ok(self.config)
    }
}

fn replace<T>(value: &mut T, with: Option<T>) {
    if let Some(with) = with {
        *value = with;
    }
}
