//! The host that all of it is on: namespaces of this process's own, network devices, and hybondd.

use super::plan::{self, Domain, Plan};
use anyhow::{Context, Result, bail, ensure};
use hybond_lab::process::{KilledOnDrop, run_ok};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// libvirt's test driver has no jobs, and says so by an error (libvirt 9 to 11). QEMU's driver says that there is none.
const SHIM: &str = "\
#include <libvirt/libvirt.h>
int virDomainGetJobStats(virDomainPtr domain, int *type, virTypedParameterPtr *params, int *count, unsigned int flags)
{
    (void)domain;
    (void)flags;
    *type = VIR_DOMAIN_JOB_NONE;
    *params = 0;
    *count = 0;
    return 0;
}
";
const START: Duration = Duration::from_secs(120);

/// The host.
#[derive(Debug)]
pub struct Host {
    work: PathBuf,
    hybondd: PathBuf,
    shim: PathBuf,
    notify: UnixDatagram,
}

impl Host {
    /// Makes it out of this process, which must have one thread yet. Nothing of it is seen from outside but the files in
    /// `work`, where the journal is: on a real disk, as its writes are waited for.
    ///
    /// # Errors
    /// Not root, or something is missing.
    pub fn make(work: &Path, hybondd: &Path, plan: &Plan, domains: &[Domain]) -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("no namespaces of its own: run as root")?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("no mounts of its own")?;
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).context("no /run of its own")?;
        // It shows the network namespace that it was mounted in.
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).context("no /sys of its own")?;
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        // Two sockets for each domain here and in hybondd.
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        for folder in ["/run/hybond/qmp", plan::AGENTS] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {folder}"))?;
        }
        // Neighbours that are solicited by a thousand devices would be measured, too.
        for device in ["all", "default"] {
            let file = format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
            if Path::new(&file).exists() {
                fs::write(&file, "1").with_context(|| format!("cannot write {file}"))?;
            }
        }
        batch(&plan.links(domains))?;
        let state = work.join("state");
        if state.exists() {
            fs::remove_dir_all(&state)?;
        }
        let node = Path::new("/run/bench/node.xml");
        fs::write("/run/bench/hybond.toml", plan.config(node))?;
        fs::write("/run/bench/shim.c", SHIM)?;
        let shim = work.join("shim.so");
        run_ok(
            Command::new("cc")
                .args(["-shared", "-fPIC", "-O2", "-o"])
                .arg(&shim)
                .arg("/run/bench/shim.c"),
        )?;
        Ok(Self {
            work: work.to_owned(),
            hybondd: hybondd.to_owned(),
            shim,
            notify: UnixDatagram::bind("/run/bench/notify")?,
        })
    }

    /// Starts hybondd on a libvirt with these domains; when it was started, and for how long it took to be ready.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(&self, node: &str) -> Result<(Daemon, Instant, Duration)> {
        fs::write("/run/bench/node.xml", node)?;
        let log = self.work.join("hybondd.log");
        let begun = Instant::now();
        let child = Command::new(&self.hybondd)
            .args(["--config", "/run/bench/hybond.toml", "--state"])
            .arg(self.work.join("state"))
            .env("LD_PRELOAD", &self.shim)
            .env("NOTIFY_SOCKET", "/run/bench/notify")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", self.hybondd.display()))?;
        let child = child.into();
        let mut daemon = Daemon { child };
        self.notify.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut bytes = [0; 512];
        while begun.elapsed() < START {
            if let Ok(n) = self.notify.recv(&mut bytes) {
                let said = String::from_utf8_lossy(bytes.get(..n).unwrap_or_default()).into_owned();
                if said.lines().any(|line| line == "READY=1") {
                    return Ok((daemon, begun, begun.elapsed()));
                }
            }
            if let Some(status) = daemon.child.try_wait()? {
                bail!("hybondd ended with {status}; see {}", log.display());
            }
        }
        bail!(
            "hybondd is not ready after {} s; see {}",
            START.as_secs(),
            log.display()
        )
    }
}

/// Changes network devices, thousands at once.
fn batch(lines: &str) -> Result<()> {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("ip is in Debian's iproute2")?;
    if let Some(mut stdin) = ip.stdin.take() {
        stdin.write_all(lines.as_bytes())?;
    }
    ensure!(ip.wait()?.success(), "the host's network devices cannot be made");
    Ok(())
}

/// A hybondd that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Daemon {
    child: KilledOnDrop,
}

impl Daemon {
    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as systemd does.
    ///
    /// # Errors
    /// It does not end well.
    pub fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id())?;
        kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "hybondd ended with {status}");
        Ok(())
    }
}
