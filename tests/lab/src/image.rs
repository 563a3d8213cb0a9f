//! The guest's initramfs with the programs of a test: an archive that is appended to the base, so that a rebuilt agent
//! does not mean a rebuilt image.

use crate::cache;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// Writes an initramfs with the given programs, each a file here and its name below `/sbin` in the guest.
///
/// # Errors
/// The base cannot be built, or a file not be read or written.
pub fn guest_image(programs: &[(&Path, &str)], out: &Path) -> Result<()> {
    let base = cache::artifact("guest")?.join("initramfs");
    let mut image = fs::read(&base).with_context(|| format!("cannot read {}", base.display()))?;
    let mut inode = 1;
    for (file, name) in programs {
        let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        append(&mut image, inode, &format!("sbin/{name}"), 0o100_755, &content);
        inode += 1;
    }
    append(&mut image, inode, "TRAILER!!!", 0, &[]);
    fs::write(out, image).with_context(|| format!("cannot write {}", out.display()))
}

/// One entry of a "newc" archive: header, name and content, each filled up to four bytes. The kernel takes archives that
/// follow each other at such a boundary (Documentation/driver-api/early-userspace/buffer-format.rst).
fn append(image: &mut Vec<u8>, inode: u32, name: &str, mode: u32, content: &[u8]) {
    let fill = |image: &mut Vec<u8>| image.resize(image.len().next_multiple_of(4), 0);
    fill(image);
    let links = 1;
    // inode, mode, uid, gid, links, mtime, size, device major and minor, rdev major and minor, length of name, check
    let fields = [
        inode,
        mode,
        0,
        0,
        links,
        0,
        content.len() as u32,
        0,
        0,
        0,
        0,
        name.len() as u32 + 1,
        0,
    ];
    image.extend_from_slice(b"070701");
    for field in fields {
        image.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    image.extend_from_slice(name.as_bytes());
    image.push(0);
    fill(image);
    image.extend_from_slice(content);
    fill(image);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn what_is_appended_is_what_cpio_reads() {
        let mut archive = Vec::new();
        append(&mut archive, 1, "sbin/hybond-agent", 0o100_755, b"\x7fELF odd");
        append(&mut archive, 2, "TRAILER!!!", 0, &[]);
        let list = process::run(
            Command::new("cpio").args(["-itv", "--quiet"]),
            Some(&archive),
            Duration::from_secs(10),
        )
        .expect("cpio runs");
        assert!(list.success(), "{}", list.stderr);
        assert!(
            list.stdout.contains("-rwxr-xr-x") && list.stdout.contains("8 Jan  1  1970 sbin/hybond-agent"),
            "{list:?}"
        );
    }
}
