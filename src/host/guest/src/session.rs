//! One connection to a guest's channel.

use crate::budget::Budget;
use crate::handle::{Action, Failure, Order, QUEUE};
use crate::link::GuestLink;
use crate::report::{self, Agent};
use hybond_core::ids::Mac;
use hybond_wire::agent::{FromAgent, LIMIT, PairState, ToAgent, VERSION};
use hybond_wire::line::{self, LineBuffer};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::{self, Instant};
use tracing::debug;

/// What a guest may send: bytes at once, and bytes per second after that. Beyond, it is not read, and its writes block.
const BURST: u32 = 256 * 1024;
const PER_SECOND: u32 = 32 * 1024;
/// Lines that wait for the guest to read.
const UNREAD: usize = 16;
/// Unanswered hellos after which an agent counts as gone.
const SILENCE: u32 = 3;

/// Why a session is over.
#[derive(Debug)]
pub(crate) enum End {
    Lost(io::Error),
    /// Nobody holds a handle, or listens.
    Unneeded,
}

type Reply = oneshot::Sender<Result<PairState, Failure>>;

pub(crate) struct Session<'a> {
    link: &'a mut GuestLink,
    stream: UnixStream,
    lines: LineBuffer,
    budget: Budget,
    /// With the id of the request, which is not sent once nobody waits for it any more.
    out: VecDeque<(Option<u64>, Vec<u8>)>,
    /// Bytes of the first of `out` that have left.
    begun: usize,
    asked: HashMap<u64, (Mac, Reply)>,
    /// The pairs, as they were last told.
    known: Vec<PairState>,
    /// Ids of this session's requests begin here: anything lower was not asked by us.
    first_id: u64,
    /// Ids asked of the agent that may be there now begin here: anything lower went to one that is gone.
    present_id: u64,
    hello_at: Instant,
    said_hello: Option<Instant>,
    /// The agent has just started.
    started: bool,
    pause: Duration,
    /// Hellos on their way to whoever has the port open: nothing has said since that it was closed.
    unanswered: u32,
    complained: bool,
}

impl<'a> Session<'a> {
    pub fn new(link: &'a mut GuestLink, stream: UnixStream) -> Self {
        let now = Instant::now();
        Self {
            lines: LineBuffer::new(LIMIT),
            budget: Budget::new(BURST, PER_SECOND, now),
            out: VecDeque::new(),
            begun: 0,
            asked: HashMap::new(),
            known: Vec::new(),
            first_id: link.next_id,
            present_id: link.next_id,
            hello_at: now,
            said_hello: None,
            started: false,
            pause: link.pace.greet,
            unanswered: 0,
            complained: false,
            link,
            stream,
        }
    }

    pub async fn run(&mut self) -> End {
        loop {
            match self.turn().await {
                Ok(true) => {}
                Ok(false) => return End::Unneeded,
                Err(e) => return End::Lost(e),
            }
        }
    }

