//! The other ends of many domains, on real sockets: QEMU's monitor and the guest's agent. They answer at once, but for what
//! takes a guest time, which takes as long as [`Pace`] says. Each counts for how long it was waited for.

use super::flood::{self, Flood};
use super::plan::Domain;
use anyhow::{Context, Result};
use hybond_wire::agent::{FromAgent, LIMIT, PairState, Path as ActivePath, ToAgent, VERSION};
use hybond_wire::line::{self, LineBuffer};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};

/// How many taps are closed at a time. The kernel takes milliseconds for each, a part of them with its one lock for network
/// devices held (RTNL), for which all others would spin on the cores that are hybondd's, too. A VF has no device on its host
/// that would go. One at a time takes 17 ms, nearly all of it a wait.
pub const CLOSING: usize = 16;
/// Held by who closes one.
static PLACES: Semaphore = Semaphore::const_new(CLOSING);
/// Longest line of the daemon's to QEMU.
const COMMAND: usize = 64 * 1024;

/// What takes a guest time.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The bond's switch.
    pub switch: Duration,
    /// From `device_del` to DEVICE_DELETED.
    pub unplug: Duration,
    /// From `device_add` to the primary's carrier.
    pub carrier: Duration,
}

/// When the daemon last said anything to any of them.
pub type Heard = Rc<Cell<Instant>>;

/// A domain's QEMU and guest.
#[derive(Debug)]
pub struct End {
    mac: hybond_core::ids::Mac,
    plugged: bool,
    carrier: bool,
    on_primary: bool,
    /// The tap of the primary, as QEMU holds it. The device goes when it is closed.
    tap: Option<OwnedFd>,
    /// One that is to be closed before its command is answered.
    given_up: Option<OwnedFd>,
    netdev: bool,
    to_daemon: Option<mpsc::UnboundedSender<FromAgent>>,
    flood: watch::Sender<Option<Flood>>,
    /// Requests that have come and are not answered yet, and since when there is one.
    open: u32,
    since: Instant,
    waited: Duration,
}

impl End {
    /// Counts anew for how long it is waited for.
    pub fn begin(&mut self) {
        self.waited = Duration::ZERO;
    }

    /// For how long it was waited for.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Has the guest flood its channel from now on, or be as others again.
    pub fn flood(&self, with: Option<Flood>) {
        self.flood.send_replace(with);
    }

    fn enter(&mut self) {
        if self.open == 0 {
            self.since = Instant::now();
        }
        self.open += 1;
    }

    fn leave(&mut self) {
        self.open = self.open.saturating_sub(1);
        if self.open == 0 {
            self.waited += self.since.elapsed();
        }
    }

    /// What the agent says of its pair.
    pub fn state(&self) -> PairState {
        PairState {
            mac: self.mac,
            bond: Some("eth0".to_owned()),
            standby: Some("eth0nsby".to_owned()),
            primary: self.carrier.then(|| "ens5".to_owned()),
            primary_up: self.carrier,
            active: if self.on_primary {
                ActivePath::Primary
            } else {
                ActivePath::Standby
            },
        }
    }

    fn tell_state(&self) {
        if let Some(to_daemon) = &self.to_daemon {
            // A daemon that has gone says hello when it is back.
            drop(to_daemon.send(FromAgent::State { state: self.state() }));
        }
    }
}

type Shared = Rc<RefCell<End>>;

/// Listens for a domain's daemon, for as long as the runtime's local tasks run.
///
/// # Errors
/// A socket cannot be made.
pub fn begin(domain: &Domain, pace: Pace, heard: &Heard) -> Result<Shared> {
    let listen = |path: &Path| UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()));
    let monitor = listen(&hybond_domxml::qmp_path(domain.id))?;
    let agent = listen(&domain.agent)?;
    let end = Rc::new(RefCell::new(End {
        mac: domain.mac,
        plugged: false,
        carrier: false,
        on_primary: false,
        tap: None,
        given_up: None,
        netdev: false,
        to_daemon: None,
        flood: watch::Sender::new(None),
        open: 0,
        since: Instant::now(),
        waited: Duration::ZERO,
    }));
    let (own, told) = (Rc::clone(&end), Rc::clone(heard));
    tokio::task::spawn_local(async move {
        // A connection ends when the daemon does; the next daemon comes to the same socket, as to the same QEMU.
        while let Ok((stream, _)) = monitor.accept().await {
            drop(qmp(stream, &own, pace, &told).await);
        }
    });
    let (own, told) = (Rc::clone(&end), Rc::clone(heard));
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = agent.accept().await {
            drop(guest(stream, &own, pace, &told).await);
            own.borrow_mut().to_daemon = None;
        }
    });
    Ok(end)
}

