//! Hosts with libvirt's modular daemons. A program of its own, for the daemons are built for it at the first time, which takes
//! minutes: `cargo test -p hybond-lab --test modular -- --ignored --test-threads=1`.

use anyhow::{Result, ensure};
use hybond_lab::Machine;
use hybond_lab::tier2_hybond::{Daemon, Hybrid, boot_id, end, nothing_is_left, on_its_vf, on_stage, same_vf};
use hybond_lab::tier2_modular::{replace_libvirtd, restart_virtqemud};

#[test]
#[ignore = "builds libvirt's daemons, and boots guests under TCG"]
fn a_guest_goes_between_a_host_with_libvirtd_and_one_with_modular_daemons() -> Result<()> {
    on_stage("modular", |pair, _, daemons| {
        let (src, dst) = (pair.host("src"), pair.host("dst"));
        // Under hybondd, which finds what is there now.
        replace_libvirtd(dst)?;
        let guest = Hybrid::new("modern");
        guest.start(src)?;
        on_its_vf(&guest, src)?;
        let boot = boot_id(&guest, src)?;

        let moved = guest.migrate(src, dst)?;
        ensure!(moved.success(), "virsh migrate: {}", moved.stderr.trim());
        let there = on_its_vf(&guest, dst)?;
        nothing_is_left(src)?;
        let parent = dst.ok("ps -o comm= -p $(cat /run/virtqemud.pid)")?;
        ensure!(parent.trim() == "virtqemud" && !dst.run("pidof libvirtd")?.success(), "{parent}");

        restart_virtqemud(dst)?;
        ensure!(
            same_vf(&there, &on_its_vf(&guest, dst)?),
            "another VF after virtqemud's restart"
        );
        let moved = guest.migrate(dst, src)?;
        ensure!(moved.success(), "virsh migrate back: {}", moved.stderr.trim());
        on_its_vf(&guest, src)?;
        ensure!(boot_id(&guest, src)? == boot, "the guest has booted again");
        nothing_is_left(dst)?;

        // A start of its own there, by virtqemud's hooks.
        end(src, &["modern"])?;
        guest.boot(dst)?;
        on_its_vf(&guest, dst)?;
        end(dst, &["modern"])?;
        daemons.into_iter().try_for_each(Daemon::stop)
    })
}
