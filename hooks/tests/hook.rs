//! The hook as libvirt runs it, against a daemon of the test's own.

use hybond_core::spec::StandbyKind;
use hybond_wire::hook::{LIMIT, Operation, Request, Response, SourceEdit, VERSION};
use hybond_wire::line;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PLAIN: &str = "<domain type='kvm'>\n  <name>db-1</name>\n  <devices/>\n</domain>\n";
const HYBRID: &str = "<domain type='kvm'>\n  <name>web-1</name>\n  <uuid>a2a2a2a2-0000-4000-8000-000000000002</uuid>\n  \
    <metadata><hybond:domain xmlns:hybond='urn:hybond:domain:1'>\n    <hybond:pair mac='52:54:00:aa:00:01' pool='10GE' \
    policy='require'/><hybond:source peer='node1'/>\n  </hybond:domain></metadata>\n  <devices>\n    \
    <interface type='direct'><mac address='52:54:00:aa:00:01'/><source dev='enp1s0f0' mode='bridge'/></interface>\n    \
    <graphics type='vnc' passwd='TopSecret'/>\n  </devices>\n</domain>\n";

/// What came out of one call.
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    took: Duration,
}

impl Outcome {
    /// The operation goes on, with the XML as it is.
    #[track_caller]
    fn assert_unchanged(&self) {
        assert_eq!(
            (self.code, self.stdout.as_str()),
            (Some(0), ""),
            "stderr: {}",
            self.stderr
        );
    }

    /// The operation stops with one sentence, and with none of the domain's secrets.
    #[track_caller]
    fn assert_refused(&self, expected: &str) {
        assert_eq!(
            (self.code, self.stdout.as_str()),
            (Some(1), ""),
            "stderr: {}",
            self.stderr
        );
        self.assert_says(expected);
    }

    #[track_caller]
    fn assert_says(&self, expected: &str) {
        assert!(self.stderr.contains(expected), "{} lacks {expected}", self.stderr);
        assert_eq!(self.stderr.matches('\n').count(), 1, "one line: {}", self.stderr);
        assert!(!self.stderr.contains("TopSecret"), "{}", self.stderr);
    }
}

fn hook(arguments: &[&str], stdin: &[u8], socket: &Path, deadline: Option<Duration>) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hybond-hook"));
    command.args(arguments).env_clear().env("HYBOND_HOOK_SOCKET", socket);
    if let Some(deadline) = deadline {
        command.env("HYBOND_HOOK_DEADLINE_MS", deadline.as_millis().to_string());
    }
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the hook starts");
    let mut pipe = child.stdin.take().expect("piped");
    let written = pipe.write_all(stdin);
    drop(pipe);
    let output = child.wait_with_output().expect("the hook ends");
    assert!(written.is_ok(), "the hook reads all that libvirt writes");
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        took: started.elapsed(),
    }
}

/// A daemon that takes one request, and answers with what it is given.
struct Daemon {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    thread: JoinHandle<Option<Request>>,
}

impl Daemon {
    fn answering(answer: Vec<u8>) -> Self {
        Self::with(move |mut stream| {
            let mut request = Vec::new();
            let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
            let read = reader.read_until(b'\n', &mut request).expect("a request");
            assert_eq!(read, request.len());
            // The hook may have gone by then, in the tests of answers that it does not read to the end.
            drop(stream.write_all(&answer));
            line::decode(&request, LIMIT).ok()
        })
    }

    fn saying(response: &Response) -> Self {
        Self::answering(line::encode(response, LIMIT).expect("short"))
    }

    fn with(serve: impl FnOnce(UnixStream) -> Option<Request> + Send + 'static) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("hook.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let thread = std::thread::spawn(move || serve(listener.accept().expect("a connection").0));
        Self {
            _folder: folder,
            socket,
            thread,
        }
    }

    fn request(self) -> Request {
        self.thread.join().expect("the daemon lives").expect("a request")
    }
}

fn source(mac: &str, source: &str) -> Vec<SourceEdit> {
    let mac = mac.parse().expect("a MAC");
    let source = source.parse().expect("a name");
    vec![SourceEdit { mac, source }]
}

fn edit(mac: &str, name: &str) -> Response {
    Response::Proceed {
        sources: source(mac, name),
        preallocate: false,
    }
}

fn with_memory_got(sources: Vec<SourceEdit>) -> Response {
    Response::Proceed {
        sources,
        preallocate: true,
    }
}

