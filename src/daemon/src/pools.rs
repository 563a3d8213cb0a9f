//! The pools of this host: what is configured, and what the machine has of it. Both are read at the start, and again while
//! guests run: on SIGHUP the configuration, and whenever PFs or VFs come or go what matches it. With the configuration the
//! further names of PFs are read again.

use crate::adapters::chain;
use crate::shared::Shared;
use hybond_config::{Config, ConfigError, Pool, inventory};
use hybond_core::ids::{IfName, PoolName};
use hybond_core::paths::Paths;
use hybond_core::pool::Vf;
use hybond_vfio::{PlugWay, Sysfs, Uevents};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use tokio::signal::unix::Signal;
use tracing::{error, info, warn};

/// Further names of PFs: of a PF, or of the first PF of a pool.
pub type Aliases = BTreeMap<IfName, String>;

/// The pools as they are configured now, what they and the drivers of their PFs ask of the paths, and the further names of
/// PFs: for the guests' tasks.
#[derive(Debug)]
pub struct Pools(RwLock<Now>);

#[derive(Debug)]
struct Now {
    pools: BTreeMap<PoolName, Pool>,
    paths: Arc<Paths>,
    aliases: Arc<Aliases>,
}

impl Pools {
    /// With what was read at the start.
    #[must_use]
    pub fn new(pools: BTreeMap<PoolName, Pool>, aliases: Aliases, paths: Paths) -> Self {
        Self(RwLock::new(Now {
            pools,
            paths: Arc::new(paths),
            aliases: Arc::new(aliases),
        }))
    }

    fn now(&self) -> RwLockReadGuard<'_, Now> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pool's settings.
    #[must_use]
    pub fn get(&self, name: &PoolName) -> Option<Pool> {
        self.now().pools.get(name).cloned()
    }

    /// What they ask of the paths.
    #[must_use]
    pub fn paths(&self) -> Arc<Paths> {
        Arc::clone(&self.now().paths)
    }

    /// The further names of PFs.
    #[must_use]
    pub fn aliases(&self) -> Arc<Aliases> {
        Arc::clone(&self.now().aliases)
    }

