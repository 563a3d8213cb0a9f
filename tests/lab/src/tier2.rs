//! Tier 2: two libvirtds on this machine, each in network, mount, host name and process namespaces of its own, over a
//! layer on the hosts' root file system. No systemd, no VFs: PFs are veths, two of each host, and primaries are emulated
//! NICs, whose taps go into bridge `hbup`. It is up in seconds, and its guests are plain TCG.

use crate::cache::{self, Lock, progress};
use crate::domain::GUEST_FILES;
use crate::machine::{Machine, Namespace};
use crate::net;
use crate::place::Place;
use crate::process::{self, Ledger};
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Name of a host's bridge for the taps of emulated primaries, which is on the data network too.
pub const BRIDGE: &str = "hbup";

/// The traffic peer's address on the data network. It also has fd88::fe.
pub const PEER: &str = "10.88.0.254";

/// What runs as the first process of a host, with the host's name and address, the layer's folder and the images as
/// its arguments.
const FIRST: &str = include_str!("../images/tier2-init");

/// As `images/tier2-init` starts it.
const START_LIBVIRTD: &str = "libvirtd --daemon --listen --pid-file /run/libvirtd.pid";
/// libvirtd comes up and goes within this.
const LIBVIRTD: Duration = Duration::from_secs(60);

/// Number, name and PFs of the hosts. No PF of one has the name of one of the other, so that nothing that is right on one
/// is right on the other by accident.
const HOSTS: [(u8, &str, [&str; 2]); 2] = [(1, "src", ["pf0", "pf1"]), (2, "dst", ["port4", "port5"])];

/// A namespaced host.
#[derive(Debug, Clone)]
pub struct Node {
    name: &'static str,
    pfs: [&'static str; 2],
    address: String,
    namespace: String,
    /// The first process of the host, as this machine counts.
    pid: u32,
}

impl Node {
    fn new(place: &Place, name: &'static str, pfs: [&'static str; 2], number: u8, pid: u32) -> Self {
        Self {
            name,
            pfs,
            address: format!("10.78.0.{number}"),
            namespace: place.namespace(name),
            pid,
        }
    }

    /// Name of the host's network namespace.
    #[must_use]
    pub fn netns(&self) -> &str {
        &self.namespace
    }

    /// Names of the host's PFs, which are veths on the data network. They differ between the hosts.
    #[must_use]
    pub fn pfs(&self) -> &[&'static str; 2] {
        &self.pfs
    }

    /// Ends libvirtd and starts it anew, as an upgrade does. Guests run on meanwhile.
    ///
    /// # Errors
    /// It does not end, or does not come up.
    pub fn restart_libvirt(&self) -> Result<()> {
        self.renew_libvirt("TERM")
    }

    /// Kills libvirtd in the midst of whatever it does, and starts it anew.
    ///
    /// # Errors
    /// It does not come up.
    pub fn crash_libvirt(&self) -> Result<()> {
        self.renew_libvirt("KILL")
    }

    fn renew_libvirt(&self, signal: &str) -> Result<()> {
        self.ok(&format!("kill -{signal} $(cat /run/libvirtd.pid)"))?;
        let ended = "! kill -0 $(cat /run/libvirtd.pid 2>/dev/null) 2>/dev/null";
        self.until("libvirtd's end", ended, LIBVIRTD)?;
        self.ok(&format!("{START_LIBVIRTD} </dev/null >/dev/null 2>&1"))?;
        self.until("libvirtd", "virsh -q list", LIBVIRTD)?;
        Ok(())
    }

    /// Makes libvirtd see a hook that was installed since it started: it looks for hooks at its start and on SIGHUP.
    ///
    /// # Errors
    /// libvirtd does not run.
    pub fn reload_libvirt(&self) -> Result<()> {
        self.ok("kill -HUP $(cat /run/libvirtd.pid)")?;
        Ok(())
    }
}

impl Machine for Node {
    fn name(&self) -> &str {
        self.name
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "-t",
            &self.pid.to_string(),
            "-m",
            "-n",
            "-u",
            "-i",
            "-p",
            "--root",
            "--wdns=/root",
            "--",
        ]);
        command.args([
            "/usr/bin/env",
            "-i",
            "HOME=/root",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL=C",
        ]);
        command.args(["/bin/bash", "-c", script]);
        command
    }
}

