//! The link's persistence.

use hybond_qmp::QmpLink;
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
