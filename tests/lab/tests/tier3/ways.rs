//! The ways of plugging a VF, and what of a migration depends on them.

use crate::scene::{Scene, nothing_is_left, refusal};
use anyhow::{Context, Result, ensure};
use hybond_lab::scenario::{HybridGuest, Packages, Stage};
use hybond_lab::{Lab, Machine};
use hybond_wire::control::HostStatus;

/// Makes two hosts ready for a way of plugging, and the guest for how it is migrated there.
pub type SetUp = for<'a> fn(&'a Lab, &'a Packages, &mut HybridGuest) -> Result<Stage<'a>>;

/// Debian's own kernel, which has no iommufd.
pub fn stock<'a>(lab: &'a Lab, packages: &'a Packages, _: &mut HybridGuest) -> Result<Stage<'a>> {
    let stage = Stage::deploy(lab, packages)?;
    found_out(lab, "group")?;
    Ok(stage)
}

/// The same kernel with iommufd, and VFIO rebuilt for it.
pub fn iommufd<'a>(lab: &'a Lab, packages: &'a Packages, _: &mut HybridGuest) -> Result<Stage<'a>> {
    lab.load_iommufd()?;
    let stage = Stage::deploy(lab, packages)?;
    found_out(lab, "iommufd")?;
    Ok(stage)
}

/// libvirt plugs, as an administrator may want it.
pub fn through_libvirt<'a>(lab: &'a Lab, packages: &'a Packages, guest: &mut HybridGuest) -> Result<Stage<'a>> {
    let stage = Stage::deploy(lab, packages)?;
    lab.each(|host| {
        host.write_file(
            "/etc/hybond/hybond.d/50-plug.toml",
            b"[host]\nplug = \"libvirt\"\n",
            "644",
        )?;
        stage.configure(host, "", "")
    })?;
    found_out(lab, "libvirt")?;
    guest.migrate = "hybondctl migrate --persistent";
    Ok(stage)
}

fn found_out(lab: &Lab, way: &str) -> Result<()> {
    for said in lab.each(|host| host.ok("hybondctl --json host"))? {
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