/// Two namespaced hosts and a traffic peer. Dropped, it ends all that it has started.
#[derive(Debug)]
pub struct Pair {
    nodes: Vec<Node>,
    peer: Namespace,
    place: Place,
    /// Held by whoever answers for the end.
    owner: Option<Lock>,
}

impl Pair {
    /// Brings both hosts up afresh: builds what is missing, and ends a pair that is still up.
    ///
    /// # Errors
    /// Something cannot be built or started; the error says what.
    pub fn up() -> Result<Self> {
        let start = Instant::now();
        cache::artifact("packages")?;
        let [rootfs, guest, identity] = ["rootfs", "guest", "identity"].map(cache::artifact);
        let images = Images {
            rootfs: rootfs?,
            guest: guest?,
            identity: identity?,
        };
        let place = Place::new("2")?;
        let owner = place.take(Duration::from_secs(1800))?;
        let mut pair = Self {
            nodes: Vec::new(),
            peer: peer(&place),
            place,
            owner: Some(owner),
        };
        if let Err(error) = pair.start(&images) {
            let logs = pair.place.keep_logs()?;
            return Err(error.context(format!("tier 2 does not come up; its logs are in {}", logs.display())));
        }
        progress(&format!(
            "both namespaced hosts are up after {:.1} s",
            start.elapsed().as_secs_f64()
        ));
        Ok(pair)
    }

    fn start(&mut self, images: &Images) -> Result<()> {
        network(&self.place)?;
        let ledger = self.place.ledger()?;
        for (number, name, pfs) in HOSTS {
            let node = start_node(&self.place, (number, name, pfs), images, &ledger)?;
            self.nodes.push(node);
        }
        for node in &self.nodes {
            node.until("libvirtd", "virsh -q list", LIBVIRTD)
                .with_context(|| format!("its log is in {}", log(&self.place, node.name).display()))?;
        }
        Ok(())
    }

    /// Finds the pair that another process has left up. It stays up when this is dropped.
    ///
    /// # Errors
    /// There is none.
    pub fn attach() -> Result<Self> {
        let place = Place::new("2")?;
        if !place.is_up()? {
            bail!("tier 2 is not up; `hybond-lab tier2 up` brings it up");
        }
        let mut nodes = Vec::new();
        for (number, name, pfs) in HOSTS {
            let pid = fs::read_to_string(place.run().join(name).with_extension("pid"))?.parse()?;
            nodes.push(Node::new(&place, name, pfs, number, pid));
        }
        Ok(Self {
            nodes,
            peer: peer(&place),
            place,
            owner: None,
        })
    }

    /// Leaves the pair up: for [`Pair::attach`] in another process.
    pub fn leave(mut self) {
        self.owner = None;
    }

    /// Host `src` or `dst`.
    ///
    /// # Panics
    /// For any other name: the caller's text is wrong.
    #[must_use]
    pub fn host(&self, name: &str) -> &Node {
        match self.nodes.iter().find(|node| node.name == name) {
            Some(node) => node,
            None => panic!("tier 2 has hosts src and dst, not {name}"),
        }
    }

    /// Both hosts.
    #[must_use]
    pub fn hosts(&self) -> &[Node] {
        &self.nodes
    }

    /// The traffic peer: a namespace on the data network, with the addresses [`PEER`] and fd88::fe.
    #[must_use]
    pub fn peer(&self) -> &Namespace {
        &self.peer
    }

    /// Ends both hosts and what runs in them.
    ///
    /// # Errors
    /// A process or a namespace cannot be removed.
    pub fn down(mut self) -> Result<()> {
        // Whoever waits for the lab takes it as soon as the lock is free.
        let owner = self.owner.take();
        let cleared = self.place.clear();
        drop(owner);
        cleared
    }

    /// Ends what an interrupted run has left.
    ///
    /// # Errors
    /// A process or a namespace cannot be removed.
    pub fn clear() -> Result<()> {
        Place::new("2")?.release()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if self.owner.is_some() {
            if let Err(error) = self.place.clear() {
                progress(&format!("the pair is not all gone: {error:#}"));
            }
        }
    }
}

