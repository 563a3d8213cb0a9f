use super::*;
use crate::testing::{Opener, bdf};

const MIB: u64 = 1 << 20;

#[test]
fn the_limit_is_raised_once_and_set_back_after_the_last_vf() {
    let Some(qemu) = Opener::private_root() else { return };
    let process = Process::open(qemu.pid()).expect("it runs");
    let (one, two) = (bdf("01:10.0"), bdf("01:10.2"));
    let soft = || limit(&process).expect("it runs").soft;
    let before = limit(&process).expect("it runs");
    assert_eq!(before.soft, 64 * 1024);

    let mut ledger = Ledger::default();
    ledger.raise(&process, one, MIB).expect("below the hard limit");
    ledger.raise(&process, two, MIB).expect("is so");
    assert_eq!(soft(), MIB);
    ledger.restore(&process, one).expect("fine");
    assert_eq!(soft(), MIB, "the other VF needs it");
    ledger.restore(&process, two).expect("fine");
    assert_eq!(limit(&process).expect("it runs"), before);
    ledger.restore(&process, two).expect("nothing to do");
    qemu.end();
}

#[test]
fn a_limit_that_libvirt_changed_meanwhile_is_left_alone() {
    let Some(qemu) = Opener::private_root() else { return };
    let process = Process::open(qemu.pid()).expect("it runs");
    let vf = bdf("01:10.0");
    let mut ledger = Ledger::default();
    ledger.raise(&process, vf, MIB).expect("below the hard limit");
    let now = limit(&process).expect("it runs");
    let theirs = Limit {
        soft: 2 * MIB,
        hard: now.hard,
    };
    set(&process, theirs).expect("below the hard limit");
    ledger.restore(&process, vf).expect("fine");
    assert_eq!(limit(&process).expect("it runs"), theirs);
    qemu.end();
}

#[test]
fn a_refused_limit_names_the_remedy() {
    let Some(qemu) = Opener::private_root() else { return };
    let process = Process::open(qemu.pid()).expect("it runs");
    let mut ledger = Ledger::default();
    // Root has CAP_SYS_RESOURCE on most machines; without it, this is what an operator sees.
    match ledger.raise(&process, bdf("01:10.0"), u64::MAX) {
        Ok(()) => assert_eq!(limit(&process).expect("it runs").soft, libc::RLIM_INFINITY),
        Err(e) => {
            let text = e.to_string();
            assert!(
                text.contains("CAP_SYS_RESOURCE") && text.contains("hard_limit"),
                "{text}"
            );
            assert_eq!(limit(&process).expect("it runs").soft, 64 * 1024);
        }
    }
    qemu.end();
}
