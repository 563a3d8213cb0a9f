//! The task that owns a connection: reads lines, obeys the guard, matches answers, passes events on.

use crate::event::{Event, MigrationStatus, Stamped};
use crate::guard::{Guard, Verdict};
use crate::message::{self, Message, Refusal};
use crate::socket::{Line, Outgoing, Socket};
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::debug;

/// Events that wait for a slow reader. A migration brings about ten. What goes through a channel here is boxed: each has room for
/// 32 at any time, and a host a thousand monitors.
pub(crate) const EVENTS: usize = 256;

/// A command on its way from a handle to the task.
#[derive(Debug)]
pub(crate) struct Request {
    pub name: String,
    pub arguments: Map<String, Value>,
    pub fd: Option<OwnedFd>,
    /// Set before the caller is looked for the last time, so a caller that reads `false` after it has let go of its
    /// end knows that nothing was sent.
    pub sent: Arc<AtomicBool>,
    pub reply: oneshot::Sender<Result<Value, Refusal>>,
}

/// What an answer is for.
#[derive(Debug)]
enum Pending {
    User {
        name: String,
        arguments: Map<String, Value>,
        reply: oneshot::Sender<Result<Value, Refusal>>,
    },
    /// The guard's own questions.
    Enable,
    Status,
    Peripherals,
    Cancel,
}

pub(crate) struct Connection {
    socket: Socket,
    out: VecDeque<Outgoing>,
    /// By id. A few at most, and none most of the time.
    pending: Vec<(u64, Pending)>,
    next_id: u64,
    guard: Guard,
    /// QEMU reports migrations. libvirt sees to that, too.
    hearing: bool,
    /// A plug that waits until QEMU does.
    waiting: Option<Request>,
    events: Sink,
    plugged: watch::Sender<BTreeSet<String>>,
    ready: Option<oneshot::Sender<()>>,
}

impl Connection {
    pub fn new(
        socket: Socket,
        events: mpsc::Sender<Box<Stamped>>,
        plugged: watch::Sender<BTreeSet<String>>,
        ready: oneshot::Sender<()>,
    ) -> Self {
        Self {
            socket,
            out: VecDeque::new(),
            pending: Vec::new(),
            next_id: 1,
            guard: Guard::default(),
            hearing: false,
            waiting: None,
            events: Sink::new(events),
            plugged,
            ready: Some(ready),
        }
    }

    /// Runs until the connection or the last handle is gone; gives the reason.
    ///
    /// By reference: a future that owns what it is called on keeps it twice.
    pub async fn run(&mut self, requests: &mut mpsc::Receiver<Box<Request>>) -> String {
        // In this order: from the first on nothing is missed, the others tell what was before it.
        self.ask(Pending::Enable);
        self.ask(Pending::Status);
        self.ask(Pending::Peripherals);
        loop {
            match self.turn(requests).await {
                Ok(true) => {}
                Ok(false) => return "no longer needed".into(),
                Err(e) => return e.to_string(),
            }
        }
    }

    async fn turn(&mut self, requests: &mut mpsc::Receiver<Box<Request>>) -> io::Result<bool> {
        self.flush()?;
        let idle = self.pending.iter().all(|(_, p)| matches!(p, Pending::Cancel));
        tokio::select! {
            readable = self.socket.readable() => {
                readable?;
                self.read()?;
            }
            writable = self.socket.writable(), if !self.out.is_empty() => writable?,
            request = requests.recv(), if idle => match request {
                Some(request) => self.accept(*request),
                None => return Ok(false),
            },
            () = self.events.room(), if self.events.is_behind() => self.events.catch_up(),
        }
        Ok(true)
    }

    fn read(&mut self) -> io::Result<()> {
        self.socket.take()?;
        while let Some(line) = self.socket.line() {
            let message = match &line {
                Line::Whole(line) => message::decode(line),
                Line::TooLong => {
                    debug!("line of QEMU's too long, dropped");
                    self.events.lost();
                    continue;
                }
            };
            match message {
                Ok(Message::Event(stamped)) => self.heard(stamped),
                Ok(Message::Answer { id, outcome }) => self.answered(id, outcome)?,
                Ok(Message::Greeting) => debug!("QEMU greets twice, ignoring"),
                Err(e) => {
                    debug!(error = %e, "line of QEMU's not understood, dropped");
                    self.events.lost();
                }
            }
        }
        Ok(())
    }

