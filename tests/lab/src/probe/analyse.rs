//! What the records say: loss, repetition, delay and silence, in all and by spans of time.

use super::{Direction, Record};
use serde::{Deserialize, Serialize};

/// A packet that took longer than this is late.
pub const LATE_MS: f64 = 100.0;
/// A silence belongs to a span if it overlaps it by so much, or by half of itself.
const OVERLAP_MS: f64 = 10.0;

/// A span of time: a phase, or several. Milliseconds since the epoch; its end is not part of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Its name.
    pub name: String,
    /// Its start.
    pub start_ms: f64,
    /// Its end.
    pub end_ms: f64,
}

impl Span {
    /// A span.
    #[must_use]
    pub fn new(name: &str, start_ms: f64, end_ms: f64) -> Self {
        Self {
            name: name.to_owned(),
            start_ms,
            end_ms,
        }
    }

    fn holds(&self, at: f64) -> bool {
        (self.start_ms..self.end_ms).contains(&at)
    }
}

/// Packets of one direction. A packet counts where it was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Count {
    /// Sent.
    pub sent: u32,
    /// Never received.
    pub lost: u32,
    /// Received again, each further copy counted.
    pub duplicates: u32,
    /// Received more than [`LATE_MS`] after they were sent.
    pub late: u32,
    /// The longest time on its way.
    pub longest_delay_ms: f64,
    /// The longest time without any packet received.
    pub longest_gap_ms: f64,
    /// When that began.
    pub gap_start_ms: f64,
    /// The longest pause between two packets that were sent: a gap is at least this long, whatever carries the packets.
    pub longest_send_gap_ms: f64,
}

/// Both directions within a span.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The span.
    pub span: Span,
    /// Peer to guest.
    pub to_guest: Count,
    /// Guest to peer.
    pub from_guest: Count,
}

impl Summary {
    /// Lost in either direction.
    #[must_use]
    pub fn lost(&self) -> u32 {
        self.to_guest.lost + self.from_guest.lost
    }

    /// Repeated in either direction.
    #[must_use]
    pub fn duplicates(&self) -> u32 {
        self.to_guest.duplicates + self.from_guest.duplicates
    }

    /// The longest silence of either direction.
    #[must_use]
    pub fn longest_gap_ms(&self) -> f64 {
        self.to_guest.longest_gap_ms.max(self.from_guest.longest_gap_ms)
    }
}

/// Counts by span. Spans may overlap, or hold each other.
#[must_use]
pub fn analyse(records: &[Record], spans: &[Span]) -> Vec<Summary> {
    let [to_guest, from_guest] = Direction::ALL.map(|dir| Stream::new(records, dir));
    let summary = |span: &Span| Summary {
        span: span.clone(),
        to_guest: to_guest.count(span),
        from_guest: from_guest.count(span),
    };
    spans.iter().map(summary).collect()
}

/// Times of arrival in one direction, ascending.
#[must_use]
pub fn arrivals(records: &[Record], dir: Direction) -> Vec<f64> {
    let all = records.iter().filter(|record| record.dir == dir);
    let mut times: Vec<f64> = all.filter_map(|record| record.recv_ms).collect();
    times.sort_by(f64::total_cmp);
    times
}

struct Stream {
    records: Vec<Record>,
    received: Vec<f64>,
    sent: Vec<f64>,
}

impl Stream {
    fn new(records: &[Record], dir: Direction) -> Self {
        let records: Vec<Record> = records.iter().filter(|record| record.dir == dir).copied().collect();
        let mut sent: Vec<f64> = records.iter().map(|record| record.sent_ms).collect();
        sent.sort_by(f64::total_cmp);
        let mut received = arrivals(&records, dir);
        // A silence that lasts from the beginning or to the end is one, too.
        if let (Some(first), Some(last)) = (sent.first(), sent.last()) {
            received.insert(0, *first);
            received.push(*last);
            received.sort_by(f64::total_cmp);
        }
        Self {
            records,
            received,
            sent,
        }
    }

    fn count(&self, span: &Span) -> Count {
        let mut count = Count::default();
        for record in self.records.iter().filter(|record| span.holds(record.sent_ms)) {
            count.sent += 1;
            let Some(received) = record.recv_ms else {
                count.lost += 1;
                continue;
            };
            let delay = received - record.sent_ms;
            count.late += u32::from(delay > LATE_MS);
            count.longest_delay_ms = count.longest_delay_ms.max(delay);
            count.duplicates += u32::from(record.copies.saturating_sub(1));
        }
        (count.gap_start_ms, count.longest_gap_ms) = longest(&self.received, span);
        (_, count.longest_send_gap_ms) = longest(&self.sent, span);
        count
    }
}

