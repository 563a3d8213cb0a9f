//! One QEMU.

use hybond_qmp::{LinkEvent, Qmp, QmpLink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// A QEMU process, and a folder for its sockets. Both go with it.
pub struct Qemu {
    child: Child,
    directory: TempDir,
}

impl Qemu {
    /// A machine with two root ports, whose CPUs do not run.
    #[must_use]
    pub fn idle() -> Self {
        Self::idle_in(tempfile::tempdir().expect("temporary directory"))
    }

    /// As [`Self::idle`], with its sockets in a folder that another one had before.
    ///
    /// # Panics
    /// Where QEMU is not installed.
    #[must_use]
    pub fn idle_in(directory: TempDir) -> Self {
        Self::start(
            &["-S", "-m", "128", "-accel", "tcg,tb-size=16"].map(str::to_owned),
            directory,
        )
    }

    /// Starts a QEMU with what every one of these tests needs: q35, two root ports, two monitors (`qmp` and `other`);
    /// and then with these arguments.
    ///
    /// # Panics
    /// Where QEMU is not installed.
    #[must_use]
    pub fn start(arguments: &[String], directory: TempDir) -> Self {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-machine", "q35", "-nodefaults", "-display", "none", "-no-user-config"]);
        for port in ["1", "2"] {
            command.arg("-device");
            command.arg(format!("pcie-root-port,id=rp{port},chassis={port},slot={port}"));
        }
        for name in ["qmp", "other"] {
            let path = directory.path().join(name);
            command
                .arg("-qmp")
                .arg(format!("unix:{},server=on,wait=off", path.display()));
        }
        let child = command
            .args(arguments)
            .stdin(Stdio::null())
            .spawn()
            .expect("qemu-system-x86_64 runs: it is in Debian's package qemu-system-x86");
        Self { child, directory }
    }

    /// A path in its folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Hybond's monitor, as soon as it is there.
    ///
    /// # Panics
    /// Where it is not there in time.
    pub async fn link(&self) -> (QmpLink, mpsc::Receiver<Box<LinkEvent>>, Qmp) {
        let (link, events) = QmpLink::spawn(self.path("qmp"));
        let qmp = link.connected(crate::LONG).await.expect("QEMU answers");
        (link, events, qmp)
    }

    /// Kills it; its folder stays.
    ///
    /// # Panics
    /// Where it cannot be killed.
    #[must_use]
    pub fn kill(mut self) -> TempDir {
        self.end();
        let other = tempfile::tempdir().expect("temporary directory");
        std::mem::replace(&mut self.directory, other)
    }

    fn end(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// The folder of its sockets.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.end();
    }
}
