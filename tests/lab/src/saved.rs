//! Saved states: both hosts booted and warmed up once, then restored by each run in seconds. hybond is not in them; it is
//! in those that are made of them for one test or another, see [`Lab::up_prepared`](crate::Lab::up_prepared).

use crate::cache::{self, progress};
use crate::host::{Host, Images, LAYOUTS, Start};
use crate::machine::Machine;
use crate::process::Ledger;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What each host does before it is saved: libvirt asks QEMU what it can do, which takes a minute under TCG, and keeps
/// the answer. A small page cache makes a small state.
const WARM_UP: &str = "set -e
test -c /dev/kvm
for type in kvm qemu; do virsh domcapabilities --virttype $type >/dev/null; done
test \"$(wc -l </run/lab/pfs)\" = 2
journalctl --flush
sync
echo 3 >/proc/sys/vm/drop_caches";

/// Folder of the states of hosts that are made of these.
pub(crate) fn folder(images: &Images) -> Result<PathBuf> {
    // A later QEMU need not understand what an earlier one has saved of a machine without a version.
    let version = fs::read_to_string(images.emulator.join("version")).context("the emulator has no version")?;
    let disk = images.disk.display().to_string();
    let mut parts = vec![disk.as_str(), version.as_str(), WARM_UP];
    let machines: Vec<String> = LAYOUTS.iter().flat_map(|layout| layout.machine()).collect();
    parts.extend(machines.iter().map(String::as_str));
    Ok(cache::root().join(format!("saved-{}", cache::key(&parts))))
}

/// Boots the hosts and saves them in `folder`. The network is up.
pub(crate) fn build(folder: &Path, images: &Images, hosts: &mut [Host], ledger: &Ledger) -> Result<()> {
    let _lock = cache::lock(
        &cache::root().join("saved.lock"),
        "the saved state",
        Duration::from_secs(1800),
    )?;
    if folder.exists() {
        return Ok(());
    }
    let start = Instant::now();
    progress("booting both hosts once, to save them (about four minutes on two cores)");
    for host in hosts.iter() {
        host.start(&Start::Boot, images, ledger)?;
    }
    for host in hosts.iter() {
        host.wait_booted(Duration::from_secs(900))?;
        progress(&format!("{} is up after {} s", host.name(), start.elapsed().as_secs()));
    }
    for host in hosts.iter_mut() {
        host.connect(ledger, Duration::from_secs(240))?;
        host.look()?;
    }
    progress("warming up libvirt on both");
    each(hosts, |host| {
        let output = host.run_within(WARM_UP, Duration::from_secs(600))?;
        ensure!(output.success(), "warm-up of {}: {}", host.name(), output.stderr.trim());
        Ok(())
    })?;
    save("saved", folder, hosts)?;
    progress(&format!("saved after {} s", start.elapsed().as_secs()));
    Ok(())
}

/// Folder of what was made, by things that have this key, of hosts that were restored from `base`.
pub(crate) fn prepared_folder(name: &str, base: &Path, key: &str) -> PathBuf {
    let base = base.display().to_string();
    cache::root().join(format!("{name}-{}", cache::key(&[base.as_str(), key])))
}

/// Saves the running hosts in `folder`, one of those called `name`, and ends them.
pub(crate) fn save(name: &str, folder: &Path, hosts: &[Host]) -> Result<()> {
    progress("saving both hosts");
    let work = cache::root().join(format!(".work-{name}"));
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir(&work)?;
    each(hosts, |host| {
        host.disconnect()?;
        host.save(&work)
    })?;
    fs::rename(&work, folder).context("cannot keep the saved states")?;
    cache::prune(name, Some(folder))
}

/// Does the same on all hosts at once.
pub(crate) fn each<T: Send>(hosts: &[Host], work: impl Fn(&Host) -> Result<T> + Sync) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = hosts.iter().map(|host| scope.spawn(|| work(host))).collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| anyhow::bail!("a thread of the lab panicked"))
            })
            .collect()
    })
}
