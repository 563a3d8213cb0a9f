//! What the two sides of the probe send each other. Everything is big-endian and of fixed size; what is not
//! understood is dropped.

/// Most packets of one direction in one run: an hour and a half at 200 packets/s.
pub(crate) const MAX_PACKETS: u32 = 1 << 20;
/// Packets per [`Packet::Report`]: it fits an MTU of 1500.
pub(crate) const PER_REPORT: u32 = 200;
/// Size of data packets.
const DATA_LEN: usize = 64;
const MAGIC: [u8; 4] = *b"hbp1";

/// When a packet came first, and how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Ticks of the guest's clock since the run began, plus one; 0 if it never came.
    pub ticks: u32,
    /// How often.
    pub copies: u8,
}

/// One message. `run` is a number that the peer makes up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    /// Peer: start a run, with this pause between packets.
    Hello { run: u32, interval_us: u32 },
    /// Either: a numbered packet. From the guest with its time, in ticks.
    Data { run: u32, seq: u32, ticks: u32 },
    /// Peer: stop, and report from this number on.
    Query { run: u32, from: u32 },
    /// Guest: how many it has sent, and what came from this number on.
    Report {
        run: u32,
        from: u32,
        sent: u32,
        arrivals: Vec<Arrival>,
    },
}

/// The guest's clock ticks are 10 µs: 32 bits last for half a day.
pub(crate) const TICK_US: u128 = 10;

impl Packet {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, words): (u8, [u32; 3]) = match self {
            Self::Hello { run, interval_us } => (1, [*run, *interval_us, 0]),
            Self::Data { run, seq, ticks } => (2, [*run, *seq, *ticks]),
            Self::Query { run, from } => (3, [*run, *from, 0]),
            Self::Report { run, from, sent, .. } => (4, [*run, *from, *sent]),
        };
        let mut bytes = MAGIC.to_vec();
        bytes.push(kind);
        for word in words {
            bytes.extend(word.to_be_bytes());
        }
        match self {
            Self::Report { arrivals, .. } => {
                for arrival in arrivals {
                    bytes.extend(arrival.ticks.to_be_bytes());
                    bytes.push(arrival.copies);
                }
            }
            _ => bytes.resize(DATA_LEN, 0),
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.strip_prefix(&MAGIC)?.split_first()?;
        let word = |n: usize| Some(u32::from_be_bytes(rest.get(n * 4..n * 4 + 4)?.try_into().ok()?));
        let (run, second, third) = (word(0)?, word(1)?, word(2)?);
        Some(match kind {
            1 => Self::Hello {
                run,
                interval_us: second,
            },
            2 => Self::Data {
                run,
                seq: second,
                ticks: third,
            },
            3 => Self::Query { run, from: second },
            4 => Self::Report {
                run,
                from: second,
                sent: third,
                arrivals: rest.get(12..)?.chunks_exact(5).filter_map(arrival).collect(),
            },
            _ => return None,
        })
    }
}

fn arrival(bytes: &[u8]) -> Option<Arrival> {
    let (ticks, copies) = bytes.split_first_chunk()?;
    Some(Arrival {
        ticks: u32::from_be_bytes(*ticks),
        copies: *copies.first()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_understood() {
        let arrivals = vec![Arrival { ticks: 7, copies: 2 }; PER_REPORT as usize];
        for packet in [
            Packet::Hello {
                run: 1,
                interval_us: 5000,
            },
            Packet::Data {
                run: 1,
                seq: 2,
                ticks: 3,
            },
            Packet::Query { run: 1, from: 200 },
            Packet::Report {
                run: 1,
                from: 200,
                sent: 9,
                arrivals,
            },
        ] {
            let bytes = packet.encode();
            assert!(bytes.len() <= 1472, "fits a frame");
            assert_eq!(Packet::decode(&bytes), Some(packet));
        }
        assert_eq!(Packet::decode(b"hbp1"), None);
        assert_eq!(Packet::decode(&[0; 64]), None);
    }
}
