//! What of a domain is nobody's business: with everything logged, and every question asked, none of it comes out of the
//! daemon, nor is any of it kept.

use crate::adapters::Adapters;
use crate::api::control::About;
use crate::disk::Disk;
use crate::pools::Pools;
use crate::shared::Shared;
use crate::{api, startup};
use hybond_config::Config;
use hybond_core::pool::PoolBook;
use hybond_journal::Journal;
use hybond_libvirt::{Libvirt, LibvirtEvent};
use hybond_netlink::Netlink;
use hybond_peer::{PeerClient, TlsFiles};
use hybond_vfio::{PlugWay, Plugger, Sysfs};
use hybond_wire::control::{Request, Response};
use hybond_wire::{hook, line};
use serde::Serialize;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tracing_subscriber::filter::LevelFilter;

const LONG: Duration = Duration::from_secs(30);
/// How long an answer is waited for.
const BRIEF: Duration = Duration::from_secs(5);
/// What each secret of the domain below has in it.
const SECRET: &str = "s3cr3t";

const NODE: &str = "<node><domain type='test'>
  <name>web</name>
  <uuid>a2a2a2a2-0000-4000-8000-00000000005e</uuid>
  <title>s3cr3t-title</title>
  <description>the root password is s3cr3t-description</description>
  <metadata>
    <hybond:domain xmlns:hybond='urn:hybond:domain:1'>
      <hybond:pair mac='52:54:00:aa:00:01' pool='10GE' policy='require'/>
    </hybond:domain>
    <other:token xmlns:other='urn:other'>s3cr3t-metadata</other:token>
  </metadata>
  <memory unit='MiB'>512</memory>
  <vcpu>1</vcpu>
  <sysinfo type='smbios'>
    <oemStrings><entry>io.systemd.credential:passwd=s3cr3t-credential</entry></oemStrings>
  </sysinfo>
  <os><type>hvm</type></os>
  <devices>
    <interface type='ethernet'>
      <mac address='52:54:00:aa:00:01'/>
      <target dev='hb525400aa0001' managed='no'/>
      <model type='virtio'/>
    </interface>
    <graphics type='vnc' autoport='yes' passwd='s3cr3t-vnc'/>
  </devices>
</domain></node>";

/// All lines of the log, of whatever level.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn log() -> String {
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&log).into_owned()
}

/// A daemon of libvirt's test driver, with its doors in a folder, and this on its host.
async fn daemon(folder: &Path, xml: &str) -> Arc<Shared> {
    let node = folder.join("node.xml");
    std::fs::write(&node, xml).expect("written");
    let (libvirt, mut events) = Libvirt::spawn(hybond_libvirt::Settings {
        uri: format!("test://{}", node.display()),
        ..Default::default()
    });
    let connected = timeout(LONG, events.recv()).await.expect("in time");
    assert_eq!(connected, Some(LibvirtEvent::Connected));
    let sysfs = Sysfs::at(&folder.join("sys"));
    let adapters = Adapters {
        config: Config {
            guest: hybond_core::guest::Settings {
                drain_within: 2000,
                unplug_within: 1000,
                ..Default::default()
            },
            ..Config::default()
        },
        pools: Pools::new(Default::default(), Default::default(), Default::default()),
        me: "node1".parse().expect("a peer"),
        way: PlugWay::Group,
        libvirt,
        netlink: Netlink::new().expect("netlink"),
        plugger: Plugger::new(sysfs.clone()),
        sysfs,
        peers: PeerClient::new(TlsFiles::in_dir(folder)),
        book: Mutex::new(PoolBook::default()),
        started: Instant::now(),
    };
    let journal = Journal::open(folder.join("state")).expect("a journal");
    let shared = Shared::new(adapters, Disk::start(journal).expect("threads"));
    let control = api::listen(&folder.join("control"), None).expect("listening");
    let plug_reason = "set by the test".to_owned();
    tokio::spawn(api::control::serve(Arc::clone(&shared), About { plug_reason }, control));
    let hook = api::listen(&folder.join("hook"), None).expect("listening");
    tokio::spawn(api::hook::serve(Arc::clone(&shared), hook));
    shared
}

/// Sends a message to one of the doors; gives all that comes back.
async fn say(door: &Path, message: &impl Serialize) -> String {
    let bytes = line::encode(message, 64 * 1024).expect("short");
    say_bytes(door, &bytes).await
}

