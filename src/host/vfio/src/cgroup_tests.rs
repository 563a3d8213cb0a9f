use super::*;
use crate::bpf::tests::{attach, create_map, load_program, own};
use crate::testing::Opener;
use std::fs::File;
use std::path::PathBuf;

const NULL: DevNumber = DevNumber::new(1, 3);
const ZERO: DevNumber = DevNumber::new(1, 5);

/// A cgroup of our own; removed at the end.
struct TestCgroup(PathBuf);

impl TestCgroup {
    fn new(name: &str) -> Option<Self> {
        let point = mount_point().expect("readable")?;
        let path = PathBuf::from(point).join(format!("hb-{name}-{}", std::process::id()));
        match fs::create_dir(&path) {
            Ok(()) => Some(Self(path)),
            Err(e) => {
                eprintln!("skipped: no cgroup can be made ({e})");
                None
            }
        }
    }

    fn below(&self, name: &str) -> Self {
        let path = self.0.join(name);
        fs::create_dir(&path).expect("as its parent");
        Self(path)
    }

    fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("a process moves");
    }

    fn fd(&self) -> File {
        File::open(&self.0).expect("our folder")
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        // The kernel is done with the last member some time after it was waited for.
        for _ in 0..1000 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::yield_now();
        }
        eprintln!("{} is left", self.0.display());
    }
}

#[test]
fn a_device_is_allowed_in_the_map_of_the_program_above_and_denied_again() {
    let Some(scope) = TestCgroup::new("scope") else { return };
    // As libvirt nests them: the program on one level, QEMU below it.
    let emulator = scope.below("emulator");
    let map = create_map(8, 4);
    let program = load_program(&map);
    attach(&program, &scope.fd());
    let map = own(map);
    map.set(key(NULL), 6 << 16 | 2).expect("libvirt's own entry");
    let Some(mut qemu) = Opener::shared_dev() else { return };
    emulator.take(qemu.pid());
    let process = Process::open(qemu.pid()).expect("it runs");

    assert!(qemu.can_open("/dev/null"), "libvirt allows it");
    assert!(!qemu.can_open("/dev/zero"));

    let maps = DeviceMaps::of(&process).expect("readable");
    assert_eq!(maps.len(), 1);
    maps.allow(ZERO).expect("allowed");
    assert!(qemu.can_open("/dev/zero"));
    assert_eq!(maps.allowed_of(1).expect("readable").len(), 2);

    // Found anew, as after a restart.
    let maps = DeviceMaps::of(&process).expect("readable");
    maps.deny(ZERO).expect("denied");
    maps.deny(ZERO).expect("and again");
    assert!(!qemu.can_open("/dev/zero"));
    assert!(qemu.can_open("/dev/null"), "libvirt's own entries stay");
    qemu.end();
    drop(emulator);
}

#[test]
fn what_libvirt_allows_with_more_rights_keeps_them() {
    let Some(scope) = TestCgroup::new("more") else { return };
    let map = create_map(8, 4);
    attach(&load_program(&map), &scope.fd());
    let map = own(map);
    map.set(key(NULL), 7 << 16 | 2).expect("an entry");
    let Some(qemu) = Opener::shared_dev() else { return };
    scope.take(qemu.pid());
    let process = Process::open(qemu.pid()).expect("it runs");
    DeviceMaps::of(&process).expect("readable").allow(NULL).expect("is so");
    assert_eq!(map.get(key(NULL)).expect("readable"), Some(7 << 16 | 2));
    qemu.end();
}

#[test]
fn without_a_program_there_is_nothing_to_grant() {
    let Some(scope) = TestCgroup::new("free") else { return };
    let Some(mut qemu) = Opener::shared_dev() else { return };
    scope.take(qemu.pid());
    let process = Process::open(qemu.pid()).expect("it runs");
    let maps = DeviceMaps::of(&process).expect("readable");
    assert_eq!(maps.len(), 0);
    maps.allow(ZERO).expect("nothing to do");
    maps.deny(ZERO).expect("nothing to do");
    assert!(qemu.can_open("/dev/zero"));
    qemu.end();
}

#[test]
fn a_map_that_is_not_libvirts_is_not_written() {
    let Some(scope) = TestCgroup::new("foreign") else {
        return;
    };
    let map = create_map(8, 4);
    attach(&load_program(&map), &scope.fd());
    let map = own(map);
    map.set(key(NULL), 0xdead_beef).expect("someone's entry");
    let Some(qemu) = Opener::shared_dev() else { return };
    scope.take(qemu.pid());
    let process = Process::open(qemu.pid()).expect("it runs");
    match DeviceMaps::of(&process) {
        Err(GrantError::ForeignProgram { found, .. }) => assert!(found.contains("0xdeadbeef"), "{found}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("taken for libvirt's"),
    }
    qemu.end();
}

#[test]
fn a_map_of_another_shape_is_not_opened() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: not root");
        return;
    }
    let Some(scope) = TestCgroup::new("shape") else { return };
    // The program reads 4 bytes of each value; the kernel would copy 8 into our 4.
    let map = create_map(8, 8);
    attach(&load_program(&map), &scope.fd());
    let programs = bpf::device_programs(&scope.fd()).expect("readable");
    let shapes: Vec<_> = programs
        .iter()
        .flat_map(|p| bpf::maps_of(*p).expect("readable"))
        .map(|id| {
            Map::open(id)
                .expect("readable")
                .err()
                .map(|i| (i.key_size, i.value_size))
        })
        .collect();
    assert_eq!(shapes, [Some((8, 8))]);
}
