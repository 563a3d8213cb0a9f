//! One emulated hypervisor host: its QEMU, and ssh into it.

use crate::clock::{Clock, Offset};
use crate::machine::Machine;
use crate::memory::{HOST_MIB, LIMIT_MIB};
use crate::net;
use crate::process::{self, Ledger, run_ok};
use crate::qmp::Qmp;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// VFs of each PF. igb has up to 7.
pub const VFS_PER_PF: usize = 3;

/// How the two hosts differ: PFs in other slots, on other buses, with other names, so that nothing that is right on one
/// is right on the other by accident.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// `src` or `dst`.
    pub name: &'static str,
    /// Last number of its addresses.
    pub id: u8,
    /// Slots of the PFs' root ports, from which udev names the PFs.
    slots: [u8; 2],
    /// Root ports without a device before those of the PFs, which shift the PFs' bus numbers.
    empty_ports: u8,
}

/// The hosts of tier 3.
pub const LAYOUTS: [Layout; 2] = [
    Layout {
        name: "src",
        id: 1,
        slots: [1, 2],
        empty_ports: 0,
    },
    Layout {
        name: "dst",
        id: 2,
        slots: [5, 6],
        empty_ports: 2,
    },
];

impl Layout {
    /// QEMU's arguments for the machine: the same for a boot and for a restore, and part of the key of a saved state.
    pub(crate) fn machine(&self) -> Vec<String> {
        let Self { name, id, .. } = self;
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |text: String| arguments.extend(text.split_whitespace().map(str::to_owned));
        // QEMU emulates AMD's SVM under TCG, not Intel's VMX: with it, guests in the host run by nested KVM. One CPU each:
        // a second one saves no time where two real ones have both hosts to carry.
        add(format!(
            "-name hb3-{name} -machine q35 -accel tcg,thread=multi,tb-size=1024 -cpu max -smp 1 -m {HOST_MIB},slots=1,maxmem={LIMIT_MIB}M"
        ));
        add(format!(
            "-uuid 00000000-1111-2222-3333-00000000000{id} -nodefaults -display none"
        ));
        // VFIO needs caching-mode; interrupts of VFs are safe only with remapping.
        add("-device intel-iommu,intremap=on,caching-mode=on".into());
        add("-device virtio-blk-pci,drive=disk".into());
        add(format!(
            "-device virtio-net-pci,netdev=management,mac=02:77:00:00:00:0{id},romfile="
        ));
        for port in 0..self.empty_ports {
            add(format!(
                "-device pcie-root-port,id=empty{port},chassis={0},slot={0},addr=0x1{port}",
                20 + port
            ));
        }
        for (index, slot) in self.slots.iter().enumerate() {
            let addr = 0x10 + usize::from(self.empty_ports) + index;
            // VFs' BARs have to fit behind the port.
            add(format!(
                "-device pcie-root-port,id=port{index},chassis={slot},slot={slot},addr={addr:#x},pref64-reserve=8M"
            ));
            add(format!(
                "-device igb,bus=port{index},id=pf{index},netdev=pf{index},mac=02:88:00:00:0{id}:0{index},romfile="
            ));
        }
        add("-object rng-random,id=entropy,filename=/dev/urandom -device virtio-rng-pci,rng=entropy".into());
        arguments
    }

    /// Its cables: what QEMU calls the NIC's end, the tap, and the bridge that the tap is a port of.
    fn cables(&self) -> [(&'static str, String, &'static str); 3] {
        [
            ("management", format!("m-{}", self.name), "br-mgmt"),
            ("pf0", format!("d-{}0", self.name), "br-data"),
            ("pf1", format!("d-{}1", self.name), "br-data"),
        ]
    }
}

/// What hosts are made of: folders of the cache.
pub(crate) struct Images {
    /// The disk, the kernel and its initramfs.
    pub(crate) disk: PathBuf,
    /// The QEMU that emulates them.
    pub(crate) emulator: PathBuf,
}

/// How QEMU starts.
pub(crate) enum Start<'a> {
    /// From the disk image.
    Boot,
    /// From the state saved in this file.
    Restore(&'a Path),
}

/// An emulated hypervisor host of tier 3.
#[derive(Debug, Clone)]
pub struct Host {
    layout: Layout,
    address: String,
    namespace: String,
    run: PathBuf,
    identity: PathBuf,
    pfs: Vec<String>,
}

impl Host {
    pub(crate) fn new(layout: Layout, namespace: &str, run: &Path, identity: &Path) -> Self {
        Self {
            layout,
            address: format!("10.77.0.{}", layout.id),
            namespace: namespace.into(),
            run: run.into(),
            identity: identity.into(),
            pfs: Vec::new(),
        }
    }

    /// Names of the two PFs, which differ between the hosts. Each has [`VFS_PER_PF`] VFs.
    #[must_use]
    pub fn pfs(&self) -> &[String] {
        &self.pfs
    }