const NOWHERE: &str = "/nonexistent/hook.sock";
const EVERY: [[&str; 3]; 9] = [
    ["migrate", "begin", "-"],
    ["restore", "begin", "-"],
    ["prepare", "begin", "-"],
    ["start", "begin", "-"],
    ["started", "begin", "-"],
    ["stopped", "end", "shutdown"],
    ["release", "end", "migrated"],
    ["reconnect", "begin", "-"],
    ["attach", "begin", "-"],
];

fn arguments([operation, sub, extra]: [&str; 3]) -> [&str; 4] {
    ["web-1", operation, sub, extra]
}

#[test]
fn other_domains_pass_in_every_operation_whatever_their_xml_is() {
    let huge = vec![b'<'; 9 * 1024 * 1024];
    let garbage: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    for operation in EVERY {
        for xml in [PLAIN.as_bytes(), b"", b"not XML", &garbage, &huge] {
            let outcome = hook(&arguments(operation), xml, Path::new(NOWHERE), None);
            outcome.assert_unchanged();
            assert_eq!(outcome.stderr, "");
        }
    }
}

#[test]
fn calls_that_are_not_understood_pass() {
    for arguments in [
        &[][..],
        &["web-1"],
        &["web-1", "migrate"],
        &["web-1", "migrate", "end", "-"],
        &["", "", "", ""],
    ] {
        let outcome = hook(arguments, b"", Path::new(NOWHERE), None);
        outcome.assert_unchanged();
    }
}

#[test]
fn a_migration_gets_its_new_lower_device_and_no_other_byte_changes() {
    let daemon = Daemon::saying(&edit("52:54:00:aa:00:01", "pf1"));
    let outcome = hook(
        &["web-1", "migrate", "begin", "-"],
        HYBRID.as_bytes(),
        &daemon.socket,
        None,
    );
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(outcome.stdout, HYBRID.replace("enp1s0f0", "pf1"));
    assert_eq!(outcome.stderr, "");
    let request = daemon.request();
    assert_eq!((request.version, request.operation), (VERSION, Operation::Migrate));
    assert_eq!(request.reason, None);
    assert_eq!(request.domain.name, "web-1");
    assert_eq!(request.domain.source_peer.expect("a peer").as_str(), "node1");
    assert_eq!(request.domain.pairs[0].pool.as_str(), "10GE");
}

#[test]
fn a_restored_domain_gets_its_new_lower_device() {
    let daemon = Daemon::saying(&edit("52:54:00:aa:00:01", "pf1"));
    let outcome = hook(
        &["web-1", "restore", "begin", "-"],
        HYBRID.as_bytes(),
        &daemon.socket,
        None,
    );
    assert_eq!(outcome.stdout, HYBRID.replace("enp1s0f0", "pf1"));
}

const MEMORY: &str =
    "\n  <memoryBacking>\n    <allocation mode='immediate'/>\n  </memoryBacking>\n  <devices>\n    <interface";

fn with_memory() -> String {
    HYBRID.replace("\n  <devices>\n    <interface", MEMORY)
}

#[test]
fn a_guest_that_comes_gets_its_memory_at_once_where_the_daemon_says_so_and_its_xml_says_nothing() {
    for [operation, sub, extra] in [EVERY[0], EVERY[1]] {
        let arguments = ["web-1", operation, sub, extra];
        let call = |sources, xml: &str| {
            let daemon = Daemon::saying(&with_memory_got(sources));
            let outcome = hook(&arguments, xml.as_bytes(), &daemon.socket, None);
            assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
            outcome.stdout
        };
        assert_eq!(call(Vec::new(), HYBRID), with_memory());
        let moved = source("52:54:00:aa:00:01", "pf1");
        assert_eq!(call(moved, HYBRID), with_memory().replace("enp1s0f0", "pf1"));
        assert_eq!(call(Vec::new(), &with_memory()), "", "it is so already");
    }
    for late in [EVERY[2], EVERY[4]] {
        let daemon = Daemon::saying(&with_memory_got(Vec::new()));
        let outcome = hook(&arguments(late), HYBRID.as_bytes(), &daemon.socket, None);
        assert!(outcome.stdout.is_empty());
        outcome.assert_says("hybondd wants another XML where libvirt takes none");
    }
}

#[test]
fn the_daemon_is_told_of_each_operation_and_why() {
    let operations = [
        (0, Operation::Migrate, None),
        (1, Operation::Restore, None),
        (2, Operation::Prepare, None),
        (4, Operation::Started, None),
        (5, Operation::Stopped, Some("shutdown")),
        (6, Operation::Release, Some("migrated")),
        (7, Operation::Reconnect, None),
    ];
    for (i, operation, reason) in operations {
        let daemon = Daemon::saying(&Response::unchanged());
        let outcome = hook(&arguments(EVERY[i]), HYBRID.as_bytes(), &daemon.socket, None);
        outcome.assert_unchanged();
        let request = daemon.request();
        assert_eq!((request.operation, request.reason.as_deref()), (operation, reason));
    }
}

