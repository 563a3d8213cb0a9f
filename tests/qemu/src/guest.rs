//! A QEMU with the lab's guest in it.

use crate::{Image, Qemu};
use anyhow::{Context, Result, bail};
use hybond_core::ids::Mac;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{self, Instant};

/// Booting takes about 10 s under TCG, on a busy machine much longer.
const BOOT: Duration = Duration::from_secs(240);

/// What QEMU runs the guest's CPU by: TCG, as on machines without KVM, or what the environment says.
#[must_use]
pub fn accelerator() -> String {
    std::env::var("HYBOND_TEST_ACCEL").unwrap_or_else(|_| "tcg,tb-size=128".to_owned())
}

/// A guest with one standby, and a root port for its primary.
pub struct Guest {
    /// Its QEMU.
    pub qemu: Qemu,
}

/// Whether an accelerator emulates the guest's CPU.
#[must_use]
pub fn is_emulated(accelerator: &str) -> bool {
    accelerator.split(',').next() == Some("tcg")
}

/// By what a guest's clock goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// By this machine's: what the guest measures is how fast its CPU is emulated, too.
    Machine,
    /// By a nanosecond with each instruction of its CPU, and by this machine's while the CPU is idle: QEMU's `-icount`, which
    /// only TCG has. What the guest measures is what a CPU of 1,000 million instructions per second would take.
    Instructions,
}

/// How a guest begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// From its kernel.
    Boot(Clock),
    /// By a migration.
    Incoming,
}

impl Guest {
    /// Starts one on an open macvtap. `address` is what the guest gives to its NIC.
    ///
    /// # Errors
    /// The macvtap cannot be handed to QEMU.
    ///
    /// # Panics
    /// QEMU is not installed.
    pub fn start(image: &Image, start: Start, mac: Mac, standby: File, address: &str) -> Result<Self> {
        let directory = tempfile::tempdir().context("no temporary directory")?;
        let path = |name: &str| directory.path().join(name).display().to_string();
        // QEMU inherits the macvtap under its number. Nothing else is started before it has it.
        fcntl(&standby, FcntlArg::F_SETFD(FdFlag::empty())).context("the macvtap's descriptor")?;
        let tap = standby.as_raw_fd();
        let port = mac.root_port_id();
        let mut options = vec![
            ("-accel", accelerator()),
            ("-cpu", "max".into()),
            ("-m", "256".into()),
            ("-smp", "1".into()),
            ("-kernel", image.kernel.display().to_string()),
            ("-initrd", image.initramfs.display().to_string()),
            (
                "-append",
                format!("console=ttyS0 quiet mitigations=off lab.ip={address}"),
            ),
            ("-serial", format!("file:{}", path("console"))),
            ("-netdev", format!("tap,id=standby,fd={tap}")),
            (
                "-device",
                format!("virtio-net-pci,id=net0,bus=rp1,netdev=standby,mac={mac},romfile="),
            ),
            ("-device", format!("pcie-root-port,id={port},chassis=9,slot=9")),
            ("-device", "virtio-serial-pci,id=serial".into()),
        ];
        for name in ["agent", "test"] {
            options.push((
                "-chardev",
                format!("socket,id={name},path={},server=on,wait=off", path(name)),
            ));
            let device = format!("virtserialport,bus=serial.0,chardev={name},id={name},name=org.hybond.{name}.0");
            options.push(("-device", device));
        }
        match start {
            Start::Boot(Clock::Machine) => {}
            // 2^0 ns per instruction.
            Start::Boot(Clock::Instructions) => options.push(("-icount", "shift=0".into())),
            Start::Incoming => options.push(("-incoming", "defer".into())),
        }
        let arguments: Vec<String> = options
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value])
            .collect();
        let qemu = Qemu::start(&arguments, directory);
        drop(standby);
        Ok(Self { qemu })
    }

    /// The socket of its agent's port.
    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.qemu.path("agent")
    }

    /// What it has written on its console.
    #[must_use]
    pub fn console(&self) -> String {
        // QEMU makes the file when it starts.
        std::fs::read(self.qemu.path("console")).map_or_else(|_| String::new(), |t| String::from_utf8_lossy(&t).into())
    }

    /// Waits until it has booted.
    ///
    /// # Errors
    /// It has not, with what it wrote instead.
    pub async fn booted(&self) -> Result<()> {
        let end = Instant::now() + BOOT;
        while !self.console().contains("L2READY") {
            if Instant::now() > end {
                bail!("the guest does not boot: {}", self.console());
            }
            time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Has its shell run one line, and does not wait for what comes of it.
    ///
    /// # Errors
    /// The test's port cannot be written to, or the shell does not answer.
    pub async fn order(&self, line: &str) -> Result<()> {
        // What the shell said of an order before, after its client had gone, reaches the next one: the number tells whose it is.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let id = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut port = UnixStream::connect(self.qemu.path("test"))
            .await
            .context("the guest's test port")?;
        port.write_all(format!("{id} {line}\n").as_bytes()).await?;
        // QEMU forgets what it has not read when its client goes: the shell's answer tells that it has.
        let begun = format!("<{id}");
        let mut lines = BufReader::new(port).lines();
        let answered = async {
            while let Some(line) = lines.next_line().await? {
                if line == begun {
                    return Ok(());
                }
            }
            bail!("it was closed")
        };
        time::timeout(crate::LONG, answered)
            .await
            .context("the guest's shell")?
            .context("the guest's test port")
    }
}
