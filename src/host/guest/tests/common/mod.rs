//! QEMU's end of a guest's channel, and an agent that says what a test wants.
#![allow(dead_code, reason = "each test binary uses a part")]

use hybond_core::ids::Mac;
use hybond_guest::{Agent, GuestEvent, GuestHandle, GuestLink, Pace};
use hybond_wire::agent::{FromAgent, PairState, Path, ToAgent, VERSION};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

pub const LONG: Duration = Duration::from_secs(20);
pub const BRIEF: Pace = Pace {
    first: Duration::from_millis(20),
    greet: Duration::from_millis(20),
    longest: Duration::from_millis(100),
    keepalive: Duration::from_millis(100),
    answer: Duration::from_millis(100),
};

pub fn mac(last: u8) -> Mac {
    Mac::from_octets([0x52, 0x54, 0, 0xaa, 0, last]).expect("unicast")
}

pub fn state(last: u8, active: Path) -> PairState {
    PairState {
        mac: mac(last),
        bond: Some("eth0".into()),
        standby: Some("eth0nsby".into()),
        primary: Some("ens5".into()),
        primary_up: true,
        active,
    }
}

/// QEMU's end of the channel, with the guest behind it.
pub struct Guest {
    listener: UnixListener,
    directory: TempDir,
}

impl Guest {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let listener = UnixListener::bind(directory.path().join("agent")).expect("bind");
        Self { listener, directory }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("agent")
    }

    pub fn host(&self, pace: Pace) -> (GuestHandle, mpsc::Receiver<Box<GuestEvent>>) {
        GuestLink::spawn_at(self.path(), vec![mac(1), mac(2)], pace)
    }

    /// Whose CPUs do not run yet.
    pub fn host_of_arriving(&self, pace: Pace) -> (GuestHandle, mpsc::Receiver<Box<GuestEvent>>) {
        GuestLink::spawn_asleep(self.path(), vec![mac(1), mac(2)], pace)
    }

    pub async fn accept(&self) -> Port {
        let accepted = timeout(LONG, self.listener.accept()).await.expect("the host connects");
        Port::over(accepted.expect("accept").0)
    }
}

pub struct Port {
    pub lines: Lines<BufReader<OwnedReadHalf>>,
    pub out: OwnedWriteHalf,
}

impl Port {
    pub fn over(stream: UnixStream) -> Self {
        let (read, out) = stream.into_split();
        Self {
            lines: BufReader::new(read).lines(),
            out,
        }
    }

    pub async fn read(&mut self) -> ToAgent {
        let line = timeout(LONG, self.lines.next_line()).await.expect("the host writes");
        serde_json::from_str(&line.expect("read").expect("open")).expect("message")
    }

    /// The next message, however long it takes; `None` where the host has closed the channel.
    pub async fn read_whenever(&mut self) -> Option<ToAgent> {
        let line = self.lines.next_line().await.ok()??;
        Some(serde_json::from_str(&line).expect("message"))
    }

    pub async fn write(&mut self, message: &FromAgent) {
        let line = serde_json::to_string(message).expect("message") + "\n";
        self.raw(line.as_bytes()).await;
    }

    /// Writes what fits now; gives how much.
    pub async fn write_some(&mut self, bytes: &[u8]) -> usize {
        self.try_write_some(bytes).await.expect("write")
    }

    /// As [`Self::write_some`], to a host that may close the channel.
    pub async fn try_write_some(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.write(bytes).await
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        self.out.write_all(bytes).await.expect("write");
    }

    /// Answers the next hello; anything else before it is a fault of the test.
    pub async fn greet(&mut self, pairs: Vec<PairState>) {
        let message = self.read().await;
        let ToAgent::Hello {
            id,
            version,
            pairs: asked,
        } = message
        else {
            panic!("{message:?} instead of hello")
        };
        assert_eq!((version, asked), (VERSION, vec![mac(1), mac(2)]));
        self.answer_hello(id, pairs).await;
    }

    pub async fn answer_hello(&mut self, id: u64, pairs: Vec<PairState>) {
        let agent = "0.1.0".to_owned();
        let version = VERSION + 1;
        self.write(&FromAgent::Hello {
            id,
            version,
            agent,
            pairs,
        })
        .await;
    }

    /// The next request that is no hello.
    pub async fn request(&mut self) -> ToAgent {
        loop {
            let message = self.read().await;
            if !matches!(message, ToAgent::Hello { .. }) {
                return message;
            }
        }
    }
}

pub async fn next(events: &mut mpsc::Receiver<Box<GuestEvent>>) -> GuestEvent {
    let event = timeout(LONG, events.recv()).await.expect("an event comes");
    *event.expect("the link lives")
}

pub fn hello(pairs: Vec<PairState>) -> GuestEvent {
    let agent = Agent {
        version: VERSION,
        release: "0.1.0".into(),
    };
    GuestEvent::AgentHello { agent, pairs }
}
