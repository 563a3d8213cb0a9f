//! A stream of TCP from the guest to the peer, as what arrives over time.
//!
//! The peer takes a little every few milliseconds and has the kernel hold only a little more, so that the guest sends at a
//! steady pace that no host is busy with: the packets beside it are not to wait for it.

use anyhow::{Context, Result, ensure};
use hybond_lab::process::KilledOnDrop;
use hybond_lab::{Guest, Host, Lab, Machine, process};
use nix::sys::socket::{setsockopt, sockopt};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the peer listens.
pub const PORT: u16 = 9902;
/// Bytes are counted by so much time.
const BUCKET_MS: u64 = 10;
/// Throughput is that of so many of them.
const SECOND: usize = 100;
/// The peer takes so much in each: 2 Mbit/s, more than a packet of the largest size.
const PACE: usize = 2500;
/// What the kernel is asked to hold until it is taken; it doubles that.
const HELD: usize = 16 * 1024;
/// More than that.
const PEEK: usize = 256 * 1024;
const CONNECTS: Duration = Duration::from_secs(30);

/// The peer's side, in a process of the peer's namespace: takes one connection after the other and writes how many bytes
/// have arrived in each [`BUCKET_MS`], until its standard input is closed.
///
/// # Errors
/// It cannot listen, or not write.
pub fn sink(out: &Path) -> Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).with_context(|| format!("cannot listen on port {PORT}"))?;
    // The window that the guest is told of when it connects depends on it.
    setsockopt(&listener, sockopt::RcvBuf, &HELD).context("cannot bound what is held")?;
    let mut file = fs::File::create(out).with_context(|| format!("cannot write {}", out.display()))?;
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
    let mut open: Option<Arriving> = None;
    while over.try_recv().is_err() {
        let passed = begun.elapsed().as_millis() as u64 / BUCKET_MS;
        if open.is_none() {
            match listener.accept() {
                Ok((accepted, _)) => open = Some(Arriving::new(accepted)?),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        let arrived = open.as_mut().map_or(Some(0), Arriving::take);
        let bucket = passed as usize;
        if buckets.len() <= bucket {
            buckets.resize(bucket + 1, 0);
        }
        match (arrived, buckets.get_mut(bucket)) {
            (Some(bytes), Some(count)) => *count += bytes,
            // It has ended; the guest may begin another.
            _ => open = None,
        }
        let next = Duration::from_millis((passed + 1) * BUCKET_MS);
        std::thread::sleep(next.saturating_sub(begun.elapsed()));
    }
    writeln!(file, "{since}")?;
    for count in buckets {
        writeln!(file, "{count}")?;
    }
    Ok(())
}

/// A connection of which little is taken at a time.
struct Arriving {
    stream: TcpStream,
    bytes: Vec<u8>,
    /// What has arrived and is not taken yet.
    waiting: usize,
}

impl Arriving {
    fn new(stream: TcpStream) -> Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            bytes: vec![0; PEEK],
            waiting: 0,
        })
    }

    /// Takes its share; how much has arrived since the last time. `None` once nothing more will.
    fn take(&mut self) -> Option<u64> {
        let there = match self.stream.peek(&mut self.bytes) {
            Ok(0) => return None,
            Ok(there) => there,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(0),
            Err(_) => return None,
        };
        let arrived = there.saturating_sub(self.waiting);
        let share = self.bytes.get_mut(..PACE).unwrap_or_default();
        // It is there: what cannot be read now is read the next time.
        let taken = self.stream.read(share).unwrap_or(0);
        self.waiting = there - taken;
        Some(arrived as u64)
    }
}

/// A stream that flows.
#[derive(Debug)]
pub struct Stream {
    child: KilledOnDrop,
    file: PathBuf,
}

impl Stream {
    /// Has the guest send for as long as the peer takes it, and the peer count.
    ///
    /// # Errors
    /// One of them cannot be started.
    pub fn start(lab: &Lab, guest: &Guest, host: &Host, folder: &Path) -> Result<Self> {
        let file = folder.join("tcp");
        if file.exists() {
            fs::remove_file(&file)?;
        }
        let program = std::env::current_exe()?;
        // As the probe: what counts must not be late itself.
        let script = format!(
            "first=; if chrt -f 50 true 2>/dev/null; then first='chrt -f 50'; fi\nexec $first {} sink --out {}",
            program.display(),
            file.display()
        );
        let child = lab
            .peer()
            .command(&script)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start the peer's side")?;
        let child = child.into();
        let stream = Self { child, file };
        process::until("the peer's side of the stream", CONNECTS, || {
            Ok(stream.file.exists().then_some(()))
        })?;
        let peer = hybond_lab::tier3::PEER;
        // It ends by itself once the peer has closed.
        guest.ok(host, &format!("nc {peer} {PORT} </dev/zero >/dev/null 2>&1 &"))?;
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

    #[test]
    fn what_arrives_is_counted_when_it_does_and_taken_little_by_little() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let mut guest = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
        let (accepted, _) = listener.accept().expect("accepted");
        let mut arriving = Arriving::new(accepted).expect("a stream");
        assert_eq!(arriving.take(), Some(0), "nothing yet");
        guest.write_all(&[0; 3 * PACE]).expect("written");
        let until = |arriving: &mut Arriving, bytes: u64| {
            let mut arrived = 0;
            while arrived < bytes {
                arrived += arriving.take().expect("open");
            }
            arrived
        };
        assert_eq!(until(&mut arriving, 3 * PACE as u64), 3 * PACE as u64);
        drop(guest);
        let mut more = Some(0);
        while more == Some(0) {
            more = arriving.take();
        }
        assert_eq!(more, None, "the rest was counted before");
    }
}