fn peer(place: &Place) -> Namespace {
    Namespace::new("peer", PEER, &place.namespace("peer"))
}

struct Images {
    rootfs: PathBuf,
    guest: PathBuf,
    identity: PathBuf,
}

fn log(place: &Place, name: &str) -> PathBuf {
    place.run().join(format!("{name}.log"))
}

fn start_node(
    place: &Place,
    (number, name, pfs): (u8, &'static str, [&'static str; 2]),
    images: &Images,
    ledger: &Ledger,
) -> Result<Node> {
    let folder = place.run().join(name);
    fs::create_dir_all(&folder)?;
    let script = place.run().join("init");
    fs::write(&script, FIRST)?;
    let namespace = place.namespace(name);
    let log = File::create(log(place, name))?;
    // The layer below must stay for as long as the host lives: its lock is inherited.
    let mut first = net::command(&namespace, "flock");
    // What cargo tells its tests, such as where to look for libraries, is not for the host's programs.
    first.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    first.args(["--shared"]).arg(&images.rootfs);
    first
        .args([
            "unshare",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--kill-child",
            "/bin/bash",
        ])
        .arg(&script);
    first.args([name, &number.to_string()]).arg(&folder);
    first
        .arg(images.rootfs.join("root"))
        .arg(&images.guest)
        .arg(&images.identity)
        .arg(GUEST_FILES);
    first
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let first = first.spawn().context("cannot start a namespaced host")?;
    ledger.add(first.id(), &script.display().to_string())?;
    let pid = process::until(&format!("first process of {name}"), Duration::from_secs(20), || {
        // flock's child is unshare, and unshare's is the first process of the new process namespace.
        let Some(unshare) = child_of(first.id())? else {
            return Ok(None);
        };
        let Some(init) = child_of(unshare)? else {
            return Ok(None);
        };
        Ok(Path::new(&format!("/proc/{init}/root/run/lab/ready"))
            .exists()
            .then_some(init))
    })
    .with_context(|| {
        format!(
            "its log: {}",
            fs::read_to_string(self::log(place, name)).unwrap_or_default()
        )
    })?;
    ledger.add(pid, &script.display().to_string())?;
    fs::write(folder.with_extension("pid"), pid.to_string())?;
    Ok(Node::new(place, name, pfs, number, pid))
}

fn child_of(pid: u32) -> Result<Option<u32>> {
    match fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")) {
        Ok(children) => Ok(children.split_whitespace().next().and_then(|child| child.parse().ok())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!("process {pid} has ended"),
        Err(error) => Err(error.into()),
    }
}

/// Management and data network in a namespace of their own, with two hosts and a peer on them.
fn network(place: &Place) -> Result<()> {
    let [net, peer] = ["net", "peer"].map(|name| place.namespace(name));
    let hosts = HOSTS.map(|(_, name, _)| place.namespace(name));
    place.namespaces().add(&[&net, &peer, &hosts[0], &hosts[1]])?;
    net::bridge(&net, "br-mgmt")?;
    net::bridge(&net, "br-data")?;
    for ((number, _, pfs), host) in HOSTS.iter().zip(&hosts) {
        for (port, link, bridge) in [
            ("m", "mg0", "br-mgmt"),
            ("p", pfs[0], "br-data"),
            ("q", pfs[1], "br-data"),
            ("u", "up0", "br-data"),
        ] {
            net::ip(
                &net,
                &format!("link add {port}{number} type veth peer name {link} netns {host}"),
            )?;
            net::plug(&net, &format!("{port}{number}"), bridge)?;
        }
        net::ip(host, &format!("addr add 10.78.0.{number}/24 dev mg0"))?;
        net::ip(host, "link set mg0 up")?;
        for (index, pf) in pfs.iter().enumerate() {
            net::ip(
                host,
                &format!("link set {pf} address 02:88:00:00:1{number}:0{index} up"),
            )?;
        }
        net::bridge(host, BRIDGE)?;
        net::plug(host, "up0", BRIDGE)?;
    }
    net::peer(&net, &peer, PEER)
}
