//! QEMU's process id. libvirt has no call for it.

use hybond_core::ids::DomainId;
use std::path::Path;

/// `virPidFileBuildPath(stateDir, name)`; the monolithic and the modular daemon share the directory.
const STATE_DIRS: [&str; 2] = ["/run/libvirt/qemu", "/var/run/libvirt/qemu"];

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
}