/// Start and length of the longest interval of `times` that belongs to the span.
fn longest(times: &[f64], span: &Span) -> (f64, f64) {
    let gaps = times.windows(2).filter_map(|pair| match pair {
        [start, end] => Some((*start, end - start, end.min(span.end_ms) - start.max(span.start_ms))),
        _ => None,
    });
    let own = gaps.filter(|(_, gap, overlap)| *overlap > 0.0 && *overlap >= OVERLAP_MS.min(gap / 2.0));
    own.map(|(start, gap, _)| (start, gap))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap_or((span.start_ms, 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 200 packets/s for 10 s in both directions, each 1 ms on its way.
    fn traffic() -> Vec<Record> {
        let packets = |dir| {
            (0..2000u32).map(move |seq| Record {
                dir,
                seq,
                sent_ms: f64::from(seq) * 5.0,
                recv_ms: Some(f64::from(seq) * 5.0 + 1.0),
                copies: 1,
            })
        };
        Direction::ALL.into_iter().flat_map(packets).collect()
    }

    fn change(records: &mut [Record], dir: Direction, from_ms: f64, to_ms: f64, change: impl Fn(&mut Record)) {
        let span = Span::new("", from_ms, to_ms);
        let those = records
            .iter_mut()
            .filter(|record| record.dir == dir && span.holds(record.sent_ms));
        those.for_each(change);
    }

    fn lose(record: &mut Record) {
        (record.recv_ms, record.copies) = (None, 0);
    }

    fn one(records: &[Record], span: Span) -> Summary {
        analyse(records, &[span]).remove(0)
    }

    #[test]
    fn undisturbed_traffic_has_nothing_to_report() {
        let summary = one(&traffic(), Span::new("whole", 0.0, 10_000.0));
        assert_eq!((summary.lost(), summary.duplicates(), summary.to_guest.late), (0, 0, 0));
        assert_eq!((summary.to_guest.sent, summary.from_guest.sent), (2000, 2000));
        assert_eq!(summary.longest_gap_ms(), 5.0);
        assert_eq!(summary.to_guest.longest_send_gap_ms, 5.0);
    }

    #[test]
    fn loss_counts_in_the_direction_and_the_phase_it_was_sent_in() {
        let mut records = traffic();
        change(&mut records, Direction::FromGuest, 4_000.0, 4_100.0, lose);
        let spans = [
            Span::new("failover", 3_000.0, 4_050.0),
            Span::new("drain", 4_050.0, 5_000.0),
            Span::new("failback", 8_000.0, 9_000.0),
        ];
        let lost: Vec<_> = analyse(&records, &spans)
            .iter()
            .map(|summary| (summary.to_guest.lost, summary.from_guest.lost))
            .collect();
        assert_eq!(lost, [(0, 10), (0, 10), (0, 0)]);
    }

    #[test]
    fn a_gap_is_measured_between_arrivals_and_shown_whole_in_each_phase_it_is_part_of() {
        let mut records = traffic();
        change(&mut records, Direction::ToGuest, 4_000.0, 4_100.0, lose);
        let spans = [
            Span::new("before", 3_000.0, 4_000.0),
            Span::new("first", 4_000.0, 4_050.0),
            Span::new("second", 4_050.0, 6_000.0),
            Span::new("after", 4_101.0, 6_000.0),
        ];
        let gaps: Vec<_> = analyse(&records, &spans).iter().map(Summary::longest_gap_ms).collect();
        // It began 4 ms before the second span, which is not enough to be the first span's.
        assert_eq!(gaps, [5.0, 105.0, 105.0, 5.0]);
        let summary = one(&records, Span::new("whole", 0.0, 10_000.0));
        assert_eq!(
            (summary.to_guest.gap_start_ms, summary.from_guest.longest_gap_ms),
            (3_996.0, 5.0)
        );
    }

    #[test]
    fn packets_that_are_held_up_are_late_and_not_lost() {
        let mut records = traffic();
        change(&mut records, Direction::ToGuest, 4_000.0, 4_500.0, |record| {
            record.recv_ms = Some(4_501.0)
        });
        let summary = one(&records, Span::new("whole", 0.0, 10_000.0));
        assert_eq!(summary.lost(), 0);
        // Those sent up to 4400 took more than 100 ms.
        assert_eq!(summary.to_guest.late, 81);
        assert_eq!(summary.to_guest.longest_delay_ms, 501.0);
        assert_eq!(summary.longest_gap_ms(), 505.0);
    }

    #[test]
    fn each_further_copy_is_a_duplicate() {
        let mut records = traffic();
        change(&mut records, Direction::ToGuest, 4_000.0, 4_050.0, |record| {
            record.copies = 3
        });
        assert_eq!(one(&records, Span::new("whole", 0.0, 10_000.0)).duplicates(), 20);
        assert_eq!(one(&records, Span::new("later", 5_000.0, 10_000.0)).duplicates(), 0);
    }

    #[test]
    fn a_guest_that_never_comes_back_is_a_gap_to_the_end() {
        let mut records = traffic();
        for dir in Direction::ALL {
            change(&mut records, dir, 6_000.0, 10_000.0, lose);
        }
        let summary = one(&records, Span::new("whole", 0.0, 10_000.0));
        assert_eq!(summary.lost(), 1600);
        assert_eq!(summary.longest_gap_ms(), 9_995.0 - 5_996.0);
    }

    #[test]
    fn a_pause_of_the_sender_is_told_apart_from_a_silence_of_the_network() {
        let mut records = traffic();
        records.retain(|record| !(4_000.0..4_200.0).contains(&record.sent_ms));
        let summary = one(&records, Span::new("whole", 0.0, 10_000.0));
        assert_eq!((summary.lost(), summary.longest_gap_ms()), (0, 205.0));
        assert_eq!(summary.from_guest.longest_send_gap_ms, 205.0);
    }
}
