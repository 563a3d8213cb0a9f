//! hybond's programs, built for this machine and for the guest.

use super::stage::results;
use crate::process::{self, run_ok};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const MUSL: &str = "x86_64-unknown-linux-musl";
const GLIBC: &str = "x86_64-unknown-linux-gnu";
const BUILD: Duration = Duration::from_secs(1800);

/// Where each program is.
#[derive(Debug, Clone)]
pub struct Programs {
    /// For the hosts.
    pub hybondd: PathBuf,
    /// For the hosts.
    pub hybondctl: PathBuf,
    /// For libvirt on the hosts.
    pub hook: PathBuf,
    /// For the guest, static.
    pub agent: PathBuf,
    /// For the guest and the peer, static.
    pub probe: PathBuf,
}

impl Programs {
    /// Has cargo build what is out of date: the hosts' programs for debugging, the guest's as they are packaged.
    ///
    /// # Errors
    /// One of them does not compile.
    pub fn built() -> Result<Self> {
        Self::built_with(&[])
    }

    /// As [`Programs::built`], with a hybondd that can be made to die.
    ///
    /// # Errors
    /// As there.
    pub fn built_to_crash() -> Result<Self> {
        Self::built_with(&["--features=hybond-daemon/crash-points"])
    }

    fn built_with(options: &[&str]) -> Result<Self> {
        let hosts = ["-p", "hybond-daemon", "-p", "hybond-cli", "-p", "hybond-hook"];
        let hosts = build(&[&hosts, options].concat(), false)?;
        let mut guests = build(&["-p", "hybond-agent"], true)?;
        guests.append(&mut build(&["-p", "hybond-lab", "--bin=hybond-probe"], true)?);
        let folder = results()?.join("programs");
        fs::create_dir_all(&folder)?;
        let kept = |programs: &[PathBuf], name| keep(&named(programs, name)?, &folder);
        Ok(Self {
            hybondd: kept(&hosts, "hybondd")?,
            hybondctl: kept(&hosts, "hybondctl")?,
            hook: kept(&hosts, "hybond-hook")?,
            agent: kept(&guests, "hybond-agent")?,
            probe: kept(&guests, "hybond-probe")?,
        })
    }
}

/// The repository.
pub(super) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Builds, and answers all programs that there are then. Static ones are linked with musl, or where this toolchain has
/// none, with glibc.
fn build(what: &[&str], is_static: bool) -> Result<Vec<PathBuf>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--locked", "--message-format=json-render-diagnostics"]);
    command.args(what).current_dir(top());
    if is_static {
        let sysroot = run_ok(Command::new("rustc").args(["--print", "sysroot"]).current_dir(top()))?;
        let has_musl = Path::new(sysroot.trim()).join("lib/rustlib").join(MUSL).exists();
        let target = if has_musl { MUSL } else { GLIBC };
        command.arg("--profile=tiny").arg(format!("--target={target}"));
        if !has_musl {
            command.env("RUSTFLAGS", "-C target-feature=+crt-static");
        }
    }
    // A test that cargo runs has variables of its own package, which would make cargo build everything anew.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO_CRATE_NAME" {
            command.env_remove(&name);
        }
    }
    let output = process::run(&mut command, None, BUILD)?;
    if !output.success() {
        bail!("cargo build {} fails: {}", what.join(" "), output.stderr.trim());
    }
    let messages = output
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    Ok(messages
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .collect())
}

/// A copy of one: another build in the same target folder may put another one there at any time.
fn keep(program: &Path, folder: &Path) -> Result<PathBuf> {
    let kept = folder.join(program.file_name().context("a program has a name")?);
    // Not into the old file: it may still run.
    let part = kept.with_extension(format!("{}.part", std::process::id()));
    fs::copy(program, &part).with_context(|| format!("cannot copy {}", program.display()))?;
    fs::rename(&part, &kept)?;
    Ok(kept)
}

fn named(programs: &[PathBuf], name: &str) -> Result<PathBuf> {
    let found = programs
        .iter()
        .find(|path| path.file_name().is_some_and(|file| file == name));
    found.cloned().with_context(|| format!("cargo names no program {name}"))
}
