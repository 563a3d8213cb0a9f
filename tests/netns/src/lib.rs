//! A host's network for one test: a network namespace of its own, seen by one thread, gone with it.
//!
//! Needs root, and iproute2 to set the scene and to look at the result with other eyes than those under test.

use hybond_core::ids::{IfName, Mac};
use hybond_netlink::{Netlink, StandbySpec};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything that must happen.
pub const SOON: Duration = Duration::from_secs(10);
/// Ethertype for local experiments (IEEE 802): nothing else on the wire has it.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// `struct virtio_net_hdr`, which tap and macvtap put before each frame unless told of another size.
const HEADER: usize = 10;

/// A host.
pub struct Host {
    /// What is under test.
    pub netlink: Netlink,
}

/// Runs a test on a host that has `pf` (a veth), up, whose other end is `wire`.
///
/// # Panics
/// If the test does, or if no network namespace can be made.
pub fn on_a_host<F, T>(test: F)
where
    F: FnOnce(Host) -> T + Send + 'static,
    T: Future<Output = ()>,
{
    let run = move || {
        enter_namespaces();
        skip_indexes();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let host = Host {
                netlink: Netlink::new().expect("a netlink connection"),
            };
            host.ip("link add pf type veth peer name wire");
            host.ip("link set pf up");
            host.ip("link set wire up");
            test(host).await;
        });
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// unshare() acts on the calling thread alone. /sys shows the network namespace that it was mounted in.
fn enter_namespaces() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("a network namespace: run as root");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("mounts of its own");
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).expect("a /sys of its own");
}

/// Network namespaces share one /dev, where a macvtap is `/dev/tap<index>`: each test gets indexes of its own, none of
/// them low, where whatever else runs on this machine has its own.
fn skip_indexes() {
    let path = std::env::temp_dir().join("hybond-test-netns.slot");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let mut file = Flock::lock(file.expect("the slot file"), FlockArg::LockExclusive).expect("the slot file's lock");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("the last slot");
    let slot = (text.trim().parse::<u32>().unwrap_or(0) + 1) % 32;
    file.rewind().expect("the slot file's start");
    write!(file, "{slot:2}").expect("the next slot");
    drop(file);
    let pairs = 100 + slot * 10;
    let batch: String = (0..pairs)
        .map(|n| format!("link add skip{n} group 77 type veth\n"))
        .collect();
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("iproute2");
    let mut stdin = ip.stdin.take().expect("its standard input");
    stdin.write_all(batch.as_bytes()).expect("a batch");
    drop(stdin);
    assert!(ip.wait().expect("its end").success(), "ip -batch");
    run("ip", "link del group 77");
}

fn run(program: &str, args: &str) -> String {
    let output = Command::new(program).args(args.split_whitespace()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Host {
    /// Runs `ip` with these arguments, which must succeed.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn show(&self, args: &str) -> String {
        run("ip", args)
    }

    /// Runs `ip` with these arguments, which must succeed.
    pub fn ip(&self, args: &str) {
        drop(run("ip", args));
    }

    /// Whether this kernel can make VLAN sub-interfaces, by other means than those under test.
    ///
    /// # Panics
    /// Without iproute2.
    #[must_use]
    pub fn has_8021q(&self) -> bool {
        let add = ["link", "add", "link", "pf", "name", "probe", "type", "vlan", "id", "9"];
        let made = Command::new("ip")
            .args(add)
            .output()
            .expect("iproute2")
            .status
            .success();
        if made {
            self.ip("link del probe");
        }
        made
    }

    /// Names of all devices but `lo`, as iproute2 sees them, sorted.
    #[must_use]
    pub fn devices(&self) -> Vec<String> {
        let text = run("ip", "-o link show");
        let names = text.lines().filter_map(|line| line.split(": ").nth(1));
        let names = names.filter_map(|name| name.split('@').next());
        // Kernels with ifb or sit built in put those into each namespace.
        let is_ours = |name: &&str| !matches!(*name, "lo" | "ifb0" | "ifb1" | "sit0" | "tunl0" | "ip6tnl0");
        let mut names: Vec<String> = names.filter(is_ours).map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Whether the device's unicast filter has the address (`bridge fdb` lists it).
    #[must_use]
    pub fn filters(&self, device: &str, mac: &str) -> bool {
        run("bridge", &format!("fdb show dev {device}")).contains(mac)
    }
}

/// An interface's name.
#[must_use]
pub fn name(text: &str) -> IfName {
    text.parse().expect("an interface name")
}

/// The MAC of the pair that most tests have.
#[must_use]
pub fn mac() -> Mac {
    "52:54:00:aa:00:01".parse().expect("a MAC")
}

/// That pair's standby over `pf`.
#[must_use]
pub fn standby() -> StandbySpec {
    StandbySpec {
        name: mac().standby_name(),
        mac: mac(),
        lower: name("pf"),
        vlan: None,
        passthru: false,
        allmulticast: false,
        mtu: None,
        replace: false,
    }
}

/// A tap or macvtap, open as QEMU has it: frames behind a virtio-net header.
pub struct Port(File);

impl Port {
    /// Takes a descriptor of a tap.
    #[must_use]
    pub fn tap(descriptor: OwnedFd) -> Self {
        Self(descriptor.into())
    }

    /// Opens the macvtap of that index.
    #[must_use]
    pub fn macvtap(index: u32) -> Self {
        let path = format!("/dev/tap{index}");
        let file = OpenOptions::new().read(true).write(true).open(path);
        Self(file.expect("the macvtap's character device"))
    }

    /// Sends a frame with this number. A device that is down drops it, as a guest would see it.
    pub fn send(&self, to: [u8; 6], from: [u8; 6], number: u8) {
        let mut bytes = vec![0; HEADER];
        bytes.extend(to);
        bytes.extend(from);
        bytes.extend(ETHERTYPE);
        bytes.resize(HEADER + 60, number);
        // A tap that is down answers EIO. Whether the frame arrives is what the test looks at.
        drop((&self.0).write(&bytes));
    }

    /// Numbers of the frames of a test's that come before the one with the number `last`.
    ///
    /// # Panics
    /// If that one does not come.
    #[must_use]
    pub fn until(&self, last: u8) -> Vec<u8> {
        let mut numbers = Vec::new();
        loop {
            match self.receive() {
                number if number == last => return numbers,
                number => numbers.push(number),
            }
        }
    }

    /// Number of the next frame that a test has sent; frames of the kernel's own (IPv6) are passed over.
    ///
    /// # Panics
    /// If none comes.
    #[must_use]
    pub fn receive(&self) -> u8 {
        self.receive_of(ETHERTYPE)[14]
    }

    /// The next frame of a type.
    ///
    /// # Panics
    /// If none comes.
    #[must_use]
    pub fn receive_of(&self, ethertype: [u8; 2]) -> Vec<u8> {
        let until = Instant::now() + SOON;
        loop {
            let left = until.saturating_duration_since(Instant::now()).as_millis();
            let left = PollTimeout::try_from(left).expect("a short wait");
            let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            assert!(poll(&mut ready, left).expect("poll") > 0, "no frame came");
            let mut bytes = [0; 2048];
            let length = (&self.0).read(&mut bytes).expect("a frame");
            let frame = bytes.get(HEADER..length).unwrap_or_default();
            if frame.len() > 14 && frame[12..14] == ethertype {
                return frame.to_vec();
            }
        }
    }
}
