//! The handle.

use crate::error::GuestError;
use crate::report::Agent;
use hybond_core::ids::Mac;
use hybond_wire::agent::{PairState, ToAgent};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{self, Instant};

/// Requests that wait for their turn.
pub(crate) const QUEUE: usize = 32;

/// What to ask the agent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Failover { overlap_ms: u32 },
    Failback { overlap_ms: u32 },
    Announce,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Failover { .. } => "fail over",
            Self::Failback { .. } => "fail back",
            Self::Announce => "announce",
        }
    }

    pub fn message(self, id: u64, mac: Mac) -> ToAgent {
        match self {
            Self::Failover { overlap_ms } => ToAgent::Failover { id, mac, overlap_ms },
            Self::Failback { overlap_ms } => ToAgent::Failback { id, mac, overlap_ms },
            Self::Announce => ToAgent::Announce { id, mac },
        }
    }
}

/// Why there is no state in an answer.
#[derive(Debug)]
pub(crate) enum Failure {
    NoAgent,
    UnknownPair,
    Congested,
    Refused(String),
}

#[derive(Debug)]
pub(crate) enum Order {
    Ask {
        action: Action,
        mac: Mac,
        reply: oneshot::Sender<Result<PairState, Failure>>,
    },
    Awake(Instant),
    Hello,
    Closed,
    Check,
}

/// Asks the agent of one domain. Clones share the channel.
#[derive(Debug, Clone)]
pub struct GuestHandle {
    pub(crate) orders: mpsc::Sender<Box<Order>>,
    pub(crate) agent: watch::Receiver<Option<Agent>>,
}

impl GuestHandle {
    /// Moves a pair's traffic to the standby. `overlap_ms`: for how long around the switch the bond takes what arrives
    /// on either NIC.
    ///
    /// # Errors
    /// See [`GuestError`]; after [`GuestError::Timeout`] and [`GuestError::Gone`] it may have happened all the same.
    pub async fn failover(&self, mac: Mac, overlap_ms: u32, timeout: Duration) -> Result<PairState, GuestError> {
        self.ask(Action::Failover { overlap_ms }, mac, timeout).await
    }

    /// Moves a pair's traffic to the primary.
    ///
    /// # Errors
    /// As [`Self::failover`].
    pub async fn failback(&self, mac: Mac, overlap_ms: u32, timeout: Duration) -> Result<PairState, GuestError> {
        self.ask(Action::Failback { overlap_ms }, mac, timeout).await
    }

    /// Announces a pair's addresses from the bond.
    ///
    /// # Errors
    /// As [`Self::failover`].
    pub async fn announce(&self, mac: Mac, timeout: Duration) -> Result<PairState, GuestError> {
        self.ask(Action::Announce, mac, timeout).await
    }

    /// The guest's CPUs run: a hello that has waited for that is said after this pause. `false`: not yet taken, as too much
    /// waits; try again.
    #[must_use]
    pub fn awake(&self, pause: Duration) -> bool {
        !matches!(
            self.orders.try_send(Box::new(Order::Awake(Instant::now() + pause))),
            Err(mpsc::error::TrySendError::Full(_))
        )
    }

    /// Says hello now instead of when its turn comes, for example when QEMU reports that the guest has opened the port.
    pub fn hello(&self) {
        // A full queue, or a link that has ended: a hello comes by itself, or is of no use any more.
        drop(self.orders.try_send(Box::new(Order::Hello)));
    }

    /// The guest has closed the port, as QEMU reports: its agent is gone, and who has asked it for something gets no answer.
    pub fn closed(&self) {
        // As for a hello, which finds it out more slowly.
        drop(self.orders.try_send(Box::new(Order::Closed)));
    }

    /// Asks whether the agent is still there: reports of QEMU's that it has gone may have been lost.
    pub fn check(&self) {
        // As for a hello.
        drop(self.orders.try_send(Box::new(Order::Check)));
    }

    /// The agent, while one answers.
    #[must_use]
    pub fn agent(&self) -> Option<Agent> {
        self.agent.borrow().clone()
    }

    /// Waits until an agent answers.
    pub async fn wait_for_agent(&self, timeout: Duration) -> Option<Agent> {
        let mut agent = self.agent.clone();
        let found = time::timeout(timeout, agent.wait_for(Option::is_some)).await;
        found.ok()?.ok()?.clone()
    }

    async fn ask(&self, action: Action, mac: Mac, timeout: Duration) -> Result<PairState, GuestError> {
        let request = action.name();
        let (reply, answer) = oneshot::channel();
        let order = Box::new(Order::Ask { action, mac, reply });
        let outcome = time::timeout(timeout, async {
            self.orders.send(order).await.ok()?;
            answer.await.ok()
        })
        .await;
        match outcome {
            Ok(Some(Ok(state))) => Ok(state),
            Ok(Some(Err(Failure::NoAgent))) => Err(GuestError::NoAgent { request, mac }),
            Ok(Some(Err(Failure::UnknownPair))) => Err(GuestError::UnknownPair { mac }),
            Ok(Some(Err(Failure::Congested))) => Err(GuestError::Congested { request, mac }),
            Ok(Some(Err(Failure::Refused(reason)))) => Err(GuestError::Refused { request, mac, reason }),
            Ok(None) => Err(GuestError::Gone { request, mac }),
            Err(_) => Err(GuestError::Timeout {
                request,
                mac,
                after: timeout,
            }),
        }
    }
}
