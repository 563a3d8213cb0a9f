//! What a guest's network loses.

use anyhow::{Context, Result};
use hybond_lab::probe::{self, Config, Record, Span, Summary};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Packets per second in each direction.
pub const RATE: u32 = 200;
/// No test takes longer.
const AT_MOST: Duration = Duration::from_secs(600);
/// Lost packets that are named for each span.
const SHOWN: usize = 20;

/// Numbered packets to a guest and from it, from the network of the thread that starts it, and the spans of time in
/// which something was done to the guest.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    probe: JoinHandle<Result<Vec<Record>>>,
    spans: Vec<Span>,
}

impl Traffic {
    /// Starts it.
    #[must_use]
    pub fn start(guest: IpAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let config = Config {
            guest: SocketAddr::new(guest, probe::PORT),
            rate: RATE,
            at_most: AT_MOST,
        };
        let stopped = stop.clone();
        // A thread is in the network namespace of the one that starts it.
        let probe = std::thread::spawn(move || probe::run(&config, &stopped));
        let spans = Vec::new();
        Self { stop, probe, spans }
    }

    /// Does something, and half a second later, when its packets have come or have not, notes how long it took.
    pub async fn during<T>(&mut self, what: &str, doing: impl Future<Output = T>) -> T {
        let start = now();
        let done = doing.await;
        let took = now() - start;
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.spans.push(Span::new(what, start, now()));
        eprintln!("{what}: {took:.0} ms");
        done
    }

    /// Ends it: what was lost in each span, and in all.
    ///
    /// # Errors
    /// The guest did not answer.
    pub async fn end(mut self) -> Result<Vec<Summary>> {
        self.stop.store(true, Ordering::SeqCst);
        let probe = self.probe;
        let records = tokio::task::spawn_blocking(move || probe.join())
            .await
            .context("the probe's thread")?
            .map_err(|_| anyhow::anyhow!("the probe has panicked"))??;
        for span in &self.spans {
            let inside = |r: &&Record| r.recv_ms.is_none() && (span.start_ms..span.end_ms).contains(&r.sent_ms);
            for record in records.iter().filter(inside).take(SHOWN) {
                let after = record.sent_ms - span.start_ms;
                eprintln!("{}: lost {:?} {} at {after:.0} ms", span.name, record.dir, record.seq);
            }
        }
        self.spans.push(Span::new("in all", 0.0, f64::MAX));
        let summaries = probe::analyse(&records, &self.spans);
        eprintln!("span                lost to/from guest   repeated   longest gap");
        for summary in &summaries {
            eprintln!(
                "{:18} {:8} {:8} {:15} {:10.0} ms",
                summary.span.name,
                summary.to_guest.lost,
                summary.from_guest.lost,
                summary.duplicates(),
                summary.longest_gap_ms()
            );
        }
        Ok(summaries)
    }
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64() * 1000.0)
}
