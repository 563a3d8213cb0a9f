//! What another host's daemon sends after the handshake, and what its certificate may hold.

use crate::{assert_fit_to_show, memory, socket};
use hybond_peer::testing::{identity, serve};
use hybond_peer::{IncomingRequest, Limits};
use hybond_wire::line::decode;
use hybond_wire::peer::{LIMIT, Request, Response};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// The first byte says how the rest arrives and how the daemon answers.
pub fn run(data: &[u8]) {
    let Some((first, stream)) = data.split_first() else {
        return;
    };
    let address = SocketAddr::from(([192, 0, 2, 1], 16515));
    let peer = memory::within(64 * 1024 + 16 * data.len(), || identity(address, stream));
    assert!(peer.names().len() <= stream.len());
    for name in peer.names().iter().chain([&peer.to_string()]) {
        assert_fit_to_show(name);
        assert!(name.len() <= 255 + 32, "{name}");
    }
    // Its own pieces, and what the duplex holds in each direction.
    memory::within(512 * 1024 + 64 * data.len(), || {
        socket::with(async |_| conversation(*first, stream, peer).await)
    });
}

async fn conversation(first: u8, stream: &[u8], peer: hybond_peer::PeerIdentity) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (requests, mut incoming) = mpsc::channel(4);
    let limits = Limits::default();
    let serving = serve(near, peer.clone(), &requests, &limits);
    let (mut read, mut write) = tokio::io::split(far);
    let talking = async {
        for piece in socket::pieces(stream) {
            // The server may have had enough.
            if write.write_all(piece).await.is_err() {
                break;
            }
        }
        // An end of the request's line, and of the stream where nothing is awaited.
        write.write_all(b"\n").await.ok();
        let asked = std::cell::Cell::new(0);
        let mut bytes = Vec::new();
        {
            let answering = async {
                while let Some(request) = incoming.recv().await {
                    asked.set(asked.get() + 1);
                    assert_eq!(request.peer, peer);
                    assert_eq!(request.request.versions().0, request.request.versions().1);
                    answer(first, request).await;
                }
            };
            tokio::pin!(answering);
            tokio::select! {
                end = read.read_to_end(&mut bytes) => drop(end.expect("read")),
                () = &mut answering => panic!("the server has let go of its queue"),
            }
        }
        drop(write.shutdown().await);
        // Where the peer has gone on talking, the end may come before the daemon has taken the request.
        while incoming.try_recv().is_ok() {
            asked.set(asked.get() + 1);
        }
        (bytes, asked.get())
    };
    let serving = async { tokio::join!(serving, talking).1 };
    let (bytes, asked) = socket::soon("the end of a conversation", serving).await;
    judge(stream, &bytes, asked);
}

async fn answer(first: u8, request: IncomingRequest) {
    let word = String::from_utf8_lossy(&[first]).repeat(usize::from(first) * 100);
    // It may have gone.
    request.responder.progress(&word).await.ok();
    match first % 3 {
        0 => drop(request.responder.finish(Response::Drained).await.ok()),
        1 => drop(request.responder.finish(Response::Refused { reason: word }).await.ok()),
        // No answer at all.
        _ => drop(request.responder),
    }
}

fn judge(stream: &[u8], bytes: &[u8], asked: usize) {
    let line = stream.split(|b| *b == b'\n').next().unwrap_or_default();
    let understood = decode::<Request>(line, LIMIT)
        .ok()
        .filter(|r| r.versions().0 == r.versions().1);
    assert_eq!(
        asked,
        usize::from(understood.is_some()),
        "what was asked is what the first line says"
    );
    let mut lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
    assert_eq!(lines.pop(), Some(&b""[..]), "whole lines");
    let answers: Vec<Response> = lines
        .iter()
        .map(|line| decode(line, LIMIT).expect("readable"))
        .collect();
    let finals = answers
        .iter()
        .filter(|a| !matches!(a, Response::Progress { .. }))
        .count();
    assert!(finals <= 1 && answers.len() <= 8, "{answers:?}");
    if finals == 1 {
        assert!(
            !matches!(answers.last(), Some(Response::Progress { .. })),
            "the last one is final"
        );
    }
    match (&understood, line.len() > LIMIT) {
        // Cut off.
        (_, true) => assert!(answers.is_empty()),
        (None, false) => assert!(matches!(answers.as_slice(), [Response::Refused { .. }]), "{answers:?}"),
        (Some(_), false) => assert!(!answers.is_empty()),
    }
}
