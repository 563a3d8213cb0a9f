//! Those who take their time, go on for ever, or say again what another has said.

mod common;

use common::*;
use hybond_peer::Limits;
use hybond_wire::peer::LIMIT;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Reads until the other side closes, in whatever way.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut bytes = Vec::new();
    let reading = async { while matches!(stream.read_buf(&mut bytes).await, Ok(n) if n > 0) {} };
    timeout(LONG, reading).await.expect("an end");
    String::from_utf8(bytes).expect("text")
}

#[tokio::test]
async fn a_handshake_that_comes_byte_by_byte_is_cut_off_and_others_are_served_meanwhile() {
    let ca = Authority::new("ca");
    let limits = Limits {
        handshake: Duration::from_millis(1500),
        ..Limits::default()
    };
    let (server, requests) = serve(&good(&ca), limits).await;
    answer_all(requests);
    let begun = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(server.address()).await.expect("connected");
        slow.push(tokio::spawn(async move {
            // A record of 16 KiB, of which there is always more to come.
            let header = [22u8, 3, 1, 0x40, 0];
            for byte in header.iter().chain(std::iter::repeat(&0)) {
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
    }
    assert_eq!(ask(&good(&ca), &at(&server)).await.expect("served"), hello());
    for stream in slow {
        timeout(LONG, stream).await.expect("cut off").expect("no panic");
    }
    assert!(begun.elapsed() >= Duration::from_millis(1500), "each has had its time");
}

#[tokio::test]
async fn an_authenticated_peer_cannot_send_without_end_nor_wait_without_end() {
    let ca = Authority::new("ca");
    let pki = good(&ca);
    let limits = Limits {
        request: Duration::from_millis(1500),
        ..Limits::default()
    };
    let (server, mut requests) = serve(&pki, limits).await;
    let to = server.address();

    // A line without end.
    let mut endless = raw(&pki, to).await;
    let mut sent = 0;
    let sending = async {
        while sent < 64 * 1024 * 1024 {
            match endless.write(&[b'x'; 16 * 1024]).await {
                Ok(n) => sent += n,
                Err(_) => break,
            }
        }
    };
    timeout(LONG, sending).await.expect("an end");
    assert!(sent < 16 * 1024 * 1024, "{sent} bytes were taken");

    // One that ends, and is too long.
    let mut huge = raw(&pki, to).await;
    huge.write_all(&[b'x'; LIMIT + 1]).await.expect("sent");
    huge.write_all(b"\n").await.expect("sent");
    assert_eq!(rest(&mut huge).await, "");

    // Nothing at all, or never all of it.
    let mut silent = raw(&pki, to).await;
    let mut half = raw(&pki, to).await;
    half.write_all(b"{\"type\":\"ping\",").await.expect("sent");
    assert_eq!(
        (rest(&mut silent).await, rest(&mut half).await),
        (String::new(), String::new())
    );
    assert!(requests.try_recv().is_err(), "none of it was a request");
}

/// Copies both ways; gives what the client has said.
async fn listened_to(listener: TcpListener, to: std::net::SocketAddr) -> Vec<u8> {
    let (mut client, _) = listener.accept().await.expect("a client");
    let mut server = TcpStream::connect(to).await.expect("connected");
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let mut said = Vec::new();
    let recording = async {
        let mut chunk = [0; 4096];
        while let Ok(n) = from_client.read(&mut chunk).await {
            said.extend_from_slice(&chunk[..n]);
            if n == 0 || to_server.write_all(&chunk[..n]).await.is_err() {
                break;
            }
        }
        drop(to_server.shutdown().await);
    };
    let answering = async {
        // Its end is the server's.
        drop(tokio::io::copy(&mut from_server, &mut to_client).await);
        drop(to_client.shutdown().await);
    };
    tokio::join!(recording, answering);
    said
}

#[tokio::test]
async fn what_somebody_has_overheard_is_worth_nothing_when_it_is_said_again() {
    let ca = Authority::new("ca");
    let (server, mut requests) = serve(&good(&ca), Limits::default()).await;
    let between = TcpListener::bind("127.0.0.1:0").await.expect("listening");
    let address = between.local_addr().expect("an address");
    let overheard = tokio::spawn(listened_to(between, server.address()));
    let asking = tokio::spawn(async move { ask(&good(&ca), &peer(address)).await });
    let request = timeout(LONG, requests.recv()).await.expect("in time").expect("asked");
    request.responder.finish(hello()).await.expect("delivered");
    asking.await.expect("no panic").expect("answered");
    let said = timeout(LONG, overheard).await.expect("in time").expect("no panic");
    assert!(said.len() > 500, "a handshake and a request");

    let mut again = TcpStream::connect(server.address()).await.expect("connected");
    // It may be cut off before it has said all.
    drop(again.write_all(&said).await);
    let mut answer = Vec::new();
    let reading = async { while matches!(again.read_buf(&mut answer).await, Ok(n) if n > 0) {} };
    timeout(LONG, reading).await.expect("an end");
    assert!(requests.try_recv().is_err(), "it was taken for a request");
}

/// Lines of a log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("whole").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn whoever_knocks_all_day_is_a_line_in_ten_seconds() {
    let log = Log::default();
    let to = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .with_ansi(false)
        .with_writer(move || to.clone())
        .finish();
    // The runtime of this test has this thread only.
    let _installed = tracing::subscriber::set_default(subscriber);
    let ca = Authority::new("ca");
    let pki = good(&ca);
    let (server, _requests) = serve(&pki, Limits::default()).await;
    let begun = Instant::now();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(server.address()).await.expect("connected");
        // It may be closed before that.
        drop(stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await);
        let mut answer = Vec::new();
        while matches!(stream.read_buf(&mut answer).await, Ok(n) if n > 0) {}
    }
    let periods = usize::try_from(begun.elapsed().as_secs() / 10).expect("few") + 1;
    let text = String::from_utf8(log.0.lock().expect("whole").clone()).expect("text");
    let lines = text.lines().filter(|line| line.contains("peer not let in")).count();
    assert!((1..=periods).contains(&lines), "{text}");
    assert_eq!(text.lines().count(), lines, "{text}");
}
