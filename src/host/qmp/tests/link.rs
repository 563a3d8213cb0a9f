//! The link's persistence.

use hybond_qmp::{QmpLink, remove_dead_socket};
use std::io::ErrorKind;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::time::{Instant, timeout};

#[tokio::test]
async fn a_hint_cuts_a_pause_short() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("qmp");
    let listener = UnixListener::bind(&path).expect("bind");
    let (link, _events) = QmpLink::spawn(path);
    // Nobody greets it: each pause is twice the one before.
    let mut last = Instant::now();
    let mut pauses = Vec::new();
    for _ in 0..6 {
        timeout(Duration::from_secs(20), listener.accept())
            .await
            .expect("tried")
            .expect("accepted");
        pauses.push(last.elapsed());
        last = Instant::now();
    }
    link.try_now();
    timeout(Duration::from_secs(20), listener.accept())
        .await
        .expect("tried")
        .expect("accepted");
    // Not timed, but compared: the next would have been of 1.6 s, the last was of 0.8 s.
    assert!(last.elapsed() < pauses[5], "{:?} after {pauses:?}", last.elapsed());
}

#[tokio::test]
async fn the_socket_of_a_qemu_that_was_killed_is_removed_and_no_other() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("qmp");
    assert!(!remove_dead_socket(&path).await.expect("nothing there"));

    let listener = UnixListener::bind(&path).expect("bind");
    let error = remove_dead_socket(&path).await.expect_err("of a QEMU that lives");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(path.exists());

    // As the kernel leaves it when a process is killed.
    drop(listener);
    assert!(remove_dead_socket(&path).await.expect("removed"));
    assert!(!path.exists());
}