    fn heard(&mut self, stamped: Stamped) {
        let verdict = self.guard.heard(&stamped.event);
        self.obey(verdict);
        self.publish();
        self.events.push(stamped);
    }

    fn obey(&mut self, verdict: Option<Verdict>) {
        let Some(verdict) = verdict else { return };
        let status = self.guard.status();
        let plugged: Vec<String> = self.guard.plugged().iter().cloned().collect();
        let event = match verdict {
            Verdict::Cancel => {
                let line = self.line(Pending::Cancel, "migrate_cancel", &Map::new());
                let place = usize::from(self.out.front().is_some_and(Outgoing::begun));
                self.out.insert(place, Outgoing::new(line, None));
                if let Err(e) = self.flush() {
                    // The next turn of the loop meets the same error and ends the connection with it.
                    debug!(error = %e, "migrate_cancel not sent");
                }
                Event::GuardCancelled { status, plugged }
            }
            Verdict::TooLate => Event::GuardTooLate { status, plugged },
        };
        self.events.push_surely(Stamped {
            at: SystemTime::now(),
            event,
        });
    }

    fn accept(&mut self, request: Request) {
        if request.reply.is_closed() {
            return;
        }
        let plugs = self.guard.sending(&request.name, &request.arguments);
        self.publish();
        if plugs && !self.hearing {
            self.waiting = Some(request);
            self.ask(Pending::Enable);
            return;
        }
        self.send(request);
    }

    fn send(&mut self, request: Request) {
        request.sent.store(true, Ordering::SeqCst);
        if request.reply.is_closed() {
            if self.guard.refused(&request.name, &request.arguments) {
                self.ask(Pending::Peripherals);
            }
            return;
        }
        let Request {
            name,
            arguments,
            fd,
            reply,
            ..
        } = request;
        let pending = Pending::User {
            name: name.clone(),
            arguments: arguments.clone(),
            reply,
        };
        let line = self.line(pending, &name, &arguments);
        self.out.push_back(Outgoing::new(line, fd));
    }

    fn ask(&mut self, question: Pending) {
        let (name, arguments) = match &question {
            Pending::Enable => (
                "migrate-set-capabilities",
                json!({"capabilities": [{"capability": "events", "state": true}]}),
            ),
            Pending::Status => ("query-migrate", json!({})),
            Pending::Peripherals => ("qom-list", json!({"path": "/machine/peripheral"})),
            Pending::Cancel | Pending::User { .. } => return,
        };
        let Value::Object(arguments) = arguments else { return };
        let line = self.line(question, name, &arguments);
        self.out.push_back(Outgoing::new(line, None));
    }

    fn line(&mut self, pending: Pending, name: &str, arguments: &Map<String, Value>) -> Vec<u8> {
        let id = self.next_id;
        self.next_id += 1;
        self.pending.push((id, pending));
        let mut line = json!({"execute": name, "arguments": arguments, "id": id}).to_string();
        line.push('\n');
        line.into_bytes()
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some(line) = self.out.front_mut() {
            if !self.socket.send(line)? {
                break;
            }
            self.out.pop_front();
        }
        if self.out.is_empty() && self.pending.is_empty() {
            // Nothing goes on, most often for hours.
            (self.out, self.pending) = (VecDeque::new(), Vec::new());
        }
        Ok(())
    }

