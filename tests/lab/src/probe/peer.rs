//! The peer's side: sends, receives, and at the end asks the guest what came.

use super::hold;
use super::packet::{Arrival, MAX_PACKETS, PER_REPORT, Packet};
use super::{Direction, GuestClock, Record};
use anyhow::{Context, Result, bail};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use std::io::{self, BufRead, BufReader, BufWriter, IoSliceMut, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long the guest may take to answer the first hello, and each group of its report in all.
const PATIENCE: Duration = Duration::from_secs(60);
/// After the last packet, so long is waited for those under way.
const UNDER_WAY: Duration = Duration::from_secs(1);
/// Pause between repetitions of a question.
const AGAIN: Duration = Duration::from_millis(200);

/// A run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The guest's side.
    pub guest: SocketAddr,
    /// Packets per second in each direction.
    pub rate: u32,
    /// The run ends by itself after this.
    pub at_most: Duration,
}

/// A packet of the guest's, as it came.
#[derive(Debug, Clone, Copy)]
struct Seen {
    ticks: u32,
    recv_ms: f64,
    copies: u8,
}

/// Runs the probe until `stop` is set or its time is over, and tells what became of every packet.
///
/// # Errors
/// If the guest never answers, or does not report at the end.
pub fn run(config: &Config, stop: &AtomicBool) -> Result<Vec<Record>> {
    let any: SocketAddr = if config.guest.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any).context("cannot open a UDP socket")?;
    hold(&socket).context("cannot have the socket hold what is not read yet")?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("cannot ask for the packets' times of arrival")?;
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .context("cannot limit the wait for a packet")?;
    let id = u32::from_ne_bytes(rand_bytes());
    let over = AtomicBool::new(false);
    // Answers to one question at a time: what does not fit is a repetition.
    let (answers, questions) = sync_channel(4);
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&socket, id, &over, &answers));
        let exchanged = exchange(config, stop, &socket, id, &questions);
        over.store(true, Ordering::Relaxed);
        let seen = receiver
            .join()
            .map_err(|_| anyhow::anyhow!("the receiving thread has failed"))??;
        let (sent_ms, arrivals, guest_sent) = exchanged?;
        Ok(records(config, &sent_ms, &arrivals, &seen, guest_sent))
    })
}

/// Different in each run is all that is asked of it.
fn rand_bytes() -> [u8; 4] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_micros() as u32 ^ std::process::id()).to_ne_bytes()
}

type Exchanged = (Vec<f64>, Vec<Arrival>, u32);

fn exchange(
    config: &Config,
    stop: &AtomicBool,
    socket: &UdpSocket,
    id: u32,
    questions: &Receiver<Packet>,
) -> Result<Exchanged> {
    let interval = Duration::from_secs(1) / config.rate.max(1);
    let hello = Packet::Hello {
        run: id,
        interval_us: interval.as_micros() as u32,
    };
    ask(socket, config.guest, &hello, questions, |answer| {
        matches!(answer, Packet::Data { .. })
    })
    .with_context(|| format!("the probe in the guest ({}) does not answer", config.guest))?;
    let sent_ms = send(config, stop, socket, id, interval);
    std::thread::sleep(UNDER_WAY);
    let mut arrivals = Vec::with_capacity(sent_ms.len());
    let mut guest_sent = 0;
    while arrivals.len() < sent_ms.len() || guest_sent == 0 {
        let next = arrivals.len() as u32;
        let query = Packet::Query { run: id, from: next };
        let is_it = |answer: &Packet| matches!(answer, Packet::Report { from, .. } if *from == next);
        let answer = ask(socket, config.guest, &query, questions, is_it)
            .with_context(|| format!("the probe in the guest ({}) does not report what came", config.guest))?;
        if let Packet::Report {
            arrivals: some, sent, ..
        } = answer
        {
            if some.len() != PER_REPORT as usize && next + (some.len() as u32) < MAX_PACKETS {
                bail!(
                    "the probe in the guest reports {} packets instead of {PER_REPORT}",
                    some.len()
                );
            }
            arrivals.extend(some);
            guest_sent = sent;
        }
    }
    arrivals.truncate(sent_ms.len());
    Ok((sent_ms, arrivals, guest_sent))
}

