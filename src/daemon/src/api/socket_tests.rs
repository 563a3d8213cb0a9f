//! Clients that are slow, silent, many, or send too much: none of them keeps another waiting.

use super::*;
use hybond_wire::control::{REQUEST_LIMIT, Request};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::task::JoinHandle;

const LONG: Duration = Duration::from_secs(30);
const LIMITS: Limits = Limits {
    root: 4,
    others: 6,
    each: 3,
};

/// A daemon that answers each request it understands with `ok`, and each user is who the test says.
struct Door {
    folder: tempfile::TempDir,
    user: Arc<AtomicU32>,
    serving: JoinHandle<()>,
}

impl Door {
    fn open() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = listen(&folder.path().join("sock"), None).expect("listening");
        let user = Arc::new(AtomicU32::new(0));
        let whose = Arc::clone(&user);
        let serving = tokio::spawn(serve_users(
            listener,
            "a test",
            LIMITS,
            b"full",
            move |_| whose.load(Ordering::SeqCst),
            |mut stream| async move {
                match read::<Request>(&mut stream, REQUEST_LIMIT).await {
                    Ok(_) => write(&mut stream, &"ok", 64).await.expect("taken"),
                    // It may have gone.
                    Err(error) => drop(write(&mut stream, &error.to_string(), 256).await),
                }
            },
        ));
        Self { folder, user, serving }
    }

    /// A connection that was accepted as this user's: the next may be another's.
    async fn connect(&self, user: u32) -> UnixStream {
        self.user.store(user, Ordering::SeqCst);
        let stream = UnixStream::connect(self.folder.path().join("sock"))
            .await
            .expect("connected");
        // The task that accepts is on the same thread: it has its turn until it waits for the next one.
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
        stream
    }

    async fn asks(&self, user: u32) -> String {
        let mut stream = self.connect(user).await;
        // Refused, it is closed by now.
        drop(stream.write_all(b"{\"type\":\"status\"}\n").await);
        told(&mut stream).await
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// What a connection gets until its end; a reset is one, too.
async fn told(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    let reading = async { while matches!(stream.read_buf(&mut bytes).await, Ok(n) if n > 0) {} };
    timeout(LONG, reading).await.expect("an end");
    String::from_utf8(bytes).expect("text").trim_end().to_owned()
}

#[tokio::test]
async fn users_who_hold_their_places_keep_nobody_else_waiting() {
    let door = Door::open();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(door.connect(1000).await);
    }
    assert_eq!(door.asks(1000).await, "full");
    assert_eq!(door.asks(1001).await, "\"ok\"");
    for _ in 0..3 {
        held.push(door.connect(1001).await);
    }
    assert_eq!(door.asks(1002).await, "full", "all places of the others are taken");
    assert_eq!(door.asks(0).await, "\"ok\"", "root has its own");
    drop(held);
    let served = async { while door.asks(1000).await != "\"ok\"" {} };
    timeout(LONG, served).await.expect("the places are given back");
}

#[tokio::test]
async fn a_thousand_connections_cost_a_few_places_and_are_refused() {
    let door = Door::open();
    let mut held = Vec::new();
    for _ in 0..1000 {
        held.push(door.connect(1000).await);
    }
    let mut refused = 0;
    for stream in &mut held {
        match told(stream).await.as_str() {
            "full" => refused += 1,
            // Of those that had a place. A slow machine needs longer for all of this than they may hold it.
            other => assert_eq!(other, "\"the client is silent\""),
        }
    }
    assert!((900..=997).contains(&refused), "{refused} were refused");
    assert_eq!(door.asks(1001).await, "\"ok\"");
}

#[tokio::test]
async fn a_client_that_sends_its_request_byte_by_byte_is_cut_off() {
    let door = Door::open();
    let mut slow = door.connect(1000).await;
    let begun = Instant::now();
    let feeding = async {
        for byte in b"{\"type\":\"status\"}".iter().cycle() {
            if slow.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(PATIENCE / 10).await;
        }
    };
    timeout(LONG, feeding).await.expect("cut off");
    assert!(
        begun.elapsed() <= PATIENCE + Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(told(&mut slow).await, "\"the client is silent\"");
}

#[tokio::test]
async fn a_request_without_end_is_refused_before_it_is_all_there() {
    let door = Door::open();
    let mut huge = door.connect(1000).await;
    let mut sent = 0;
    let flooding = async {
        // 64 MiB, if anybody took them.
        while sent < 64 * 1024 * 1024 {
            match huge.write(&[b'x'; 16 * 1024]).await {
                Ok(n) => sent += n,
                Err(_) => return,
            }
        }
    };
    timeout(LONG, flooding).await.expect("an end");
    assert!(sent < 2 * 1024 * 1024, "{sent} bytes were taken");
    assert!(told(&mut huge).await.contains("bad message"));
    assert_eq!(door.asks(1000).await, "\"ok\"");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_let_go() {
    let (mut near, _far) = UnixStream::pair().expect("a pair");
    let long = "x".repeat(4 * 1024 * 1024);
    let written = write(&mut near, &long, 8 * 1024 * 1024).await;
    assert!(matches!(written, Err(ExchangeError::Silent)), "{written:?}");
}
