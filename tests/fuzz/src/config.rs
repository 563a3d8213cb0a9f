//! The configuration: a file and a fragment, parted by a line `### 10.toml`.

use crate::{assert_fit_to_show, fit_to_show, memory};
use hybond_config::{Config, ConfigError};
use std::path::Path;
use std::time::Duration;

const BETWEEN: &[u8] = b"### 10.toml\n";

/// Loads it.
pub fn run(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let main = folder.path().join("hybond.toml");
    let fragment = folder.path().join("hybond.d/10.toml");
    let (first, second) = match data.windows(BETWEEN.len()).position(|w| w == BETWEEN) {
        Some(at) => (data.get(..at), data.get(at + BETWEEN.len()..)),
        None => (Some(data), None),
    };
    write(&main, first.unwrap_or_default());
    if let Some(second) = second {
        std::fs::create_dir(folder.path().join("hybond.d")).expect("a folder");
        write(&fragment, second);
    }
    let loaded = memory::within(256 * 1024 + 128 * data.len(), || Config::load(&main));
    match loaded {
        Ok(config) => usable(&config),
        Err(ConfigError::Invalid { path, line, problem }) => {
            assert!(path == main || path == fragment, "{path:?} is no file of it");
            let text = std::fs::read(&path).expect("read");
            let lines = text.iter().filter(|b| **b == b'\n').count() + 1;
            assert!((1..=lines).contains(&line), "line {line} of {lines}");
            assert_fit_to_show(&problem);
        }
        Err(error @ ConfigError::Read { .. }) => {
            assert!(std::str::from_utf8(data).is_err(), "{error:?} of a text");
            fit_to_show(&error);
        }
        Err(error @ ConfigError::TooLarge { .. }) => panic!("{error} of {} bytes", data.len()),
    }
    // Read twice, it says the same: SIGHUP does.
    match (Config::load(&main), Config::load(&main)) {
        (Ok(one), Ok(two)) => assert!(one == two && !one.needs_restart(&two)),
        (Err(one), Err(two)) => assert_eq!(one.to_string(), two.to_string()),
        _ => panic!("it cannot make up its mind"),
    }
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("written");
}

/// What was accepted can be worked with.
fn usable(config: &Config) {
    let guest = &config.guest;
    assert!(guest.unplug_within < guest.drain_within);
    // The guests' machines add these to their clocks.
    let longest = u64::try_from(Duration::from_secs(10 * 365 * 24 * 3600).as_millis()).expect("fits");
    for time in [
        guest.drain_within,
        guest.unplug_within,
        guest.reservation,
        guest.retry_after,
    ] {
        assert!(time <= longest, "{time} ms");
    }
    for (name, pool) in &config.pools {
        assert_eq!(*name, pool.name);
        assert!(!pool.selectors().is_empty() || !pool.devices.is_empty());
        for selector in pool.selectors() {
            assert_fit_to_show(&selector.to_string());
        }
    }
}
