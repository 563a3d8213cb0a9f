//! Addresses, neighbours and routes on their way from one link to another: what a dump says of them, turned into the
//! requests that make them again, and the file in which they wait.

use super::Socket;
use super::msg::{self, CREATE, Message, REPLACE, attribute, attributes, u16_at, u32_at};
use nix::errno::Errno;
use std::io::{self, Read, Write};

/// `RTM_NEWADDR`.
pub const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;

/// `AF_INET`.
pub const INET: u8 = 2;
/// `AF_INET6`.
pub const INET6: u8 = 10;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;
const IFA_F_DADFAILED: u32 = 8;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_PROTOCOL: u16 = 12;
const NUD_STALE: u16 = 0x04;
/// Reachable, stale, delay, probe, permanent: the states in which the link-layer address is known.
const NUD_KNOWN: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x80;
const NUD_LASTING: u16 = 0x02 | 0x80;
const NTF_PROXY: u8 = 8;

const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;
const RTA_CACHEINFO: u16 = 12;
const RTA_EXPIRES: u16 = 23;
const RTA_NH_ID: u16 = 30;
const RTPROT_REDIRECT: u8 = 1;
const RTPROT_KERNEL: u8 = 2;
const RTM_F_CLONED: u32 = 0x200;
/// `RTNH_F_ONLINK`, the one next-hop flag that is configuration; the kernel refuses DEAD and LINKDOWN.
const RTNH_ONLINK: u8 = 4;
/// `USER_HZ`, the unit of `rta_expires`.
const USER_HZ: u32 = 100;

/// No message of these kinds is longer; a file that says otherwise is damaged.
const MESSAGE_MAX: usize = 64 * 1024;

/// The request that makes an address of that link again. IPv6 ones without DAD: they are the guest's own, and a second of
/// silence is what this is about.
///
/// With `lasting` the address does not expire. The lifetime of a DHCP lease is renewed by whoever got it; a manager that
/// knows the link by its index, its kind or its permanent MAC (NetworkManager, most of netplan's networkd files) does not
/// renew what is on the bond, and the guest would fall off the network hours later. One that goes by the name sets the
/// lifetime anew.
fn address(payload: &[u8], index: u32, lasting: bool) -> Option<Message> {
    let family = *payload.first()?;
    let all = payload.get(8..)?;
    if u32_at(payload, 4)? != index || !matches!(family, INET | INET6) {
        return None;
    }
    let flags = attribute(all, IFA_FLAGS)
        .and_then(|v| u32_at(v, 0))
        .unwrap_or(payload[2].into());
    if family == INET6 && flags & IFA_F_DADFAILED != 0 {
        return None;
    }
    let flags = if family == INET6 { flags | IFA_F_NODAD } else { flags };
    let mut fixed: [u8; 8] = payload.get(..8)?.try_into().ok()?;
    fixed[2] = flags as u8;
    let mut message = Message::new(RTM_NEWADDR, CREATE | REPLACE, &fixed);
    for (kind, value) in attributes(all).filter(|(kind, _)| *kind != IFA_FLAGS) {
        let mut value = value.to_vec();
        if kind == IFA_CACHEINFO && lasting && value.len() >= 8 {
            // Preferred, then valid; what is deprecated (0) stays so.
            if u32_at(&value, 0) != Some(0) {
                value[..4].fill(0xff);
            }
            value[4..8].fill(0xff);
        }
        message = message.put(kind, &value);
    }
    Some(message.put_u32(IFA_FLAGS, flags))
}

/// The request that makes a neighbour of that link again, so that the first packet need not ask for it.
fn neighbour(payload: &[u8], index: u32) -> Option<Message> {
    let mut fixed: [u8; 12] = payload.get(..12)?.try_into().ok()?;
    let state = u16_at(payload, 8)?;
    if u32_at(payload, 4)? != index || !matches!(fixed[0], INET | INET6) || fixed[10] & NTF_PROXY != 0 {
        return None;
    }
    if state & NUD_KNOWN == 0 {
        return None;
    }
    let state = if state & NUD_LASTING != 0 { state } else { NUD_STALE };
    fixed[8..10].copy_from_slice(&state.to_ne_bytes());
    let mut message = Message::new(RTM_NEWNEIGH, CREATE | REPLACE, &fixed);
    for (kind, value) in attributes(&payload[12..]).filter(|(k, _)| matches!(*k, NDA_DST | NDA_LLADDR | NDA_PROTOCOL)) {
        message = message.put(kind, value);
    }
    Some(message)
}

