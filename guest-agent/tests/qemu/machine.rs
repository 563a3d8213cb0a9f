//! A guest in QEMU (TCG: no KVM needed) with a network of its own on the outside.

use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The MAC of the pair.
pub const MAC: &str = "52:54:00:aa:00:01";
/// The guest, seen from the bridge.
pub const GUEST: &str = "10.99.0.50";
/// As long as anything may take on a busy machine without KVM.
const PATIENCE: Duration = Duration::from_secs(90);

/// Runs a command of the host's, and returns what it printed.
pub fn host(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().expect("sh runs");
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What the tests need, or the line that makes it.
fn needed(what: &str, path: Option<PathBuf>, remedy: &str) -> PathBuf {
    path.filter(|p| p.exists())
        .unwrap_or_else(|| panic!("{what} is missing: {remedy}"))
}

fn guest_image() -> PathBuf {
    let cache = std::env::var("HYBOND_CACHE").unwrap_or_else(|_| "/var/cache/hybond-lab".to_owned());
    let mut found: Vec<PathBuf> = fs::read_dir(cache)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("vmlinuz").exists() && path.join("initramfs").exists())
        .collect();
    found.sort_by_key(|path| fs::metadata(path).and_then(|m| m.modified()).ok());
    needed(
        "the guest's kernel and initramfs",
        found.pop(),
        "run tests/lab/images/guest.sh",
    )
}

fn agent_binary() -> PathBuf {
    // target/debug/deps/qemu-…
    let test = std::env::current_exe().expect("a test has a path");
    let target = test.ancestors().nth(3).expect("a test is in the target directory");
    let built = target.join("x86_64-unknown-linux-musl/tiny/hybond-agent");
    let given = std::env::var_os("HYBOND_AGENT").map(PathBuf::from);
    needed(
        "the static agent",
        given.or(Some(built)),
        "cargo build --profile tiny -p hybond-agent --target x86_64-unknown-linux-musl",
    )
}

/// One line of JSON each way.
pub struct Lines {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Lines {
    fn connect(path: &Path) -> Self {
        let begin = Instant::now();
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
                    let reader = BufReader::new(stream.try_clone().expect("a second descriptor"));
                    return Self { stream, reader };
                }
                // QEMU makes its sockets while it starts.
                Err(_) if begin.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(50)),
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("written");
    }

    /// Sends a message.
    pub fn send(&mut self, message: &Value) {
        self.send_raw(format!("{message}\n").as_bytes());
    }

    /// The next line.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => panic!("the other end was closed"),
            Ok(_) => line,
            Err(error) => panic!("nothing came: {error}; so far {line:?}"),
        }
    }

    /// The next message that fits.
    pub fn wait(&mut self, mut fits: impl FnMut(&Value) -> bool) -> Value {
        loop {
            let line = self.line();
            let message: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
            if fits(&message) {
                return message;
            }
        }
    }

    /// True if nothing comes for a while.
    pub fn silent(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a time-out");
        let silent = match self.reader.fill_buf() {
            Ok(bytes) => bytes.is_empty(),
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        };
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        silent
    }
}

fn deleted_device(message: &Value) -> Option<String> {
    (message["event"] == "DEVICE_DELETED").then(|| message["data"]["device"].as_str().unwrap_or_default().to_owned())
}

/// The guest.
pub struct Machine {
    qemu: Child,
    qmp: Lines,
    /// Devices that QEMU said were gone while an answer was awaited.
    deleted: Vec<String>,
    shell: Lines,
    directory: PathBuf,
    commands: u32,
}

