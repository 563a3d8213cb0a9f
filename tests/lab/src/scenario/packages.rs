//! The packages, as `make packages` has built them, and what the lab takes out of them.

use crate::cache::{self, progress};
use crate::process::{self, run_ok};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a user would install, and the probe.
#[derive(Debug)]
pub struct Packages {
    /// `hybond_*.deb`, for the hosts.
    pub host: PathBuf,
    /// The program of `hybond-agent_*.deb`, for the guest.
    pub agent: PathBuf,
    /// The probe, static: it runs in the guest and on this machine.
    pub probe: PathBuf,
    /// Holds what was unpacked; removed in the end.
    work: PathBuf,
}

impl Packages {
    /// Takes the packages of `target/packages`, and has the probe built.
    ///
    /// # Errors
    /// There are none, or more than one of a kind; the probe does not compile.
    pub fn built() -> Result<Self> {
        let folder = target().join("packages");
        let host = only(&folder, "hybond_")?;
        let agent = only(&folder, "hybond-agent_")?;
        let work = std::env::temp_dir().join(format!("hybond-lab-{}", std::process::id()));
        fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
        // From here on, dropping it removes the folder.
        let packages = Self {
            host,
            agent: work.join("usr/sbin/hybond-agent"),
            probe: probe()?,
            work,
        };
        run_ok(Command::new("dpkg-deb").arg("-x").arg(agent).arg(&packages.work))?;
        Ok(packages)
    }

    /// Key of hosts and guests with these installed by this program: another program may do it otherwise.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn key(&self) -> Result<String> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let files = [&self.host, &self.agent, &self.probe, &program];
        let read = |file: &&PathBuf| fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        let contents: Vec<Vec<u8>> = files.iter().map(read).collect::<Result<_>>()?;
        Ok(cache::key(&contents))
    }

    /// A folder of this machine for as long as these are used.
    pub(super) fn work(&self) -> &Path {
        &self.work
    }
}

impl Drop for Packages {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.work) {
            progress(&format!("{} stays behind: {error}", self.work.display()));
        }
    }
}

/// The repository.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where `packaging/deb/build.sh` leaves the packages, whatever CARGO_TARGET_DIR is.
fn target() -> PathBuf {
    top().join("target")
}

fn only(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder)
        .with_context(|| format!("{} cannot be listed; `make packages` makes it", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(prefix) && name.ends_with(".deb") {
            found.push(path);
        }
    }
    match found.as_slice() {
        [package] => Ok(package.clone()),
        [] => bail!("no {prefix}*.deb in {}; `make packages` builds it", folder.display()),
        _ => bail!(
            "several {prefix}*.deb in {}; `make packages` leaves one",
            folder.display()
        ),
    }
}

/// Builds the probe like the agent: with musl, or where this toolchain has none, with a static glibc.
fn probe() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let sysroot = run_ok(Command::new("rustc").args(["--print", "sysroot"]).current_dir(top()))?;
    let musl = "x86_64-unknown-linux-musl";
    let has_musl = Path::new(sysroot.trim()).join("lib/rustlib").join(musl).exists();
    let target = if has_musl { musl } else { "x86_64-unknown-linux-gnu" };
    let mut build = Command::new(cargo);
    build.args([
        "build",
        "--locked",
        "--message-format=json-render-diagnostics",
        "--profile=tiny",
    ]);
    build.args(["-p", "hybond-lab", "--bin=hybond-probe"]);
    build.arg(format!("--target={target}")).current_dir(top());
    if !has_musl {
        build.env("RUSTFLAGS", "-C target-feature=+crt-static");
    }
    // A test that cargo runs has variables of its own package, which would make cargo build everything anew.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO_CRATE_NAME" {
            build.env_remove(&name);
        }
    }
    let output = process::run(build.stderr(Stdio::piped()), None, Duration::from_secs(900))?;
    if !output.success() {
        bail!("the probe does not build: {}", output.stderr.trim());
    }
    let messages = output
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut programs = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    programs.next_back().context("cargo names no program of hybond-probe")
}
