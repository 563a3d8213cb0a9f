//! Plugs a VF into a running QEMU by hand: what the daemon does, one step at a time.
//!
//! ```text
//! plugctl detect
//! plugctl list
//! plugctl bind 0000:01:10.0
//! plugctl plug group 0000:01:10.0 --pid 812 --qmp /run/x.qmp --mac 52:54:00:aa:00:01 --ram-mib 256
//! plugctl unplug group 0000:01:10.0 --pid 812 --qmp /run/x.qmp --mac 52:54:00:aa:00:01
//! plugctl cycle iommufd 0000:01:10.0 --pid 812 --qmp /run/x.qmp --mac 52:54:00:aa:00:01 --ram-mib 256
//! plugctl unbind 0000:01:10.0
//! ```
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use hybond_core::ids::{Bdf, Mac};
use hybond_qmp::Qmp;
use hybond_vfio::{PlugRequest, PlugWay, Plugger, Sysfs, Unplug, detect, request_unplug};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Which way this host has.
    Detect,
    /// PFs and VFs.
    List,
    /// Tells when PFs or VFs come, go or change.
    Watch,
    /// Binds a VF to vfio-pci.
    Bind { vf: Bdf },
    /// Gives it back to the host.
    Unbind { vf: Bdf },
    /// Plugs a bound VF.
    Plug(Target),
    /// Unplugs it and takes every grant back.
    Unplug(Target),
    /// Takes every grant back.
    Revoke(Target),
    /// Plugs, unplugs and revokes in one process, so that what was granted is remembered.
    Cycle(Target),
}

#[derive(Args)]
struct Target {
    way: PlugWay,
    vf: Bdf,
    /// QEMU's process.
    #[arg(long)]
    pid: u32,
    /// A monitor socket of that QEMU.
    #[arg(long)]
    qmp: PathBuf,
    #[arg(long)]
    mac: Mac,
    /// Root port; as hybond names it if not given.
    #[arg(long)]
    bus: Option<String>,
    #[arg(long, default_value_t = 256)]
    ram_mib: u64,
    /// How long a cycle leaves the VF plugged.
    #[arg(long, default_value_t = 3)]
    plugged_seconds: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let sys = Sysfs::at(Path::new("/sys"));
    match Cli::parse().command {
        Command::Detect => {
            let found = detect(&sys);
            println!("{}: {}", found.way, found.reason);
            for (way, why) in found.rejected {
                println!("  not {way}: {why}");
            }
        }
        Command::List => {
            for pf in sys.pfs()?.0 {
                println!("{pf:?}");
                for vf in sys.vfs_of(&pf.name)? {
                    println!("  {vf:?} of {:?}", sys.pf_of(vf.bdf)?);
                }
            }
        }
        Command::Watch => {
            let mut uevents = hybond_vfio::Uevents::open()?;
            loop {
                uevents.changed().await?;
                println!("PFs or VFs have changed");
            }
        }
        Command::Bind { vf } => println!("{:?}", sys.bind_vfio(vf).await?),
        Command::Unbind { vf } => println!("{:?}", sys.unbind_vfio(vf).await?),
        Command::Plug(target) => plug(&Plugger::new(sys), &target).await?,
        Command::Unplug(target) => {
            let plugger = Plugger::new(sys);
            unplug(&target).await?;
            revoke(&plugger, &target).await?;
        }
        Command::Revoke(target) => revoke(&Plugger::new(sys), &target).await?,
        Command::Cycle(target) => {
            let plugger = Plugger::new(sys);
            plug(&plugger, &target).await?;
            tokio::time::sleep(Duration::from_secs(target.plugged_seconds)).await;
            unplug(&target).await?;
            revoke(&plugger, &target).await?;
        }
    }
    Ok(())
}

async fn connect(target: &Target) -> anyhow::Result<Qmp> {
    // The events are not needed: the set of plugged primaries tells what they would.
    let (qmp, mut events) = Qmp::connect(&target.qmp, Duration::from_secs(10)).await?;
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    Ok(qmp)
}

async fn plug(plugger: &Plugger, target: &Target) -> anyhow::Result<()> {
    let qmp = connect(target).await?;
    let request = PlugRequest {
        pid: target.pid,
        vf: target.vf,
        id: target.mac.primary_id(),
        bus: target.bus.clone().unwrap_or_else(|| target.mac.root_port_id()),
        guest_ram_bytes: target.ram_mib << 20,
    };
    let begun = Instant::now();
    let change = plugger.plug(target.way, &qmp, &request).await?;
    println!("plug: {change:?} after {:?}", begun.elapsed());
    Ok(())
}

async fn unplug(target: &Target) -> anyhow::Result<()> {
    let qmp = connect(target).await?;
    let id = target.mac.primary_id();
    let begun = Instant::now();
    if request_unplug(&qmp, &id).await? == Unplug::Pending {
        let mut plugged = qmp.plugged();
        let gone = plugged.wait_for(|ids| !ids.contains(&id));
        tokio::time::timeout(Duration::from_secs(60), gone)
            .await
            .context("the guest does not let go of it")??;
    }
    println!("unplug: gone after {:?}", begun.elapsed());
    Ok(())
}

async fn revoke(plugger: &Plugger, target: &Target) -> anyhow::Result<()> {
    let qmp = connect(target).await?;
    let begun = Instant::now();
    let revoked = plugger
        .revoke(target.way, Some(target.pid), target.vf, Some(&qmp))
        .await;
    println!("revoke: {:?} after {:?}", revoked.is_ok(), begun.elapsed());
    let Err(errors) = revoked else { return Ok(()) };
    for error in errors {
        println!("  {:#}", anyhow::Error::from(error));
    }
    bail!("not everything was taken back")
}
