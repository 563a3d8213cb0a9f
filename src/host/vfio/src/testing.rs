//! Stand-ins: a kernel behind a tree like sysfs, a process in the place of QEMU, and a monitor.

use crate::sysfs::Sysfs;
pub(crate) use crate::tree::Tree;
use hybond_core::ids::Bdf;
use nix::fcntl::readlink;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

pub(crate) fn bdf(text: &str) -> Bdf {
    text.parse().expect("a PCI address")
}

impl Tree {
    /// With a kernel behind it: the host's own driver for VFs is `igbvf`, if any.
    pub(crate) fn sysfs(&self, host_driver: Option<&'static str>) -> Sysfs {
        let mut sys = Sysfs::at(self.root.path());
        sys.kernel = Some(Arc::new(FakeKernel {
            root: self.root.path().to_owned(),
            host_driver,
            writes: Mutex::default(),
        }));
        sys
    }
}

/// What the kernel does when sysfs is written.
#[derive(Debug)]
pub(crate) struct FakeKernel {
    root: PathBuf,
    host_driver: Option<&'static str>,
    writes: Mutex<Vec<String>>,
}

impl FakeKernel {
    pub(crate) fn written(&self, path: &Path, text: &str) {
        let file = path.file_name().expect("a file").to_string_lossy();
        let written = format!("{file}={}", text.trim_end());
        self.writes.lock().expect("the log").push(written);
        let device = |bdf: &str| self.root.join("bus/pci/devices").join(bdf);
        match &*file {
            "unbind" => fs::remove_file(device(text).join("driver")).expect("bound before"),
            "drivers_probe" => {
                let wish = fs::read_to_string(device(text).join("driver_override")).expect("an attribute");
                let driver = match wish.trim_end() {
                    "" | "(null)" => self.host_driver,
                    "vfio-pci" => Some("vfio-pci"),
                    other => panic!("override {other:?}"),
                };
                if let Some(driver) = driver {
                    let folder = self.root.join("bus/pci/drivers").join(driver);
                    fs::create_dir_all(&folder).expect("a folder");
                    fs::write(folder.join("unbind"), "").expect("a file");
                    symlink(folder, device(text).join("driver")).expect("unbound before");
                }
            }
            "driver_override" => fs::write(path, text).expect("an attribute"),
            other => panic!("nobody should write {other}"),
        }
    }

    pub(crate) fn writes(&self) -> Vec<String> {
        self.writes.lock().expect("the log").clone()
    }
}

/// A process in the place of QEMU: it opens what it is told to, and says whether it could.
pub(crate) struct Opener {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Opens each line's path for reading. A failing redirection ends only the command, not the shell.
const LOOP: &str = "while read -r p; do if true 2>/dev/null <\"$p\"; then echo yes; else echo no; fi; done";

impl Opener {
    /// With a mount namespace and a /dev of its own, as user 65534, like a QEMU under libvirt. `None` where the test may not
    /// do that.
    pub(crate) fn private_dev() -> Option<Self> {
        Self::private("65534")
    }

    /// The same as root, since without CAP_SYS_RESOURCE only the limits of our own user's processes can be changed.
    pub(crate) fn private_root() -> Option<Self> {
        Self::private("0")
    }

    fn private(user: &str) -> Option<Self> {
        let script = format!(
            "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && ulimit -S -l 64 &&
             exec setpriv --reuid {user} --regid {user} --clear-groups sh -c 'echo ready; {}'",
            LOOP.replace('\'', "'\\''")
        );
        Self::start(Command::new("unshare").args(["-m", "sh", "-c", &script]))
    }

