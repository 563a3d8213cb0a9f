//! The guest that boots: the lab's kernel and initramfs, with the agent as it is shipped, and the probe.

use anyhow::{Context, Result, ensure};
use hybond_lab::{cache, image};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Kernel and initramfs.
pub struct Image {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    _folder: TempDir,
    _held: cache::Lock,
}

impl Image {
    /// Builds the guest's programs, and the image if this machine has none yet.
    ///
    /// # Errors
    /// Something does not build; it says on standard error what.
    pub fn build() -> Result<Self> {
        let base = cache::artifact("guest")?;
        let held = cache::hold(&base)?;
        let programs = programs()?;
        let folder = tempfile::tempdir().context("no temporary directory")?;
        let initramfs = folder.path().join("initramfs");
        let (agent, probe) = (programs.join("hybond-agent"), programs.join("hybond-probe"));
        image::guest_image(&[(&agent, "hybond-agent"), (&probe, "hybond-probe")], &initramfs)?;
        Ok(Self {
            kernel: base.join("vmlinuz"),
            initramfs,
            _folder: folder,
            _held: held,
        })
    }
}

/// Builds agent and probe, static, in the profile that is shipped; the folder that they are in.
fn programs() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (target, flags) = target()?;
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--profile", "tiny", "--target", target])
        .args([
            "-p",
            "hybond-agent",
            "-p",
            "hybond-lab",
            "--bin",
            "hybond-agent",
            "--bin",
            "hybond-probe",
        ])
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .current_dir(&root)
        .status()
        .context("cannot run cargo")?;
    ensure!(
        status.success(),
        "hybond-agent and hybond-probe do not build for {target}"
    );
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(folder.join(target).join("tiny"))
}

/// musl where the toolchain has it, as in the packages; else glibc, linked statically.
fn target() -> Result<(&'static str, &'static str)> {
    const MUSL: &str = "x86_64-unknown-linux-musl";
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", MUSL])
        .output()
        .context("cannot run rustc")?;
    let folder = String::from_utf8_lossy(&output.stdout);
    Ok(if output.status.success() && Path::new(folder.trim()).is_dir() {
        (MUSL, "")
    } else {
        ("x86_64-unknown-linux-gnu", "-Ctarget-feature=+crt-static")
    })
}
