//! What comes out of a monitor. The first byte says what the bytes stand for: a whole connection from its greeting on, or
//! what QEMU says on one that stands, with a primary plugged or without.

use crate::{assert_fit_to_show, fit_to_show, memory, socket};
use hybond_qmp::{Event, Qmp, Stamped};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

const VF: &str = "hbvf525400aa0001";
/// Says that all before it was heard.
const END: &str = "HYBOND_TEST_END";

/// Plays QEMU.
pub fn run(data: &[u8]) {
    let Some((first, stream)) = data.split_first() else {
        return;
    };
    // 64 KiB are read at a time, into a buffer that is grown ahead.
    memory::within(1024 * 1024 + 128 * data.len(), || {
        socket::with(async |far| {
            let path = far.path.clone();
            let client = tokio::spawn(async move { Qmp::connect(&path, socket::LONG).await });
            let mut qemu = Qemu::new(far.accept().await);
            if first & 4 != 0 {
                // No harm if it has given up before the end.
                drop(qemu.out.write_all(stream).await);
                drop(qemu);
                match socket::soon("an end", client).await.expect("no panic") {
                    Ok((qmp, _)) => assert_fit_to_show(&socket::soon("the end", qmp.ended()).await),
                    Err(error) => drop(fit_to_show(&error)),
                }
                return;
            }
            let plugged = first & 8 != 0;
            qemu.begin(plugged).await;
            let (qmp, events) = client.await.expect("no panic").expect("connected");
            goes_on(&mut qemu, qmp, events, stream, plugged).await;
        });
    });
}

async fn goes_on(qemu: &mut Qemu, qmp: Qmp, mut events: mpsc::Receiver<Box<Stamped>>, stream: &[u8], plugged: bool) {
    for piece in socket::pieces(stream) {
        qemu.raw(piece).await;
    }
    qemu.raw(b"\n").await;
    qemu.say(json!({"event": END})).await;
    let mut cancelled = 0;
    loop {
        let stamped = socket::soon("the last event", events.recv()).await;
        match stamped
            .expect("nothing that QEMU says ends a connection that stands")
            .event
        {
            Event::Other { name } if name == END => break,
            Event::Resync { lost } => {
                assert!(lost > 0);
                qemu.say(json!({"event": END})).await;
            }
            Event::GuardCancelled { plugged: of, .. } => {
                assert_eq!(of, [VF]);
                cancelled += 1;
            }
            Event::GuardTooLate { .. } => assert!(plugged),
            _ => {}
        }
    }
    let asking = tokio::spawn({
        let qmp = qmp.clone();
        async move { qmp.command("query-name", Value::Null, None, socket::LONG).await }
    });
    let mut cancels = 0;
    loop {
        let command = qemu.hear().await;
        match command["execute"].as_str() {
            Some("migrate_cancel") => cancels += 1,
            Some("query-name") => {
                qemu.say(json!({"return": {"name": "web-1"}, "id": command["id"]}))
                    .await;
                break;
            }
            _ => panic!("{command} was not asked for"),
        }
    }
    let answer = socket::soon("an answer", asking).await.expect("no panic");
    assert_eq!(answer.expect("it still works"), json!({"name": "web-1"}));
    assert!(
        plugged || cancels == 0,
        "nothing is plugged, and a migration was called off"
    );
    assert!(cancelled <= cancels);
    if plugged && must_cancel(stream) {
        assert!(cancels > 0, "a migration goes on with a primary plugged");
    }
    if plugged && !mentions(stream, "DEVICE_DELETED") {
        assert!(qmp.plugged().borrow().contains(VF), "it is plugged until it is gone");
    }
}

fn mentions(stream: &[u8], word: &str) -> bool {
    stream.windows(word.len()).any(|w| w == word.as_bytes()) || stream.contains(&b'\\')
}

/// A migration begins while the primary is there: the first word about either is that.
fn must_cancel(stream: &[u8]) -> bool {
    if mentions(stream, "DEVICE_DELETED") || stream.len() > 4096 {
        return false;
    }
    let objects = stream.split(|b| *b == b'\n').filter_map(|line| {
        let value: Value = serde_json::from_slice(line).ok()?;
        // Only what nobody can understand otherwise.
        let keys = value
            .as_object()?
            .keys()
            .all(|key| matches!(key.as_str(), "event" | "data"));
        keys.then_some(value)
    });
    let mut statuses = objects
        .filter(|value| value["event"] == "MIGRATION")
        .filter(|value| value["data"].as_object().is_some_and(|data| data.len() == 1))
        .filter_map(|value| value["data"]["status"].as_str().map(str::to_owned));
    statuses
        .next()
        .is_some_and(|status| matches!(status.as_str(), "setup" | "active"))
        && !odd(stream)
}

/// There are other words about migrations, which may have come before.
fn odd(stream: &[u8]) -> bool {
    let all = stream.windows(9).filter(|w| *w == b"MIGRATION").count();
    all != 1 || stream.windows(9).filter(|w| *w == b"\"status\":").count() != 1
}

struct Qemu {
    heard: Lines<BufReader<OwnedReadHalf>>,
    out: OwnedWriteHalf,
}

impl Qemu {
    fn new(stream: UnixStream) -> Self {
        let (read, out) = stream.into_split();
        Self {
            heard: BufReader::new(read).lines(),
            out,
        }
    }

    async fn begin(&mut self, plugged: bool) {
        self.say(json!({"QMP": {"version": {}, "capabilities": []}})).await;
        let devices = match plugged {
            true => json!([{"name": VF, "type": "child<vfio-pci>"}]),
            false => json!([{"name": "type", "type": "string"}]),
        };
        for (command, answer) in [
            ("qmp_capabilities", json!({})),
            ("migrate-set-capabilities", json!({})),
            ("query-migrate", json!({})),
            ("qom-list", devices),
        ] {
            let heard = self.hear().await;
            assert_eq!(heard["execute"], command);
            self.say(json!({"return": answer, "id": heard["id"]})).await;
        }
    }

    async fn raw(&mut self, bytes: &[u8]) {
        socket::soon("room", self.out.write_all(bytes)).await.expect("open");
    }

    async fn say(&mut self, message: Value) {
        self.raw(format!("{message}\r\n").as_bytes()).await;
    }

    async fn hear(&mut self) -> Value {
        let line = socket::soon("a command", self.heard.next_line()).await;
        serde_json::from_str(&line.expect("UTF-8").expect("open")).expect("JSON")
    }
}
