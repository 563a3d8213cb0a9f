//! Process ids of QEMU and of libvirt's daemon. libvirt has no calls for them.

use hybond_core::ids::DomainId;
use std::path::Path;

/// `virPidFileBuildPath(stateDir, name)`; the monolithic and the modular daemon share the directory.
const STATE_DIRS: [&str; 2] = ["/run/libvirt/qemu", "/var/run/libvirt/qemu"];

/// The programs that can have the QEMU driver.
const DAEMONS: [&str; 2] = ["virtqemud", "libvirtd"];

/// The process of the domain, if its file names one that runs and is this domain's QEMU.
pub(crate) fn read(id: DomainId, name: &str) -> Result<Option<u32>, String> {
    read_in(&STATE_DIRS, Path::new("/proc"), id, name)
}

fn read_in(dirs: &[&str], proc: &Path, id: DomainId, name: &str) -> Result<Option<u32>, String> {
    // libvirt refuses names with a slash; this is what the path relies on.
    if name.is_empty() || name.contains('/') {
        return Err(format!("{name:?} is no domain name"));
    }
    for dir in dirs {
        let path = Path::new(dir).join(format!("{name}.pid"));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
        };
        let pid: u32 = text
            .trim()
            .parse()
            .map_err(|_| format!("{} holds no process id", path.display()))?;
        return Ok(is_qemu_of(proc, pid, id).then_some(pid));
    }
    Ok(None)
}

/// Which daemon has libvirt's QEMU driver. Whoever it is holds `driver.pid` (`qemuStateInitialize()`), so that there is but one.
/// Its own pid file would not do: libvirtd's may be anywhere, and a virtqemud that waits for its lock has one, too.
pub(crate) fn daemon(uri: &str) -> Option<&'static str> {
    // Others, such as a user's own session or libvirt's test driver, have other folders.
    let of_this_host = uri.starts_with("qemu") && uri.contains(":///system");
    daemon_in(&STATE_DIRS, Path::new("/proc")).filter(|_| of_this_host)
}

fn daemon_in(dirs: &[&str], proc: &Path) -> Option<&'static str> {
    dirs.iter().find_map(|dir| {
        // Whatever cannot be read tells nothing; it is only shown.
        let pid: u32 = std::fs::read_to_string(Path::new(dir).join("driver.pid"))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let name = std::fs::read_to_string(proc.join(pid.to_string()).join("comm")).ok()?;
        DAEMONS.into_iter().find(|daemon| *daemon == name.trim())
    })
}

/// A pid file may outlive its process, and the id be someone else's by now. libvirt starts QEMU with `-uuid`.
fn is_qemu_of(proc: &Path, pid: u32, id: DomainId) -> bool {
    let Ok(cmdline) = std::fs::read(proc.join(pid.to_string()).join("cmdline")) else {
        return false;
    };
    let mut args = cmdline.split(|b| *b == 0);
    args.any(|arg| arg == b"-uuid") && args.next() == Some(id.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_file_names_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        let id: DomainId = "a2a2a2a2-0000-4000-8000-000000000002".parse().expect("a UUID");
        let (state, proc) = (dir.path().join("qemu"), dir.path().join("proc"));
        std::fs::create_dir_all(proc.join("77")).expect("a directory");
        std::fs::create_dir_all(&state).expect("a directory");
        let dirs = ["/nonexistent", state.to_str().expect("a text")];
        assert_eq!(read_in(&dirs, &proc, id, "web"), Ok(None), "no file");

        std::fs::write(state.join("web.pid"), "77\n").expect("written");
        assert_eq!(read_in(&dirs, &proc, id, "web"), Ok(None), "no such process");
        std::fs::write(proc.join("77/cmdline"), "vi\0-uuid\0").expect("written");
        assert_eq!(read_in(&dirs, &proc, id, "web"), Ok(None), "another process");
        let qemu = format!("qemu-system-x86_64\0-name\0guest=web\0-uuid\0{id}\0-m\x001G\0");
        std::fs::write(proc.join("77/cmdline"), qemu).expect("written");
        assert_eq!(read_in(&dirs, &proc, id, "web"), Ok(Some(77)));

        std::fs::write(state.join("web.pid"), "rubbish").expect("written");
        assert!(read_in(&dirs, &proc, id, "web").is_err());
        assert!(read_in(&dirs, &proc, id, "../web").is_err());
    }

    #[test]
    fn the_daemon_is_the_one_that_holds_the_driver_and_runs() {
        let dir = tempfile::tempdir().expect("a directory");
        let (state, proc) = (dir.path().join("qemu"), dir.path().join("proc"));
        std::fs::create_dir_all(proc.join("78")).expect("a directory");
        std::fs::create_dir_all(&state).expect("a directory");
        let dirs = ["/nonexistent", state.to_str().expect("a text")];
        assert_eq!(daemon_in(&dirs, &proc), None, "no file");

        std::fs::write(state.join("driver.pid"), "78\n").expect("written");
        assert_eq!(daemon_in(&dirs, &proc), None, "no such process");
        for (name, found) in [
            ("virtqemud", Some("virtqemud")),
            ("libvirtd", Some("libvirtd")),
            ("vi", None),
        ] {
            std::fs::write(proc.join("78/comm"), format!("{name}\n")).expect("written");
            assert_eq!(daemon_in(&dirs, &proc), found);
        }
        std::fs::write(state.join("driver.pid"), "rubbish").expect("written");
        assert_eq!(daemon_in(&dirs, &proc), None);
        assert_eq!(daemon("test:///default"), None, "of no host");
    }
}