/// QEMU's end of one connection.
async fn qmp(stream: UnixStream, end: &Shared, pace: Pace, heard: &Heard) -> io::Result<()> {
    let (events, mut waiting) = mpsc::unbounded_channel::<(Value, bool)>();
    let greeting = json!({"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 0}, "package": ""},
        "capabilities": ["oob"]}});
    say(&stream, &greeting).await?;
    let mut lines = LineBuffer::new(COMMAND);
    let mut passed = Vec::new();
    loop {
        tokio::select! {
            ready = stream.ready(Interest::READABLE) => {
                ready?;
                if !receive(&stream, &mut lines, &mut passed)? {
                    return Ok(());
                }
                while let Some(line) = lines.next_line().map_err(io::Error::other)? {
                    heard.set(Instant::now());
                    end.borrow_mut().enter();
                    let command: Value = serde_json::from_slice(&line)?;
                    let answer = command_of(&command, end, pace, &events, &mut passed);
                    let given_up = end.borrow_mut().given_up.take();
                    if let Some(tap) = given_up {
                        // Closed by nobody.
                        let _place = PLACES.acquire().await;
                        tokio::task::spawn_blocking(move || drop(tap)).await.map_err(io::Error::other)?;
                    }
                    say(&stream, &answer).await?;
                    end.borrow_mut().leave();
                }
            }
            Some((event, waited_for)) = waiting.recv() => {
                say(&stream, &event).await?;
                if waited_for {
                    end.borrow_mut().leave();
                }
            }
        }
    }
}

