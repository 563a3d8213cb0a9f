//! Whether memory comes through a migration as it was. What a VF writes into a guest's memory by DMA no hypervisor notices:
//! a page that is written after it was copied arrives as it was before. So pages that came over the VF rest in a
//! socket of the guest, unread, while it is moved, and more come all the while; afterwards each is compared with what
//! was sent, and so is memory that nobody should have written to.
//!
//! ```text
//! peer                                 guest
//!   │── TCP ──────────────────────────▶│  fills memory of its own
//!   │◀───────────────────────── ready ─│
//!   │── UDP, BURST pages, then some ──▶│  stay in the socket, as the NIC has written them
//!   │   … the migration …              │
//!   │── any line ─────────────────────▶│  reads and compares
//!   │◀────────────────────── Kept ─────│
//! ```
//!
//! A page whose checksum is wrong would be thrown away by the kernel when it is read: those are counted, too.

use super::hold;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// TCP and UDP port of the guest's side.
pub const PAGES_PORT: u16 = 9902;
/// Pages that come before the migration.
pub const BURST: u32 = 1000;
/// What one datagram carries: the number, and what [`fill`] makes of it. With headers it fits the smallest usual MTU.
const SIZE: usize = 1400;
/// Between two pages of the burst, and of those that come later.
const PACE: Duration = Duration::from_millis(4);
const LATER: Duration = Duration::from_millis(50);
/// Of the guest's memory that nobody writes to.
const PAGE: usize = 4096;
const PAGES: u32 = 4096;
/// Answers take no longer, in a guest that is emulated on an emulated host.
const PATIENCE: Duration = Duration::from_secs(120);
/// No line of either end is longer.
const LINE: u64 = 1024;

/// What the guest found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Pages that came over the network.
    pub pages: u32,
    /// Of these, pages that are not what was sent.
    pub altered: u32,
    /// Packets of UDP with a wrong checksum, which nobody gets to read.
    pub checksum_errors: u64,
    /// Pages of its own memory that are not what was written.
    pub memory_altered: u32,
}

impl Kept {
    /// Whether all that came is what was sent, and all that was written is there.
    #[must_use]
    pub const fn is_unaltered(&self) -> bool {
        self.altered == 0 && self.checksum_errors == 0 && self.memory_altered == 0
    }
}

/// Something to know a page by: no two are alike, and each part of one depends on its number.
fn fill(number: u32, page: &mut [u8]) {
    let mut state = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for word in page.chunks_mut(8) {
        // xorshift64 of Marsaglia.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
}

fn datagram(number: u32) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    let (head, body) = bytes.split_at_mut(4);
    head.copy_from_slice(&number.to_be_bytes());
    fill(number, body);
    bytes
}

fn is_as_sent(bytes: &[u8]) -> bool {
    bytes
        .first_chunk()
        .is_some_and(|number| bytes == datagram(u32::from_be_bytes(*number)))
}

/// Serves one peer after the other, for ever. Pages come to the UDP port of the listener's number.
///
/// # Errors
/// The listener fails.
pub fn keep(listener: &TcpListener) -> io::Result<()> {
    let address = listener.local_addr()?;
    loop {
        let (stream, _) = listener.accept()?;
        // Whoever asked sees that the answer does not come.
        if let Err(error) = keep_for(&stream, address) {
            eprintln!("hybond-probe: keeping pages: {error:#}");
        }
    }
}

