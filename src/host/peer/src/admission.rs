//! How many connections there may be, and whose. Anyone who reaches the port may begin a handshake, so the places for that are
//! apart from those of hosts: a stranger can fill the former only.
//!
//! ```text
//!   connection ──┬─ of an address that has shown a certificate ────▶ host's place ──▶ ends
//!                └─ of any other ──▶ stranger's place ─ certificate ─────┘
//! ```

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Addresses that are remembered for their certificate: more than a host has peers at a time.
const MET: usize = 1024;

/// How many places there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    /// In all.
    pub total: usize,
    /// For one address.
    pub per_address: usize,
}

/// Counts connections, in all and by address.
#[derive(Debug)]
pub(crate) struct Admission {
    strangers: Places,
    hosts: Places,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    strangers: HashMap<IpAddr, usize>,
    hosts: HashMap<IpAddr, usize>,
    /// Addresses that have shown a certificate, the latest last.
    met: VecDeque<IpAddr>,
}

/// Whose place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Stranger,
    Host,
}

/// One connection; counted until dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    admission: Arc<Admission>,
    key: IpAddr,
    whose: Whose,
}

impl Admission {
    pub(crate) fn new(strangers: Places, hosts: Places) -> Self {
        Self {
            strangers,
            hosts,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a handshake; `None` where there are none left.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Ticket> {
        let key = key(address);
        let mut state = self.state();
        let taken = |whose| Ticket {
            admission: Arc::clone(self),
            key,
            whose,
        };
        if state.met.contains(&key) && take(&mut state.hosts, self.hosts, key) {
            return Some(taken(Whose::Host));
        }
        // A host that has all its places may come in as a stranger, to be told so.
        take(&mut state.strangers, self.strangers, key).then(|| taken(Whose::Stranger))
    }
}

impl Ticket {
    /// A certificate was shown: the place is a host's from now on. False where no host's place is left.
    pub(crate) fn becomes_hosts(&mut self) -> bool {
        let mut state = self.admission.state();
        state.met.retain(|met| *met != self.key);
        state.met.push_back(self.key);
        if state.met.len() > MET {
            state.met.pop_front();
        }
        if self.whose == Whose::Stranger && take(&mut state.hosts, self.admission.hosts, self.key) {
            give_back(&mut state.strangers, self.key);
            self.whose = Whose::Host;
        }
        self.whose == Whose::Host
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.admission.state();
        let counts = match self.whose {
            Whose::Stranger => &mut state.strangers,
            Whose::Host => &mut state.hosts,
        };
        give_back(counts, self.key);
    }
}

fn take(counts: &mut HashMap<IpAddr, usize>, places: Places, key: IpAddr) -> bool {
    let of_address = counts.get(&key).copied().unwrap_or_default();
    if counts.values().sum::<usize>() >= places.total || of_address >= places.per_address {
        return false;
    }
    counts.insert(key, of_address + 1);
    true
}

fn give_back(counts: &mut HashMap<IpAddr, usize>, key: IpAddr) {
    if let Some(count) = counts.get_mut(&key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&key);
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

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn places(total: usize, per_address: usize) -> Places {
        Places { total, per_address }
    }

    #[test]
    fn one_host_cannot_take_all_places() {
        let admission = Arc::new(Admission::new(places(3, 2), places(0, 0)));
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

    #[test]
    fn who_has_shown_a_certificate_needs_no_strangers_place() {
        let admission = Arc::new(Admission::new(places(2, 2), places(2, 2)));
        let mut first = admission.admit(ip("192.0.2.1")).expect("room");
        assert!(first.becomes_hosts());
        let _strangers = [
            admission.admit(ip("192.0.2.8")).expect("the first has made room"),
            admission.admit(ip("192.0.2.9")).expect("room"),
        ];
        assert!(admission.admit(ip("192.0.2.2")).is_none(), "not met yet");
        let mut again = admission.admit(ip("192.0.2.1")).expect("it was met");
        assert!(again.becomes_hosts());
        assert!(admission.admit(ip("192.0.2.1")).is_none(), "it has all its places");
        drop(first);
        assert!(admission.admit(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn a_host_beyond_its_places_is_let_in_to_be_told_so() {
        let admission = Arc::new(Admission::new(places(1, 1), places(1, 1)));
        let mut first = admission.admit(ip("192.0.2.1")).expect("room");
        assert!(first.becomes_hosts());
        let mut second = admission.admit(ip("192.0.2.1")).expect("a stranger's place");
        assert!(!second.becomes_hosts());
        drop(first);
        assert!(second.becomes_hosts());
    }

    #[test]
    fn no_more_addresses_are_remembered_than_a_host_has_peers() {
        let admission = Arc::new(Admission::new(places(1, 1), places(1, 1)));
        for n in 0..u32::try_from(MET).expect("few") + 10 {
            let mut ticket = admission.admit(IpAddr::V4((0x0a00_0000 + n).into())).expect("room");
            assert!(ticket.becomes_hosts());
        }
        let met = &admission.state().met;
        assert_eq!((met.len(), met[0]), (MET, ip("10.0.0.10")));
    }
}
