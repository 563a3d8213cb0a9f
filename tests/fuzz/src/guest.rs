//! What comes out of a guest's channel. The host has said hello and asked for a failover (ids 1 and 2) when the bytes
//! arrive; pairs 1 and 2 are the guest's.

use crate::{assert_fit_to_show, memory, socket};
use hybond_core::ids::Mac;
use hybond_guest::{GuestError, GuestEvent, GuestHandle, GuestLink, Pace};
use hybond_wire::agent::{FromAgent, LIMIT, PairState, Path, ToAgent, VERSION};
use hybond_wire::line::{decode, encode};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

/// Longer than a run: nothing is sent by the clock.
const NEVER: Duration = Duration::from_secs(3600);
const PACE: Pace = Pace {
    first: NEVER,
    greet: NEVER,
    longest: NEVER,
    keepalive: NEVER,
    answer: NEVER,
};

/// The guest's own, and last one that tells when all before it was heard.
const PAIRS: [u8; 3] = [1, 2, 0xff];

fn mac(last: u8) -> Mac {
    Mac::from_octets([0x52, 0x54, 0, 0xaa, 0, last]).expect("unicast")
}

/// Plays the guest.
pub fn run(data: &[u8]) {
    // More than that in one go is throttled, by the clock.
    let data = data.get(..data.len().min(8 * 1024)).unwrap_or_default();
    memory::within(512 * 1024 + 64 * data.len(), || {
        socket::with(async |far| {
            let (host, events) = GuestLink::spawn_at(far.path.clone(), PAIRS.map(mac).to_vec(), PACE);
            Guest::new(far.accept().await, host, events).play(data).await;
        });
    });
}

struct Guest {
    heard: Lines<BufReader<OwnedReadHalf>>,
    out: OwnedWriteHalf,
    host: GuestHandle,
    events: mpsc::Receiver<Box<GuestEvent>>,
}

impl Guest {
    fn new(stream: UnixStream, host: GuestHandle, events: mpsc::Receiver<Box<GuestEvent>>) -> Self {
        let (read, out) = stream.into_split();
        let heard = BufReader::new(read).lines();
        Self {
            heard,
            out,
            host,
            events,
        }
    }

    async fn play(mut self, data: &[u8]) {
        self.greet().await;
        let host = self.host.clone();
        let asking = tokio::spawn(async move { host.failover(mac(1), 0, NEVER).await });
        let asked = self.hear().await;
        assert!(matches!(asked, ToAgent::Failover { id: 2, .. }), "{asked:?}");

        for piece in socket::pieces(data) {
            self.say(piece).await;
        }
        let last = state(0xff, "the last word", Path::None);
        self.say(b"\n").await;
        self.say(&line(&FromAgent::State { state: last.clone() })).await;
        let mut seen = Seen::default();
        loop {
            let event = socket::soon("the last word", self.events.recv())
                .await
                .expect("the link lives");
            if *event == GuestEvent::State(last.clone()) {
                break;
            }
            seen.take(*event);
        }
        let expected = expected(data);
        for (mac, state) in &expected.states {
            assert_eq!(seen.states.get(mac), Some(state), "the last word of a pair counts");
        }
        assert!(seen.complaints <= 1, "mentioned once");
        assert_eq!(
            seen.complaints == 1,
            expected.wrong,
            "mentioned where something was wrong"
        );
        assert!(self.host.agent().is_some(), "no bytes end the channel");

        if !asking.is_finished() {
            // An answer has arrived by now, if there was one: its task has not had its turn.
            tokio::task::yield_now().await;
        }
        if asking.is_finished() {
            assert!(expected.answered);
            judge(asking.await.expect("no panic"));
        } else {
            assert!(!expected.answered);
            asking.abort();
        }
    }

    async fn greet(&mut self) {
        let hello = self.hear().await;
        assert!(matches!(hello, ToAgent::Hello { id: 1, .. }), "{hello:?}");
        let (agent, pairs) = ("0.1.0".to_owned(), Vec::new());
        let version = VERSION;
        let hello = FromAgent::Hello {
            id: 1,
            version,
            agent,
            pairs,
        };
        self.say(&line(&hello)).await;
        let event = socket::soon("a hello", self.events.recv()).await;
        assert!(
            matches!(event.as_deref(), Some(GuestEvent::AgentHello { .. })),
            "{event:?}"
        );
    }

    async fn say(&mut self, bytes: &[u8]) {
        socket::soon("room", self.out.write_all(bytes)).await.expect("open");
    }

