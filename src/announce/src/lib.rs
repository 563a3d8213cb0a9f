//! Telling a network where an address is: the frames, and the socket that sends them out of a link.
//!
//! The guest's agent announces what its bond is reached by, from within. The destination of a migration announces the guest's
//! MAC for it, from without: before its CPUs run, and whether it has time for that or not.

pub mod frames;
mod socket;

pub use socket::{open, send};