/// The request that makes a route over that link again; `None` for what the kernel makes by itself.
fn route(payload: &[u8], index: u32) -> Option<Message> {
    let mut fixed: [u8; 12] = payload.get(..12)?.try_into().ok()?;
    if !matches!(fixed[0], INET | INET6) || matches!(fixed[5], RTPROT_KERNEL | RTPROT_REDIRECT) {
        return None;
    }
    if u32_at(payload, 8)? & RTM_F_CLONED != 0 {
        return None;
    }
    fixed[8..].copy_from_slice(&u32::from(payload[8] & RTNH_ONLINK).to_ne_bytes());
    let all = &payload[12..];
    let several = attribute(all, RTA_MULTIPATH);
    let over = |hops: &[u8]| next_hops(hops).any(|at| u32_at(hops, at + 4) == Some(index));
    if attribute(all, RTA_OIF).and_then(|v| u32_at(v, 0)) != Some(index) && !several.is_some_and(over) {
        return None;
    }
    // Of a route with several next hops the kernel keeps those over other links: it is there, and has to be replaced.
    let flags = if several.is_some() { CREATE | REPLACE } else { CREATE };
    let mut message = Message::new(RTM_NEWROUTE, flags, &fixed);
    for (kind, value) in attributes(all) {
        message = match kind {
            RTA_EXPIRES => message,
            // Next-hop objects of a link that is set down are deleted; what they said is in the message beside their number.
            RTA_NH_ID => message,
            RTA_CACHEINFO => match u32_at(value, 8) {
                Some(expires @ 1..=0x7fff_ffff) => message.put_u32(RTA_EXPIRES, expires.div_ceil(USER_HZ)),
                _ => message,
            },
            RTA_MULTIPATH => {
                let mut hops = value.to_vec();
                for at in next_hops(value) {
                    hops[at + 2] &= RTNH_ONLINK;
                }
                message.put(kind, &hops)
            }
            _ => message.put(kind, value),
        };
    }
    Some(message)
}

/// Where each `struct rtnexthop` begins.
fn next_hops(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let length = u16_at(bytes, at)? as usize;
        if length < 8 || at + length > bytes.len() {
            return None;
        }
        let here = at;
        at += msg::align(length);
        Some(here)
    })
}

/// The same request for another link.
fn retarget(kind: u16, flags: u16, body: &[u8], from: u32, to: u32) -> Option<Message> {
    let fixed = body.get(..if kind == RTM_NEWADDR { 8 } else { 12 })?;
    let mut start = fixed.to_vec();
    if kind != RTM_NEWROUTE {
        start[4..8].copy_from_slice(&to.to_ne_bytes());
    }
    let mut message = Message::new(kind, flags, &start);
    for (kind_of, value) in attributes(&body[fixed.len()..]) {
        let mut value = value.to_vec();
        if kind == RTM_NEWROUTE && kind_of == RTA_OIF && u32_at(&value, 0) == Some(from) {
            value.copy_from_slice(&to.to_ne_bytes());
        }
        if kind == RTM_NEWROUTE && kind_of == RTA_MULTIPATH {
            for at in next_hops(&value.clone()) {
                if u32_at(&value, at + 4) == Some(from) {
                    value[at + 4..at + 8].copy_from_slice(&to.to_ne_bytes());
                }
            }
        }
        message = message.put(kind_of, &value);
    }
    Some(message)
}

/// Writes requests one behind the other: type, flags, length, body.
fn write(file: &mut impl Write, message: &Message) -> io::Result<()> {
    let (kind, flags, body) = message.parts();
    let mut bytes = Vec::with_capacity(8 + body.len());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_ne_bytes());
    bytes.extend_from_slice(body);
    file.write_all(&bytes)
}

/// Reads what [`write`] wrote.
fn read(file: &mut impl Read) -> io::Result<Option<(u16, u16, Vec<u8>)>> {
    let mut head = [0u8; 8];
    match file.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32_at(&head, 4).unwrap_or(0) as usize;
    if length > MESSAGE_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    file.read_exact(&mut body)?;
    Ok(Some((
        u16_at(&head, 0).unwrap_or(0),
        u16_at(&head, 2).unwrap_or(0),
        body,
    )))
}

/// An address of a link, as it is announced: family and octets, of which IPv4 uses the first four.
pub type Address = (u8, [u8; 16]);

/// What [`Socket::put_back`] did.
#[derive(Debug, Default)]
pub struct PutBack {
    /// How many were made.
    pub made: u32,
    /// How many the kernel refused.
    pub refused: u32,
    /// The first refusal.
    pub first: Option<Errno>,
    /// An IPv6 link-local address was among them.
    pub link_local: bool,
}

