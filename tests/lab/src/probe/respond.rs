//! The guest's side: little more than the standard library, so that it is small as a static binary.

use super::hold;
use super::packet::{Arrival, MAX_PACKETS, PER_REPORT, Packet, TICK_US};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A run whose peer has not been heard for so long is over: no stream goes to an address for ever.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Further behind than this, the stream goes on from now: packets that could not be sent are not sent in a burst.
const BEHIND: Duration = Duration::from_millis(100);

#[derive(Default)]
struct State {
    run: Option<Run>,
}

struct Run {
    id: u32,
    peer: SocketAddr,
    interval: Duration,
    start: Instant,
    heard: Instant,
    sending: bool,
    sent: u32,
    /// By number. It grows with those that come, as a small guest has no memory for all that could.
    arrivals: Vec<Arrival>,
}

impl Run {
    fn ticks(&self) -> u32 {
        u32::try_from(self.start.elapsed().as_micros() / TICK_US).unwrap_or(u32::MAX)
    }
}

/// What the two threads share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves one run after the other, for ever.
///
/// # Errors
/// If the address cannot be bound, or the socket fails.
pub fn respond(listen: SocketAddr) -> io::Result<()> {
    let socket = Arc::new(UdpSocket::bind(listen)?);
    hold(&socket)?;
    let shared = Arc::new(Shared::default());
    let (stream_socket, stream_shared) = (Arc::clone(&socket), Arc::clone(&shared));
    std::thread::Builder::new().spawn(move || stream(&stream_socket, &stream_shared))?;
    let mut bytes = [0; 2048];
    loop {
        match socket.recv_from(&mut bytes) {
            Ok((length, from)) => {
                let Some(packet) = bytes.get(..length).and_then(Packet::decode) else {
                    continue;
                };
                if let Some(answer) = handle(&shared, &packet, from) {
                    // An answer that gets lost is asked for again.
                    drop(socket.send_to(&answer.encode(), from));
                }
            }
            // What an interface that goes away leaves on the socket concerns one packet.
            Err(error) if is_transient(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionRefused | HostUnreachable | Interrupted | NetworkDown | NetworkUnreachable
    )
}

fn handle(shared: &Shared, packet: &Packet, from: SocketAddr) -> Option<Packet> {
    let mut state = shared.lock();
    if let Packet::Hello { run, interval_us } = *packet {
        if state.run.as_ref().is_none_or(|now| now.id != run) {
            let now = Instant::now();
            state.run = Some(Run {
                id: run,
                peer: from,
                interval: Duration::from_micros(interval_us.clamp(200, 1_000_000).into()),
                start: now,
                heard: now,
                sending: true,
                sent: 0,
                arrivals: Vec::new(),
            });
            shared.changed.notify_all();
        }
        return None;
    }
    let run = state.run.as_mut()?;
    if run.heard.elapsed() >= FORGOTTEN {
        shared.changed.notify_all();
    }
    run.heard = Instant::now();
    match *packet {
        Packet::Data { run: id, seq, .. } if id == run.id && seq < MAX_PACKETS => {
            let (ticks, at) = (run.ticks(), seq as usize);
            if run.arrivals.len() <= at {
                run.arrivals.resize(at + 1, Arrival::default());
            }
            let arrival = run.arrivals.get_mut(at)?;
            if arrival.ticks == 0 {
                arrival.ticks = ticks.saturating_add(1);
            }
            arrival.copies = arrival.copies.saturating_add(1);
            None
        }
        Packet::Query { run: id, from } if id == run.id => {
            run.sending = false;
            let asked = from..MAX_PACKETS.min(from.saturating_add(PER_REPORT));
            let arrival = |seq: u32| run.arrivals.get(seq as usize).copied().unwrap_or_default();
            Some(Packet::Report {
                run: id,
                from,
                sent: run.sent,
                arrivals: asked.map(arrival).collect(),
            })
        }
        _ => None,
    }
}

/// The guest's own stream. Deadlines are absolute, so that it does not drift; the number is used up whether or not the
/// packet could be sent, for then it is lost.
fn stream(socket: &UdpSocket, shared: &Shared) {
    let mut deadline = Instant::now();
    loop {
        let mut state = shared.lock();
        let (interval, packet, peer) = loop {
            if let Some(run) = state.run.as_mut() {
                if run.sending && run.heard.elapsed() < FORGOTTEN && run.sent < MAX_PACKETS {
                    let packet = Packet::Data {
                        run: run.id,
                        seq: run.sent,
                        ticks: run.ticks(),
                    };
                    run.sent += 1;
                    break (run.interval, packet, run.peer);
                }
            }
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            deadline = Instant::now();
        };
        drop(state);
        // No route, a bond without slaves: lost, as any other.
        drop(socket.send_to(&packet.encode(), peer));
        deadline += interval;
        let now = Instant::now();
        if now > deadline + BEHIND {
            deadline = now;
        }
        std::thread::sleep(deadline.saturating_duration_since(now));
    }
}
