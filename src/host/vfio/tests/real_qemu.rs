//! What a real QEMU answers: it decides with its sentences whether an unplug is done, pending or refused. No guest runs in
//! it; a reset stands in for the guest that lets its device go.
#![allow(unsafe_code, reason = "making a tap is an ioctl")]

use hybond_core::ids::{Bdf, Mac};
use hybond_qmp::Qmp;
use hybond_vfio::emulated::{self, EmulatedModel};
use hybond_vfio::{Change, PlugError, PlugRequest, PlugWay, Plugger, Sysfs, Unplug, request_unplug};
use nix::sched::{CloneFlags, unshare};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

struct Qemu {
    child: Child,
    folder: TempDir,
}

impl Qemu {
    /// `None` where there is none installed.
    fn start(mac: Mac) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("qmp");
        let child = Command::new("qemu-system-x86_64")
            .args(["-S", "-m", "64", "-accel", "tcg,tb-size=16", "-machine", "q35"])
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .arg("-device")
            .arg(format!(
                "pcie-root-port,id={},chassis=200,addr=0x1e",
                mac.root_port_id()
            ))
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", socket.display()))
            .stdin(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            eprintln!("skipped: no qemu-system-x86_64");
            return None;
        };
        Some(Self { child, folder })
    }

    async fn connect(&self) -> Qmp {
        let socket = self.folder.path().join("qmp");
        let begun = Instant::now();
        // The socket is there a moment before QEMU listens on it.
        let (qmp, mut events) = loop {
            match Qmp::connect(&socket, PATIENCE).await {
                Ok(connected) => break connected,
                Err(error) if begun.elapsed() > PATIENCE => panic!("QEMU does not listen: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        qmp
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }
}

nix::ioctl_write_ptr_bad!(
    /// Attaches the descriptor to a tap.
    tun_set_iff,
    libc::TUNSETIFF,
    libc::ifreq
);

/// A tap in a network namespace of this thread's.
fn tap() -> Option<File> {
    if unshare(CloneFlags::CLONE_NEWNET).is_err() {
        eprintln!("skipped: not root");
        return None;
    }
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .expect("tun");
    // SAFETY: all zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"hbtest0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the request is a whole ifreq, and its name ends with a zero.
    unsafe { tun_set_iff(tap.as_raw_fd(), &request) }.expect("a tap");
    Some(tap)
}

#[tokio::test]
async fn an_emulated_primary_comes_and_goes() {
    let mac: Mac = "52:54:00:aa:00:01".parse().expect("a MAC");
    let Some(qemu) = Qemu::start(mac) else { return };
    let qmp = qemu.connect().await;
    let Some(tap) = tap() else { return };
    for model in [EmulatedModel::Igb, EmulatedModel::E1000e, EmulatedModel::VirtioNet] {
        let plug = async || emulated::plug(&qmp, mac, model, tap.as_fd()).await.expect("plugged");
        assert_eq!(plug().await, Change::Made, "{model:?}");
        assert_eq!(plug().await, Change::AlreadyThere);

        let unplug = async || request_unplug(&qmp, &mac.primary_id()).await.expect("fine");
        for _ in 0..3 {
            assert_eq!(unplug().await, Unplug::Pending, "no guest answers");
        }
        qmp.command("system_reset", serde_json::Value::Null, None, PATIENCE)
            .await
            .expect("reset");
        let mut plugged = qmp.plugged();
        let gone = plugged.wait_for(|ids| ids.is_empty());
        tokio::time::timeout(PATIENCE, gone)
            .await
            .expect("DEVICE_DELETED")
            .expect("connected");
        assert_eq!(unplug().await, Unplug::Gone);

        assert_eq!(emulated::revoke(&qmp, mac).await.expect("removed"), Change::Made);
        assert_eq!(emulated::revoke(&qmp, mac).await.expect("gone"), Change::AlreadyThere);
    }
}

#[tokio::test]
async fn a_refused_emulated_primary_leaves_no_back_end() {
    let mac: Mac = "52:54:00:aa:00:01".parse().expect("a MAC");
    let other: Mac = "52:54:00:aa:00:02".parse().expect("a MAC");
    let Some(qemu) = Qemu::start(mac) else { return };
    let qmp = qemu.connect().await;
    let Some(tap) = tap() else { return };
    let refused = emulated::plug(&qmp, other, EmulatedModel::Igb, tap.as_fd()).await;
    let error = refused.expect_err("there is no such root port");
    assert!(
        matches!(
            error,
            PlugError::Qmp {
                command: "device_add",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(emulated::revoke(&qmp, other).await.expect("gone"), Change::AlreadyThere);
}

#[tokio::test]
async fn a_vf_that_is_not_there_is_not_plugged_and_revoking_it_is_fine() {
    let mac: Mac = "52:54:00:aa:00:01".parse().expect("a MAC");
    let Some(qemu) = Qemu::start(mac) else { return };
    let qmp = qemu.connect().await;
    // A tree with one VF, bound to vfio-pci by a kernel that has no iommufd.
    let tree = tempfile::tempdir().expect("a folder");
    let vf: Bdf = "0000:01:10.0".parse().expect("a PCI address");
    let device = tree.path().join(format!("bus/pci/devices/{vf}"));
    std::fs::create_dir_all(&device).expect("a folder");
    std::os::unix::fs::symlink(Path::new("../vfio-pci"), device.join("driver")).expect("a link");
    let plugger = Plugger::new(Sysfs::at(tree.path()));
    let request = PlugRequest {
        pid: qemu.child.id(),
        vf,
        id: mac.primary_id(),
        bus: mac.root_port_id(),
        guest_ram_bytes: 64 << 20,
    };
    for way in [PlugWay::Iommufd, PlugWay::Group] {
        let refused = plugger.plug(way, &qmp, &request).await;
        assert!(matches!(refused, Err(PlugError::NotPossible { .. })), "{refused:?}");
        let revoked = plugger.revoke(way, Some(request.pid), vf, Some(&qmp)).await;
        revoked.expect("nothing to take back");
    }
}

#[tokio::test]
async fn the_descriptor_of_an_interrupted_plug_is_closed() {
    let mac: Mac = "52:54:00:aa:00:01".parse().expect("a MAC");
    let Some(qemu) = Qemu::start(mac) else { return };
    let qmp = qemu.connect().await;
    // /dev/zero in the place of the VF's character device.
    let tree = tempfile::tempdir().expect("a folder");
    let vf: Bdf = "0000:01:10.0".parse().expect("a PCI address");
    let cdev = tree.path().join(format!("bus/pci/devices/{vf}/vfio-dev/vfio0"));
    std::fs::create_dir_all(&cdev).expect("a folder");
    std::fs::write(cdev.join("dev"), "1:5\n").expect("a file");
    let held = || {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", qemu.child.id())).expect("it runs");
        let targets = fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        targets.filter(|t| t == Path::new("/dev/zero")).count()
    };
    let device = File::open("/dev/zero").expect("there");
    qmp.getfd(&format!("hbfd-{vf}"), device.as_fd()).await.expect("taken");
    assert_eq!(held(), 1);
    // No device_add follows, as when the daemon ends in between.
    let plugger = Plugger::new(Sysfs::at(tree.path()));
    for _ in 0..2 {
        let revoked = plugger
            .revoke(PlugWay::Iommufd, Some(qemu.child.id()), vf, Some(&qmp))
            .await;
        revoked.expect("everything");
        assert_eq!(held(), 0);
    }
}