/// The stream to the guest, by absolute deadlines: times of sending.
fn send(config: &Config, stop: &AtomicBool, socket: &UdpSocket, run: u32, interval: Duration) -> Vec<f64> {
    let start = Instant::now();
    let mut sent_ms = Vec::new();
    for seq in 0..MAX_PACKETS {
        let deadline = interval * seq;
        std::thread::sleep(deadline.saturating_sub(start.elapsed()));
        if stop.load(Ordering::Relaxed) || deadline >= config.at_most {
            break;
        }
        sent_ms.push(now_ms());
        let packet = Packet::Data { run, seq, ticks: 0 };
        // No route or no neighbour: lost, as any other.
        drop(socket.send_to(&packet.encode(), config.guest));
    }
    sent_ms
}

fn ask(
    socket: &UdpSocket,
    guest: SocketAddr,
    question: &Packet,
    answers: &Receiver<Packet>,
    is_it: impl Fn(&Packet) -> bool,
) -> Result<Packet> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        // Unreachable for now: asked again below.
        drop(socket.send_to(&question.encode(), guest));
        let again = Instant::now() + AGAIN;
        while let Ok(answer) = answers.recv_timeout(again.saturating_duration_since(Instant::now())) {
            if is_it(&answer) {
                return Ok(answer);
            }
        }
    }
    bail!("no answer in {} s", PATIENCE.as_secs())
}

/// Takes what comes, with the kernel's time of arrival: this thread may be late itself.
fn receive(socket: &UdpSocket, id: u32, over: &AtomicBool, answers: &SyncSender<Packet>) -> Result<Vec<Option<Seen>>> {
    let mut seen: Vec<Option<Seen>> = Vec::new();
    let mut bytes = [0; 2048];
    let mut control = nix::cmsg_space!(TimeSpec);
    while !over.load(Ordering::Relaxed) {
        let (length, at) = {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let (fd, flags) = (socket.as_raw_fd(), MsgFlags::empty());
            match recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), flags) {
                Ok(message) => {
                    let stamp = message.cmsgs().ok().and_then(|mut all| all.find_map(arrival_time));
                    (message.bytes, stamp)
                }
                // Nothing came for a while, or the guest's port is closed, or it has no neighbour entry.
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => continue,
                Err(nix::Error::ECONNREFUSED | nix::Error::EHOSTUNREACH | nix::Error::ENETUNREACH) => continue,
                Err(error) => return Err(error).context("cannot receive packets"),
            }
        };
        let packet = bytes.get(..length).and_then(Packet::decode);
        match packet {
            Some(Packet::Data { run, seq, ticks }) if run == id && seq < MAX_PACKETS => {
                let place = seq as usize;
                if seen.len() <= place {
                    seen.resize(place + 1, None);
                }
                let first = Seen {
                    ticks,
                    recv_ms: at.unwrap_or_else(now_ms),
                    copies: 0,
                };
                let noted = seen[place].get_or_insert(first);
                noted.copies = noted.copies.saturating_add(1);
                if seq < 100 {
                    // The answer to a hello. Full: it was heard before.
                    drop(answers.try_send(Packet::Data { run, seq, ticks }));
                }
            }
            Some(report @ Packet::Report { run, .. }) if run == id => drop(answers.try_send(report)),
            _ => {}
        }
    }
    Ok(seen)
}

fn arrival_time(message: ControlMessageOwned) -> Option<f64> {
    match message {
        ControlMessageOwned::ScmTimestampns(time) => Some(time.tv_sec() as f64 * 1e3 + time.tv_nsec() as f64 / 1e6),
        _ => None,
    }
}

fn now_ms() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs_f64() * 1e3
}

fn ticks_ms(ticks: u32) -> f64 {
    f64::from(ticks) * super::packet::TICK_US as f64 / 1e3
}

fn records(
    config: &Config,
    sent_ms: &[f64],
    arrivals: &[Arrival],
    seen: &[Option<Seen>],
    guest_sent: u32,
) -> Vec<Record> {
    let came = seen.iter().flatten().map(|seen| (ticks_ms(seen.ticks), seen.recv_ms));
    let clock = GuestClock::new(came.collect());
    let to_guest = sent_ms.iter().zip(arrivals).enumerate().map(|(seq, (sent, arrival))| {
        let stamp = arrival.ticks.checked_sub(1).map(ticks_ms);
        Record {
            dir: Direction::ToGuest,
            seq: seq as u32,
            sent_ms: *sent,
            // Not before it was sent: the conversion is right to about a millisecond.
            recv_ms: stamp.and_then(|stamp| clock.convert(stamp)).map(|recv| recv.max(*sent)),
            copies: arrival.copies,
        }
    });
    let stamps = stamps(config, seen, guest_sent);
    let from_guest = stamps.into_iter().enumerate().filter_map(|(seq, stamp)| {
        let seen = seen.get(seq).copied().flatten();
        let sent = clock.convert(stamp)?;
        Some(Record {
            dir: Direction::FromGuest,
            seq: seq as u32,
            sent_ms: seen.map_or(sent, |seen| sent.min(seen.recv_ms)),
            recv_ms: seen.map(|seen| seen.recv_ms),
            copies: seen.map_or(0, |seen| seen.copies),
        })
    });
    to_guest.chain(from_guest).collect()
}

