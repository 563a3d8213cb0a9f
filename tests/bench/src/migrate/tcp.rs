//! A stream of TCP from the guest to the peer, as throughput over time.

use anyhow::{Context, Result, ensure};
use hybond_lab::{Guest, Host, Lab, Machine};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the peer listens.
pub const PORT: u16 = 9902;
/// Bytes are counted by so much time.
const BUCKET_MS: u64 = 10;
/// Throughput is that of so many of them.
const SECOND: usize = 100;

/// The peer's side, in a process of the peer's namespace: takes one connection after the other and writes how many bytes
/// came in each [`BUCKET_MS`], until its standard input is closed.
///
/// # Errors
/// It cannot listen, or not write.
pub fn sink(out: &Path) -> Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).with_context(|| format!("cannot listen on port {PORT}"))?;
    let (done, over) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // Its end is all that is waited for.
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        done.send(()).ok();
    });
    let begun = Instant::now();
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1e3;
    listener.set_nonblocking(true)?;
    let mut buckets: Vec<u64> = Vec::new();
    let mut stream = None;
    let mut bytes = vec![0; 256 * 1024];
    while over.try_recv().is_err() {
        let Some(open) = &mut stream else {
            match listener.accept() {
                Ok((accepted, _)) => {
                    accepted.set_nonblocking(false)?;
                    accepted.set_read_timeout(Some(Duration::from_millis(BUCKET_MS)))?;
                    stream = Some(accepted);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(BUCKET_MS));
                }
                Err(error) => return Err(error.into()),
            }
            continue;
        };
        match open.read(&mut bytes) {
            Ok(0) => stream = None,
            Ok(n) => {
                let bucket = begun.elapsed().as_millis() as usize / BUCKET_MS as usize;
                if buckets.len() <= bucket {
                    buckets.resize(bucket + 1, 0);
                }
                if let Some(count) = buckets.get_mut(bucket) {
                    *count += n as u64;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // The guest begins another.
            Err(_) => stream = None,
        }
    }
    let mut file = fs::File::create(out).with_context(|| format!("cannot write {}", out.display()))?;
    writeln!(file, "{since}")?;
    for count in buckets {
        writeln!(file, "{count}")?;
    }
    Ok(())
}

/// A stream that flows.
#[derive(Debug)]
pub struct Stream {
    child: Child,
    file: PathBuf,
}

impl Stream {
    /// Has the guest send for as long as it lives, and the peer count.
    ///
    /// # Errors
    /// One of them cannot be started.
    pub fn start(lab: &Lab, guest: &Guest, host: &Host, folder: &Path) -> Result<Self> {
        let file = folder.join("tcp");
        let program = std::env::current_exe()?;
        let child = lab
            .peer()
            .command(&format!("exec {} sink --out {}", program.display(), file.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start the peer's side")?;
        let stream = Self { child, file };
        let peer = hybond_lab::tier3::PEER;
        guest.ok(
            host,
            &format!("(while :; do nc {peer} {PORT} </dev/zero; sleep 0.1; done) >/dev/null 2>&1 </dev/null &"),
        )?;
        Ok(stream)
    }

    /// Ends it.
    ///
    /// # Errors
    /// Nothing was counted.
    pub fn finish(mut self) -> Result<Throughput> {
        drop(self.child.stdin.take());
        ensure!(self.child.wait()?.success(), "the peer's side of the stream has failed");
        Throughput::parse(&fs::read_to_string(&self.file)?)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Finished, it has ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// How much came when.
#[derive(Debug, Clone, PartialEq)]
pub struct Throughput {
    since_ms: f64,
    buckets: Vec<u64>,
}

impl Throughput {
    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let since_ms = lines.next().context("nothing was counted")?.parse()?;
        let buckets = lines.map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { since_ms, buckets })
    }

    fn place(&self, at_ms: f64) -> usize {
        (((at_ms - self.since_ms).max(0.0) / BUCKET_MS as f64) as usize).min(self.buckets.len())
    }

    /// The longest time in a span in which nothing came, in milliseconds.
    #[must_use]
    pub fn stall_ms(&self, from_ms: f64, to_ms: f64) -> f64 {
        let span = self
            .buckets
            .get(self.place(from_ms)..self.place(to_ms))
            .unwrap_or_default();
        let longest = span.split(|count| *count > 0).map(<[u64]>::len).max().unwrap_or(0);
        longest as f64 * BUCKET_MS as f64
    }

    /// The least that came in one second of a span, in percent of what came in the median second before it.
    #[must_use]
    pub fn dip_percent(&self, from_ms: f64, to_ms: f64) -> Option<f64> {
        let seconds = |buckets: &[u64]| -> Vec<u64> { buckets.windows(SECOND).map(|own| own.iter().sum()).collect() };
        let mut before = seconds(self.buckets.get(..self.place(from_ms))?);
        before.sort_unstable();
        let usual = *before.get(before.len() / 2)?;
        let least = seconds(self.buckets.get(self.place(from_ms)..self.place(to_ms))?)
            .into_iter()
            .min()?;
        (usual > 0).then(|| 100.0 * least as f64 / usual as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_and_a_dip_are_seen_where_they_are() {
        // 5 s of 1000 bytes a bucket, half of a second without any, 5 s more.
        let mut text = "1000000\n".to_owned();
        for bucket in 0..1050 {
            text += if (500..550).contains(&bucket) { "0\n" } else { "1000\n" };
        }
        let throughput = Throughput::parse(&text).expect("counts");
        assert_eq!(throughput.stall_ms(1_004_000.0, 1_010_500.0), 500.0);
        assert_eq!(throughput.stall_ms(1_006_000.0, 1_010_500.0), 0.0);
        assert_eq!(throughput.dip_percent(1_004_000.0, 1_010_500.0), Some(50.0));
        assert_eq!(
            throughput.dip_percent(1_000_000.0, 1_010_500.0),
            None,
            "nothing is known of before"
        );
    }
}