fn keep_for(mut stream: &TcpStream, address: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(address).context("cannot open a UDP socket")?;
    hold(&socket).context("cannot have the socket hold what is not read yet")?;
    socket.set_nonblocking(true)?;
    let mut memory = vec![0; PAGE * PAGES as usize];
    for (number, page) in (0..).zip(memory.chunks_mut(PAGE)) {
        fill(number, page);
    }
    let errors = checksum_errors()?;
    stream.write_all(b"ready\n")?;
    line(stream)?;

    let (mut pages, mut altered) = (0, 0);
    let mut bytes = [0; 2048];
    loop {
        match socket.recv(&mut bytes) {
            Ok(length) => {
                pages += 1;
                altered += u32::from(!bytes.get(..length).is_some_and(is_as_sent));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error).context("cannot read a page"),
        }
    }
    let mut wanted = [0; PAGE];
    let mut memory_altered = 0;
    for (number, page) in (0..).zip(memory.chunks(PAGE)) {
        fill(number, &mut wanted);
        memory_altered += u32::from(page != wanted);
    }
    let kept = Kept {
        pages,
        altered,
        checksum_errors: checksum_errors()?.saturating_sub(errors),
        memory_altered,
    };
    writeln!(stream, "{}", serde_json::to_string(&kept)?).context("cannot answer")
}

/// `InCsumErrors` of UDP: proc(5), /proc/net/snmp, whose first line names what the second counts.
fn checksum_errors() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/snmp").context("/proc/net/snmp")?;
    let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
    let (names, counts) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let (_, count) = names
        .split_whitespace()
        .zip(counts.split_whitespace())
        .find(|(name, _)| *name == "InCsumErrors")
        .context("/proc/net/snmp has no InCsumErrors of UDP")?;
    count.parse().context("InCsumErrors of UDP")
}

fn line(stream: &TcpStream) -> Result<String> {
    let mut text = String::new();
    BufReader::new(stream.take(LINE)).read_line(&mut text)?;
    ensure!(text.ends_with('\n'), "the other end has gone");
    Ok(text)
}

/// Sends a guest pages: [`BURST`] of them, after which `sent` is called, and then some more until `stop` is set. Answers what
/// the guest found then.
///
/// # Errors
/// The guest does not answer.
pub fn send_pages(guest: SocketAddr, sent: impl FnOnce() -> Result<()>, stop: &AtomicBool) -> Result<Kept> {
    let mut stream = TcpStream::connect_timeout(&guest, PATIENCE)
        .with_context(|| format!("the probe in the guest ({guest}) does not answer"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    line(&stream).context("the guest is not ready for pages")?;
    let any = if guest.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).context("cannot open a UDP socket")?;
    let mut number = 0;
    let mut send = |pace| {
        // Lost like any other that does not arrive: only what does is compared.
        drop(socket.send_to(&datagram(number), guest));
        number += 1;
        std::thread::sleep(pace);
    };
    for _ in 0..BURST {
        send(PACE);
    }
    sent()?;
    while !stop.load(Ordering::Relaxed) {
        send(LATER);
    }
    writeln!(stream, "compare").context("the guest cannot be asked what it has kept")?;
    let answer = line(&stream).context("the guest does not tell what it has kept")?;
    serde_json::from_str(&answer).with_context(|| format!("the guest tells {answer:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_told_from_each_other_and_from_what_has_become_of_them() {
        assert!(is_as_sent(&datagram(0)));
        assert!(is_as_sent(&datagram(u32::MAX)));
        let mut stale = datagram(7);
        stale[..4].copy_from_slice(&8u32.to_be_bytes());
        assert!(!is_as_sent(&stale), "the page of another number");
        for at in [0, 4, SIZE / 2, SIZE - 1] {
            let mut page = datagram(7);
            page[at] ^= 1;
            assert!(!is_as_sent(&page), "one bit of byte {at}");
        }
        assert!(!is_as_sent(&datagram(7)[..SIZE - 1]), "cut off");
        assert!(!is_as_sent(&[]));
    }

    #[test]
    fn a_page_that_is_not_what_was_sent_is_counted_among_those_that_are() -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let guest = listener.local_addr()?;
        std::thread::spawn(move || keep(&listener));
        let planted = || {
            let mut page = datagram(3);
            page[SIZE / 2] ^= 0x10;
            UdpSocket::bind("127.0.0.1:0")?.send_to(&page, guest)?;
            Ok(())
        };
        let kept = send_pages(guest, planted, &AtomicBool::new(true))?;
        assert_eq!(kept.pages, BURST + 1);
        assert_eq!((kept.altered, kept.memory_altered), (1, 0));
        Ok(())
    }
}
