//! `hybond-probe`: the traffic probe. `respond` runs in the guest, `run` on the peer.

use anyhow::{Context, Result, bail, ensure};
use hybond_lab::probe::{self, Config, PORT, Span};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const USAGE: &str = "\
usage: hybond-probe respond [--listen ADDRESS:PORT]
           answer in the guest, by default on 0.0.0.0:9901
       hybond-probe run --guest ADDRESS[:PORT] --out FILE [--rate N] [--seconds N] [--stdin]
           N packets/s (200) in each direction for N seconds (60), or with --stdin until standard input is closed;
           a JSON object per packet goes to FILE, what they say to standard output
       hybond-probe pages --guest ADDRESS
           send the guest pages to keep, say \"sent\", send more until standard input is closed, and print what has become
           of them in the guest: JSON; exit code 1 where one has been altered
       hybond-probe show FILE [START-END]
           what the packets of FILE say, those sent between START and END milliseconds after the first";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["respond", rest @ ..] => respond(rest),
        ["run", rest @ ..] => run(rest),
        ["pages", "--guest", address] => pages(address),
        ["show", file, rest @ ..] => show(file, rest.first().copied()),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hybond-probe: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn respond(rest: &[&str]) -> Result<()> {
    let listen = match rest {
        [] => SocketAddr::from(([0, 0, 0, 0], PORT)),
        ["--listen", address] => address
            .parse()
            .with_context(|| format!("{address} is no address:port"))?,
        _ => bail!("{USAGE}"),
    };
    let pages = SocketAddr::new(listen.ip(), probe::PAGES_PORT);
    let listener = TcpListener::bind(pages).with_context(|| format!("cannot listen on {pages}"))?;
    std::thread::spawn(move || {
        if let Err(error) = probe::keep(&listener) {
            eprintln!("hybond-probe: keeping pages on {pages}: {error}");
        }
    });
    probe::respond(listen).with_context(|| format!("cannot answer on {listen}"))
}

fn pages(address: &str) -> Result<()> {
    let ip = address.parse().with_context(|| format!("{address} is no address"))?;
    let stop = Arc::new(AtomicBool::new(false));
    stop_with_stdin(Arc::clone(&stop));
    let sent = || writeln!(std::io::stdout(), "sent").context("cannot say so");
    let kept = probe::send_pages(SocketAddr::new(ip, probe::PAGES_PORT), sent, &stop)?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&kept)?)?;
    ensure!(kept.is_unaltered(), "memory of the guest has been altered");
    Ok(())
}

fn run(rest: &[&str]) -> Result<()> {
    let (mut guest, mut out) = (None, None);
    let (mut rate, mut seconds) = (200, 60);
    let stop = Arc::new(AtomicBool::new(false));
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .copied()
                .with_context(|| format!("{word} needs a value\n{USAGE}"))
        };
        match *word {
            "--guest" => guest = Some(guest_address(value()?)?),
            "--out" => out = Some(PathBuf::from(value()?)),
            "--rate" => {
                rate = value()?
                    .parse()
                    .ok()
                    .filter(|rate| (1..=5000).contains(rate))
                    .context("--rate: 1 to 5000")?
            }
            "--seconds" => seconds = value()?.parse().context("--seconds: a number")?,
            "--stdin" => stop_with_stdin(Arc::clone(&stop)),
            _ => bail!("{USAGE}"),
        }
    }
    let config = Config {
        guest: guest.context(USAGE)?,
        rate,
        at_most: Duration::from_secs(seconds),
    };
    let out = out.context(USAGE)?;
    let records = probe::run(&config, &stop)?;
    probe::write(&out, &records)?;
    print(&records, None)
}

fn guest_address(text: &str) -> Result<SocketAddr> {
    let with_port = text
        .parse()
        .or_else(|_| text.parse().map(|ip| SocketAddr::new(ip, PORT)));
    with_port.with_context(|| format!("{text} is no address"))
}

fn stop_with_stdin(stop: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        // Closed or broken, it is over.
        drop(std::io::stdin().lock().take(1 << 20).read_to_end(&mut rest));
        stop.store(true, Ordering::Relaxed);
    });
}

fn show(file: &str, between: Option<&str>) -> Result<()> {
    let between = match between {
        None => None,
        Some(text) => {
            let parts = text
                .split_once('-')
                .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            Some(parts.with_context(|| format!("{text} is not START-END"))?)
        }
    };
    print(&probe::read(file.as_ref())?, between)
}

fn print(records: &[probe::Record], between: Option<(f64, f64)>) -> Result<()> {
    let first = records
        .iter()
        .map(|record| record.sent_ms)
        .fold(f64::INFINITY, f64::min);
    let (start, end) = between.map_or((f64::NEG_INFINITY, f64::INFINITY), |(a, b)| (first + a, first + b));
    let mut out = std::io::stdout().lock();
    for summary in probe::analyse(records, &[Span::new("all", start, end)]) {
        for (name, count) in [("to guest", summary.to_guest), ("from guest", summary.from_guest)] {
            writeln!(
                out,
                "{name}: {} sent, {} lost, {} duplicates, {} late; longest gap {:.1} ms at {:.1} s, delay {:.1} ms, pause of the sender {:.1} ms",
                count.sent,
                count.lost,
                count.duplicates,
                count.late,
                count.longest_gap_ms,
                (count.gap_start_ms - first) / 1e3,
                count.longest_delay_ms,
                count.longest_send_gap_ms,
            )?;
        }
    }
    Ok(())
}
