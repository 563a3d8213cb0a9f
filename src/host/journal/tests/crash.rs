//! A writer that is killed, a disk that is full, a file system that takes no writes.

use hybond_core::ids::DomainId;
use hybond_journal::{Journal, JournalError};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ID: [u8; 16] = [7; 16];
/// Set for the child that is killed: the journal's directory.
const CHILD: &str = "HYBOND_JOURNAL_TEST_DIR";

/// Some hundred KiB, so that a kill often hits a write.
fn record(number: u64) -> (u64, String) {
    (number, number.to_string().repeat(30_000))
}

/// Not a test by itself: writes records for ever and tells each that is durable.
#[test]
fn writer() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let journal = Journal::open(dir).expect("opened");
    for number in 0.. {
        journal
            .put(&DomainId::from_bytes(ID), &record(number))
            .expect("written");
        // Straight to the descriptor: the harness holds back what is printed.
        nix::unistd::write(std::io::stderr(), format!("durable {number}\n").as_bytes()).expect("told");
    }
}

#[test]
fn a_killed_writer_leaves_the_last_record_or_the_next_and_no_litter() {
    let dir = tempfile::tempdir().expect("a directory");
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "writer", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let mut told = None;
        for line in lines.by_ref() {
            let line = line.expect("a line");
            if let Some(number) = line.strip_prefix("durable ") {
                told = number.parse::<u64>().ok();
                if told >= Some(round) {
                    break;
                }
            }
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
        for line in lines {
            let line = line.expect("a line");
            told = line.strip_prefix("durable ").and_then(|n| n.parse().ok()).or(told);
        }
        let told = told.expect("at least one record");

        let journal = Journal::open(dir.path()).expect("opened after the crash");
        let (number, text) = journal
            .get::<(u64, String)>(&DomainId::from_bytes(ID))
            .expect("whole")
            .expect("there");
        assert!(number == told || number == told + 1, "{number} after {told}");
        assert_eq!((number, text), record(number));
        assert_eq!(
            names(&dir.path().join("domains")),
            [format!("{}.json", DomainId::from_bytes(ID))]
        );
    }
}

#[test]
fn temporary_files_of_a_dead_writer_are_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(Journal::open(dir.path()).expect("opened"));
    std::fs::write(dir.path().join("domains/.new-0"), "half a rec").expect("written");
    std::fs::write(dir.path().join("named/.new-17"), "").expect("written");
    let journal = Journal::open(dir.path()).expect("opened");
    assert_eq!(names(&dir.path().join("domains")), [""; 0]);
    assert_eq!(names(&dir.path().join("named")), [""; 0]);
    journal.put(&DomainId::from_bytes(ID), &1).expect("the name is free");
}

#[test]
fn a_full_disk_keeps_the_old_record() {
    on_tmpfs("size=64k", |dir| {
        let journal = Journal::open(dir).expect("opened");
        let id = DomainId::from_bytes(ID);
        journal.put(&id, &"old").expect("written");
        let error = journal.put(&id, &"x".repeat(256 * 1024)).expect_err("no space");
        assert!(matches!(error, JournalError::Full { .. }), "{error:?}");
        assert!(error.to_string().contains("file system is full"), "{error}");
        assert_eq!(journal.get::<String>(&id).expect("whole").as_deref(), Some("old"));
        assert_eq!(names(&dir.join("domains")), [format!("{id}.json")]);
        // The space of the attempt is free again.
        journal.put(&id, &"x".repeat(8 * 1024)).expect("written");
    });
}

#[test]
fn a_line_that_a_crash_has_cut_short_is_no_record() {
    let id = DomainId::from_bytes(ID);
    let written = |records: &[&str]| {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).expect("opened");
        for record in records {
            journal.put(&id, record).expect("written");
        }
        let file = dir.path().join(format!("domains/{id}.json"));
        let content = std::fs::read(&file).expect("there");
        (dir, journal, file, content)
    };
    let (_, _, _, old) = written(&["old"]);
    let (_dir, journal, file, both) = written(&["old", "new"]);
    assert!(both.starts_with(&old), "a record is added");
    for cut in old.len()..=both.len() {
        // What was not written of a file that is longer by now is zeros.
        for zeros in [0, both.len() - cut] {
            let mut content = both[..cut].to_vec();
            content.resize(cut + zeros, 0);
            std::fs::write(&file, &content).expect("cut");
            let expected = if cut == both.len() { "new" } else { "old" };
            let found = journal.get::<String>(&id).expect("whole");
            assert_eq!(found.as_deref(), Some(expected), "cut at {cut}, {zeros} zeros");
            journal.put(&id, &"newest").expect("written");
            assert_eq!(journal.get::<String>(&id).expect("whole").as_deref(), Some("newest"));
        }
    }
}