/// The guest's time at the sending of each of its packets: for those that did not come, in line with their neighbours.
fn stamps(config: &Config, seen: &[Option<Seen>], guest_sent: u32) -> Vec<f64> {
    let interval = 1e3 / f64::from(config.rate.max(1));
    let known: Vec<(u32, f64)> = (0u32..)
        .zip(seen)
        .filter_map(|(seq, seen)| Some((seq, ticks_ms(seen.as_ref()?.ticks))))
        .collect();
    let stamp = |seq: u32| {
        let next = known.partition_point(|(other, _)| *other < seq);
        let after = known.get(next);
        let before = next.checked_sub(1).and_then(|last| known.get(last));
        match (before, after) {
            (_, Some((at, stamp))) if *at == seq => *stamp,
            (Some((from, first)), Some((to, last))) => {
                first + (last - first) * f64::from(seq - from) / f64::from(to - from)
            }
            (Some((from, first)), None) => first + interval * f64::from(seq - from),
            (None, Some((to, last))) => last - interval * f64::from(to - seq),
            (None, None) => interval * f64::from(seq),
        }
    };
    (0..guest_sent.max(seen.len() as u32)).map(stamp).collect()
}

/// Writes records, one JSON object a line.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, records: &[Record]) -> Result<()> {
    let store = || -> io::Result<()> {
        let mut file = BufWriter::new(std::fs::File::create(path)?);
        for record in records {
            serde_json::to_writer(&mut file, record)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    };
    store().with_context(|| format!("cannot write {}", path.display()))
}

/// Reads what [`write`] has written.
///
/// # Errors
/// If the file cannot be read or understood.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let load = || -> Result<Vec<Record>> {
        let lines = BufReader::new(std::fs::File::open(path)?).lines();
        lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
    };
    load().with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Span, analyse, respond};

    #[test]
    fn a_run_over_loopback_accounts_for_every_packet_in_both_directions() {
        let free = UdpSocket::bind("127.0.0.1:0")
            .expect("a port")
            .local_addr()
            .expect("its number");
        std::thread::spawn(move || respond(free));
        let config = Config {
            guest: free,
            rate: 500,
            at_most: Duration::from_secs(1),
        };
        // The second run must not be mixed up with the first.
        for _ in 0..2 {
            let records = run(&config, &AtomicBool::new(false)).expect("a run");
            let all = analyse(&records, &[Span::new("all", 0.0, f64::INFINITY)]).remove(0);
            assert_eq!(all.to_guest.sent, 500);
            assert!(
                all.from_guest.sent > 500,
                "its stream began first and ended last: {all:?}"
            );
            assert_eq!((all.lost(), all.duplicates()), (0, 0));
            assert!(records.iter().all(|record| record.recv_ms >= Some(record.sent_ms)));
        }
    }

    #[test]
    fn packets_that_never_came_get_their_time_from_their_neighbours() {
        let config = Config {
            guest: ([127, 0, 0, 1], 1).into(),
            rate: 200,
            at_most: Duration::from_secs(1),
        };
        let seen = |ticks| {
            Some(Seen {
                ticks,
                recv_ms: 1e12 + ticks_ms(ticks) + 1.0,
                copies: 1,
            })
        };
        let records = records(&config, &[], &[], &[None, seen(500), None, None, seen(2_000)], 6);
        let sent: Vec<f64> = records.iter().map(|record| record.sent_ms - 1e12 - 1.0).collect();
        assert_eq!(sent, [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]);
        let lost: Vec<u32> = records
            .iter()
            .filter(|record| record.recv_ms.is_none())
            .map(|record| record.seq)
            .collect();
        assert_eq!(lost, [0, 2, 3, 5]);
    }
}
