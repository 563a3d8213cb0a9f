//! Whoever can reach the port, without a certificate.

mod common;

use common::*;
use hybond_peer::{Limits, PeerServer};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// A TLS 1.2 client's hello: the version, three of its cipher suites, no supported_versions extension.
fn tls12_hello() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend([0, 6, 0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x30]);
    body.extend([1, 0]);
    let mut extensions = vec![0, 10, 0, 6, 0, 4, 0, 29, 0, 23];
    extensions.extend([0, 13, 0, 6, 0, 4, 4, 3, 8, 4]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut handshake = vec![1, 0];
    handshake.extend((body.len() as u16).to_be_bytes());
    handshake.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend((handshake.len() as u16).to_be_bytes());
    record.extend(handshake);
    record
}

/// What a connection gets until the server closes it; a reset counts as an end.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut chunk = [0u8; 4096];
    while let Ok(Ok(count)) = timeout(LONG, stream.read(&mut chunk)).await {
        if count == 0 {
            break;
        }
        answer.extend_from_slice(&chunk[..count]);
    }
    answer
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let ca = Authority::new("ca");
    let (server, mut requests) = serve(&good(&ca), Limits::default()).await;
    let mut stream = TcpStream::connect(server.address()).await.expect("connected");
    stream.write_all(&tls12_hello()).await.expect("sent");
    // Alert, fatal, protocol_version.
    let answer = rest(&mut stream).await;
    assert_eq!(answer.first(), Some(&21), "{answer:?}");
    assert_eq!(answer.get(5..7), Some(&[2, 70][..]), "{answer:?}");
    assert!(requests.try_recv().is_err());
}

#[tokio::test]
async fn rubbish_is_refused_and_the_next_one_is_served() {
    let ca = Authority::new("ca");
    let (server, requests) = serve(&good(&ca), Limits::default()).await;
    answer_all(requests);
    for rubbish in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 100_000],
        vec![22, 3, 1, 0xff, 0xff],
    ] {
        let mut stream = TcpStream::connect(server.address()).await.expect("connected");
        // The server may close before it has all.
        drop(stream.write_all(&rubbish).await);
        drop(stream.shutdown().await);
        rest(&mut stream).await;
    }
    assert_eq!(ask(&good(&ca), &at(&server)).await.expect("served"), hello());
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let ca = Authority::new("ca");
    let pki = good(&ca);
    let (server, mut requests) = serve(&pki, Limits::default()).await;
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(&pki.files.ca).expect("read");
    let root = rustls::pki_types::pem::PemObject::from_pem_slice(&pem).expect("PEM");
    roots.add(root).expect("a root");
    let config = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.address()).await.expect("connected");
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let mut stream = connector
        .connect(name, stream)
        .await
        .expect("the client's half of the handshake");
    // The request is on its way before the refusal comes.
    drop(stream.write_all(b"{\"type\":\"ping\",\"version\":1}\n").await);
    let mut answer = Vec::new();
    let error = timeout(LONG, stream.read_to_end(&mut answer))
        .await
        .expect("an end")
        .expect_err("refused");
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    assert!(answer.is_empty() && requests.try_recv().is_err());
}

#[tokio::test]
async fn connections_that_say_nothing_are_closed() {
    let ca = Authority::new("ca");
    let limits = Limits {
        handshake: Duration::from_millis(300),
        ..Limits::default()
    };
    let (server, _requests) = serve(&good(&ca), limits).await;
    let mut silent = TcpStream::connect(server.address()).await.expect("connected");
    let mut half = TcpStream::connect(server.address()).await.expect("connected");
    half.write_all(&tls12_hello()[..20]).await.expect("sent");
    assert!(rest(&mut silent).await.is_empty());
    assert!(rest(&mut half).await.is_empty());
}

#[tokio::test]
async fn a_flood_from_one_address_is_bounded_and_passes() {
    let ca = Authority::new("ca");
    let limits = Limits {
        strangers_per_address: 4,
        handshake: Duration::from_secs(60),
        ..Limits::default()
    };
    let (server, requests) = serve(&good(&ca), limits).await;
    answer_all(requests);
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(TcpStream::connect(server.address()).await.expect("connected"));
    }
    // Accepted in order, so the four are in; the next ones are closed at once, unasked.
    for _ in 0..50 {
        let mut more = TcpStream::connect(server.address()).await.expect("connected");
        assert!(rest(&mut more).await.is_empty());
    }
    let error = ask(&good(&ca), &at(&server)).await.expect_err("full");
    assert!(error.to_string().contains("too many"), "{error}");

    drop(held);
    let served = async {
        while ask(&good(&ca), &at(&server)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, served).await.expect("served again");
}

/// A connection from one of this machine's loopback addresses, which says nothing.
async fn silent(from: u8, to: &PeerServer) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(([127, 0, 0, from], 0).into())
        .expect("an address of its own");
    socket.connect(to.address()).await.expect("connected")
}

#[tokio::test]
async fn strangers_of_many_addresses_keep_no_host_out() {
    let ca = Authority::new("ca");
    let limits = Limits {
        strangers: 4,
        strangers_per_address: 2,
        handshake: Duration::from_secs(60),
        ..Limits::default()
    };
    let (server, requests) = serve(&good(&ca), limits).await;
    answer_all(requests);
    assert_eq!(ask(&good(&ca), &at(&server)).await.expect("a host"), hello());
    // In 127.0.0.2 to 127.0.0.9, who come with nothing and stay.
    let mut held = Vec::new();
    for from in [2, 2, 3, 3] {
        held.push(silent(from, &server).await);
    }
    for from in 2..=9 {
        let mut more = silent(from, &server).await;
        assert!(rest(&mut more).await.is_empty(), "there are enough of them");
    }
    for _ in 0..20 {
        assert_eq!(ask(&good(&ca), &at(&server)).await.expect("its own places"), hello());
    }
    drop(held);
}

#[tokio::test]
async fn a_host_that_has_all_its_places_is_told() {
    let ca = Authority::new("ca");
    let limits = Limits {
        per_address: 1,
        ..Limits::default()
    };
    let pki = good(&ca);
    let (server, mut requests) = serve(&pki, limits).await;
    let to = at(&server);
    let first = tokio::spawn({
        let (pki, to) = (good(&ca), to.clone());
        async move { ask(&pki, &to).await }
    });
    let asked = timeout(LONG, requests.recv()).await.expect("in time").expect("asked");
    let refused = ask(&pki, &to).await.expect("an answer");
    assert!(format!("{refused:?}").contains("too many connections"), "{refused:?}");
    asked.responder.finish(hello()).await.expect("delivered");
    assert_eq!(first.await.expect("no panic").expect("served"), hello());
}

#[tokio::test]
async fn a_full_queue_is_told() {
    let ca = Authority::new("ca");
    let limits = Limits {
        queue: 1,
        ..Limits::default()
    };
    let (server, mut requests) = serve(&good(&ca), limits).await;
    let to = at(&server);
    let first = tokio::spawn({
        let (pki, to) = (good(&ca), to.clone());
        async move { ask(&pki, &to).await }
    });
    // Until one of the two is in the queue, the other one's turn has not come.
    let other = good(&ca);
    let second = ask(&other, &to);
    tokio::pin!(second);
    let refused = tokio::select! {
        answer = &mut second => answer.expect("an answer"),
        answer = first => answer.expect("no panic").expect("an answer"),
    };
    assert!(format!("{refused:?}").contains("too many requests"), "{refused:?}");
    requests
        .recv()
        .await
        .expect("one of the two")
        .responder
        .finish(hello())
        .await
        .expect("delivered");
}
