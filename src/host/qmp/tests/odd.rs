//! The client against monitors that do what a real QEMU does rarely, or will do some day.

use hybond_qmp::{Event, MigrationStatus, Qmp, QmpError, Stamped};
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixListener;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(20);
const VF: &str = "hbvf525400aa0001";

struct Qemu {
    lines: Lines<BufReader<OwnedReadHalf>>,
    out: OwnedWriteHalf,
    _folder: TempDir,
}

/// What a monitor answers to the guard's first questions.
struct Start {
    events: Value,
    status: Value,
    devices: Value,
}

impl Default for Start {
    fn default() -> Self {
        Self {
            events: json!({"return": {}}),
            status: json!({"return": {}}),
            devices: json!({"return": [{"name": "type", "type": "string"}]}),
        }
    }
}

type Client = Result<(Qmp, mpsc::Receiver<Box<Stamped>>), QmpError>;

impl Qemu {
    async fn start(start: Start) -> (Self, Client) {
        let folder = tempfile::tempdir().expect("temporary directory");
        let path = folder.path().join("qmp");
        let listener = UnixListener::bind(&path).expect("bind");
        let client = tokio::spawn(async move { Qmp::connect(&path, LONG).await });
        let (read, out) = listener.accept().await.expect("accept").0.into_split();
        let mut qemu = Self {
            lines: BufReader::new(read).lines(),
            out,
            _folder: folder,
        };
        qemu.say(json!({"QMP": {"version": {}, "capabilities": []}})).await;
        qemu.answer("qmp_capabilities", json!({"return": {}})).await;
        qemu.answer("migrate-set-capabilities", start.events).await;
        qemu.answer("query-migrate", start.status).await;
        qemu.answer("qom-list", start.devices).await;
        (qemu, client.await.expect("task"))
    }

    async fn raw(&mut self, bytes: &[u8]) {
        self.out.write_all(bytes).await.expect("write");
    }

    async fn say(&mut self, message: Value) {
        self.raw(format!("{message}\r\n").as_bytes()).await;
    }

    async fn event(&mut self, name: &str, data: Value) {
        let timestamp = json!({"seconds": 1, "microseconds": 0});
        self.say(json!({"event": name, "data": data, "timestamp": timestamp}))
            .await;
    }

    async fn hear(&mut self) -> Value {
        let line = timeout(LONG, self.lines.next_line()).await.expect("a command comes");
        serde_json::from_str(&line.expect("read").expect("open")).expect("JSON")
    }

    /// Takes the next command, which must be this one, and answers it.
    async fn answer(&mut self, command: &str, mut answer: Value) {
        let heard = self.hear().await;
        assert_eq!(heard["execute"], command);
        answer["id"] = heard["id"].clone();
        self.say(answer).await;
    }
}

async fn next(events: &mut mpsc::Receiver<Box<Stamped>>) -> Event {
    let stamped = timeout(LONG, events.recv()).await.expect("an event comes");
    stamped.expect("connected").event
}

fn ask(qmp: &Qmp, name: &'static str, arguments: Value) -> tokio::task::JoinHandle<Result<Value, QmpError>> {
    let qmp = qmp.clone();
    tokio::spawn(async move { qmp.command(name, arguments, None, LONG).await })
}

#[tokio::test]
async fn what_is_not_known_or_not_readable_ends_nothing() {
    let (mut qemu, client) = Qemu::start(Start::default()).await;
    let (qmp, mut events) = client.expect("connected");
    qemu.event("BALLOON_FESTIVAL", json!({"balloons": 99})).await;
    let name = "BALLOON_FESTIVAL".to_owned();
    assert_eq!(next(&mut events).await, Event::Other { name });
    qemu.event("MIGRATION", json!({"status": "teleport"})).await;
    let status = MigrationStatus::Other("teleport".into());
    assert_eq!(next(&mut events).await, Event::Migration { status });
    qemu.raw(b"{\"return\": {}, \"id\n").await;
    assert_eq!(next(&mut events).await, Event::Resync { lost: 1 });
    qemu.say(json!({"return": {}, "id": "libvirt-7"})).await;
    qemu.say(json!({"return": {}, "id": 12345})).await;
    let huge = vec![b'x'; 17 * 1024 * 1024];
    qemu.raw(&huge).await;
    qemu.raw(b"\n").await;
    assert_eq!(next(&mut events).await, Event::Resync { lost: 1 });

    let asking = ask(&qmp, "query-name", Value::Null);
    qemu.answer("query-name", json!({"return": {"name": "vm"}})).await;
    assert_eq!(asking.await.expect("task").expect("answer"), json!({"name": "vm"}));
    // QEMU leaves the id out where it could not read the command.
    let asking = ask(&qmp, "query-name", Value::Null);
    qemu.hear().await;
    let error = json!({"class": "GenericError", "desc": "JSON parse error"});
    qemu.say(json!({"error": error})).await;
    assert!(matches!(asking.await.expect("task"), Err(QmpError::Refused { .. })));
}

