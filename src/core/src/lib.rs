//! The pure heart of hybond: identifiers, pool policy, leases, and the state machine of a guest's pairs.
//!
//! Nothing in here does I/O, reads a clock or waits: time comes in as an argument, effects go out as values. That is what
//! lets the tests step two hosts on virtual time and crash either of them at any point.

pub mod guest;
pub mod handover;
pub mod ids;
pub mod paths;
pub mod pool;
pub mod port;
pub mod spec;
pub mod text;

/// Milliseconds of a clock that never goes back. Only differences mean anything.
pub type Millis = u64;