async fn say(stream: &UnixStream, message: &Value) -> io::Result<()> {
    let text = message.to_string() + "\r\n";
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(n) => rest = rest.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Takes bytes and descriptors; false where the other end has closed.
fn receive(stream: &UnixStream, lines: &mut LineBuffer, passed: &mut Vec<OwnedFd>) -> io::Result<bool> {
    let mut bytes = [0; 4096];
    let result = stream.try_io(Interest::READABLE, || {
        let mut space = nix::cmsg_space!(RawFd);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<()>(
            stream.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = control {
                passed.extend(descriptors.into_iter().map(owned));
            }
        }
        Ok(message.bytes)
    });
    match result {
        Ok(0) => Ok(false),
        Ok(n) => {
            lines.push(bytes.get(..n).unwrap_or_default());
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

#[allow(unsafe_code, reason = "a descriptor that a message has brought comes as a number")]
fn owned(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made it for this process, and nobody else has its number.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// What QEMU answers. Events that follow come by the channel, with whether the daemon waits for them.
fn command_of(
    command: &Value,
    end: &Shared,
    pace: Pace,
    events: &mpsc::UnboundedSender<(Value, bool)>,
    passed: &mut Vec<OwnedFd>,
) -> Value {
    let id = &command["id"];
    let missing = json!({"error": {"class": "DeviceNotFound", "desc": "not found"}, "id": id});
    let mut own = end.borrow_mut();
    let primary = own.mac.primary_id();
    let value = match command["execute"].as_str().unwrap_or_default() {
        "qom-list" => {
            let child = |name: &str| json!({"name": name, "type": "child<igb>"});
            let devices: Vec<Value> = own.plugged.then(|| child(&primary)).into_iter().collect();
            json!(devices)
        }
        "query-status" => json!({"running": true, "status": "running", "singlestep": false}),
        "query-version" => json!({"qemu": {"major": 10, "minor": 0, "micro": 0}, "package": ""}),
        "query-rx-filter" => json!([]),
        "getfd" => {
            own.tap = passed.pop();
            json!({})
        }
        "netdev_add" => {
            own.netdev = true;
            json!({})
        }
        "netdev_del" if !own.netdev => return missing,
        "netdev_del" => {
            own.netdev = false;
            own.given_up = own.tap.take();
            json!({})
        }
        "device_add" => {
            own.plugged = true;
            own.enter();
            let end = Rc::clone(end);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(pace.carrier).await;
                let mut own = end.borrow_mut();
                own.carrier = own.plugged;
                own.tell_state();
                own.leave();
            });
            json!({})
        }
        "device_del" if !own.plugged => return missing,
        "device_del" => {
            own.enter();
            let (end, events) = (Rc::clone(end), events.clone());
            tokio::task::spawn_local(async move {
                tokio::time::sleep(pace.unplug).await;
                let event = {
                    let mut own = end.borrow_mut();
                    (own.plugged, own.carrier, own.on_primary) = (false, false, false);
                    own.tell_state();
                    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                    let now = now.unwrap_or_default();
                    let id = own.mac.primary_id();
                    json!({"event": "DEVICE_DELETED",
                        "data": {"device": id, "path": format!("/machine/peripheral/{id}")},
                        "timestamp": {"seconds": now.as_secs(), "microseconds": now.subsec_micros()}})
                };
                // A daemon that has gone finds it out by looking.
                if events.send((event, true)).is_err() {
                    end.borrow_mut().leave();
                }
            });
            json!({})
        }
        // Capabilities, `query-migrate` without a migration, announcements.
        _ => json!({}),
    };
    json!({"return": value, "id": id})
}

/// The guest's end of one connection.
async fn guest(stream: UnixStream, end: &Shared, pace: Pace, heard: &Heard) -> io::Result<()> {
    let (mut read, mut write) = stream.into_split();
    let (to_daemon, mut waiting) = mpsc::unbounded_channel::<FromAgent>();
    let mut flood = {
        let mut own = end.borrow_mut();
        own.to_daemon = Some(to_daemon);
        own.flood.subscribe()
    };
    let mut lines = LineBuffer::new(LIMIT);
    let mut bytes = [0; 4096];
    loop {
        tokio::select! {
            n = read.read(&mut bytes), if *flood.borrow() != Some(Flood::Deaf) => {
                let n = n?;
                if n == 0 {
                    return Ok(());
                }
                lines.push(bytes.get(..n).unwrap_or_default());
                while let Some(line) = lines.next_line().map_err(io::Error::other)? {
                    heard.set(Instant::now());
                    end.borrow_mut().enter();
                    let message = line::decode::<ToAgent>(&line, LIMIT).map_err(io::Error::other)?;
                    let answer = obey(message, end, pace).await;
                    write.write_all(&line::encode(&answer, LIMIT).map_err(io::Error::other)?).await?;
                    end.borrow_mut().leave();
                }
            }
            written = flood::write(&mut flood, end, &mut write) => written?,
            Some(message) = waiting.recv() => {
                write.write_all(&line::encode(&message, LIMIT).map_err(io::Error::other)?).await?;
            }
        }
    }
}

async fn obey(message: ToAgent, end: &Shared, pace: Pace) -> FromAgent {
    let switched = |on_primary| {
        let mut own = end.borrow_mut();
        own.on_primary = on_primary && own.carrier;
        own.state()
    };
    match message {
        ToAgent::Hello { id, .. } => FromAgent::Hello {
            id,
            version: VERSION,
            agent: "simulated".to_owned(),
            pairs: vec![end.borrow().state()],
        },
        ToAgent::Failover { id, .. } => {
            tokio::time::sleep(pace.switch).await;
            FromAgent::Done {
                id,
                state: switched(false),
            }
        }
        ToAgent::Failback { id, .. } => {
            tokio::time::sleep(pace.switch).await;
            FromAgent::Done {
                id,
                state: switched(true),
            }
        }
        ToAgent::Announce { id, .. } => FromAgent::Done {
            id,
            state: end.borrow().state(),
        },
    }
}
