//! What the tests share.

use hybond_core::ids::Mac;

/// A domain as `virsh dumpxml --inactive` prints it.
pub const PLAIN: &str = include_str!("../data/plain.xml");

pub fn mac(n: u8) -> Mac {
    format!("52:54:00:aa:00:{n:02x}").parse().expect("a MAC")
}
