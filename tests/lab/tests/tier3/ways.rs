//! The ways of plugging a VF, and what of a migration depends on them.

use crate::scene::{Scene, nothing_is_left, refusal};
use anyhow::{Context, Result, ensure};
use hybond_lab::Machine;
use hybond_lab::scenario::{HybridGuest, Stage};
use hybond_wire::control::HostStatus;

/// Makes two hosts ready for a way of plugging, and the guest for how it is migrated there. No VF is plugged yet.
pub type SetUp = fn(&Stage<'_>, &mut HybridGuest) -> Result<()>;

/// Debian's own kernel, which has no iommufd.
pub fn stock(stage: &Stage<'_>, _: &mut HybridGuest) -> Result<()> {
    found_out(stage, "group")
}

/// The same kernel with iommufd, and VFIO rebuilt for it.
pub fn iommufd(stage: &Stage<'_>, _: &mut HybridGuest) -> Result<()> {
    stage.lab.load_iommufd()?;
    stage.lab.each(|host| stage.configure(host, "", ""))?;
    found_out(stage, "iommufd")
}

/// libvirt plugs, as an administrator may want it.
pub fn through_libvirt(stage: &Stage<'_>, guest: &mut HybridGuest) -> Result<()> {
    stage.lab.each(|host| {
        host.write_file(
            "/etc/hybond/hybond.d/50-plug.toml",
            b"[host]\nplug = \"libvirt\"\n",
            "644",
        )?;
        stage.configure(host, "", "")
    })?;
    guest.migrate = "hybondctl migrate --persistent";
    found_out(stage, "libvirt")
}

fn found_out(stage: &Stage<'_>, way: &str) -> Result<()> {
    for said in stage.lab.each(|host| host.ok("hybondctl --json host"))? {
        let host: HostStatus = serde_json::from_str(&said).context("hybondctl host")?;
        ensure!(
            host.plug == way,
            "VFs are plugged by {}: {}",
            host.plug,
            host.plug_reason
        );
    }
    Ok(())
}

/// libvirt knows the VF, and knows that it cannot migrate it: nothing has changed, and the journal says which command does
/// it.
pub fn refused_by_libvirt(scene: &Scene<'_>) -> Result<()> {
    let (src, dst, guest, _) = scene.parts();
    let before = guest.pair(src)?;
    let plain = format!(
        "virsh migrate --live --persistent {} qemu+tls://{}/system",
        guest.name(),
        dst.name()
    );
    let output = src.run(&plain)?;
    refusal(&output, &["cannot migrate"])?;
    let journal = src.ok("journalctl -u hybondd -o cat --no-pager")?;
    let command = format!("hybondctl migrate {} URI", guest.name());
    ensure!(journal.contains(&command), "the journal does not say \"{command}\"");
    let after = guest.pair(src)?;
    ensure!(
        (&after.vf, after.since_ms) == (&before.vf, before.since_ms),
        "{before:?} became {after:?}"
    );
    nothing_is_left(scene, dst)
}
