//! The guest's time in the peer's.
//!
//! The guest's clock stands still while its CPUs do, so the difference of the two clocks only grows. A packet of the
//! guest's that came at `recv` and carries `stamp` shows that the difference was at most `recv - stamp` when it was
//! sent, and so at any time before. The least of these bounds among the packets from a moment on is the difference at
//! that moment, up to the shortest way through the network; but only among those of the next few seconds, because the
//! clocks also drift. If no packet came through between a moment and a pause, the pause is counted as before the
//! moment: times are then late rather than early, and a gap is not shown shorter than it was.

use std::collections::VecDeque;

/// How far ahead packets are looked at. At 100 ppm of drift this is 1 ms.
const AHEAD_MS: f64 = 10_000.0;

/// Converts the guest's time.
#[derive(Debug, Clone, Default)]
pub struct GuestClock {
    /// Stamp of each packet, ascending, and the difference that holds from the one before it.
    points: Vec<(f64, f64)>,
}

impl GuestClock {
    /// From pairs of the guest's time at sending and the peer's at arrival, both in milliseconds.
    #[must_use]
    pub fn new(mut packets: Vec<(f64, f64)>) -> Self {
        packets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut points = vec![(0.0, 0.0); packets.len()];
        // The least difference ahead, from the last packet to the first. The queue holds candidates, least in front.
        let mut ahead: VecDeque<(f64, f64)> = VecDeque::new();
        for (point, (stamp, recv)) in points.iter_mut().zip(&packets).rev() {
            let difference = recv - stamp;
            while ahead.back().is_some_and(|(_, other)| *other >= difference) {
                ahead.pop_back();
            }
            ahead.push_back((*stamp, difference));
            while ahead.front().is_some_and(|(other, _)| *other > stamp + AHEAD_MS) {
                ahead.pop_front();
            }
            *point = (*stamp, ahead.front().map_or(difference, |(_, least)| *least));
        }
        Self { points }
    }

    /// The peer's time at a time of the guest's; `None` if no packet of the guest's ever came.
    #[must_use]
    pub fn convert(&self, stamp: f64) -> Option<f64> {
        let next = self.points.partition_point(|(other, _)| *other < stamp);
        let (_, difference) = self.points.get(next).or(self.points.last())?;
        Some(stamp + difference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 200 packets/s for 20 s on a way of 1 ms; from 10 s on, the guest has missed `pause` ms.
    fn packets(pause: f64) -> Vec<(f64, f64)> {
        let stamps = (0..4000).map(|n| f64::from(n) * 5.0);
        stamps
            .map(|stamp| (stamp, 1e12 + stamp + 1.0 + if stamp >= 10_000.0 { pause } else { 0.0 }))
            .collect()
    }

    #[test]
    fn a_pause_of_the_guest_is_found_where_it_was() {
        let clock = GuestClock::new(packets(700.0));
        assert_eq!(clock.convert(9_994.0), Some(1e12 + 9_995.0));
        assert_eq!(clock.convert(10_000.0), Some(1e12 + 10_701.0));
        assert_eq!(clock.convert(0.0), Some(1e12 + 1.0));
        assert_eq!(clock.convert(30_000.0), Some(1e12 + 30_701.0));
    }

    #[test]
    fn packets_that_were_held_up_do_not_bend_it() {
        let mut packets = packets(0.0);
        for packet in &mut packets[500..600] {
            packet.1 += 300.0;
        }
        let clock = GuestClock::new(packets);
        assert_eq!(clock.convert(2_600.0), Some(1e12 + 2_601.0));
    }

    #[test]
    fn a_pause_amid_a_silence_makes_times_late_and_never_early() {
        let mut packets = packets(700.0);
        packets.drain(1900..2100);
        let clock = GuestClock::new(packets);
        assert_eq!(clock.convert(9_400.0), Some(1e12 + 9_401.0));
        assert_eq!(clock.convert(9_600.0), Some(1e12 + 10_301.0));
    }

    #[test]
    fn without_packets_there_is_no_time() {
        assert_eq!(GuestClock::new(Vec::new()).convert(1.0), None);
    }
}