    fn answered(&mut self, id: Option<u64>, outcome: Result<Value, Refusal>) -> io::Result<()> {
        // QEMU leaves the id out where it could not read the command: that can only be the one in flight.
        let place = match id {
            Some(id) => self.pending.iter().position(|(known, _)| *known == id),
            None => (!self.pending.is_empty()).then_some(0),
        };
        let Some((_, pending)) = place.map(|place| self.pending.remove(place)) else {
            debug!(id, "answer to nothing of ours, dropped");
            return Ok(());
        };
        match pending {
            Pending::User { name, arguments, reply } => {
                if outcome.is_err() && self.guard.refused(&name, &arguments) {
                    self.ask(Pending::Peripherals);
                }
                if reply.send(outcome).is_err() {
                    debug!(command = name, "late answer dropped");
                    // A plug that took longer than was waited for is known to nobody.
                    self.events.lost();
                }
            }
            Pending::Enable => self.enabled(outcome),
            Pending::Status => {
                let answer = outcome.map_err(|r| unusable("query-migrate", &r.desc))?;
                let Ok(status) = answer["status"].as_str().unwrap_or("none").parse::<MigrationStatus>();
                let verdict = self.guard.found(status);
                self.obey(verdict);
            }
            Pending::Peripherals => {
                let answer = outcome.map_err(|r| unusable("qom-list", &r.desc))?;
                let devices = answer.as_array().ok_or_else(|| unusable("qom-list", "not a list"))?;
                let verdict = self.guard.looked(devices.iter().filter_map(|d| d["name"].as_str()));
                self.obey(verdict);
                self.publish();
                if let Some(ready) = self.ready.take() {
                    if ready.send(()).is_err() {
                        debug!("nobody waits for the connection any more");
                    }
                }
            }
            Pending::Cancel => {
                if let Err(refusal) = outcome {
                    debug!(reason = refusal.desc, "migrate_cancel refused");
                }
            }
        }
        Ok(())
    }

    fn enabled(&mut self, outcome: Result<Value, Refusal>) {
        self.hearing = outcome.is_ok();
        let Some(request) = self.waiting.take() else { return };
        let Err(refusal) = outcome else {
            self.send(request);
            return;
        };
        // Without the event the guard is blind, so nothing may be plugged. Mostly a migration goes on, and QEMU would
        // refuse the plug itself.
        let desc = format!(
            "migrations would go unnoticed, so no primary is plugged: {}",
            refusal.desc
        );
        let class = refusal.class;
        if request.reply.send(Err(Refusal { class, desc })).is_err() {
            debug!("a plug that was refused is no longer waited for");
        }
        self.ask(Pending::Peripherals);
    }

    fn publish(&self) {
        self.plugged.send_if_modified(|known| {
            let changed = known != self.guard.plugged();
            if changed {
                known.clone_from(self.guard.plugged());
            }
            changed
        });
    }
}

fn unusable(command: &str, why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the guard cannot work, {command}: {why}"),
    )
}

/// Events on their way to a reader that may be slow, or gone.
struct Sink {
    to: mpsc::Sender<Box<Stamped>>,
    lost: u64,
    /// The guard's latest word, which is not lost with the others.
    surely: Option<Stamped>,
}

impl Sink {
    fn new(to: mpsc::Sender<Box<Stamped>>) -> Self {
        Self {
            to,
            lost: 0,
            surely: None,
        }
    }

    fn push(&mut self, stamped: Stamped) {
        if self.is_behind() || self.to.try_send(Box::new(stamped)).is_err() {
            self.lost();
        }
    }

    fn push_surely(&mut self, stamped: Stamped) {
        if self.is_behind() {
            self.surely = Some(stamped);
        } else if let Err(mpsc::error::TrySendError::Full(stamped)) = self.to.try_send(Box::new(stamped)) {
            self.surely = Some(*stamped);
        }
    }

    fn lost(&mut self) {
        self.lost += 1;
    }

    fn is_behind(&self) -> bool {
        (self.lost > 0 || self.surely.is_some()) && !self.to.is_closed()
    }

    async fn room(&self) {
        // Only waited for: the permit is given back, and `catch_up` takes the room. An error means that nobody reads.
        drop(self.to.reserve().await);
    }

    fn catch_up(&mut self) {
        if let Some(stamped) = self.surely.take() {
            if let Err(mpsc::error::TrySendError::Full(stamped)) = self.to.try_send(Box::new(stamped)) {
                self.surely = Some(*stamped);
                return;
            }
        }
        let event = Event::Resync { lost: self.lost };
        let at = SystemTime::now();
        if self.lost > 0 && self.to.try_send(Box::new(Stamped { at, event })).is_ok() {
            self.lost = 0;
        }
    }
}