impl Machine {
    /// Boots a guest with a standby on a bridge, in a network namespace of the calling thread's own.
    pub fn boot(name: &str, arguments: &[&str]) -> Self {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("run the tests as root");
        host(
            "ip link set lo up && ip link add br0 type bridge forward_delay 0 && ip link set br0 address 02:00:00:00:00:fe up \
             && ip addr add 10.99.0.254/24 dev br0 && ip -6 addr add fd99::fe/64 dev br0 nodad",
        );
        let directory = std::env::temp_dir().join(format!("hybond-agent-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let image = guest_image();
        let initramfs = directory.join("initramfs");
        let root = directory.join("root");
        fs::create_dir_all(root.join("sbin")).expect("a directory");
        fs::copy(agent_binary(), root.join("sbin/hybond-agent")).expect("copied");
        // The kernel takes several archives one behind the other.
        host(&format!(
            "cp {image}/initramfs {out} && cd {root} && find . | cpio -o -H newc --quiet -R 0:0 >> {out}",
            image = image.display(),
            out = initramfs.display(),
            root = root.display(),
        ));
        let socket = |name: &str| format!("path={},server=on,wait=off", directory.join(name).display());
        let console = File::create(directory.join("console")).expect("a file");
        let qemu = Command::new("qemu-system-x86_64")
            .args("-nodefaults -display none -machine q35 -accel tcg,tb-size=256 -cpu max -m 256 -smp 1".split(' '))
            .arg("-kernel")
            .arg(image.join("vmlinuz"))
            .arg("-initrd")
            .arg(&initramfs)
            .args([
                "-append",
                &format!(
                    "console=ttyS0 quiet mitigations=off lab.ip={GUEST}/24 lab.ip6=fd99::50/64 {}",
                    arguments.join(" ")
                ),
            ])
            .args([
                "-device",
                "pcie-root-port,id=rp1,chassis=1,slot=1",
                "-device",
                "pcie-root-port,id=rp2,chassis=2,slot=2",
            ])
            .args(["-netdev", "tap,id=standby,ifname=standby,script=no,downscript=no"])
            .args([
                "-device",
                &format!("virtio-net-pci,bus=rp1,id=standby,netdev=standby,mac={MAC},romfile="),
            ])
            .args(["-netdev", "tap,id=primary,ifname=primary,script=no,downscript=no"])
            .args(["-device", "virtio-serial-pci"])
            .args(["-chardev", &format!("socket,id=agent,{}", socket("agent"))])
            .args([
                "-device",
                "virtserialport,id=port,chardev=agent,name=org.hybond.agent.0",
            ])
            .args(["-chardev", &format!("socket,id=test,{}", socket("test"))])
            .args(["-device", "virtserialport,chardev=test,name=org.hybond.test.0"])
            .args([
                "-qmp",
                &format!("unix:{},server=on,wait=off", directory.join("qmp").display()),
            ])
            .args(["-serial", "stdio"])
            .stdin(Stdio::null())
            .stdout(console.try_clone().expect("a second descriptor"))
            .stderr(console)
            .spawn()
            .expect("qemu-system-x86_64 runs: install qemu-system-x86");
        let mut machine = Self {
            qemu,
            qmp: Lines::connect(&directory.join("qmp")),
            deleted: Vec::new(),
            shell: Lines::connect(&directory.join("test")),
            directory,
            commands: 0,
        };
        machine.qmp("qmp_capabilities", json!({}));
        // QEMU has made the taps. Of one that is there it would first try `/dev/tap` and the number that the link has in this
        // namespace (`tap_open()` in net/tap-linux.c), which may be another namespace's macvtap.
        host("for t in standby primary; do ip link set $t master br0 up || exit 1; done");
        machine.until("L2READY");
        machine
    }

    /// Connects to the agent's port as the daemon would.
    pub fn agent(&self) -> Lines {
        Lines::connect(&self.directory.join("agent"))
    }

    /// What the guest's console has shown.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.directory.join("console")).expect("the console")).into_owned()
    }

    /// Waits until the console has shown something.
    pub fn until(&self, text: &str) {
        let begin = Instant::now();
        while !self.console().contains(text) {
            assert!(begin.elapsed() < PATIENCE, "{text} never came:\n{}", self.console());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A QMP command.
    pub fn qmp(&mut self, command: &str, arguments: Value) -> Value {
        self.qmp.send(&json!({"execute": command, "arguments": arguments}));
        let deleted = &mut self.deleted;
        let answer = self.qmp.wait(|m| {
            deleted.extend(deleted_device(m));
            m.get("return").is_some() || m.get("error").is_some()
        });
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        answer["return"].clone()
    }

    /// Makes the bridge a hub: whatever is for the guest arrives on both NICs, as with a card that delivers to PF and VF.
    pub fn hub(&self) {
        host(&format!(
            "for t in standby primary; do bridge link set dev $t learning off flood on || exit 1; done; \
             bridge fdb del {MAC} dev standby master 2>/dev/null; true"
        ));
    }

    /// Plugs the primary.
    pub fn plug(&mut self, driver: &str) {
        self.qmp(
            "device_add",
            json!({"driver": driver, "id": "vf", "bus": "rp2", "netdev": "primary", "mac": MAC, "romfile": ""}),
        );
    }

    /// Unplugs the primary and waits until it is gone.
    pub fn unplug(&mut self) {
        self.unplug_device("vf");
    }

    /// Unplugs a device and waits until it is gone, and with it its hold on what was behind it. A port goes at once, so that
    /// QEMU may say so before it answers.
    pub fn unplug_device(&mut self, id: &str) {
        self.deleted.clear();
        self.qmp("device_del", json!({"id": id}));
        if !self.deleted.iter().any(|device| device == id) {
            self.qmp.wait(|m| deleted_device(m).as_deref() == Some(id));
        }
    }

    /// Runs a command in the guest: what it printed, and its exit status.
    pub fn run(&mut self, command: &str) -> (String, i32) {
        self.commands += 1;
        let id = self.commands;
        self.shell.send_raw(format!("{id} {command}\n").as_bytes());
        let (begin, end) = (format!("<{id}"), format!(">{id} "));
        while self.shell.line().trim_end() != begin {}
        let mut output = String::new();
        loop {
            let line = self.shell.line();
            if let Some(status) = line.strip_prefix(&end) {
                // The shell sets its mark off by an empty line.
                return (output.trim_end().to_owned(), status.trim().parse().expect("a status"));
            }
            output.push_str(&line);
        }
    }

    /// Runs a command in the guest that succeeds.
    pub fn guest(&mut self, command: &str) -> String {
        let (output, status) = self.run(command);
        assert_eq!(status, 0, "{command}: {output}");
        output
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the guest's console\n{}", self.console());
        }
        drop(self.qemu.kill());
        drop(self.qemu.wait());
        drop(fs::remove_dir_all(&self.directory));
    }
}

/// Echo requests, 200 a second each way, while something happens.
pub struct Ping(Child);

/// What came of them.
#[derive(Debug)]
pub struct Pinged {
    /// Sent.
    pub sent: u32,
    /// Never answered.
    pub lost: u32,
    /// Answered more than once.
    pub duplicates: u32,
}

impl Ping {
    /// Begins.
    pub fn start(address: &str) -> Self {
        let child = Command::new("ping")
            .args(["-n", "-i", "0.005", address])
            .stdout(Stdio::piped())
            .spawn()
            .expect("ping runs: install iputils-ping");
        std::thread::sleep(Duration::from_secs(1));
        Self(child)
    }

    /// Ends.
    pub fn stop(mut self) -> Pinged {
        std::thread::sleep(Duration::from_secs(2));
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("ping runs");
        let output = self.0.wait_with_output_bounded();
        let mut sequences = std::collections::BTreeMap::<u32, u32>::new();
        for line in output.lines() {
            let after = line.split("icmp_seq=").nth(1).and_then(|rest| rest.split(' ').next());
            if let Some(sequence) = after
                .and_then(|text| text.parse().ok())
                .filter(|_| line.contains("bytes from"))
            {
                *sequences.entry(sequence).or_default() += 1;
            }
        }
        // The last requests may have been under way when ping was stopped.
        let sent = sequences.keys().next_back().copied().unwrap_or(0);
        assert!(sent > 100, "the guest answers:\n{output}");
        let duplicates = sequences.values().map(|count| count - 1).sum();
        Pinged {
            sent,
            lost: sent - sequences.len() as u32,
            duplicates,
        }
    }
}

trait Bounded {
    fn wait_with_output_bounded(&mut self) -> String;
}

impl Bounded for Child {
    fn wait_with_output_bounded(&mut self) -> String {
        let mut output = String::new();
        if let Some(mut stdout) = self.stdout.take() {
            std::io::Read::read_to_string(&mut stdout, &mut output).expect("ping's output is a text");
        }
        self.wait().expect("ping ended");
        output
    }
}
