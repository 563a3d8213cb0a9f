use super::*;
use crate::testing::Opener;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::os::unix::fs::MetadataExt;

/// /dev/zero in the place of a VFIO group: a device that every kernel has.
const GROUP: DevNumber = DevNumber::new(1, 5);

#[test]
fn a_private_dev_gets_the_group_for_qemus_user_and_loses_it_again() {
    let Some(mut qemu) = Opener::private_dev() else { return };
    // As in hybondd's unit; for this thread only.
    unshare(CloneFlags::CLONE_FS).expect("always allowed");
    nix::sys::stat::umask(Mode::from_bits_truncate(0o077));
    let process = Process::open(qemu.pid()).expect("it runs");
    let nodes = Nodes::of(&process).expect("it has a /dev");
    assert!(nodes.private());
    assert!(!qemu.can_open("/dev/vfio/7"));

    for _ in 0..2 {
        nodes.grant_container().expect("granted");
        nodes
            .grant_group(7, GROUP, process.owner().expect("it runs"))
            .expect("granted");
    }
    assert!(qemu.can_open("/dev/vfio/7"));
    let seen = std::fs::metadata(format!("/proc/{}/root/dev/vfio/7", qemu.pid())).expect("made");
    assert_eq!((seen.uid(), seen.gid(), seen.mode() & 0o777), (65534, 65534, 0o600));
    assert!(
        !std::path::Path::new("/dev/vfio/7").exists(),
        "the host's /dev is another"
    );

    nodes.grant_group(8, GROUP, (65534, 65534)).expect("a second primary");
    assert!(nodes.other_groups(7).expect("readable"));
    for _ in 0..2 {
        nodes.revoke_group(7, GROUP, None).expect("taken back");
    }
    assert!(!qemu.can_open("/dev/vfio/7"));
    assert!(qemu.exists("/dev/vfio/vfio"), "the other group needs it");
    nodes.revoke_group(8, GROUP, None).expect("taken back");
    for _ in 0..2 {
        nodes.revoke_container().expect("taken back");
    }
    assert!(!qemu.exists("/dev/vfio"), "nothing is left");
    qemu.end();
}

#[test]
fn a_number_that_was_another_groups_is_made_anew() {
    let Some(mut qemu) = Opener::private_dev() else { return };
    let process = Process::open(qemu.pid()).expect("it runs");
    let nodes = Nodes::of(&process).expect("it has a /dev");
    nodes
        .grant_group(7, DevNumber::new(240, 9), (65534, 65534))
        .expect("granted");
    assert!(!qemu.can_open("/dev/vfio/7"), "no such device");
    nodes.grant_group(7, GROUP, (65534, 65534)).expect("granted");
    assert!(qemu.can_open("/dev/vfio/7"));
    qemu.end();
}

#[test]
fn a_shared_dev_lends_the_hosts_node_and_gives_it_back() {
    // A /dev of this thread's own, so that the machine's is not touched; the child shares it.
    if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        eprintln!("skipped: not root");
        return;
    }
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("our namespace");
    mount(Some("none"), "/dev", Some("tmpfs"), MsFlags::empty(), none).expect("our namespace");
    std::fs::create_dir("/dev/vfio").expect("an empty /dev");
    let all = Mode::from_bits_truncate(0o600);
    nix::sys::stat::mknod("/dev/vfio/7", SFlag::S_IFCHR, all, GROUP.rdev()).expect("a node");
    nix::sys::stat::mknod(
        "/dev/null",
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o666),
        DevNumber::new(1, 3).rdev(),
    )
    .expect("a node");
    std::fs::set_permissions("/dev/null", std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("ours");
    nix::unistd::chown("/dev/vfio/7", Some(Uid::from_raw(0)), Some(Gid::from_raw(7))).expect("ours");

    let mut qemu = Opener::shared_dev().expect("as root");
    let process = Process::open(qemu.pid()).expect("it runs");
    let nodes = Nodes::of(&process).expect("it has a /dev");
    assert!(!nodes.private());
    assert!(!qemu.can_open("/dev/vfio/7"), "it is root's");
    let before = nodes.owner_before(7, GROUP).expect("there");
    assert_eq!(before, Some((0, 7)));
    nodes.grant_group(7, GROUP, (65534, 65534)).expect("granted");
    assert!(qemu.can_open("/dev/vfio/7"));
    assert!(
        matches!(nodes.grant_container(), Err(GrantError::Node { .. })),
        "the host has none, and it is not ours to make"
    );
    nodes.revoke_group(7, GROUP, before).expect("taken back");
    assert!(!qemu.can_open("/dev/vfio/7"));
    let seen = std::fs::metadata("/dev/vfio/7").expect("still there");
    assert_eq!((seen.uid(), seen.gid()), (0, 7));

    // After a restart of the daemon: no record, so it goes to root.
    nodes.grant_group(7, GROUP, (65534, 65534)).expect("granted");
    Nodes::host()
        .expect("a /dev")
        .revoke_group(7, GROUP, None)
        .expect("taken back");
    assert!(!qemu.can_open("/dev/vfio/7"));
    qemu.end();
}

#[test]
fn links_in_a_private_dev_lead_nowhere() {
    let Some(qemu) = Opener::private_dev() else { return };
    let process = Process::open(qemu.pid()).expect("it runs");
    let outside = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(outside.path(), format!("/proc/{}/root/dev/vfio", qemu.pid())).expect("a link");
    let nodes = Nodes::of(&process).expect("it has a /dev");
    let granted = nodes.grant_group(7, GROUP, (65534, 65534));
    assert!(matches!(granted, Err(GrantError::Node { .. })), "{granted:?}");
    assert_eq!(std::fs::read_dir(outside.path()).expect("ours").count(), 0);
    qemu.end();
}

#[test]
fn a_process_that_ended_is_gone() {
    let Some(qemu) = Opener::private_dev() else { return };
    let process = Process::open(qemu.pid()).expect("it runs");
    let pid = qemu.pid();
    qemu.end();
    assert!(matches!(process.owner(), Err(GrantError::Gone(p)) if p == pid));
    assert!(matches!(Process::open(pid), Err(GrantError::Gone(_))));
}
