//! Requests and answers, and peers that do not keep to the protocol.

mod common;

use common::*;
use hybond_core::ids::DomainId;
use hybond_peer::{IncomingRequest, Limits, Patience, PeerClient, PeerError};
use hybond_wire::peer::{LIMIT, Request, Response, VERSION};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

fn drain() -> Request {
    Request::Drain {
        version: VERSION,
        migration: "m-1".parse().expect("an id"),
        domain: DomainId::from_bytes([2; 16]),
        within_ms: 20_000,
    }
}

/// A server that says these lines to whoever asks, and then hangs or closes.
async fn scripted(pki: &Pki, alpn: Option<&[u8]>, lines: &str, then_close: bool) -> SocketAddr {
    let certificate = CertificateDer::from_pem_file(&pki.files.server_cert).expect("PEM");
    let key = PrivateKeyDer::from_pem_file(&pki.files.server_key).expect("PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a pair");
    config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listening");
    let address = listener.local_addr().expect("an address");
    let lines = lines.to_owned();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut stream = BufReader::new(acceptor.accept(stream).await.expect("a handshake"));
        let mut request = String::new();
        stream.read_line(&mut request).await.expect("a request");
        stream.write_all(lines.as_bytes()).await.expect("told");
        if then_close {
            stream.shutdown().await.expect("closed");
        }
        // Until the client has gone: its way of going is not this server's matter.
        drop(stream.read(&mut [0u8; 1]).await);
    });
    address
}

async fn ask_scripted(lines: &str, then_close: bool, patience: Patience) -> (Result<Response, PeerError>, Vec<String>) {
    let ca = Authority::new("ca");
    let pki = good(&ca);
    let address = scripted(&pki, Some(ALPN), lines, then_close).await;
    let client = PeerClient::new(pki.files.clone());
    let mut phases = Vec::new();
    let (to, request) = (peer(address), drain());
    let asked = client.ask(&to, &request, patience, |phase| phases.push(phase.to_owned()));
    let answer = timeout(LONG, asked).await.expect("an end in time");
    (answer, phases)
}

fn line(response: &Response) -> String {
    let bytes = hybond_wire::line::encode(response, LIMIT).expect("a line");
    String::from_utf8(bytes).expect("a text")
}

fn progress(phase: &str) -> String {
    line(&Response::Progress { phase: phase.into() })
}

async fn next(requests: &mut mpsc::Receiver<IncomingRequest>) -> IncomingRequest {
    timeout(LONG, requests.recv())
        .await
        .expect("a request in time")
        .expect("the server runs")
}

#[tokio::test]
async fn a_drain_is_followed_to_its_end() {
    let ca = Authority::new("ca");
    let (server, mut requests) = serve(&good(&ca), Limits::default()).await;
    let to = at(&server);
    let destination = good(&ca);
    let asked = tokio::spawn(async move {
        let mut phases = Vec::new();
        let client = PeerClient::new(destination.files.clone());
        let patience = Patience::within(LONG);
        let answer = client
            .ask(&to, &drain(), patience, |phase| phases.push(phase.to_owned()))
            .await;
        (answer, phases)
    });
    let request = next(&mut requests).await;
    assert_eq!(request.request, drain());
    for phase in ["failover", "unplug", "release"] {
        request.responder.progress(phase).await.expect("delivered");
    }
    request.responder.finish(Response::Drained).await.expect("delivered");
    let (answer, phases) = asked.await.expect("no panic");
    assert_eq!(answer.expect("an answer"), Response::Drained);
    assert_eq!(phases, ["accepted", "failover", "unplug", "release"]);
}

#[tokio::test]
async fn a_refusal_keeps_its_sentence() {
    let ca = Authority::new("ca");
    let (server, mut requests) = serve(&good(&ca), Limits::default()).await;
    let to = at(&server);
    let asked = tokio::spawn(async move { ask(&good(&ca), &to).await });
    let reason = "domain web is not in an outgoing migration on node1".to_owned();
    let responder = next(&mut requests).await.responder;
    responder
        .finish(Response::Refused { reason: reason.clone() })
        .await
        .expect("delivered");
    assert_eq!(
        asked.await.expect("no panic").expect("an answer"),
        Response::Refused { reason }
    );
}

