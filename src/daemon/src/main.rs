//! `hybondd`: one per host. Wires the host's adapters, the guests' tasks and the doors together.

mod adapters;
mod api;
mod crash;
mod disk;
mod indirect;
mod inside;
mod logging;
mod lowers;
mod memory;
mod path_adapter;
mod pools;
mod ports;
mod reservations;
#[cfg(test)]
mod secrets_tests;
mod shared;
mod sparing;
mod startup;
mod task;
mod timeline;

use anyhow::Context;
use clap::Parser;
use std::path::PathBuf;
use tracing::info;

/// Migrates guests that have an SR-IOV VF: moves their traffic to a virtio NIC, unplugs the VF, and plugs one of the
/// destination's afterwards.
///
/// Runs as root, started by hybondd.service. libvirt's hook asks it what to do; `hybondctl` shows what it does.
#[derive(Debug, Parser)]
#[command(name = "hybondd", version)]
struct Arguments {
    /// Configuration; fragments are read from the folder of the same name that ends in `.d`.
    #[arg(long, default_value = hybond_config::FILE, value_name = "FILE")]
    config: PathBuf,
    /// Where records of guests are kept.
    #[arg(long, default_value = "/var/lib/hybond", value_name = "FOLDER")]
    state: PathBuf,
    /// Read the configuration, say whether it can be used, and exit.
    #[arg(long)]
    check: bool,
    /// Name every point at which a test can have the daemon die, and exit.
    #[cfg(feature = "crash-points")]
    #[arg(long)]
    crash_points: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    #[cfg(feature = "crash-points")]
    if arguments.crash_points {
        use std::io::Write;
        let mut out = std::io::stdout().lock();
        for point in crash::all() {
            writeln!(out, "{point}")?;
        }
        return Ok(());
    }
    let config = hybond_config::Config::load(&arguments.config)?;
    if arguments.check {
        return Ok(());
    }
    logging::begin();
    memory::one_arena();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let daemon = startup::begin(config, arguments.config, &arguments.state).await?;
        sd_notify::notify(false, &[sd_notify::NotifyState::Ready]).context("cannot tell systemd")?;
        info!("ready");
        let ended = daemon.run().await;
        // Best effort: systemd sees the exit anyway.
        drop(sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]));
        ended
    })
}

/// The work is waiting for others: two threads let one guest's burst not hold up another's. A host that is emptied has all of
/// its guests drained at once, which is a millisecond of a core for each; with more cores that takes more threads.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8))
}
