//! What hybond's programs say to each other. Every message is one line of JSON with a bound on its length; unknown
//! variants are refused by name, never guessed at.
//!
//! | module | who | carrier |
//! |---|---|---|
//! | [`agent`] | daemon and guest agent | virtio-serial port `org.hybond.agent.0` |
//! | [`hook`] | libvirt hook and daemon | `/run/hybond/hook.sock` |
//! | [`control`] | hybondctl and daemon | `/run/hybond/control.sock` |
//! | [`inventory`] | rows of [`control`]'s | |
//! | [`peer`] | daemons of two hosts | TCP with mutual TLS |

pub mod agent;
pub mod control;
pub mod hook;
pub mod inventory;
pub mod line;
pub mod peer;
