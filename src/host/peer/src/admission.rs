//! How many connections there may be.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts connections, in all and by address.
#[derive(Debug)]
pub(crate) struct Admission {
    total: usize,
    per_address: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection; counted until dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    admission: Arc<Admission>,
    key: IpAddr,
}

impl Admission {
    pub(crate) fn new(total: usize, per_address: usize) -> Self {
        Self {
            total,
            per_address,
            counts: Mutex::new(HashMap::new()),
        }
    }

    /// `None` where there are enough.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Ticket> {
        let key = key(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.values().sum::<usize>() >= self.total {
            return None;
        }
        let count = counts.entry(key).or_default();
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Ticket {
            admission: Arc::clone(self),
            key,
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// An IPv6 host has a whole /64 of addresses.
fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_cannot_take_all_places() {
        let admission = Arc::new(Admission::new(3, 2));
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let first = admission.admit(ip("2001:db8::1")).expect("room");
        let _second = admission.admit(ip("2001:db8::2")).expect("room");
        assert!(admission.admit(ip("2001:db8::3")).is_none(), "same /64");
        let _other = admission.admit(ip("192.0.2.1")).expect("room");
        assert!(admission.admit(ip("192.0.2.2")).is_none(), "full");
        drop(first);
        let _mapped = admission
            .admit(ip("::ffff:192.0.2.1"))
            .expect("the same host, once more");
        assert!(admission.admit(ip("192.0.2.1")).is_none());
    }
}