#[test]
fn a_file_does_not_grow_without_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(dir.path()).expect("opened");
    let id = DomainId::from_bytes(ID);
    let file = dir.path().join(format!("domains/{id}.json"));
    for number in 0..1000 {
        let record = (number, "x".repeat(number));
        journal.put(&id, &record).expect("written");
        assert_eq!(journal.get(&id).expect("whole"), Some(record));
        assert!(std::fs::metadata(&file).expect("there").len() <= 16 * 1024);
    }
    // One that is longer than that is a file by itself.
    for number in [20_000, 3, 30_000, 40_000] {
        let record = (number, "x".repeat(number));
        journal.put(&id, &record).expect("written");
        assert_eq!(journal.get(&id).expect("whole"), Some(record));
    }
}

#[test]
fn a_full_disk_keeps_the_old_record_in_a_file_that_grows() {
    on_tmpfs("size=12k", |dir| {
        let journal = Journal::open(dir).expect("opened");
        let id = DomainId::from_bytes(ID);
        let record = |number: u32| (number, "x".repeat(1000));
        let mut kept = 0;
        let error = loop {
            match journal.put(&id, &record(kept + 1)) {
                Ok(()) => kept += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, JournalError::Full { .. }), "{error:?}");
        assert!(kept > 1, "it has grown");
        assert_eq!(journal.get(&id).expect("whole"), Some(record(kept)));
        let content = std::fs::read(dir.join(format!("domains/{id}.json"))).expect("there");
        assert_eq!(content.last(), Some(&b'\n'), "nothing of the attempt is left");
    });
}

#[test]
fn a_disk_without_inodes_keeps_the_old_record() {
    // Root, three directories, the lock, the record.
    on_tmpfs("nr_inodes=6", |dir| {
        let journal = Journal::open(dir).expect("opened");
        let id = DomainId::from_bytes(ID);
        journal.put(&id, &"old").expect("written");
        let error = journal.put(&id, &"x".repeat(20_000)).expect_err("no inode");
        assert!(matches!(error, JournalError::Full { .. }), "{error:?}");
        assert_eq!(journal.get::<String>(&id).expect("whole").as_deref(), Some("old"));
        journal.remove(&id).expect("removing needs no space");
    });
}

#[test]
fn a_read_only_file_system_is_named() {
    on_tmpfs("size=64k", |dir| {
        let journal = Journal::open(dir).expect("opened");
        let id = DomainId::from_bytes(ID);
        journal.put(&id, &"old").expect("written");
        // Files of the journal are open for reading only, but for the lock.
        drop(journal);
        remount_read_only(dir);
        let error = Journal::open(dir).expect_err("no writes");
        assert!(matches!(error, JournalError::ReadOnly { .. }), "{error:?}");
        assert!(error.to_string().contains("read-only"), "{error}");
    });
}

fn remount_read_only(dir: &Path) {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    let remount = || mount(Some("tmpfs"), dir, Some("tmpfs"), flags, None::<&str>);
    // Another test's child process has the journal's files, too, from its fork to its exec.
    let until = Instant::now() + Duration::from_secs(20);
    let mut done = remount();
    while done == Err(Errno::EBUSY) && Instant::now() < until {
        std::thread::yield_now();
        done = remount();
    }
    done.expect("remounted");
}

/// Runs `test` with a small file system of its own, in a thread with a mount namespace of its own. Without the right to
/// mount there is nothing to run.
fn on_tmpfs(options: &'static str, test: impl FnOnce(&Path) + Send + 'static) {
    let thread = std::thread::spawn(move || {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNS) {
            eprintln!("skipped: no mount namespace ({errno})");
            return;
        }
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private");
        let dir = tempfile::tempdir().expect("a directory");
        mount(
            Some("tmpfs"),
            dir.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options),
        )
        .expect("mounted");
        test(dir.path());
        nix::mount::umount2(dir.path(), nix::mount::MntFlags::MNT_DETACH).expect("unmounted");
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .expect("listed")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a text"))
        .collect();
    names.sort();
    names
}
