//! Who is let in, and what the others are told.

mod common;

use common::*;
use hybond_peer::{CertificateFault, Limits, PeerClient, PeerError, PeerServer, TlsFiles};
use rcgen::{DnType, ExtendedKeyUsagePurpose};
use std::error::Error;

/// The fault that the client finds in the server's certificate.
async fn theirs(client: &Pki, server: &Pki) -> (CertificateFault, String) {
    let (listening, requests) = serve(server, Limits::default()).await;
    answer_all(requests);
    match ask(client, &at(&listening)).await.expect_err("refused") {
        PeerError::TheirCertificate { fault, address } => {
            assert_eq!(address, at(&listening));
            let text = fault.to_string();
            (fault, text)
        }
        other => panic!("{other:?}"),
    }
}

/// The fault that the server finds in the client's, as the client is told. Repeated, as the alert races with the close.
async fn ours(client: &Pki, server: &Pki) -> CertificateFault {
    let (listening, mut requests) = serve(server, Limits::default()).await;
    let mut last = None;
    for _ in 0..20 {
        match ask(client, &at(&listening)).await.expect_err("refused") {
            PeerError::OurCertificate { fault, file, .. } => {
                assert!(file.ends_with("cert.pem"), "{file}");
                last = Some(fault);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(requests.try_recv().is_err(), "no request of one that was refused");
    last.expect("a fault")
}

#[tokio::test]
async fn two_hosts_of_one_authority_talk() {
    let ca = Authority::new("ca");
    let (source, destination) = (good(&ca), good(&ca));
    let (server, mut requests) = serve(&source, Limits::default()).await;
    let to = at(&server);
    let asked = tokio::spawn(async move { ask(&destination, &to).await });
    let request = requests.recv().await.expect("a request");
    assert_eq!(request.request, ping());
    assert_eq!(request.peer.common_name.as_deref(), Some("node"));
    assert_eq!(request.peer.dns, ["localhost"]);
    assert_eq!(request.peer.names(), ["localhost", "127.0.0.1", "node"]);
    request.responder.finish(hello()).await.expect("delivered");
    assert_eq!(asked.await.expect("no panic").expect("an answer"), hello());
}

#[tokio::test]
async fn a_host_is_reached_by_each_name_of_its_certificate() {
    let ca = Authority::new("ca");
    let (server, requests) = serve(&good(&ca), Limits::default()).await;
    answer_all(requests);
    let by_name = format!("localhost:{}", server.address().port())
        .parse()
        .expect("an address");
    // localhost may be ::1 first, where nobody listens: the next address is tried.
    assert_eq!(ask(&good(&ca), &by_name).await.expect("an answer"), hello());
}

#[tokio::test]
async fn the_client_shows_its_own_certificate_where_it_has_one() {
    let ca = Authority::new("ca");
    let server_only = |p: &mut rcgen::CertificateParams| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let source = good(&ca);
    let destination = pki(&ca, ca.host(&["localhost"], server_only));
    assert_eq!(ours(&destination, &source).await, CertificateFault::Purpose);

    let (certificate, key) = ca.host(&["client.example.org"], |p| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    write(&destination.files.client_cert, &certificate);
    write(&destination.files.client_key, &key);
    let (server, requests) = serve(&source, Limits::default()).await;
    answer_all(requests);
    assert_eq!(ask(&destination, &at(&server)).await.expect("an answer"), hello());
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let (fault, text) = theirs(&good(&ca), &good(&other)).await;
    assert_eq!(fault, CertificateFault::UnknownAuthority);
    assert!(text.contains("same CA certificate"), "{text}");
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let client = pki(&ca, other.host(&["localhost"], |_| {}));
    assert_eq!(ours(&client, &good(&ca)).await, CertificateFault::UnknownAuthority);
}

#[tokio::test]
async fn an_authority_of_the_same_name_is_another_one() {
    let (ca, impostor) = (Authority::new("ca"), Authority::new("ca"));
    let client = pki(&ca, impostor.host(&["localhost"], |_| {}));
    assert_eq!(ours(&client, &good(&ca)).await, CertificateFault::UnknownAuthority);
    let server = pki(&ca, impostor.host(&["127.0.0.1"], |_| {}));
    assert_eq!(theirs(&good(&ca), &server).await.0, CertificateFault::UnknownAuthority);
}

#[tokio::test]
async fn a_server_with_another_name_is_refused() {
    let ca = Authority::new("ca");
    let server = pki(&ca, ca.host(&["node7.example.org"], |_| {}));
    let (fault, text) = theirs(&good(&ca), &server).await;
    assert!(matches!(fault, CertificateFault::Name { .. }), "{fault:?}");
    assert!(
        text.contains("node7.example.org") && text.contains("127.0.0.1"),
        "{text}"
    );
}

#[tokio::test]
async fn a_common_name_alone_is_explained() {
    let ca = Authority::new("ca");
    let server = pki(
        &ca,
        ca.host(&[], |p| p.distinguished_name.push(DnType::CommonName, "127.0.0.1")),
    );
    let (_, text) = theirs(&good(&ca), &server).await;
    assert!(
        text.contains("a common name alone is not looked at") && text.contains("ip_address 127.0.0.1"),
        "{text}"
    );
}

#[tokio::test]
async fn certificates_past_their_end_are_refused() {
    let ca = Authority::new("ca");
    let expired = || {
        let host = ca.host(&["127.0.0.1"], |p| {
            p.not_before = rcgen::date_time_ymd(2020, 1, 1);
            p.not_after = rcgen::date_time_ymd(2021, 1, 1);
        });
        pki(&ca, host)
    };
    assert_eq!(theirs(&good(&ca), &expired()).await.0, CertificateFault::Expired);
    assert_eq!(ours(&expired(), &good(&ca)).await, CertificateFault::Expired);
}

#[tokio::test]
async fn a_revoked_certificate_is_refused() {
    let ca = Authority::new("ca");
    let serial = rcgen::SerialNumber::from(77u64);
    let client = pki(&ca, ca.host(&["localhost"], |p| p.serial_number = Some(serial.clone())));
    let server = good(&ca);
    let (listening, requests) = serve(&server, Limits::default()).await;
    answer_all(requests);
    ask(&client, &at(&listening)).await.expect("not revoked yet");

    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2026, 1, 1),
        next_update: rcgen::date_time_ymd(2099, 1, 1),
        crl_number: rcgen::SerialNumber::from(1u64),
        issuing_distribution_point: None,
        revoked_certs: vec![rcgen::RevokedCertParams {
            serial_number: serial,
            revocation_time: rcgen::date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    // While the server runs: it counts at the next connection.
    write(
        &server.files.crl,
        &list.signed_by(ca.issuer()).expect("a list").pem().expect("PEM"),
    );
    let error = ask(&client, &at(&listening)).await.expect_err("revoked");
    let PeerError::OurCertificate { fault, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(fault, CertificateFault::Revoked);
}

#[tokio::test]
async fn renewed_files_are_used_without_a_restart() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let source = good(&old);
    let (server, requests) = serve(&source, Limits::default()).await;
    answer_all(requests);
    let destination = good(&new);
    ask(&destination, &at(&server)).await.expect_err("another authority");

    // The certificate first: until the key has followed, the old pair goes on.
    let (certificate, key) = new.host(&["127.0.0.1"], |_| {});
    write(&source.files.server_cert, &certificate);
    assert_eq!(ask(&good(&old), &at(&server)).await.expect("still served"), hello());
    write(&source.files.server_key, &key);
    write(&source.files.ca, &new.pem());
    assert_eq!(ask(&destination, &at(&server)).await.expect("renewed"), hello());
    ask(&good(&old), &at(&server)).await.expect_err("no longer trusted");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let ca = Authority::new("ca");
    let bind = |files: TlsFiles| async move {
        let address = "127.0.0.1:0".parse().expect("an address");
        let error = PeerServer::bind(address, files, Limits::default())
            .await
            .expect_err("unusable");
        format!("{error}: {}", error.source().expect("a source"))
    };
    let empty = tempfile::tempdir().expect("a directory");
    let text = bind(TlsFiles::in_dir(empty.path())).await;
    assert!(text.contains("CA/cacert.pem cannot be read"), "{text}");

    let pki = good(&ca);
    std::fs::write(&pki.files.server_key, "-----BEGIN NOTHING-----\n").expect("written");
    let text = bind(pki.files.clone()).await;
    assert!(text.contains("serverkey.pem is not PEM"), "{text}");

    let (_, other_key) = ca.host(&["x"], |_| {});
    write(&pki.files.server_key, &other_key);
    let text = bind(pki.files.clone()).await;
    assert!(
        text.contains("servercert.pem") && text.contains("does not belong to the key"),
        "{text}"
    );
    assert!(pki.files.check().is_err());
    good(&ca).files.check().expect("good files");

    let to = "localhost".parse().expect("an address");
    let client = PeerClient::new(TlsFiles::in_dir(empty.path()));
    let error = client
        .ask(&to, &ping(), hybond_peer::Patience::within(LONG), |_| {})
        .await
        .expect_err("no files");
    assert!(matches!(error, PeerError::Files { .. }), "{error:?}");
}
