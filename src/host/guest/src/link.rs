//! The task that keeps a channel open for as long as the domain lives.

use crate::handle::{Failure, GuestHandle, Order, QUEUE};
use crate::outbox::Outbox;
use crate::report::{Agent, GuestEvent};
use crate::session::{End, Session};
use hybond_core::ids::Mac;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{self, Instant};
use tracing::debug;

/// Events that wait for the daemon. What does not fit is merged, not lost. What goes through a channel here is boxed: each has room
/// for 32 at any time, and a host a thousand guests.
const EVENTS: usize = 64;

/// How often hello is said, and a lost channel opened again.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// First pause between two attempts to open the channel; it doubles. Hellos are never closer than this.
    pub first: Duration,
    /// First pause between two hellos that are not answered; it doubles.
    pub greet: Duration,
    /// Longest pause between two attempts.
    pub longest: Duration,
    /// Pause between two hellos to an agent that answers.
    pub keepalive: Duration,
    /// How long such an agent may take to answer one. After three it counts as gone.
    pub answer: Duration,
}

impl Pace {
    /// Where QEMU's events tell when the guest opens and closes the port, and are passed on ([`GuestHandle::hello`],
    /// [`GuestHandle::closed`], [`GuestHandle::check`]). A hello then finds nothing but an agent that hangs, which the next
    /// request finds as well: on a host with a thousand guests the hellos would be most of what there is to do, and each
    /// wakes a guest.
    #[must_use]
    pub fn told() -> Self {
        Self {
            // An agent that is slow to answer, as in a guest that has just arrived, has this one to answer and no more.
            greet: Duration::from_secs(3),
            longest: Duration::from_secs(60),
            keepalive: Duration::from_secs(3600),
            ..Self::default()
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(250),
            greet: Duration::from_millis(250),
            longest: Duration::from_secs(5),
            keepalive: Duration::from_secs(10),
            answer: Duration::from_secs(3),
        }
    }
}

/// What outlives one connection.
#[derive(Debug)]
pub struct GuestLink {
    pub(crate) pairs: Vec<Mac>,
    pub(crate) pace: Pace,
    /// From when on hellos are said; `None` until the guest's CPUs have run. Before that nobody reads a hello, and those that
    /// are repeated meanwhile would all be answered in the guest's first moments, in which its traffic is waited for.
    pub(crate) greet_from: Option<Instant>,
    pub(crate) orders: mpsc::Receiver<Box<Order>>,
    pub(crate) outbox: Outbox,
    pub(crate) agent: watch::Sender<Option<Agent>>,
    pub(crate) next_id: u64,
}

impl GuestLink {
    /// Starts the task for the channel at `path`. It ends when the last handle or the receiver is dropped.
    #[must_use]
    pub fn spawn(path: PathBuf, pairs: Vec<Mac>) -> (GuestHandle, mpsc::Receiver<Box<GuestEvent>>) {
        Self::spawn_at(path, pairs, Pace::default())
    }

    /// As [`Self::spawn`], at another pace.
    #[must_use]
    pub fn spawn_at(path: PathBuf, pairs: Vec<Mac>, pace: Pace) -> (GuestHandle, mpsc::Receiver<Box<GuestEvent>>) {
        Self::begin(path, pairs, pace, Some(Instant::now()))
    }

    /// As [`Self::spawn_at`] where the guest's CPUs do not run yet: the channel is opened, and the hello waits for
    /// [`GuestHandle::awake`].
    #[must_use]
    pub fn spawn_asleep(path: PathBuf, pairs: Vec<Mac>, pace: Pace) -> (GuestHandle, mpsc::Receiver<Box<GuestEvent>>) {
        Self::begin(path, pairs, pace, None)
    }

    fn begin(
        path: PathBuf,
        pairs: Vec<Mac>,
        pace: Pace,
        greet_from: Option<Instant>,
    ) -> (GuestHandle, mpsc::Receiver<Box<GuestEvent>>) {
        let (order_sender, orders) = mpsc::channel(QUEUE);
        let (agent_sender, agent) = watch::channel(None);
        let (event_sender, events) = mpsc::channel(EVENTS);
        let mut link = Self {
            pairs,
            pace,
            greet_from,
            orders,
            outbox: Outbox::new(event_sender),
            agent: agent_sender,
            next_id: 1,
        };
        tokio::spawn(async move { link.run(&path).await });
        let orders = order_sender;
        (GuestHandle { orders, agent }, events)
    }

    /// By reference: a future that owns what it is called on keeps it twice.
    async fn run(&mut self, path: &Path) {
        let mut pause = self.pace.first;
        loop {
            match connect(path).await {
                Ok(stream) => {
                    let end = Session::new(self, stream).run().await;
                    if self.agent.send_replace(None).is_some() {
                        self.outbox.gone();
                    }
                    match end {
                        End::Unneeded => return,
                        End::Lost(e) => debug!(path = %path.display(), error = %e, "guest channel closed"),
                    }
                    pause = self.pace.first;
                }
                Err(e) => debug!(path = %path.display(), error = %e, "guest channel not there"),
            }
            if !self.idle(pause).await {
                return;
            }
            pause = (pause * 2).min(self.pace.longest);
        }
    }

    /// Waits before the next attempt. `false`: nobody needs one.
    async fn idle(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = time::sleep_until(until) => return true,
                order = self.orders.recv() => match order.map(|order| *order) {
                    Some(Order::Ask { reply, .. }) => {
                        if reply.send(Err(Failure::NoAgent)).is_err() {
                            debug!("a request is no longer waited for");
                        }
                    }
                    Some(Order::Awake(from)) => self.greet_from = Some(from),
                    Some(Order::Hello | Order::Closed | Order::Check) => {}
                    None => return false,
                },
                listened = self.outbox.drain() => if !listened {
                    return false;
                },
            }
        }
    }
}

async fn connect(path: &Path) -> std::io::Result<UnixStream> {
    // A unix socket connects at once or not at all (EAGAIN while the listener's backlog is full).
    let stream = UnixStream::connect(path).await?;
    // What an agent that is not there does not read piles up here and is read at once when it starts: a few hellos are
    // enough. 4 KiB is about the least that the kernel grants (SOCK_MIN_SNDBUF).
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::SndBuf, &4096)?;
    Ok(stream)
}
