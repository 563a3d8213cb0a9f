//! The guest's agent: what it is, and what it takes while nothing happens.

use crate::Programs;
use crate::figures::{Figure, Point, Section};
use crate::usage::{Watched, rss_mib};
use crate::variant::{Measures, Rounds, Variant, interleave};
use anyhow::{Context, Result, bail};
use hybond_lab::process::KilledOnDrop;
use hybond_wire::agent::{FromAgent, LIMIT, ToAgent, VERSION};
use hybond_wire::line::{self, LineBuffer};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const NAME: &str = "hybond-agent";
const RSS: &str = "RSS, greeted and idle";
const WAKEUPS: &str = "wake-ups when idle";
const GREETING: Duration = Duration::from_secs(20);

/// The agent on a port that is a terminal, in a network namespace with a pair of veths, greeted by a host.
struct Idle<'a> {
    programs: &'a Programs,
    state: &'a Path,
    time: Duration,
}

impl Variant for Idle<'_> {
    fn name(&self) -> String {
        NAME.to_owned()
    }

    fn once(&mut self, _round: usize) -> Result<Measures> {
        let OpenptyResult { master, slave } = openpty(None, None).context("no terminal")?;
        let mut settings = tcgetattr(&slave)?;
        cfmakeraw(&mut settings);
        tcsetattr(&slave, SetArg::TCSANOW, &settings)?;
        let port = nix::unistd::ttyname(&slave)?;
        let state = self.state.join("state");
        let log = self.state.join("log");
        let child = Command::new("unshare")
            .args(["--net", "--", "sh", "-c"])
            .arg("ip link add name v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up && exec \"$0\" \"$@\"")
            .arg(&self.programs.agent)
            .arg("--port")
            .arg(&port)
            .arg("--state")
            .arg(&state)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("unshare is in Debian's util-linux")?;
        let agent = KilledOnDrop::from(child);
        let mut host = File::from(master);
        if let Err(error) = greet(&mut host) {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(error.context(format!("the agent said: {:?}", said.trim())));
        }
        let pid = agent.id();
        // What it does of the greeting's is over once it sleeps again.
        std::thread::sleep(Duration::from_secs(1));
        let watched = Watched::begin(pid)?;
        std::thread::sleep(self.time);
        let usage = watched.end()?;
        Ok(Measures::from([
            (RSS.to_owned(), vec![rss_mib(pid)?]),
            (WAKEUPS.to_owned(), vec![usage.wakeups_per_second()]),
        ]))
    }
}

/// Says hello, and waits for the agent's answer. This program has the terminal's other end open, too, so that an agent that has
/// ended is missed by its silence only.
fn greet(host: &mut File) -> Result<()> {
    let pairs = vec!["52:54:00:aa:00:01".parse()?];
    let hello = ToAgent::Hello {
        id: 1,
        version: VERSION,
        pairs,
    };
    // Held by the terminal until the agent opens it.
    host.write_all(&line::encode(&hello, LIMIT)?)?;
    let begun = Instant::now();
    let mut lines = LineBuffer::new(LIMIT);
    // It ends with the terminal.
    let (heard, waiting) = mpsc::channel();
    let mut reader = host.try_clone()?;
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = reader.read(&mut bytes) {
            if heard.send(bytes.get(..n).unwrap_or_default().to_vec()).is_err() {
                return;
            }
        }
    });
    while let Ok(bytes) = waiting.recv_timeout(GREETING.saturating_sub(begun.elapsed())) {
        lines.push(&bytes);
        while let Some(line) = lines.next_line()? {
            if let Ok(FromAgent::Hello { .. }) = line::decode(&line, LIMIT) {
                return Ok(());
            }
        }
    }
    bail!("the agent has not answered a hello within {} s", GREETING.as_secs())
}

/// Measures it.
///
/// # Errors
/// It does not start, or does not answer.
pub fn bench(programs: &Programs, rounds: usize, idle: Duration) -> Result<Section> {
    let state = tempfile::tempdir().context("no temporary folder")?;
    let mut variants: Vec<Box<dyn Variant>> = vec![Box::new(Idle {
        programs,
        state: state.path(),
        time: idle,
    })];
    let rounds = Rounds {
        warm: 0,
        count: rounds,
        failures: 0,
    };
    let taken = interleave(&mut variants, rounds, &mut |_, _| Ok(()))?;
    let size = std::fs::metadata(&programs.agent)?.len() as f64 / 1024.0;
    let figure = |what, unit| Figure::of(what, NAME, unit, &taken.samples(NAME, what)).context("no round was taken");
    let size = Figure::of("size of the static program", NAME, "KiB", &[size]).context("no size")?;
    Ok(Section {
        name: "agent".to_owned(),
        title: "The guest's agent".to_owned(),
        about: format!(
            "The agent in a network namespace with a pair of veths, its port a terminal, greeted once by a host; then nothing \
             happens for {} s.",
            idle.as_secs()
        ),
        figures: vec![
            size.at_most(Point::Median, 1024.0),
            figure(RSS, "MiB")?.at_most(Point::Median, 1.5),
            figure(WAKEUPS, "1/s")?.at_most(Point::Max, 0.0),
        ],
        slopes: Vec::new(),
        failed: Vec::new(),
        pictures: Vec::new(),
    })
}