    /// PCI addresses of a PF's VFs, by number.
    ///
    /// # Errors
    /// The host has no such PF.
    pub fn vfs(&self, pf: &str) -> Result<Vec<String>> {
        let listing = self.ok(&format!(
            "for l in /sys/class/net/{pf}/device/virtfn*; do basename $(readlink $l); done"
        ))?;
        Ok(listing.lines().map(str::to_owned).collect())
    }

    /// What the host's serial console has said since it was booted or restored.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn console(&self) -> Result<String> {
        let bytes = fs::read(self.file("serial")).context("no console log")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// QMP of the host's own QEMU: to stop it, to cut its cables (`set_link`), or to power it off.
    ///
    /// # Errors
    /// The host is down.
    pub fn qmp(&self) -> Result<Qmp> {
        Qmp::connect(&self.file("qmp"), Duration::from_secs(60))
    }

    /// This host's clock less this machine's, in milliseconds, measured now. To place a time that was read on the host
    /// on this machine's time line, subtract it.
    ///
    /// # Errors
    /// The host does not answer.
    pub fn clock_offset_ms(&self) -> Result<f64> {
        Ok(self.clock_offset()?.offset_ms)
    }

    /// As [`Host::clock_offset_ms`], with the bound of its error.
    ///
    /// # Errors
    /// The host does not answer.
    pub fn clock_offset(&self) -> Result<Offset> {
        Clock::open(self)?.measure()
    }

    fn file(&self, extension: &str) -> PathBuf {
        self.run.join(format!("{}.{extension}", self.layout.name))
    }

    pub(crate) fn start(&self, start: &Start<'_>, images: &Images, ledger: &Ledger) -> Result<()> {
        let disk = self.file("qcow2");
        let (backing, format) = match start {
            Start::Boot => (images.disk.join("disk.raw"), "raw"),
            Start::Restore(state) => (state.with_extension("qcow2"), "qcow2"),
        };
        let mut create = Command::new("qemu-img");
        create
            .args(["create", "-q", "-f", "qcow2", "-F", format, "-b"])
            .arg(backing)
            .arg(&disk);
        run_ok(&mut create)?;
        self.start_with_disk(start, images, ledger)
    }

    /// Starts the machine with the disk that it has.
    pub(crate) fn start_with_disk(&self, start: &Start<'_>, images: &Images, ledger: &Ledger) -> Result<()> {
        let disk = self.file("qcow2");
        let file = |extension| self.file(extension).display().to_string();
        let emulator = images.emulator.join("qemu-system-x86_64");
        let mut qemu = net::command(&self.namespace, emulator);
        qemu.args(self.layout.machine());
        qemu.arg("-kernel")
            .arg(images.disk.join("vmlinuz"))
            .arg("-initrd")
            .arg(images.disk.join("initrd"));
        qemu.args(["-append", &self.kernel_command_line()]);
        // Nothing of a run outlives it, so nothing has to reach the real disk.
        qemu.args([
            "-drive",
            &format!("file={},if=none,id=disk,cache=unsafe", disk.display()),
        ]);
        // QEMU makes them. Of one that is there it would first try `/dev/tap` and the number that the link has in its namespace
        // (`tap_open()` in net/tap-linux.c), and that is another one's macvtap where /dev is shared with other namespaces.
        for (id, tap, _) in self.layout.cables() {
            qemu.args(["-netdev", &format!("tap,id={id},ifname={tap},script=no,downscript=no")]);
        }
        qemu.args(["-serial", &format!("file:{}", file("serial"))]);
        qemu.args(["-qmp", &format!("unix:{},server=on,wait=off", file("qmp"))]);
        qemu.args(["-daemonize", "-pidfile", &file("pid"), "-D", &file("qemu.log")]);
        if matches!(start, Start::Restore(_)) {
            qemu.args(["-S", "-incoming", "defer"]);
        }
        let output = process::run(&mut qemu, None, Duration::from_secs(60))?;
        if !output.success() {
            bail!("QEMU of {} does not start: {}", self.layout.name, output.stderr.trim());
        }
        let pid = fs::read_to_string(self.file("pid"))?
            .trim()
            .parse()
            .context("QEMU's pid file")?;
        ledger.add(pid, &file("qmp"))?;
        for (_, tap, bridge) in self.layout.cables() {
            net::plug(&self.namespace, &tap, bridge)?;
        }

        if let Start::Restore(state) = start {
            let mut qmp = self.qmp()?;
            qmp.execute(
                "migrate-incoming",
                json!({ "uri": format!("file:{}", state.display()) }),
            )?;
            qmp.finish_migration(Duration::from_secs(120))?;
            qmp.execute("cont", json!({}))?;
        }
        Ok(())
    }

