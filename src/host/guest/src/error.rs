//! Why a request to a guest's agent failed.

use hybond_core::ids::Mac;
use std::time::Duration;

/// A request was not, or may not have been, carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuestError {
    /// Nothing was sent: no agent has said hello.
    #[error(
        "no agent answers in the guest, so pair {mac} cannot {request}: is hybond-agent installed and running there?"
    )]
    NoAgent {
        /// What was asked for.
        request: &'static str,
        /// The pair.
        mac: Mac,
    },
    /// Nothing was sent: the domain has no such pair.
    #[error("the domain has no pair {mac}")]
    UnknownPair {
        /// What was asked for.
        mac: Mac,
    },
    /// Nothing was sent: the guest does not read, or too many requests wait for it.
    #[error("the agent does not take requests, so pair {mac} cannot {request}")]
    Congested {
        /// What was asked for.
        request: &'static str,
        /// The pair.
        mac: Mac,
    },
    /// No answer in time. The agent may still do it; its next report tells.
    #[error("the agent did not {request} pair {mac} within {after:?}")]
    Timeout {
        /// What was asked for.
        request: &'static str,
        /// The pair.
        mac: Mac,
        /// How long was waited.
        after: Duration,
    },
    /// The agent said no; the traffic flows as before.
    #[error("the agent refused to {request} pair {mac}: {reason}")]
    Refused {
        /// What was asked for.
        request: &'static str,
        /// The pair.
        mac: Mac,
        /// The guest's words, cut and cleaned.
        reason: String,
    },
    /// QEMU closed the channel before the answer came.
    #[error("the guest's channel was closed before its agent answered the {request} of pair {mac}")]
    Gone {
        /// What was asked for.
        request: &'static str,
        /// The pair.
        mac: Mac,
    },
}