    async fn turn(&mut self) -> io::Result<bool> {
        self.flush()?;
        let throttled = self.budget.wait(Instant::now());
        let hello_at = self.link.greet_from.map(|from| from.max(self.hello_at));
        tokio::select! {
            readable = self.stream.readable(), if throttled.is_none() => {
                readable?;
                self.read()?;
            }
            () = time::sleep(throttled.unwrap_or_default()), if throttled.is_some() => {
                self.complain("it sends more than its budget");
            }
            writable = self.stream.writable(), if !self.out.is_empty() => writable?,
            order = self.link.orders.recv() => match order.map(|order| *order) {
                Some(Order::Ask { action, mac, reply }) => self.ask(action, mac, reply),
                Some(Order::Awake(from)) => self.link.greet_from = Some(from),
                Some(Order::Hello) => self.opened(),
                Some(Order::Closed) => self.gone(),
                // In its turn: an agent at work is left alone.
                Some(Order::Check) => self.hello_at = Instant::now(),
                None => return Ok(false),
            },
            listened = self.link.outbox.drain() => return Ok(listened),
            () = time::sleep_until(hello_at.unwrap_or(self.hello_at)), if hello_at.is_some() => self.hello(),
        }
        Ok(true)
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some((id, line)) = self.out.front() {
            let asked = id.and_then(|id| self.asked.get(&id));
            let stale = id.is_some() && asked.is_none_or(|(_, reply)| reply.is_closed());
            if stale && self.begun == 0 {
                self.out.pop_front();
                continue;
            }
            match self.stream.try_write(&line[self.begun..]) {
                Ok(n) => self.begun += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
            if self.begun == line.len() {
                self.begun = 0;
                self.out.pop_front();
            }
        }
        if self.out.is_empty() {
            // Nothing goes on, most often for hours.
            self.out = VecDeque::new();
        }
        Ok(())
    }

    fn queue(&mut self, request: Option<u64>, message: &ToAgent) -> bool {
        if self.out.len() >= UNREAD {
            return false;
        }
        match line::encode(message, LIMIT) {
            Ok(line) => {
                self.out.push_back((request, line));
                true
            }
            Err(e) => {
                debug!(error = %e, "message to the guest does not fit");
                false
            }
        }
    }

    fn id(&mut self) -> u64 {
        let id = self.link.next_id;
        self.link.next_id += 1;
        id
    }

    /// The port is open, as QEMU says. It says so of a guest that has just arrived, too, and a hello that was said before waits
    /// in the socket until somebody reads it: one is enough.
    fn opened(&mut self) {
        if self.unanswered == 0 {
            self.hello_soon();
        }
    }

    /// As soon as may be: a guest that says hello all day is not answered every time.
    fn hello_soon(&mut self) {
        let earliest = self
            .said_hello
            .map_or_else(Instant::now, |said| said + self.link.pace.first);
        self.hello_at = self.hello_at.min(earliest);
        self.started = true;
    }

    fn hello(&mut self) {
        self.asked.retain(|_, (_, reply)| !reply.is_closed());
        if !self.asked.is_empty() && !self.started {
            // To the agent, a hello is the beginning of another host, to which it owes no answers. What it is asked for ends
            // with an answer or a time-out.
            self.hello_at = Instant::now() + self.link.pace.answer;
            return;
        }
        self.started = false;
        let present = self.link.agent.borrow().is_some();
        if present && self.unanswered >= SILENCE {
            self.gone();
            return;
        }
        // While the guest does not even read, another hello would only be one more to read later.
        if self.out.is_empty() {
            let id = self.id();
            let pairs = self.link.pairs.clone();
            self.queue(
                None,
                &ToAgent::Hello {
                    id,
                    version: VERSION,
                    pairs,
                },
            );
        }
        self.said_hello = Some(Instant::now());
        self.unanswered = self.unanswered.saturating_add(1);
        let wait = if present { self.link.pace.answer } else { self.pause };
        self.hello_at = Instant::now() + wait;
        self.pause = (self.pause * 2).min(self.link.pace.longest);
    }

    /// The agent is gone; the next one is greeted as the first was.
    fn gone(&mut self) {
        if self.link.agent.send_replace(None).is_some() {
            self.link.outbox.gone();
        }
        self.unanswered = 0;
        // Who waits for an answer is told that there is none.
        self.asked.clear();
        self.known.clear();
        self.present_id = self.link.next_id;
        self.pause = self.link.pace.greet;
        self.hello_at = Instant::now() + self.pause;
    }

    fn ask(&mut self, action: Action, mac: Mac, reply: Reply) {
        self.asked.retain(|_, (_, reply)| !reply.is_closed());
        let failure = if !self.link.pairs.contains(&mac) {
            Some(Failure::UnknownPair)
        } else if self.link.agent.borrow().is_none() {
            // Not sent ahead: an agent that starts an hour later would carry it out then.
            Some(Failure::NoAgent)
        } else if reply.is_closed() {
            return;
        } else {
            let id = self.id();
            if self.asked.len() < QUEUE && self.queue(Some(id), &action.message(id, mac)) {
                self.asked.insert(id, (mac, reply));
                return;
            }
            Some(Failure::Congested)
        };
        if let Some(failure) = failure {
            answer(reply, Err(failure));
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0u8; 4096];
        let n = match self.stream.try_read(&mut chunk) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "QEMU closed it")),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        };
        self.budget.spend(n);
        self.lines.push(&chunk[..n]);
        loop {
            match self.lines.next_line() {
                Ok(None) => return Ok(()),
                // An agent that is restarted in the middle of a line begins with a newline of its own.
                Ok(Some(line)) if line.is_empty() => {}
                Ok(Some(line)) => match line::decode::<FromAgent>(&line, LIMIT) {
                    Ok(message) => self.heard(message),
                    Err(e) => {
                        debug!(error = %e, "line of a guest's dropped");
                        self.complain("it sends what is no message");
                    }
                },
                Err(e) => {
                    debug!(error = %e, "line of a guest's dropped");
                    self.complain("it sends lines that are too long");
                }
            }
        }
    }

    fn heard(&mut self, message: FromAgent) {
        match message {
            FromAgent::Hello {
                id,
                version,
                agent,
                pairs,
            } => self.greeted(id, version, &agent, pairs),
            FromAgent::State { state } => self.changed(state),
            FromAgent::Done { id, state } => {
                let mac = state.mac;
                self.changed(state);
                let Some((asked, reply)) = self.asked.remove(&id) else {
                    debug!(id, "late answer of a guest's");
                    return;
                };
                let outcome = match self.known.iter().find(|known| known.mac == asked) {
                    Some(state) if asked == mac => Ok(state.clone()),
                    _ => {
                        self.complain("it answers for another pair");
                        Err(Failure::Refused("it answered for another pair".into()))
                    }
                };
                answer(reply, outcome);
            }
            FromAgent::Failed { id, reason } => match self.asked.remove(&id) {
                Some((_, reply)) => answer(reply, Err(Failure::Refused(report::clean(&reason)))),
                None => debug!(id, "late refusal of a guest's"),
            },
        }
    }

    fn greeted(&mut self, id: u64, version: u16, release: &str, pairs: Vec<PairState>) {
        if version == 0 {
            self.complain("its agent speaks version 0");
            return;
        }
        if (self.first_id..self.present_id).contains(&id) {
            // QEMU's word that the port is closed comes on another socket and may overtake what was written before it.
            debug!(id, "answer of an agent that has gone since");
            return;
        }
        let asked = (self.present_id..self.link.next_id).contains(&id);
        self.unanswered = 0;
        if asked {
            self.hello_at = Instant::now() + self.link.pace.keepalive;
        } else {
            // An agent that has just started and does not know its pairs yet.
            self.hello_soon();
        }
        let agent = Agent {
            version: version.min(VERSION),
            release: report::clean(release),
        };
        let pairs: BTreeMap<Mac, PairState> = pairs
            .into_iter()
            .filter_map(|state| report::accept(state, &self.link.pairs))
            .map(|state| (state.mac, state))
            .collect();
        let news = self.link.agent.send_if_modified(|known| {
            let news = known.as_ref() != Some(&agent);
            *known = Some(agent.clone());
            news
        });
        if news || !asked {
            self.known = pairs.into_values().collect();
            self.link.outbox.hello(agent, self.known.clone());
        } else {
            for state in pairs.into_values() {
                self.changed(state);
            }
        }
    }

    fn changed(&mut self, state: PairState) {
        let Some(state) = report::accept(state, &self.link.pairs) else {
            self.complain("it reports a pair that it does not have");
            return;
        };
        match self.known.iter_mut().find(|known| known.mac == state.mac) {
            Some(known) if *known == state => return,
            Some(known) => known.clone_from(&state),
            None => self.known.push(state.clone()),
        }
        self.link.outbox.state(state);
    }

    fn complain(&mut self, what: &'static str) {
        if !std::mem::replace(&mut self.complained, true) {
            self.link.outbox.misbehaves(what);
        }
    }
}

fn answer(reply: Reply, outcome: Result<PairState, Failure>) {
    if reply.send(outcome).is_err() {
        debug!("a request to a guest is no longer waited for");
    }
}