#[test]
fn start_asks_only_where_a_network_has_chosen_a_pf() {
    hook(&arguments(EVERY[3]), HYBRID.as_bytes(), Path::new(NOWHERE), None).assert_unchanged();
    let live = HYBRID.replace("<source dev=", "<source network='lan' portid='2df6bd17' dev=");
    let daemon = Daemon::saying(&Response::unchanged());
    hook(&arguments(EVERY[3]), live.as_bytes(), &daemon.socket, None).assert_unchanged();
    let request = daemon.request();
    let source = Some("enp1s0f0".parse().expect("a name"));
    assert_eq!(request.operation, Operation::Start);
    assert_eq!(request.domain.pairs[0].standby, StandbyKind::Network { source });
    hook(&arguments(EVERY[3]), live.as_bytes(), Path::new(NOWHERE), None).assert_refused("hybondd is not running on ");
}

#[test]
fn an_interface_of_a_network_comes_as_one_of_the_leased_vfs_pf() {
    let xml = HYBRID.replace("type='direct'", "type='network'");
    let xml = xml.replace("<source dev='enp1s0f0' mode='bridge'/>", "<source network='lan'/>");
    let daemon = Daemon::saying(&edit("52:54:00:aa:00:01", "pf1"));
    let outcome = hook(&arguments(EVERY[0]), xml.as_bytes(), &daemon.socket, None);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(outcome.stdout, HYBRID.replace("enp1s0f0", "pf1"));
}

/// The operations that can be refused, and those that never are.
const REFUSABLE: [usize; 4] = [0, 1, 2, 4];
const TOLD_ONLY: [usize; 3] = [5, 6, 7];

#[test]
fn without_a_daemon_a_hybrid_domain_goes_nowhere_and_the_way_out_is_named() {
    for i in REFUSABLE {
        let outcome = hook(&arguments(EVERY[i]), HYBRID.as_bytes(), Path::new(NOWHERE), None);
        outcome.assert_refused("hybondd is not running on ");
        outcome.assert_says("systemctl start hybondd");
        outcome.assert_says(&format!("hybond: {} of domain web-1 on ", EVERY[i][0]));
    }
    for i in TOLD_ONLY {
        let outcome = hook(&arguments(EVERY[i]), HYBRID.as_bytes(), Path::new(NOWHERE), None);
        outcome.assert_unchanged();
        outcome.assert_says("hybondd is not running on ");
    }
    // A socket that is left over from a daemon that is gone.
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("hook.sock");
    drop(UnixListener::bind(&socket).expect("a socket"));
    let outcome = hook(&arguments(EVERY[0]), HYBRID.as_bytes(), &socket, None);
    outcome.assert_refused("hybondd is not running on ");
}

#[test]
fn the_daemons_refusal_reaches_the_user_as_one_line() {
    let refusal = Response::Refuse {
        reason: "pool 10GE on node2 has no free VF,\nand the policy is\u{1b}[31m 'require'".to_owned(),
    };
    for i in REFUSABLE {
        let daemon = Daemon::saying(&refusal);
        let outcome = hook(&arguments(EVERY[i]), HYBRID.as_bytes(), &daemon.socket, None);
        outcome.assert_refused("pool 10GE on node2 has no free VF, and the policy is [31m 'require'");
    }
    for i in TOLD_ONLY {
        let daemon = Daemon::saying(&refusal);
        hook(&arguments(EVERY[i]), HYBRID.as_bytes(), &daemon.socket, None).assert_unchanged();
    }
}

#[test]
fn a_daemon_that_says_nothing_is_waited_for_no_longer_than_the_deadline() {
    let deadline = Duration::from_millis(200);
    for i in REFUSABLE.into_iter().chain(TOLD_ONLY) {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let daemon = Daemon::with(move |stream| {
            // Until the test is through with the hook: the channel's other end is dropped.
            assert!(wait.recv().is_err());
            drop(stream);
            None
        });
        let outcome = hook(&arguments(EVERY[i]), HYBRID.as_bytes(), &daemon.socket, Some(deadline));
        drop(done);
        if TOLD_ONLY.contains(&i) {
            outcome.assert_unchanged();
        } else {
            outcome.assert_refused("hybondd has not answered within 0.2 s");
        }
        assert!(outcome.took >= deadline);
        daemon.thread.join().expect("the daemon lives");
    }
}

