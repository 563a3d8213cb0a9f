//! One guest that means harm beside fifty that work. All links share one thread, as those of the daemon share two; the other
//! ends have a thread of their own, so that what the first one costs is the links'. The only test of its program: memory is
//! the process's.

mod common;

use common::*;
use hybond_guest::{GuestEvent, GuestHandle, GuestLink, Pace};
use hybond_wire::agent::{FromAgent, Path, ToAgent};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// The guests that work.
const OTHERS: usize = 50;
/// Requests to each of them, with nobody harming, and as many during each flood.
const ROUNDS: usize = 20;
/// What the host takes of one guest: so much at once, so much each second after that, and what the kernel holds.
const BURST: usize = 256 * 1024;
const PER_SECOND: usize = 32 * 1024;
const SOCKETS: usize = 512 * 1024;
/// Events that the daemon is given of one guest: likewise.
const EVENTS: usize = 128;
const EVENTS_PER_SECOND: usize = 10;
/// What a flood may add to the memory of the process: a line, a few events, the allocator's own.
const MEMORY: usize = 2 * 1024 * 1024;

/// A guest's flood, for as long as it is wanted.
struct Flood {
    path: PathBuf,
    /// Bytes that were taken from it.
    taken: Arc<AtomicUsize>,
    begin: oneshot::Sender<Vec<u8>>,
}

/// What the thread of the other ends is asked for.
enum Wanted {
    /// A guest whose agent answers; every request that it was asked is counted.
    Worker(Arc<AtomicUsize>, oneshot::Sender<PathBuf>),
    /// A guest that greets, and then floods with what it is given.
    Flooder(oneshot::Sender<Flood>),
}

/// The guests, on a thread of their own that ends with the sender.
fn ends() -> mpsc::UnboundedSender<Wanted> {
    let (sender, mut wanted) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            while let Some(wanted) = wanted.recv().await {
                match wanted {
                    Wanted::Worker(asked, path) => {
                        let guest = Guest::new();
                        assert!(path.send(guest.path()).is_ok(), "the test waits for it");
                        tokio::spawn(work(guest, asked));
                    }
                    Wanted::Flooder(reply) => {
                        let (guest, taken) = (Guest::new(), Arc::new(AtomicUsize::new(0)));
                        let (begin, begun) = oneshot::channel();
                        let path = guest.path();
                        tokio::spawn(flood(guest, Arc::clone(&taken), begun));
                        assert!(
                            reply.send(Flood { path, taken, begin }).is_ok(),
                            "the test waits for it"
                        );
                    }
                }
            }
        });
    });
    sender
}

async fn work(guest: Guest, asked: Arc<AtomicUsize>) {
    let mut port = guest.accept().await;
    loop {
        let message = port.read_whenever().await;
        match message {
            Some(ToAgent::Hello { id, version, .. }) => {
                let again = FromAgent::Hello {
                    id,
                    version,
                    agent: "0.1.0".into(),
                    pairs: vec![],
                };
                port.write(&again).await;
            }
            Some(ToAgent::Announce { id, .. }) => {
                asked.fetch_add(1, Ordering::SeqCst);
                let state = state(1, Path::Primary);
                port.write(&FromAgent::Done { id, state }).await;
            }
            Some(other) => panic!("{other:?} to a guest that works"),
            None => return,
        }
    }
}

/// Writes whatever is taken, and reads nothing, until the host closes the channel.
async fn flood(guest: Guest, taken: Arc<AtomicUsize>, begun: oneshot::Receiver<Vec<u8>>) {
    let mut port = guest.accept().await;
    port.greet(vec![]).await;
    let Ok(bytes) = begun.await else { return };
    let mut from = 0;
    while let Ok(n) = port.try_write_some(&bytes[from..]).await {
        from = (from + n) % bytes.len();
        taken.fetch_add(n, Ordering::SeqCst);
    }
}

/// What this thread has had of a processor, and the process of memory.
fn cost() -> (Duration, usize) {
    let read = |file: &str| std::fs::read_to_string(file).expect(file);
    let number = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok()).expect("a number");
    let cpu = number(read("/proc/thread-self/schedstat").split(' ').next());
    let status = read("/proc/self/status");
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let rss = number(rss.expect("VmRSS").split_whitespace().next());
    (Duration::from_nanos(cpu), usize::try_from(rss).expect("memory") * 1024)
}

/// Asks all guests at a time, again and again; gives how long each answer took, in order, and what that cost.
async fn served(hosts: &[GuestHandle]) -> (Vec<Duration>, Duration) {
    let (before, _) = cost();
    let mut took = Vec::with_capacity(OTHERS * ROUNDS);
    for _ in 0..ROUNDS {
        let asked: Vec<_> = hosts
            .iter()
            .map(|host| {
                let host = host.clone();
                tokio::spawn(async move {
                    let begun = Instant::now();
                    host.announce(mac(1), LONG).await.expect("it is served");
                    begun.elapsed()
                })
            })
            .collect();
        for answer in asked {
            took.push(answer.await.expect("answered"));
        }
    }
    took.sort();
    (took, cost().0 - before)
}

