//! The character device of a macvtap.

use crate::{Error, Link, Result};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::Duration;

/// How often, and how far apart, a macvtap's character device is looked for.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Waits, with a limit, for the character device that QEMU or libvirt will open. devtmpfs has it before the device's
/// creation is acknowledged; a /dev that udev fills has it a little later.
pub(crate) async fn check(link: &Link) -> Result<()> {
    let node = format!("/dev/tap{}", link.index);
    let unusable = |reason: String| Error::TapNode {
        name: link.name.clone(),
        node: node.clone(),
        reason,
    };
    for _ in 0..LOOKS {
        match tokio::fs::metadata(&node).await {
            Ok(found) if !found.file_type().is_char_device() => {
                return Err(unusable("it is a plain file; remove it".to_owned()));
            }
            Ok(found) => return check_number(link, found.rdev(), unusable).await,
            Err(error) if error.kind() == io::ErrorKind::NotFound => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(unusable(error.to_string())),
        }
    }
    Err(unusable(
        "neither devtmpfs nor udev has made it; mount a devtmpfs on /dev".to_owned(),
    ))
}

/// All network namespaces share one /dev: of two macvtaps with the same index, only the first has a node.
async fn check_number(link: &Link, found: u64, unusable: impl Fn(String) -> Error) -> Result<()> {
    let path = format!("/sys/class/net/{}/macvtap/tap{}/dev", link.name, link.index);
    // Without a /sys of this network namespace there is nothing to compare with.
    let Ok(wanted) = tokio::fs::read_to_string(path).await else {
        return Ok(());
    };
    let found = format!("{}:{}", nix::sys::stat::major(found), nix::sys::stat::minor(found));
    if wanted.trim() == found {
        return Ok(());
    }
    Err(unusable(
        "it belongs to a macvtap of the same index in another network namespace; make this one again".to_owned(),
    ))
}