    async fn hear(&mut self) -> ToAgent {
        let line = socket::soon("a message", self.heard.next_line()).await;
        let line = line.expect("UTF-8").expect("open");
        decode(line.as_bytes(), LIMIT).expect("a message")
    }
}

fn line(message: &FromAgent) -> Vec<u8> {
    encode(message, LIMIT).expect("short")
}

fn state(last: u8, bond: &str, active: Path) -> PairState {
    PairState {
        mac: mac(last),
        bond: Some(bond.to_owned()),
        standby: None,
        primary: None,
        primary_up: false,
        active,
    }
}

/// What the daemon was told.
#[derive(Default)]
struct Seen {
    states: BTreeMap<Mac, PairState>,
    complaints: usize,
}

impl Seen {
    fn take(&mut self, event: GuestEvent) {
        match event {
            GuestEvent::AgentHello { agent, pairs } => {
                assert!((1..=VERSION).contains(&agent.version));
                assert!(agent.release.chars().count() <= 256 && !agent.release.contains(char::is_control));
                assert!(pairs.len() <= PAIRS.len());
                self.states.clear();
                for pair in pairs {
                    self.state(pair);
                }
            }
            GuestEvent::State(state) => self.state(state),
            GuestEvent::Misbehaves { what } => {
                assert_fit_to_show(what);
                self.complaints += 1;
            }
            GuestEvent::AgentGone => panic!("no bytes end the channel"),
        }
    }

    fn state(&mut self, state: PairState) {
        assert!(PAIRS.map(mac).contains(&state.mac), "{state:?} is none of the guest's");
        for name in [&state.bond, &state.standby, &state.primary].into_iter().flatten() {
            assert!(
                name.chars().count() <= 15 && !name.contains(char::is_control),
                "{name:?}"
            );
        }
        self.states.insert(state.mac, state);
    }
}

/// What the daemon should have been told.
struct Expected {
    agent: (u16, String),
    states: BTreeMap<Mac, PairState>,
    wrong: bool,
    answered: bool,
}

fn expected(data: &[u8]) -> Expected {
    let mut expected = Expected {
        agent: (VERSION, "0.1.0".to_owned()),
        states: BTreeMap::new(),
        wrong: false,
        answered: false,
    };
    for line in data.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        match decode::<FromAgent>(line, LIMIT) {
            Ok(message) => expected.take(message),
            Err(_) => expected.wrong = true,
        }
    }
    expected
}

impl Expected {
    fn take(&mut self, message: FromAgent) {
        match message {
            FromAgent::Hello { version: 0, .. } => self.wrong = true,
            FromAgent::Hello {
                id,
                version,
                agent,
                pairs,
            } => {
                let agent = (version.min(VERSION), shown(&agent, 256));
                // One that is new, or was not asked: it begins with nothing.
                if agent != self.agent || !matches!(id, 1 | 2) {
                    self.states.clear();
                }
                self.agent = agent;
                for state in pairs {
                    // Pairs that the guest does not have are passed over here.
                    self.state(state, false);
                }
            }
            FromAgent::State { state } => self.state(state, true),
            FromAgent::Done { id, state } => {
                let another = state.mac != mac(1);
                self.state(state, true);
                if id == 2 && !std::mem::replace(&mut self.answered, true) {
                    self.wrong |= another;
                }
            }
            FromAgent::Failed { id, .. } => self.answered |= id == 2,
        }
    }

    fn state(&mut self, state: PairState, complain: bool) {
        if !PAIRS.map(mac).contains(&state.mac) {
            self.wrong |= complain;
            return;
        }
        let short = |name: Option<String>| name.map(|name| shown(&name, 15));
        let PairState {
            bond, standby, primary, ..
        } = state.clone();
        let state = PairState {
            bond: short(bond),
            standby: short(standby),
            primary: short(primary),
            ..state
        };
        self.states.insert(state.mac, state);
    }
}

/// A guest's words, as they may be shown.
fn shown(text: &str, longest: usize) -> String {
    let invisible = "\u{200b}\u{200c}\u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\
                     \u{2060}\u{2061}\u{2062}\u{2063}\u{2064}\u{2065}\u{2066}\u{2067}\u{2068}\u{2069}\u{feff}";
    let blank = |c: char| c.is_control() || invisible.contains(c);
    text.chars()
        .take(longest)
        .map(|c| if blank(c) { ' ' } else { c })
        .collect()
}

fn judge(answer: Result<PairState, GuestError>) {
    match answer {
        Ok(state) => assert_eq!(state.mac, mac(1)),
        Err(error @ GuestError::Refused { .. }) => assert_fit_to_show(&error.to_string()),
        Err(other) => panic!("{other:?} is no answer"),
    }
}