async fn say_bytes(door: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(door).await.expect("connected");
    stream.write_all(bytes).await.expect("sent");
    let mut said = Vec::new();
    let reading = async { while matches!(stream.read_buf(&mut said).await, Ok(n) if n > 0) {} };
    // A domain of the test driver's has no monitor: who waits for that one may go.
    drop(timeout(BRIEF, reading).await);
    String::from_utf8(said).expect("text")
}

/// Every file below a folder, as text.
fn kept(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            text += &kept(&path);
        } else {
            text += &String::from_utf8_lossy(&std::fs::read(&path).expect("read"));
        }
    }
    text
}

/// Asks a daemon all that can be asked of a domain with this name; gives what it has said, kept and logged.
async fn story(name: &str) -> [(&'static str, String); 3] {
    let xml = NODE.replace("<name>web</name>", &format!("<name>{name}</name>"));
    LOG.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let folder = tempfile::tempdir().expect("a folder");
    let shared = daemon(folder.path(), &xml).await;
    startup::adopt(&shared).await;
    let (id, _) = shared.find(name).expect("it was found running");

    let control = folder.path().join("control");
    let domain = || name.to_owned();
    let mut told = Vec::new();
    for request in [
        Request::Status { domain: None },
        Request::Status { domain: Some(domain()) },
        Request::Pools,
        Request::Inventory,
        Request::Host,
        Request::Drain { domain: domain() },
        Request::Set {
            domain: domain(),
            mac: None,
            policy: None,
            vlan: Some(7),
        },
        Request::Check {
            domain: domain(),
            to: "127.0.0.1:1".parse().expect("a peer"),
        },
        Request::Timeline {
            domain: domain(),
            limit: 10,
        },
    ] {
        told.push(say(&control, &request).await);
    }
    // Hooks bring what the XML asks of hybond; this one brings more.
    let spec = hybond_domxml::parse(xml.trim_start_matches("<node>").trim_end_matches("</node>"));
    let spec = spec.expect("readable").expect("hybond's");
    let request = |operation| hook::Request {
        version: hook::VERSION,
        operation,
        reason: None,
        domain: spec.clone(),
    };
    let door = folder.path().join("hook");
    for operation in [
        hook::Operation::Restore,
        hook::Operation::Prepare,
        hook::Operation::Started,
        hook::Operation::Reconnect,
    ] {
        told.push(say(&door, &request(operation)).await);
    }
    told.push(say_bytes(&door, format!("{{\"version\":1,\"xml\":\"{SECRET}\"}}\n").as_bytes()).await);
    told.push(
        say(
            &control,
            &Request::Timeline {
                domain: domain(),
                limit: 10,
            },
        )
        .await,
    );

    assert!(
        told.iter().any(|text| text.contains(&format!("\"{name}\""))),
        "it was asked about: {told:?}"
    );
    let runs = told.last().expect("asked");
    let runs: Response = line::decode(runs.as_bytes(), 1 << 20).expect("readable");
    assert!(
        matches!(&runs, Response::Timeline { runs } if !runs.is_empty()),
        "{runs:?}"
    );
    let kept = kept(&folder.path().join("state"));
    assert!(kept.contains(&id.to_string()), "it was kept: {kept}");
    let log = log();
    assert!(
        log.contains("DEBUG") && log.contains(&id.to_string()),
        "everything is logged"
    );
    [("answers", told.concat()), ("journal", kept), ("log", log)]
}

/// The first line with a secret.
fn leak(text: &str) -> Option<&str> {
    text.lines().find(|line| line.contains(SECRET))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_domain_is_logged_answered_or_kept() {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(|| Log)
        .finish();
    // Of all threads: libvirt is called from others than the test's.
    tracing::subscriber::set_global_default(subscriber).expect("nobody else logs in the tests");
    for (place, text) in story("web").await {
        assert_eq!(leak(&text), None, "a secret is in the {place}");
    }
    // The test of the test. A name is told everywhere: a secret in one is found wherever it looks.
    for (place, text) in story(&format!("web-{SECRET}")).await {
        assert!(leak(&text).is_some(), "a secret in the {place} is not found: {text}");
    }
    // And whoever logs the whole XML, however quietly, on a thread of libvirt's, is found out.
    let planted = "a planted leak";
    let quietly = std::thread::spawn(move || tracing::trace!(xml = NODE, "{planted}"));
    quietly.join().expect("logged");
    let log = log();
    let line = log.lines().find(|line| line.contains(planted)).expect("logged");
    assert!(leak(line).is_some(), "{line}");
}