#[tokio::test]
async fn a_daemon_that_drops_a_request_is_told_of() {
    let ca = Authority::new("ca");
    let (server, mut requests) = serve(&good(&ca), Limits::default()).await;
    let to = at(&server);
    let asked = tokio::spawn(async move { ask(&good(&ca), &to).await });
    drop(next(&mut requests).await);
    let answer = asked.await.expect("no panic").expect("an answer");
    let Response::Refused { reason } = answer else {
        panic!("{answer:?}")
    };
    assert!(reason.contains("has not answered"), "{reason}");
}

#[tokio::test]
async fn a_peer_that_goes_away_is_noticed_while_the_daemon_works() {
    let ca = Authority::new("ca");
    let (server, mut requests) = serve(&good(&ca), Limits::default()).await;
    let mut client = raw(&good(&ca), server.address()).await;
    let request = hybond_wire::line::encode(&drain(), LIMIT).expect("a line");
    client.write_all(&request).await.expect("sent");
    let responder = next(&mut requests).await.responder;
    drop(client);
    timeout(LONG, responder.closed()).await.expect("noticed");
    responder.progress("unplug").await.expect_err("nobody listens");
}

#[tokio::test]
async fn signs_of_life_come_while_a_phase_lasts() {
    let ca = Authority::new("ca");
    let (server, mut requests) = serve(&good(&ca), Limits::default()).await;
    let mut client = BufReader::new(raw(&good(&ca), server.address()).await);
    client
        .write_all(&hybond_wire::line::encode(&drain(), LIMIT).expect("a line"))
        .await
        .expect("sent");
    let responder = next(&mut requests).await.responder;
    responder.progress("unplug").await.expect("delivered");
    let mut seen = Vec::new();
    while seen.iter().filter(|l| **l == progress("unplug")).count() < 3 {
        let mut text = String::new();
        timeout(LONG, client.read_line(&mut text))
            .await
            .expect("a sign of life")
            .expect("a line");
        seen.push(text);
    }
    responder.finish(Response::Drained).await.expect("delivered");
}

#[tokio::test]
async fn what_comes_after_the_final_answer_is_not_looked_at() {
    let lines = progress("failover") + &line(&Response::Drained) + &line(&Response::Drained) + "rubbish\n";
    let (answer, phases) = ask_scripted(&lines, false, Patience::within(LONG)).await;
    assert_eq!(answer.expect("an answer"), Response::Drained);
    assert_eq!(phases, ["failover"]);
}

#[tokio::test]
async fn a_server_that_closes_without_an_answer_is_named() {
    let (answer, phases) = ask_scripted(&progress("failover"), true, Patience::within(LONG)).await;
    assert!(matches!(answer, Err(PeerError::Closed { .. })), "{answer:?}");
    assert_eq!(phases, ["failover"]);
    // In the middle of a line, too.
    let (answer, _) = ask_scripted("{\"type\":\"drai", true, Patience::within(LONG)).await;
    assert!(matches!(answer, Err(PeerError::Closed { .. })), "{answer:?}");
}

#[tokio::test]
async fn rubbish_and_giant_lines_are_refused_by_the_client() {
    for lines in [
        "rubbish\n".to_owned(),
        "{\"type\":\"undrained\"}\n".to_owned(),
        "x".repeat(4 * LIMIT),
    ] {
        let (answer, _) = ask_scripted(&lines, false, Patience::within(LONG)).await;
        assert!(matches!(answer, Err(PeerError::Protocol { .. })), "{answer:?}");
    }
}