    fn set(&self, config: &Config, paths: Paths) {
        let now = Now {
            pools: config.pools.clone(),
            paths: Arc::new(paths),
            aliases: Arc::new(config.alias.clone()),
        };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

/// Every pool is emulated, and there is one.
#[must_use]
pub fn all_emulated(pools: &BTreeMap<PoolName, Pool>) -> bool {
    !pools.is_empty() && pools.values().all(|pool| pool.emulated.is_some())
}

/// Reads the pools, and tells of each change once.
pub struct Reader {
    file: PathBuf,
    sysfs: Sysfs,
    config: Config,
    counts: BTreeMap<PoolName, usize>,
    warned: BTreeSet<String>,
}

impl Reader {
    /// Of a configuration that was read from this file.
    #[must_use]
    pub fn new(file: PathBuf, sysfs: Sysfs, config: Config) -> Self {
        Self {
            file,
            sysfs,
            config,
            counts: BTreeMap::new(),
            warned: BTreeSet::new(),
        }
    }

    /// What the machine has for the pools now, and what is asked of the paths. Waits while a number of VFs is being written.
    pub fn look(&mut self) -> (BTreeMap<PoolName, Vec<Vf>>, Paths) {
        let found = inventory::read(&self.sysfs, &self.config.pools);
        let warnings: BTreeSet<String> = found.warnings.iter().map(|warning| chain(warning)).collect();
        for error in warnings.difference(&self.warned) {
            warn!(error, "{error}");
        }
        self.warned = warnings;
        let counts: BTreeMap<PoolName, usize> = found
            .pools
            .iter()
            .map(|(name, vfs)| (name.clone(), vfs.len()))
            .collect();
        for (name, vfs) in &counts {
            if self.counts.get(name) != Some(vfs) {
                info!(pool = %name, vfs, "pool {name} has {vfs} VFs");
            }
        }
        for name in self.counts.keys().filter(|name| !counts.contains_key(name)) {
            info!(pool = %name, "pool {name} is no more");
        }
        self.counts = counts;
        let paths = hybond_config::paths(&self.sysfs, &self.config.pools, &found.pools);
        (found.pools, paths)
    }

    /// Reads the configuration again. Where it cannot be used, the one before stays.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn reload(&mut self, way: PlugWay) -> Result<(), ConfigError> {
        let new = Config::load(&self.file)?;
        if new.needs_restart(&self.config) {
            warn!(
                "of the configuration the pools and [alias] are read again; what else has changed counts from a restart"
            );
        }
        if new.plug.is_none() && all_emulated(&new.pools) != (way == PlugWay::Emulated) && !new.pools.is_empty() {
            warn!(%way, "primaries are plugged by {way} until hybondd is restarted, which is not what the pools ask for");
        }
        self.config.pools = new.pools;
        self.config.alias = new.alias;
        Ok(())
    }
}

/// What makes the pools be read again.
#[derive(Clone, Copy)]
enum Cause {
    Asked,
    Machine,
}

/// Keeps the pools up to date until the daemon ends.
pub async fn follow(shared: Arc<Shared>, mut reader: Reader, mut hangup: Signal) {
    let mut uevents = match Uevents::open() {
        Ok(uevents) => Some(uevents),
        Err(error) => {
            warn!(
                error = chain(&error),
                "VFs that come or go are seen at 'systemctl reload hybondd' only: {}",
                chain(&error)
            );
            None
        }
    };
    // Something may have changed between the first look and the beginning of the events.
    let mut cause = Cause::Machine;
    loop {
        let way = shared.adapters.way;
        let work = move || {
            let reloaded = match cause {
                Cause::Asked => reader.reload(way),
                Cause::Machine => Ok(()),
            };
            let found = reader.look();
            (reader, reloaded, found)
        };
        let found;
        (reader, found) = match tokio::task::spawn_blocking(work).await {
            Ok((reader, Ok(()), found)) => (reader, found),
            Ok((reader, Err(error), found)) => {
                error!(
                    error = chain(&error),
                    "the configuration is not read again, the one before stays: {}",
                    chain(&error)
                );
                (reader, found)
            }
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        let (vfs, paths) = found;
        let aliases = shared.adapters.pools.aliases();
        shared.adapters.pools.set(&reader.config, paths);
        // Leases of VFs that are offered no more stay until their guests let go.
        shared.adapters.book().set_pools(vfs);
        if matches!(cause, Cause::Asked) {
            shared.adapters.name_pfs_anew(&aliases).await;
        }
        cause = tokio::select! {
            _ = hangup.recv() => {
                info!("SIGHUP: reading the pools and [alias] again");
                Cause::Asked
            }
            () = changed(&mut uevents) => Cause::Machine,
        };
    }
}

/// Returns when PFs or VFs have changed; never where there are no events.
async fn changed(uevents: &mut Option<Uevents>) {
    if let Some(open) = uevents {
        match open.changed().await {
            Ok(()) => return,
            Err(error) => {
                error!(
                    error = chain(&error),
                    "VFs that come or go are seen at 'systemctl reload hybondd' only: {}",
                    chain(&error)
                );
                *uevents = None;
            }
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use hybond_core::ids::{DomainId, Mac};
    use hybond_core::pool::{Ask, NoVf, PoolBook};
    use hybond_vfio::tree::Tree;

    fn write(tree: &Tree, toml: &str) -> PathBuf {
        let file = tree.path("hybond.toml");
        std::fs::write(&file, toml).expect("a file");
        file
    }

    fn reader(tree: &Tree, toml: &str) -> Reader {
        let file = write(tree, toml);
        let config = Config::load(&file).expect("valid");
        Reader::new(file, Sysfs::at(&tree.path("")), config)
    }

    fn ask(pool: &str, n: u8) -> Ask {
        Ask {
            pool: pool.parse().expect("a name"),
            domain: DomainId::from_bytes([n; 16]),
            mac: Mac::from_octets([0x52, 0x54, 0, 0, 0, n]).expect("unicast"),
            pf: None,
            numa_nodes: Vec::new(),
        }
    }

    const LAN: &str = "[[pool]]\nname = 'lan'\npf = 'ens1'\n";

    #[test]
    fn vfs_that_come_and_go_are_offered_and_no_more_while_their_leases_stay() {
        let tree = Tree::with_igb();
        let mut reader = reader(&tree, LAN);
        let mut book = PoolBook::default();
        book.set_pools(reader.look().0);
        let first = book.lease(&ask("lan", 1)).expect("free");
        book.lease(&ask("lan", 2)).expect("free");
        assert!(matches!(book.lease(&ask("lan", 3)), Err(NoVf::AllLeased { .. })));

        // sriov_numvfs is raised.
        tree.pf(
            "0000:01:00.0",
            "ens1",
            &["0000:01:10.0", "0000:01:10.2", "0000:01:10.4"],
        );
        book.set_pools(reader.look().0);
        assert_eq!(book.lease(&ask("lan", 3)).expect("new").vf.id.as_str(), "0000:01:10.4");

        // And written 0, which the kernel allows though guests have them.
        tree.pf("0000:01:00.0", "ens1", &[]);
        book.set_pools(reader.look().0);
        assert_eq!(book.holder(&first.vf.id), Some(&first), "its guest has not let go");
        assert!(matches!(book.lease(&ask("lan", 4)), Err(NoVf::Empty { .. })));
        assert!(book.release(first.domain, first.mac));
        assert!(matches!(book.lease(&ask("lan", 1)), Err(NoVf::Empty { .. })));
    }

    #[test]
    fn a_configuration_is_read_again_and_one_that_makes_no_sense_changes_nothing() {
        let tree = Tree::with_igb();
        let mut reader = reader(&tree, LAN);
        assert_eq!(reader.look().0.len(), 1);

        write(
            &tree,
            &format!("{LAN}[[pool]]\nname = 'gold'\nvf = '01:10.2'\ntrust = true\n"),
        );
        reader.reload(PlugWay::Group).expect("valid");
        let (pools, _) = reader.look();
        let count = |name: &str| pools[&name.parse().expect("a name")].len();
        assert_eq!((count("lan"), count("gold")), (2, 1));
        assert_eq!(reader.config.pools[&"gold".parse().expect("a name")].trust, Some(true));

        write(&tree, "[[pool]]\nname = 'lan'\npf = 7\n");
        let error = reader.reload(PlugWay::Group).expect_err("not a name").to_string();
        assert!(error.contains("hybond.toml:3: "), "{error}");
        assert_eq!(reader.look().0, pools, "as before");
    }

    #[test]
    fn further_names_of_pfs_are_read_again() {
        let tree = Tree::with_igb();
        let mut reader = reader(&tree, &format!("{LAN}[alias]\nlan0 = 'ens1'\nold0 = 'ens1'\n"));
        let pools = Pools::new(Default::default(), reader.config.alias.clone(), Paths::default());
        let read = |pools: &Pools| -> Vec<String> {
            let aliases = pools.aliases();
            aliases.iter().map(|(name, of)| format!("{name} = {of}")).collect()
        };
        assert_eq!(read(&pools), ["lan0 = ens1", "old0 = ens1"]);

        write(&tree, &format!("{LAN}[alias]\nlan0 = 'lan'\nnew0 = 'ens1'\n"));
        reader.reload(PlugWay::Group).expect("valid");
        pools.set(&reader.config, Paths::default());
        assert_eq!(read(&pools), ["lan0 = lan", "new0 = ens1"]);

        write(&tree, &format!("{LAN}[alias]\n'longer-than-15-characters' = 'ens1'\n"));
        reader.reload(PlugWay::Group).expect_err("not a name");
        pools.set(&reader.config, Paths::default());
        assert_eq!(read(&pools), ["lan0 = lan", "new0 = ens1"], "as before");
    }
}
