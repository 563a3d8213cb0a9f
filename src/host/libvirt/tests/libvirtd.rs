//! Against a libvirtd of our own that is restarted and that hangs. It serves libvirt's test driver, and no other: it has
//! its own socket, and no driver modules. Without a libvirtd on the machine (`HYBOND_TEST_LIBVIRTD`, or Debian's
//! `libvirt-daemon`) there is nothing to run.

use hybond_libvirt::{
    DomainState, Events, Libvirt, LibvirtError, LibvirtEvent, Lifecycle, Settings, StoppedBy, SuspendedBy,
};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

struct Daemon {
    dir: PathBuf,
    binary: PathBuf,
    child: Child,
}

impl Daemon {
    fn start(dir: &Path) -> Option<Self> {
        let binary = std::env::var_os("HYBOND_TEST_LIBVIRTD").map_or("/usr/sbin/libvirtd".into(), PathBuf::from);
        if !binary.exists() {
            eprintln!("skipped: no libvirtd");
            return None;
        }
        let config = format!(
            "unix_sock_dir = \"{}\"\nauth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\nhost_uuid = \"{}\"\n",
            dir.display(),
            "11111111-2222-4333-8444-555555555555"
        );
        std::fs::write(dir.join("libvirtd.conf"), config).expect("written");
        std::fs::create_dir_all(dir.join("no-drivers")).expect("made");
        let child = spawn(dir, &binary);
        Some(Self {
            dir: dir.to_owned(),
            binary,
            child,
        })
    }

    fn uri(&self) -> String {
        format!("test+unix:///default?socket={}/libvirt-sock", self.dir.display())
    }

    fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    fn restart(&mut self) {
        self.child = spawn(&self.dir, &self.binary);
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("/bin/kill")
            .args(["-s", name, &pid])
            .status()
            .expect("kill runs");
        assert!(sent.success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that was killed already is gone.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn spawn(dir: &Path, binary: &Path) -> Child {
    Command::new(binary)
        .arg("--config")
        .arg(dir.join("libvirtd.conf"))
        .arg("--pid-file")
        .arg(dir.join("libvirtd.pid"))
        .env("LIBVIRT_DRIVER_DIR", dir.join("no-drivers"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("libvirtd runs")
}

async fn next(events: &mut Events) -> LibvirtEvent {
    tokio::time::timeout(LONG, events.recv())
        .await
        .expect("an event in time")
        .expect("the queue is open")
}

async fn until_connected(events: &mut Events) {
    while next(events).await != LibvirtEvent::Connected {}
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

#[tokio::test]
async fn a_restart_is_survived_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(mut daemon) = Daemon::start(dir.path()) else {
        return;
    };
    let (libvirt, mut events) = Libvirt::spawn(Settings {
        uri: daemon.uri(),
        ..Settings::default()
    });
    until_connected(&mut events).await;
    let before = open_descriptors();
    for _ in 0..5 {
        daemon.kill();
        let LibvirtEvent::Lost { reason } = next(&mut events).await else {
            panic!("not lost")
        };
        assert!(
            reason.contains("stopped or restarted") || reason.contains("broke down"),
            "{reason}"
        );
        let error = libvirt.list_active().await.expect_err("not connected");
        assert!(matches!(error, LibvirtError::NotConnected { .. }), "{error:?}");
        assert!(error.to_string().contains(&daemon.uri()), "{error}");
        daemon.restart();
        until_connected(&mut events).await;
        assert_eq!(libvirt.list_active().await.expect("a list")[0].1, "test");
    }
    // The last connection may still be closing in its thread.
    let settled = async {
        while open_descriptors() > before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, settled)
        .await
        .expect("every old connection is closed");

    // Events flow over the new connection.
    let id = libvirt.list_active().await.expect("a list")[0].0;
    let uri = daemon.uri();
    let user = tokio::task::spawn_blocking(move || {
        let connect = virt::connect::Connect::open(Some(&uri)).expect("connected");
        let domain = connect.lookup_domain_by_name("test").expect("the domain");
        domain.suspend().expect("suspended");
        domain.destroy().expect("destroyed");
    });
    for expected in [
        Lifecycle::Suspended(SuspendedBy::Paused),
        Lifecycle::Stopped(StoppedBy::Destroyed),
    ] {
        let name = "test".to_owned();
        let event = LibvirtEvent::Lifecycle {
            id,
            name,
            event: expected,
        };
        assert_eq!(next(&mut events).await, event);
    }
    user.await.expect("no panic");
}

#[tokio::test]
async fn a_libvirtd_that_hangs_hangs_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(daemon) = Daemon::start(dir.path()) else {
        return;
    };
    let (libvirt, mut events) = Libvirt::spawn(Settings {
        uri: daemon.uri(),
        query: Duration::from_millis(300),
        ..Settings::default()
    });
    until_connected(&mut events).await;
    let id = libvirt.list_active().await.expect("a list")[0].0;

    daemon.signal("STOP");
    for _ in 0..3 {
        let error = libvirt.state(id).await.expect_err("no answer");
        assert!(matches!(error, LibvirtError::Timeout { .. }), "{error:?}");
        assert!(error.to_string().contains("state of"), "{error}");
    }
    // The keepalive ends it, and the threads that wait.
    let LibvirtEvent::Lost { reason } = next(&mut events).await else {
        panic!("not lost")
    };
    assert!(reason.contains("keepalive"), "{reason}");

    daemon.signal("CONT");
    until_connected(&mut events).await;
    assert_eq!(libvirt.state(id).await.expect("a state"), DomainState::Running);
}