#[test]
fn a_full_backlog_does_not_hold_the_hook() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("hook.sock");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    // Nobody accepts; connecting without waiting fails once the backlog is full.
    let mut waiting = Vec::new();
    loop {
        let (tell, told) = std::sync::mpsc::channel();
        let path = socket.clone();
        std::thread::spawn(move || tell.send(UnixStream::connect(path)));
        match told.recv_timeout(Duration::from_secs(1)) {
            Ok(stream) => waiting.push(stream.expect("in the backlog")),
            Err(_) => break,
        }
        assert!(waiting.len() < 10_000, "the backlog has an end");
    }
    let deadline = Some(Duration::from_millis(200));
    let outcome = hook(&arguments(EVERY[0]), HYBRID.as_bytes(), &socket, deadline);
    outcome.assert_refused("hybondd has not answered within 0.2 s");
    let outcome = hook(&arguments(EVERY[7]), HYBRID.as_bytes(), &socket, deadline);
    outcome.assert_unchanged();
}

#[test]
fn xml_that_never_ends_does_not_hold_the_hook() {
    for xml in [PLAIN, HYBRID] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hybond-hook"))
            .args(arguments(EVERY[0]))
            .env("HYBOND_HOOK_DEADLINE_MS", "200")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the hook starts");
        let mut pipe = child.stdin.take().expect("piped");
        pipe.write_all(xml.as_bytes()).expect("the hook reads");
        assert_eq!(child.wait().expect("the hook ends").code(), Some(0));
        let mut printed = String::new();
        child
            .stdout
            .take()
            .expect("piped")
            .read_to_string(&mut printed)
            .expect("UTF-8");
        assert_eq!(printed, "");
    }
}

#[test]
fn answers_that_make_no_sense_are_refused() {
    let mut two = line::encode(&Response::unchanged(), LIMIT).expect("short");
    two.extend_from_slice(b"{}\n");
    for (answer, expected) in [
        (b"hello\n".to_vec(), "does not understand (message not understood)"),
        (b"{\"type\":\"explode\"}\n".to_vec(), "does not understand"),
        (vec![b' '; LIMIT + 2], "message of more than 65536 bytes"),
        (two, "more than one line"),
        (Vec::new(), "closed the connection without an answer"),
        (
            b"{\"type\":\"proceed\"".to_vec(),
            "closed the connection without an answer",
        ),
    ] {
        let daemon = Daemon::answering(answer);
        let outcome = hook(&arguments(EVERY[0]), HYBRID.as_bytes(), &daemon.socket, None);
        outcome.assert_refused(expected);
    }
    for (i, response, expected) in [
        (
            0,
            edit("52:54:00:aa:00:02", "pf1"),
            "52:54:00:aa:00:02, which is no pair of this domain",
        ),
        (
            2,
            edit("52:54:00:aa:00:01", "pf1"),
            "wants another XML where libvirt takes none",
        ),
    ] {
        let daemon = Daemon::saying(&response);
        let outcome = hook(&arguments(EVERY[i]), HYBRID.as_bytes(), &daemon.socket, None);
        outcome.assert_refused(expected);
    }
}

#[test]
fn faults_in_the_metadata_are_named_and_stop_only_what_can_be_stopped() {
    let broken = [
        (
            HYBRID.replace("pool='10GE'", "pol='10GE'"),
            "attribute 'pol' in <hybond:pair>",
        ),
        (
            HYBRID.replace("direct", "user"),
            "is of type 'user', which cannot be a standby",
        ),
        (
            HYBRID.replace("</devices>", ""),
            "the domain's XML is not well-formed: ",
        ),
        (
            format!("{HYBRID}<!--{}-->", " ".repeat(5 << 20)),
            "more than 4194304 are not read",
        ),
    ];
    for (xml, expected) in &broken {
        let outcome = hook(&arguments(EVERY[0]), xml.as_bytes(), Path::new(NOWHERE), None);
        outcome.assert_refused(expected);
        for i in TOLD_ONLY {
            hook(&arguments(EVERY[i]), xml.as_bytes(), Path::new(NOWHERE), None).assert_unchanged();
        }
    }
    let mut bytes = HYBRID.as_bytes().to_vec();
    bytes.push(0xff);
    let outcome = hook(&arguments(EVERY[0]), &bytes, Path::new(NOWHERE), None);
    outcome.assert_refused("not UTF-8");
    // Beyond what is held, so that it cannot even be said what the pairs are.
    let late = format!("{}{HYBRID}", " ".repeat(5 << 20));
    let outcome = hook(&arguments(EVERY[0]), late.as_bytes(), Path::new(NOWHERE), None);
    outcome.assert_refused("more than 4194304 are not read");
}