    /// In our own namespaces, as user 65534.
    pub(crate) fn shared_dev() -> Option<Self> {
        let script = format!("echo ready; {LOOP}");
        Self::start(Command::new("setpriv").args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "sh",
            "-c",
            &script,
        ]))
    }

    fn start(command: &mut Command) -> Option<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("util-linux");
        let input = child.stdin.take().expect("piped");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a pipe");
        if line.trim_end() != "ready" {
            let status = child.wait().expect("our child");
            assert!(!nix::unistd::geteuid().is_root(), "as root this should work: {status}");
            eprintln!("skipped: not root");
            return None;
        }
        Some(Self { child, input, output })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn can_open(&mut self, path: &str) -> bool {
        writeln!(self.input, "{path}").expect("the child reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a pipe");
        match line.trim_end() {
            "yes" => true,
            "no" => false,
            other => panic!("the child says {other:?}"),
        }
    }

    /// As the process sees it.
    pub(crate) fn exists(&self, path: &str) -> bool {
        let path = format!("/proc/{}/root{path}", self.pid());
        assert!(readlink(path.as_str()).is_err(), "no link is made");
        Path::new(&path).exists()
    }

    pub(crate) fn end(mut self) {
        drop(self.input);
        self.child.wait().expect("our child");
    }
}

/// A monitor that says yes, keeps count of devices, and tells what was sent.
pub(crate) struct FakeMonitor {
    folder: TempDir,
    state: Arc<Mutex<MonitorState>>,
}

#[derive(Default)]
pub(crate) struct MonitorState {
    pub(crate) devices: Vec<String>,
    pub(crate) objects: Vec<String>,
    /// Command and arguments, without those of the handshake.
    pub(crate) sent: Vec<(String, Value)>,
    /// `device_add` is refused with this sentence.
    pub(crate) refuse: Option<&'static str>,
}

impl FakeMonitor {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("qmp")).expect("a socket");
        let state = Arc::<Mutex<MonitorState>>::default();
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (reader, mut writer) = stream.into_split();
                let mut lines = tokio::io::BufReader::new(reader).lines();
                let greeting = json!({"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""},
                    "capabilities": []}});
                let mut answer = greeting;
                loop {
                    let line = format!("{answer}\n");
                    if writer.write_all(line.as_bytes()).await.is_err() {
                        break;
                    }
                    let Ok(Some(line)) = lines.next_line().await else { break };
                    let request: Value = serde_json::from_str(&line).expect("JSON");
                    answer = shared.lock().expect("the state").answer(&request);
                }
            }
        });
        Self { folder, state }
    }

    pub(crate) async fn connect(&self) -> hybond_qmp::Qmp {
        let patience = std::time::Duration::from_secs(10);
        let (qmp, mut events) = hybond_qmp::Qmp::connect(&self.folder.path().join("qmp"), patience)
            .await
            .expect("the monitor listens");
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        qmp
    }

    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, MonitorState> {
        self.state.lock().expect("the state")
    }
}

impl MonitorState {
    fn answer(&mut self, request: &Value) -> Value {
        let name = request["execute"].as_str().expect("a command").to_owned();
        let arguments = request["arguments"].clone();
        let listed = |names: &[String]| -> Value {
            names
                .iter()
                .map(|n| json!({"name": n, "type": "child<device>"}))
                .collect()
        };
        let mut error = None;
        let id = arguments["id"].as_str().unwrap_or_default().to_owned();
        let value = match name.as_str() {
            "qom-list" if arguments["path"] == "/objects" => listed(&self.objects),
            "qom-list" => listed(&self.devices),
            "query-migrate-capabilities" => json!([]),
            "device_add" => {
                match self.refuse {
                    Some(desc) => error = Some(("GenericError", desc.to_owned())),
                    None => self.devices.push(id.clone()),
                }
                json!({})
            }
            "device_del" if !self.devices.contains(&id) => {
                error = Some(("DeviceNotFound", format!("Device '{id}' not found")));
                json!({})
            }
            "object-add" => {
                self.objects.push(id);
                json!({})
            }
            "netdev_del" => {
                error = Some(("GenericError", format!("Device '{id}' not found")));
                json!({})
            }
            _ => json!({}),
        };
        self.sent.push((name, arguments));
        match error {
            Some((class, desc)) => json!({"id": request["id"], "error": {"class": class, "desc": desc}}),
            None => json!({"id": request["id"], "return": value}),
        }
    }

    pub(crate) fn arguments_of(&self, command: &str) -> Option<&Value> {
        self.sent.iter().rev().find(|(name, _)| name == command).map(|(_, a)| a)
    }
}
