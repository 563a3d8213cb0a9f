//! Hosts with libvirt's modular daemons. A program of its own, for the daemons are built for it at the first time, which takes
//! minutes: `cargo test -p hybond-lab --test modular -- --ignored --test-threads=1`.

use anyhow::{Context, Result, ensure};
use hybond_lab::Machine;
use hybond_lab::tier2::Node;
use hybond_lab::tier2_hybond::{CLEAN, Daemon, Hybrid, boot_id, end, moved, on_its_vf, on_stage, same_vf};
use hybond_lab::tier2_modular::{Modular, renew};

/// Goes by virtproxyd, where the library would by itself turn to virtqemud.
const BY_PROXY: &str = "qemu:///system?mode=legacy";

#[test]
#[ignore = "builds libvirt's daemons, and boots guests under TCG"]
fn a_guest_goes_between_hosts_with_modular_daemons_and_stays_on_its_vf_over_their_restarts() -> Result<()> {
    let modular = Modular::built()?;
    on_stage("modular", |pair, _, [source, destination]| {
        let (src, dst) = (pair.host("src"), pair.host("dst"));
        // On one host hybondd is there while libvirtd gives way, and finds virtqemud by itself.
        modular.replace_libvirtd(src)?;
        is_served(src, "virtqemud")?;
        // On the other it starts afterwards, and is told to go by virtproxyd.
        destination.stop()?;
        modular.replace_libvirtd(dst)?;
        let config = dst.read_file("/etc/hybond/hybond.toml")?;
        let config = config.replacen("[host]\n", &format!("[host]\nlibvirt = \"{BY_PROXY}\"\n"), 1);
        dst.write_file("/etc/hybond/hybond.toml", config.as_bytes(), "644")?;
        let destination = Daemon::start(dst)?;
        is_served(dst, "virtqemud")?;

        let guest = Hybrid::new("modern");
        guest.start(src)?;
        let first = on_its_vf(&guest, src)?;
        let boot = boot_id(&guest, src)?;
        for signal in ["TERM", "KILL"] {
            renewed(src, &source, "virtqemud", signal)?;
            let after = on_its_vf(&guest, src)?;
            ensure!(same_vf(&first, &after), "another VF after virtqemud's end by {signal}");
        }

        let there = moved(&guest, src, dst)?;
        for daemon in ["virtproxyd", "virtqemud"] {
            renewed(dst, &destination, daemon, "TERM")?;
            let after = on_its_vf(&guest, dst)?;
            ensure!(same_vf(&there, &after), "another VF after {daemon}'s restart");
        }

        moved(&guest, dst, src)?;
        ensure!(boot_id(&guest, src)? == boot, "the guest has booted again");
        end(src, &["modern"])?;
        source.stop()?;
        destination.stop()
    })
}

#[test]
#[ignore = "builds libvirt's daemons, and boots guests under TCG"]
fn a_guest_goes_between_a_host_with_libvirtd_and_one_with_modular_daemons() -> Result<()> {
    let modular = Modular::built()?;
    on_stage("modular-mixed", |pair, _, daemons| {
        let (src, dst) = (pair.host("src"), pair.host("dst"));
        modular.replace_libvirtd(dst)?;
        is_served(src, "libvirtd")?;
        is_served(dst, "virtqemud")?;
        let guest = Hybrid::new("mixed");
        guest.start(src)?;
        on_its_vf(&guest, src)?;
        let boot = boot_id(&guest, src)?;
        for (from, to) in [(src, dst), (dst, src)] {
            moved(&guest, from, to)?;
        }
        ensure!(boot_id(&guest, src)? == boot, "the guest has booted again");
        end(src, &["mixed"])?;
        daemons.into_iter().try_for_each(Daemon::stop)
    })
}

/// Waits until hybondd of a host has this daemon of libvirt's, and says so.
fn is_served(node: &Node, daemon: &str) -> Result<()> {
    let host = format!("hybondctl host | grep -E '^libvirt +{daemon}, connected at '");
    eprintln!("{}: {}", node.name(), node.until(daemon, &host, CLEAN)?.trim());
    Ok(())
}

/// Ends one of libvirt's daemons and starts it anew, and waits until hybondd has connected anew.
fn renewed(node: &Node, hybondd: &Daemon, daemon: &str, signal: &str) -> Result<()> {
    let connections = || Ok::<_, anyhow::Error>(hybondd.log()?.matches("connected to libvirt").count());
    let before = connections()?;
    renew(node, daemon, signal)?;
    hybond_lab::process::until(&format!("hybondd's new connection by {daemon}"), CLEAN, || {
        Ok((connections()? > before).then_some(()))
    })
    .with_context(|| hybondd.log().unwrap_or_default())?;
    is_served(node, "virtqemud")
}
