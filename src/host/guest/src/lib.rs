//! The host's end of the channel to a guest's agent: a unix socket of QEMU's, behind which is a virtio-serial port.
//!
//! The guest is not trusted. It cannot make this end read more than a budget of bytes, hold more than one line, emit
//! more than a few events, nor speak of a pair that is not its own; what it says wrongly is dropped and mentioned once.
//!
//! An agent may start late, be restarted or answer late, and QEMU may go and come again: a hello is repeated until it
//! is answered, and then now and again, where nothing else tells that an agent has died ([`Pace::told`]).

mod budget;
mod error;
mod handle;
mod link;
mod outbox;
mod report;
mod session;

pub use error::GuestError;
pub use handle::GuestHandle;
pub use link::{GuestLink, Pace};
pub use report::{Agent, GuestEvent};
