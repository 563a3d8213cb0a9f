//! What the daemon can rely on.

use hybond_core::ids::DomainId;
use hybond_journal::{Journal, JournalError, LIMIT, RUNS};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

type Record = BTreeMap<String, String>;

fn id(n: u8) -> DomainId {
    DomainId::from_bytes([n; 16])
}

fn record(value: &str) -> Record {
    BTreeMap::from([("vf".to_owned(), value.to_owned())])
}

fn file(dir: &Path, n: u8) -> std::path::PathBuf {
    dir.join("domains").join(format!("{}.json", id(n)))
}

#[test]
fn what_is_put_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    {
        let journal = Journal::open(dir.path()).expect("opened");
        journal.put(&id(2), &record("0000:01:10.2")).expect("written");
        journal.put(&id(1), &record("old")).expect("written");
        journal.put(&id(1), &record("0000:01:10.0")).expect("written");
        journal.put(&id(3), &record("gone")).expect("written");
        journal.remove(&id(3)).expect("removed");
        journal.remove(&id(3)).expect("nothing to remove");
        journal.put_named("leases", &record("all")).expect("written");
    }
    let journal = Journal::open(dir.path()).expect("opened");
    let all = journal.load_all::<Record>().expect("listed");
    let all: Vec<_> = all.into_iter().map(|(id, r)| (id, r.expect("whole"))).collect();
    assert_eq!(all, [(id(1), record("0000:01:10.0")), (id(2), record("0000:01:10.2"))]);
    assert_eq!(
        journal.get::<Record>(&id(1)).expect("whole"),
        Some(record("0000:01:10.0"))
    );
    assert_eq!(journal.get::<Record>(&id(3)).expect("read"), None);
    assert_eq!(
        journal.get_named::<Record>("leases").expect("whole"),
        Some(record("all"))
    );
    journal.remove_named("leases").expect("removed");
    assert_eq!(journal.get_named::<Record>("leases").expect("read"), None);
}

#[test]
fn nobody_else_may_look() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("set");
    let journal = Journal::open(dir.path()).expect("opened");
    journal.put(&id(1), &record("x")).expect("written");
    journal.append_run(&id(1), &record("run")).expect("written");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    for path in ["", "domains", "named", "timelines"] {
        assert_eq!(mode(&dir.path().join(path)), 0o700, "{path}");
    }
    assert_eq!(mode(&file(dir.path(), 1)), 0o600);
    assert_eq!(mode(&dir.path().join(format!("timelines/{}.jsonl", id(1)))), 0o600);
}

#[test]
fn a_damaged_record_is_set_aside_and_the_others_are_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(dir.path()).expect("opened");
    for n in 1..=4 {
        journal.put(&id(n), &record("good")).expect("written");
    }
    fs::write(file(dir.path(), 1), "").expect("written");
    fs::write(file(dir.path(), 2), "{\"version\":1,\"record\":[1,2").expect("written");
    fs::write(file(dir.path(), 3), vec![b'x'; LIMIT + 10]).expect("written");
    fs::write(dir.path().join("domains/notes.json"), "someone's").expect("written");

    let mut good = Vec::new();
    for (domain, result) in journal.load_all::<Record>().expect("listed") {
        match result {
            Ok(record) => good.push((domain, record)),
            Err(JournalError::Damaged { path, aside, .. }) => {
                assert!(!path.exists() && aside.exists(), "{path:?} {aside:?}");
                assert!(aside.to_string_lossy().ends_with(".json.damaged"));
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(good, [(id(4), record("good"))]);
    // Told once; the place is free again.
    assert_eq!(journal.load_all::<Record>().expect("listed").len(), 1);
    journal.put(&id(2), &record("new")).expect("written");
    assert_eq!(journal.get::<Record>(&id(2)).expect("whole"), Some(record("new")));
}

#[test]
fn a_record_of_a_newer_release_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(dir.path()).expect("opened");
    let text = "{\"version\":2,\"record\":{\"unheard\":[1]}}";
    fs::write(file(dir.path(), 1), text).expect("written");
    let error = journal.get::<Record>(&id(1)).expect_err("a newer one");
    assert!(matches!(error, JournalError::Version { found: 2, .. }), "{error:?}");
    assert_eq!(fs::read_to_string(file(dir.path(), 1)).expect("still there"), text);
}

#[test]
fn too_large_a_record_leaves_the_old_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(dir.path()).expect("opened");
    journal.put(&id(1), &record("old")).expect("written");
    let error = journal.put(&id(1), &record(&"x".repeat(LIMIT))).expect_err("too large");
    assert!(matches!(error, JournalError::TooLarge { .. }), "{error:?}");
    assert_eq!(journal.get::<Record>(&id(1)).expect("whole"), Some(record("old")));
}

#[test]
fn a_second_daemon_is_kept_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = Journal::open(dir.path()).expect("opened");
    let error = Journal::open(dir.path()).expect_err("in use");
    assert!(matches!(error, JournalError::InUse { .. }), "{error:?}");
    drop(first);
    Journal::open(dir.path()).expect("free again");
}

#[test]
fn names_cannot_leave_the_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(dir.path()).expect("opened");
    for name in ["", "../x", "a/b", "A", ".hidden"] {
        let error = journal.put_named(name, &1).expect_err(name);
        assert!(matches!(error, JournalError::Name { .. }), "{error:?}");
    }
}

#[test]
fn the_last_runs_are_kept_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(dir.path()).expect("opened");
    assert_eq!(journal.runs::<u32>(&id(1), 10).expect("none"), [0u32; 0]);
    for run in 0..1000u32 {
        journal.append_run(&id(1), &run).expect("written");
        let runs = journal.runs::<u32>(&id(1), usize::MAX).expect("read");
        let first = (run + 1).saturating_sub(RUNS as u32);
        assert_eq!(runs, (first..=run).collect::<Vec<_>>());
    }
    let path = dir.path().join(format!("timelines/{}.jsonl", id(1)));
    let lines = fs::read_to_string(&path).expect("there").lines().count();
    assert!(lines < 2 * RUNS, "{lines} lines");
    assert_eq!(journal.runs::<u32>(&id(1), 2).expect("read"), [998, 999]);
    journal.remove_runs(&id(1)).expect("removed");
    assert!(!path.exists());
}

#[test]
fn a_run_cut_short_by_a_crash_spoils_no_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(dir.path()).expect("opened");
    journal.append_run(&id(1), &record("whole")).expect("written");
    let path = dir.path().join(format!("timelines/{}.jsonl", id(1)));
    let mut text = fs::read(&path).expect("there");
    text.extend_from_slice(b"{\"vf\":\"cut");
    fs::write(&path, text).expect("written");
    journal.append_run(&id(1), &record("after")).expect("written");
    assert_eq!(
        journal.runs::<Record>(&id(1), 10).expect("read"),
        [record("whole"), record("after")]
    );
}