#[tokio::test]
async fn silence_and_slowness_are_told_apart() {
    let silence = Duration::from_millis(200);
    let patience = |silence, within| Patience {
        connect: LONG,
        silence,
        within,
    };
    let (answer, _) = ask_scripted(&progress("unplug"), false, patience(silence, LONG)).await;
    assert!(
        matches!(answer, Err(PeerError::Silent { after, .. }) if after == silence),
        "{answer:?}"
    );

    let within = Duration::from_millis(700);
    let (answer, _) = ask_scripted(&progress("unplug"), false, patience(LONG, within)).await;
    assert!(
        matches!(&answer, Err(PeerError::TooSlow { phase, .. }) if phase == "unplug"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn requests_that_are_not_understood_get_an_answer() {
    let ca = Authority::new("ca");
    let (server, mut requests) = serve(&good(&ca), Limits::default()).await;
    for (request, expected) in [
        ("rubbish\n", "not understood"),
        ("{\"type\":\"reboot\"}\n", "not understood"),
        ("{\"type\":\"ping\",\"version\":9}\n", "the peer's version 9"),
        (
            "{\"type\":\"cancel\",\"version\":1,\"domain\":\"a2a2a2a2-0000-4000-8000-000000000002\"}\n",
            "speaks version 2",
        ),
    ] {
        let mut client = raw(&good(&ca), server.address()).await;
        client.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        timeout(LONG, client.read_to_string(&mut answer))
            .await
            .expect("an end")
            .expect("a clean one");
        assert!(
            answer.contains("refused") && answer.contains(expected),
            "{request}: {answer}"
        );
    }
    assert!(requests.try_recv().is_err());
}

#[tokio::test]
async fn a_giant_request_is_not_read_to_its_end() {
    let ca = Authority::new("ca");
    let (server, mut requests) = serve(&good(&ca), Limits::default()).await;
    let mut client = raw(&good(&ca), server.address()).await;
    let chunk = vec![b'x'; 64 * 1024];
    let flood = async {
        for _ in 0..1024 {
            client.write_all(&chunk).await?;
        }
        client.flush().await
    };
    // 64 MiB into a server that stops taking: an error, and not for want of time.
    timeout(LONG, flood)
        .await
        .expect("an end in time")
        .expect_err("closed by the server");
    assert!(requests.try_recv().is_err());
}

#[tokio::test]
async fn nobody_at_the_port_is_named_with_what_to_look_at() {
    let ca = Authority::new("ca");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listening");
    let free = listener.local_addr().expect("an address");
    drop(listener);
    let error = ask(&good(&ca), &peer(free)).await.expect_err("nobody");
    assert!(matches!(error, PeerError::Unreachable { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(&format!("TCP port {}", free.port())) && text.contains("systemctl status hybondd"),
        "{text}"
    );

    let nowhere = "nowhere.invalid".parse().expect("an address");
    let error = ask(&good(&ca), &nowhere).await.expect_err("no such host");
    assert!(matches!(error, PeerError::Unresolvable { .. }), "{error:?}");
}

#[tokio::test]
async fn other_services_are_not_taken_for_hybondd() {
    let ca = Authority::new("ca");
    let pki = good(&ca);
    // As libvirt's TLS port.
    let address = scripted(&pki, None, "", false).await;
    let error = ask(&pki, &peer(address)).await.expect_err("no hybondd");
    assert!(matches!(error, PeerError::NotHybond { .. }), "{error:?}");
    let address = scripted(&pki, Some(b"http/1.1"), "", false).await;
    let error = ask(&pki, &peer(address)).await.expect_err("no hybondd");
    assert!(matches!(error, PeerError::NotHybond { .. }), "{error:?}");
    // As sshd.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listening");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(b"SSH-2.0-OpenSSH_10.0\r\n").await.expect("told");
        drop(stream.read(&mut [0u8; 1]).await);
    });
    let error = ask(&pki, &peer(address)).await.expect_err("no hybondd");
    assert!(matches!(error, PeerError::NotHybond { .. }), "{error:?}");
}
