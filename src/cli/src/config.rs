//! `hybondctl config check`: the configuration and the machine as hybondd reads them, without asking it.

use crate::args::ConfigCheck;
use crate::failure::{Failure, Kind, chain};
use crate::output::{Output, or_dash, plain, table};
use hybond_config::inventory::{self, Inventory, Warning};
use hybond_config::{Config, FILE};
use hybond_core::ids::{IfName, PoolName, VfId};
use hybond_vfio::Sysfs;
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct Checked {
    files: Vec<PathBuf>,
    pools: Vec<CheckedPool>,
    warnings: Vec<CheckedWarning>,
}

#[derive(Serialize)]
struct CheckedPool {
    name: PoolName,
    vfs: Vec<CheckedVf>,
}

#[derive(Serialize)]
struct CheckedVf {
    vf: VfId,
    pf: IfName,
    numa_node: Option<u32>,
}

#[derive(Serialize)]
struct CheckedWarning {
    pool: Option<PoolName>,
    selector: Option<String>,
    message: String,
}

/// `hybondctl config check`.
pub fn check(what: &ConfigCheck, output: &Output) -> Result<(), Failure> {
    if let Some(file) = what.file.as_ref().filter(|file| !file.exists()) {
        // To the daemon that is an empty configuration; who names a file means one that is there.
        return Err(Failure::new(Kind::Failed, format!("there is no {}", file.display())));
    }
    let file = what.file.as_deref().unwrap_or(Path::new(FILE));
    let config = Config::load(file).map_err(|error| Failure::new(Kind::Failed, chain(&error)))?;
    let found = inventory::read(&Sysfs::at(&what.sysfs), &config.pools);
    let json = checked(config.files, found);
    output.result(&json, || text(&json, file))
}

fn checked(files: Vec<PathBuf>, found: Inventory) -> Checked {
    let pools = found.pools.into_iter().map(|(name, vfs)| {
        let vfs = vfs.into_iter().map(|vf| CheckedVf {
            vf: vf.id,
            pf: vf.pf,
            numa_node: vf.numa_node,
        });
        CheckedPool {
            name,
            vfs: vfs.collect(),
        }
    });
    let warnings = found.warnings.iter().map(|warning| {
        let (pool, selector) = match warning {
            Warning::Selector { pool, selector, .. } => (Some(pool.clone()), Some(selector.to_string())),
            Warning::Together { pool, .. } => (Some(pool.clone()), None),
            Warning::Sysfs(_) => (None, None),
        };
        CheckedWarning {
            pool,
            selector,
            message: chain(warning),
        }
    });
    Checked {
        files,
        pools: pools.collect(),
        warnings: warnings.collect(),
    }
}

fn text(checked: &Checked, file: &Path) -> String {
    let mut text = String::new();
    for file in &checked.files {
        text += &format!("{}: valid\n", file.display());
    }
    if checked.files.is_empty() {
        text += &format!("{}: not there, so everything is as by default\n", file.display());
    }
    if checked.pools.is_empty() {
        text += "no pool is configured; see hybond.toml(5)\n";
        return text;
    }
    let mut rows = vec![["POOL", "VF", "PF", "NUMA"].map(str::to_owned).to_vec()];
    for pool in &checked.pools {
        for vf in &pool.vfs {
            let cells = [
                pool.name.to_string(),
                vf.vf.to_string(),
                vf.pf.to_string(),
                or_dash(vf.numa_node),
            ];
            rows.push(cells.to_vec());
        }
    }
    text += &table(&rows);
    for pool in &checked.pools {
        text += &format!("{}: {} VFs on this machine\n", pool.name, pool.vfs.len());
    }
    for warning in &checked.warnings {
        text += &format!("warning: {}\n", plain(&warning.message));
    }
    text
}