impl Socket {
    /// Writes down everything of a link that goes when it is set down.
    /// `kernel_ra`: its IPv6 addresses are the kernel's own, which goes on renewing them.
    pub fn save(&mut self, index: u32, kernel_ra: bool, file: &mut impl Write) -> io::Result<()> {
        type Turn = fn(&[u8], u32, bool) -> Option<Message>;
        let kinds: [(u16, usize, Turn); 3] = [
            (RTM_GETADDR, 8, |payload, index, kernel_ra| {
                address(payload, index, payload.first() == Some(&INET) || !kernel_ra)
            }),
            (RTM_GETNEIGH, 12, |payload, index, _| neighbour(payload, index)),
            (RTM_GETROUTE, 12, |payload, index, _| route(payload, index)),
        ];
        for (request, fixed, turn) in kinds {
            let mut failed = Ok(());
            self.query(&Message::new(request, 0, &[0u8; 12][..fixed]), true, |_, payload| {
                if let Some(message) = turn(payload, index, kernel_ra).filter(|_| failed.is_ok()) {
                    failed = write(file, &message);
                }
                Ok(())
            })?;
            failed?;
        }
        Ok(())
    }

    /// Makes everything again that was written down, on another link or the same. What is there already is well.
    pub fn put_back(&mut self, mut file: impl Read, from: u32, to: u32) -> io::Result<PutBack> {
        let mut outcome = PutBack::default();
        let mut later = Vec::new();
        while let Some((kind, flags, body)) = read(&mut file)? {
            let Some(message) = retarget(kind, flags, &body, from, to) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            match kind {
                RTM_NEWROUTE => later.push(message),
                // A neighbour that is refused is found again by asking.
                RTM_NEWNEIGH => outcome.made += u32::from(self.request(&message).is_ok()),
                _ => {
                    let v6 = attribute(&body[8..], IFA_ADDRESS).filter(|_| body[0] == INET6);
                    outcome.link_local |= v6.is_some_and(|a| a.starts_with(&[0xfe, 0x80]));
                    let result = self.request(&message);
                    outcome.count(result);
                }
            }
        }
        // A route over a gateway needs the route to the gateway: in a dump the default route comes first.
        let mut progress = true;
        while progress && !later.is_empty() {
            progress = false;
            let mut refused = Vec::new();
            for message in later {
                match self.request(&message) {
                    Ok(()) | Err(Errno::EEXIST) => {
                        outcome.made += 1;
                        progress = true;
                    }
                    Err(error) => refused.push((message, error)),
                }
            }
            if !progress {
                for (_, error) in &refused {
                    outcome.count(Err(*error));
                }
            }
            later = refused.into_iter().map(|(message, _)| message).collect();
        }
        Ok(outcome)
    }

    /// Hands out each IPv4 address's link.
    pub fn addressed(&mut self, mut each: impl FnMut(u32)) -> Result<(), Errno> {
        self.query(
            &Message::new(RTM_GETADDR, 0, &[INET, 0, 0, 0, 0, 0, 0, 0]),
            true,
            |_, payload| {
                u32_at(payload, 4).into_iter().for_each(&mut each);
                Ok(())
            },
        )
    }

    /// The addresses of a link.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<Address>, Errno> {
        let mut found = Vec::new();
        self.query(&Message::new(RTM_GETADDR, 0, &[0; 8]), true, |_, payload| {
            let all = payload.get(8..).unwrap_or_default();
            let octets = attribute(all, IFA_LOCAL).or_else(|| attribute(all, IFA_ADDRESS));
            if let (Some(octets), true) = (octets, u32_at(payload, 4) == Some(index)) {
                let mut address = [0u8; 16];
                let length = octets.len().min(16);
                address[..length].copy_from_slice(&octets[..length]);
                found.push((payload[0], address));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Deletes the addresses of a link: a slave has none.
    pub fn flush(&mut self, index: u32) -> Result<(), Errno> {
        let mut all = Vec::new();
        self.query(&Message::new(RTM_GETADDR, 0, &[0; 8]), true, |_, payload| {
            if u32_at(payload, 4) == Some(index) {
                let mut message = Message::new(RTM_DELADDR, 0, &payload[..8]);
                for (kind, value) in attributes(&payload[8..]).filter(|(k, _)| matches!(*k, IFA_ADDRESS | IFA_LOCAL)) {
                    message = message.put(kind, value);
                }
                all.push(message);
            }
            Ok(())
        })?;
        for message in all {
            match self.request(&message) {
                // With its first address an IPv4 subnet's others may go.
                Ok(()) | Err(Errno::EADDRNOTAVAIL) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl PutBack {
    fn count(&mut self, result: Result<(), Errno>) {
        match result {
            Ok(()) | Err(Errno::EEXIST) => self.made += 1,
            Err(error) => {
                self.refused += 1;
                self.first.get_or_insert(error);
            }
        }
    }
}