fn told(took: &[Duration]) -> String {
    format!("median {:?}, longest {:?}", took[took.len() / 2], took[took.len() - 1])
}

/// What a guest can think of.
fn floods() -> Vec<(&'static str, Vec<u8>)> {
    let lines = |messages: &mut dyn Iterator<Item = FromAgent>| -> Vec<u8> {
        messages
            .flat_map(|message| (serde_json::to_string(&message).expect("message") + "\n").into_bytes())
            .collect()
    };
    let hello = |pairs| FromAgent::Hello {
        id: 0,
        version: 1,
        agent: "0.1.0".into(),
        pairs,
    };
    let own = |n: u32| state(1, if n % 2 == 0 { Path::Primary } else { Path::Standby });
    let other = |n: u32| {
        let [.., high, low] = n.to_be_bytes();
        let mac = hybond_core::ids::Mac::from_octets([0x02, 0, 0, high, low, 1]).expect("unicast");
        hybond_wire::agent::PairState { mac, ..own(0) }
    };
    vec![
        ("bytes without end", vec![0xa5; 64 * 1024]),
        (
            "lines that are no message",
            b"{\"type\":\"reboot-the-host\"}\n".repeat(1000),
        ),
        ("hello all day", lines(&mut (0..500).map(|_| hello(vec![own(0)])))),
        (
            "a bond that switches all the time",
            lines(&mut (0..500).map(|n| FromAgent::State { state: own(n) })),
        ),
        (
            "thousands of NICs",
            lines(&mut (0..200).map(|n| hello((0..20).map(|m| other(20 * n + m)).collect()))),
        ),
        (
            "answers that nobody asked for",
            lines(&mut (0..500).map(|n| FromAgent::Done {
                id: u64::from(n),
                state: own(n),
            })),
        ),
    ]
}

#[tokio::test]
async fn fifty_guests_are_served_beside_one_that_floods_which_costs_a_bounded_amount() {
    let ends = ends();
    let mut hosts = Vec::new();
    let mut events = Vec::new();
    let mut counts = Vec::new();
    for _ in 0..OTHERS {
        let asked = Arc::new(AtomicUsize::new(0));
        let (reply, path) = oneshot::channel();
        assert!(
            ends.send(Wanted::Worker(Arc::clone(&asked), reply)).is_ok(),
            "the ends live"
        );
        let path = path.await.expect("a guest");
        let (host, mut told) = GuestLink::spawn_at(path, vec![mac(1), mac(2)], Pace::default());
        assert!(matches!(next(&mut told).await, GuestEvent::AgentHello { .. }));
        hosts.push(host);
        events.push(told);
        counts.push(asked);
    }
    // The first time is warmer than none.
    served(&hosts).await;
    let (quiet, quiet_cpu) = served(&hosts).await;
    eprintln!(
        "{OTHERS} guests, nobody floods: {}, {quiet_cpu:?} of a processor",
        told(&quiet)
    );

    let floods = floods();
    for (what, bytes) in &floods {
        let (reply, flood) = oneshot::channel();
        assert!(ends.send(Wanted::Flooder(reply)).is_ok(), "the ends live");
        let Flood { path, taken, begin } = flood.await.expect("a guest");
        let (host, mut bad) = GuestLink::spawn_at(path, vec![mac(1), mac(2)], Pace::default());
        assert_eq!(next(&mut bad).await, hello(vec![]));
        let counting = tokio::spawn(async move {
            let mut heard = 0;
            while bad.recv().await.is_some() {
                heard += 1;
            }
            heard
        });
        let begun = Instant::now();
        let (_, memory) = cost();
        assert!(begin.send(bytes.clone()).is_ok(), "it waits to begin");
        // From here on it is held back.
        let full = async {
            while taken.load(Ordering::SeqCst) < BURST {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, full).await.expect("its burst is taken");
        let (took, cpu) = served(&hosts).await;
        let more = cost().1.saturating_sub(memory);
        let (taken, seconds) = (
            taken.load(Ordering::SeqCst),
            usize::try_from(begun.elapsed().as_secs()).expect("few") + 1,
        );
        drop(host);
        let heard = counting.await.expect("counted");
        eprintln!(
            "{OTHERS} guests, one sends {what}: {}, {cpu:?} of a processor, {} KiB of memory more, {} KiB read, {heard} events",
            told(&took),
            more / 1024,
            taken / 1024
        );
        assert!(
            taken <= SOCKETS + BURST + seconds * PER_SECOND,
            "{what}: {taken} bytes in {seconds} s"
        );
        assert!(
            heard <= EVENTS + seconds * EVENTS_PER_SECOND,
            "{what}: {heard} events in {seconds} s"
        );
        assert!(more <= MEMORY, "{what}: {more} bytes of memory");
    }

    let asked = ROUNDS * (2 + floods.len());
    for (count, told) in counts.iter().zip(&mut events) {
        assert_eq!(count.load(Ordering::SeqCst), asked, "each request came, and came once");
        while let Ok(event) = told.try_recv() {
            // The answers bring the pair's state, once; nothing else has happened.
            assert!(matches!(*event, GuestEvent::State(_)), "{event:?}");
        }
    }
}