#[tokio::test]
async fn the_guard_waits_for_nobody() {
    let (mut qemu, client) = Qemu::start(Start::default()).await;
    let (qmp, mut events) = client.expect("connected");
    let plugging = ask(&qmp, "device_add", json!({"driver": "vfio-pci", "id": VF}));
    let heard = qemu.hear().await;
    assert_eq!(heard["execute"], "device_add");
    // The plug is not answered yet, ten commands wait behind it, and the migration begins.
    let waiting: Vec<_> = (0..10).map(|_| ask(&qmp, "query-name", Value::Null)).collect();
    qemu.event("MIGRATION", json!({"status": "setup"})).await;
    qemu.answer("migrate_cancel", json!({"return": {}})).await;
    qemu.say(json!({"return": {}, "id": heard["id"]})).await;
    plugging.await.expect("task").expect("plugged");
    for _ in 0..10 {
        qemu.answer("query-name", json!({"return": {}})).await;
    }
    for command in waiting {
        command.await.expect("task").expect("answer");
    }
    let status = MigrationStatus::Setup;
    let plugged = vec![VF.to_owned()];
    assert_eq!(next(&mut events).await, Event::GuardCancelled { status, plugged });
}

#[tokio::test]
async fn the_guards_word_reaches_a_reader_that_was_too_slow() {
    let devices = json!({"return": [{"name": VF, "type": "child<vfio-pci>"}]});
    let (mut qemu, client) = Qemu::start(Start {
        devices,
        ..Start::default()
    })
    .await;
    let (_qmp, mut events) = client.expect("connected");
    for _ in 0..300 {
        qemu.event("RTC_CHANGE", json!({"offset": 1})).await;
    }
    qemu.event("MIGRATION", json!({"status": "active"})).await;
    qemu.answer("migrate_cancel", json!({"return": {}})).await;
    let mut said = 0;
    loop {
        match next(&mut events).await {
            Event::GuardCancelled { .. } => said += 1,
            Event::Resync { lost } => {
                assert_eq!(lost, 45);
                break;
            }
            _ => {}
        }
    }
    assert_eq!(said, 1);
}

#[tokio::test]
async fn nothing_is_plugged_while_migrations_would_go_unnoticed() {
    let refused = || json!({"error": {"class": "GenericError", "desc": "There's a migration process in progress"}});
    let events = refused();
    let (mut qemu, client) = Qemu::start(Start {
        events,
        ..Start::default()
    })
    .await;
    let (qmp, _events) = client.expect("connected");
    let plugging = ask(&qmp, "device_add", json!({"driver": "vfio-pci", "id": VF}));
    qemu.answer("migrate-set-capabilities", refused()).await;
    qemu.answer("qom-list", json!({"return": []})).await;
    let error = plugging.await.expect("task").expect_err("the guard would be blind");
    assert!(error.to_string().contains("unnoticed"), "{error}");

    let plugging = ask(&qmp, "device_add", json!({"driver": "vfio-pci", "id": VF}));
    qemu.answer("migrate-set-capabilities", json!({"return": {}})).await;
    qemu.answer("device_add", json!({"return": {}})).await;
    plugging.await.expect("task").expect("plugged");
    assert!(qmp.plugged().borrow().contains(VF));
}

#[tokio::test]
async fn a_monitor_that_does_not_show_its_devices_is_not_used() {
    let devices = json!({"error": {"class": "GenericError", "desc": "not today"}});
    let (_qemu, client) = Qemu::start(Start {
        devices,
        ..Start::default()
    })
    .await;
    let error = client.expect_err("the guard cannot work");
    assert!(
        error.to_string().contains("the guard cannot work, qom-list: not today"),
        "{error}"
    );
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_its_turn_to_the_next() {
    let (mut qemu, client) = Qemu::start(Start::default()).await;
    let (qmp, mut events) = client.expect("connected");
    let brief = Duration::from_millis(20);
    let first = qmp.command("query-name", Value::Null, None, brief).await;
    assert!(matches!(first, Err(QmpError::Timeout { sent: true, .. })), "{first:?}");
    let second = qmp.command("query-uuid", Value::Null, None, brief).await;
    assert!(
        matches!(second, Err(QmpError::Timeout { sent: false, .. })),
        "{second:?}"
    );
    let third = ask(&qmp, "query-kvm", Value::Null);
    qemu.answer("query-name", json!({"return": {"name": "late"}})).await;
    qemu.answer("query-kvm", json!({"return": {"present": true}})).await;
    assert_eq!(third.await.expect("task").expect("answer"), json!({"present": true}));
    // Whoever gave up knows of nothing that was done: it is to be looked at.
    assert_eq!(next(&mut events).await, Event::Resync { lost: 1 });
    drop(qemu);
    assert_eq!(&*qmp.ended().await, "QEMU closed the connection");
    assert!(!qmp.is_connected());
}