    /// Takes its power away. What had reached its disk stays.
    pub(crate) fn cut_power(&self) -> Result<()> {
        let pid: i32 = fs::read_to_string(self.file("pid"))?
            .trim()
            .parse()
            .context("QEMU's pid file")?;
        kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("cannot kill QEMU of {}", self.name()))?;
        process::until("end of QEMU", Duration::from_secs(30), || {
            Ok((!Path::new(&format!("/proc/{pid}")).exists()).then_some(()))
        })?;
        // The connection that commands share: nobody is there to close it.
        self.disconnect()
    }

    fn kernel_command_line(&self) -> String {
        let Layout { name, id, .. } = self.layout;
        format!(
            "root=/dev/vda rw console=ttyS0 quiet mitigations=off intel_iommu=on iommu=pt \
             systemd.hostname={name} lab.id={id}"
        )
    }

    /// Waits for the end of a boot.
    pub(crate) fn wait_booted(&self, limit: Duration) -> Result<()> {
        process::until(&format!("boot of {}", self.layout.name), limit, || {
            let console = self.console()?;
            if let Some((_, why)) = console.split_once("LABFAILED") {
                bail!("its network has not come up: {}", why.trim());
            }
            Ok(console.contains("LABREADY").then_some(()))
        })
        .with_context(|| format!("its console is in {}", self.file("serial").display()))
    }

    /// Saves the running machine, ends it, and moves state and disk to `folder`.
    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        let state = folder.join(format!("{}.state", self.layout.name));
        let mut qmp = self.qmp()?;
        qmp.execute("stop", json!({}))?;
        // A file takes all that it is given; QEMU's default is made for networks.
        qmp.execute("migrate-set-parameters", json!({ "max-bandwidth": 1u64 << 34 }))?;
        qmp.execute("migrate", json!({ "uri": format!("file:{}", state.display()) }))?;
        qmp.finish_migration(Duration::from_secs(300))?;
        qmp.execute("quit", json!({}))?;
        let pid = fs::read_to_string(self.file("pid")).unwrap_or_default();
        // QEMU removes its pid file last of all.
        process::until("end of QEMU", Duration::from_secs(30), || {
            Ok((!self.file("pid").exists()).then_some(()))
        })
        .with_context(|| format!("process {}", pid.trim()))?;
        fs::rename(self.file("qcow2"), state.with_extension("qcow2")).context("cannot keep the disk")
    }

    /// Opens the connection that commands share.
    pub(crate) fn connect(&self, ledger: &Ledger, limit: Duration) -> Result<()> {
        let socket = self.file("ssh");
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        // A process of its own, without our pipes: a client that turns into the master keeps the ends of its pipes open
        // for as long as the connection lives, and whoever reads them waits for as long.
        let mut running: Option<Child> = None;
        process::until(&format!("ssh to {}", self.layout.name), limit, || {
            if socket.exists() {
                return Ok(Some(()));
            }
            let ended = match &mut running {
                Some(master) => master.try_wait()?.is_some(),
                None => true,
            };
            // A host that is busy may drop the connection before it has finished the key exchange.
            if ended {
                let mut master = self.ssh();
                master
                    .args(["-M", "-N", "-E"])
                    .arg(self.file("ssh.log"))
                    .arg(self.target());
                master
                    .process_group(0)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null());
                let master = master.spawn()?;
                ledger.add(master.id(), &socket.display().to_string())?;
                running = Some(master);
            }
            Ok(None)
        })
        .with_context(|| format!("what ssh says is in {}", self.file("ssh.log").display()))
    }

    /// Closes that connection.
    pub(crate) fn disconnect(&self) -> Result<()> {
        let mut exit = self.ssh();
        exit.args(["-O", "exit"]).arg(self.target());
        process::run(&mut exit, None, Duration::from_secs(20))?;
        Ok(())
    }

    /// Reads what can only be known from the running host.
    pub(crate) fn look(&mut self) -> Result<()> {
        self.pfs = self.read_file("/run/lab/pfs")?.lines().map(str::to_owned).collect();
        Ok(())
    }

    /// Sets the host's clock to this machine's.
    pub(crate) fn set_clock(&self) -> Result<Offset> {
        Clock::open(self)?.adjust()
    }

    fn target(&self) -> String {
        format!("root@{}", self.address)
    }

    fn ssh(&self) -> Command {
        let mut ssh = net::command(&self.namespace, "ssh");
        ssh.args([
            "-F",
            "none",
            "-o",
            "ConnectTimeout=60",
            "-o",
            "LogLevel=ERROR",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ]);
        ssh.args(["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i"])
            .arg(self.identity.join("id"));
        ssh.arg("-S").arg(self.file("ssh"));
        ssh
    }
}

impl Machine for Host {
    fn name(&self) -> &str {
        self.layout.name
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn command(&self, script: &str) -> Command {
        let mut ssh = self.ssh();
        ssh.args(["-o", "ControlMaster=no"])
            .arg(self.target())
            .arg("--")
            .arg(script);
        ssh
    }
}
