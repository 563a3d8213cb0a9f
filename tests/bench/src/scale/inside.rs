//! One go, inside of namespaces of its own: a daemon from its start over idling and drains to its end.

use super::ends::{self, End, Heard, Pace};
use super::flood;
use super::host::{Daemon, Host};
use super::plan::{Domain, Plan, node};
use crate::usage::{Watched, rss_mib};
use crate::variant::Measures;
use anyhow::{Context, Result, bail, ensure};
use hybond_wire::agent::Path as ActivePath;
use hybond_wire::control::{RESPONSE_LIMIT, Request, Response, SOCKET};
use hybond_wire::line::{self, LineBuffer};
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// What a guest of 1 CPU takes, about.
const PACE: Pace = Pace {
    switch: Duration::from_millis(10),
    unplug: Duration::from_millis(100),
    carrier: Duration::from_millis(100),
};
/// The daemon has nothing more to say once it has said nothing for so long.
const SILENCE: Duration = Duration::from_millis(700);
/// Before it is watched idling. What a guest wants of its standby is read once more a second after the guest has settled.
const REST: Duration = Duration::from_millis(2500);
const SETTLE: Duration = Duration::from_secs(180);
/// For how long a guest floods before others are served beside it.
const FLOOD: Duration = Duration::from_secs(3);
/// At least as many others there are, of whom some are served in each kind of flood.
const BESIDE: usize = 50;
/// How many drains at once, and how many goes at that.
pub const AT_ONCE: [(usize, usize); 3] = [(1, 20), (50, 2), (200, 1)];

/// All of a host's domains, seen from their other ends.
struct Crowd {
    domains: Vec<Domain>,
    ends: Vec<Rc<RefCell<End>>>,
    heard: Heard,
}

/// Does it once.
///
/// # Errors
/// Something does not come up, or does not come to rest.
pub fn once(plan: Plan, work: &Path, hybondd: &Path, idle: Duration) -> Result<Measures> {
    let domains = plan.domains()?;
    let host = Host::make(work, hybondd, &plan, &domains)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let heard: Heard = Rc::new(Cell::new(Instant::now()));
        let ends = domains
            .iter()
            .map(|domain| ends::begin(domain, PACE, &heard))
            .collect::<Result<_>>()?;
        let crowd = Crowd { domains, ends, heard };
        crowd.measure(&host, idle).await
    })
}

impl Crowd {
    async fn measure(&self, host: &Host, idle: Duration) -> Result<Measures> {
        let mut measures = Measures::new();
        let mut note = |what: &str, value: f64| measures.entry(what.to_owned()).or_default().push(value);
        // What libvirt's test driver, which lives in the daemon, takes for as many domains.
        let (daemon, _, _) = host.start(&node(&self.domains, false))?;
        tokio::time::sleep(SILENCE).await;
        note("rss without", rss_mib(daemon.pid())?);
        daemon.stop()?;

        let node = node(&self.domains, true);
        let (daemon, begun, _) = host.start(&node)?;
        note("first", self.settled(begun).await?.as_secs_f64() * 1e3);
        daemon.stop()?;

        let (daemon, begun, ready) = host.start(&node)?;
        note("ready", ready.as_secs_f64() * 1e3);
        note("reconciled", self.settled(begun).await?.as_secs_f64() * 1e3);
        self.quiet_for(REST).await?;
        let watched = Watched::begin(daemon.pid())?;
        tokio::time::sleep(idle).await;
        let usage = watched.end()?;
        note("wakeups", usage.wakeups_per_second());
        note("cpu", usage.cpu_percent());
        note("rss", rss_mib(daemon.pid())?);
        for (at_once, goes) in AT_ONCE {
            for go in 0..goes {
                if at_once > self.domains.len() {
                    break;
                }
                for (verb, samples) in self.burst(&daemon, at_once, go).await? {
                    for sample in samples {
                        note(&format!("{verb} {at_once}"), sample);
                    }
                }
            }
        }
        note("rss after", rss_mib(daemon.pid())?);
        for (what, samples) in self.flooded(&daemon).await? {
            for sample in samples {
                note(what, sample);
            }
        }
        daemon.stop()?;
        Ok(measures)
    }

    /// The last guest floods its channel in every way, one after the other, while others are drained and plugged.
    async fn flooded(&self, daemon: &Daemon) -> Result<Vec<(&'static str, Vec<f64>)>> {
        // Each domain with its other end.
        let all: Vec<_> = self.domains.iter().zip(&self.ends).collect();
        let Some(((_, guest), others)) = all.split_last() else {
            return Ok(Vec::new());
        };
        if others.len() < BESIDE {
            return Ok(Vec::new());
        }
        let before = rss_mib(daemon.pid())?;
        let (mut drains, mut cpu, mut most) = (Vec::new(), Vec::new(), before);
        for (kind, others) in flood::ALL.into_iter().zip(others.chunks(BESIDE / flood::ALL.len())) {
            guest.borrow().flood(Some(kind));
            let watched = Watched::begin(daemon.pid())?;
            tokio::time::sleep(FLOOD).await;
            cpu.push(watched.end()?.cpu_percent());
            for (domain, end) in others {
                let name = || domain.name.clone();
                drains.push(own_ms(Request::Drain { domain: name() }, Rc::clone(end)).await?);
                own_ms(Request::Plug { domain: name() }, Rc::clone(end)).await?;
            }
            most = most.max(rss_mib(daemon.pid())?);
            guest.borrow().flood(None);
        }
        // Everyone is served as before, the one that has flooded, too.
        self.settled(Instant::now()).await?;
        Ok(vec![
            ("flood drain", drains),
            ("flood cpu", cpu),
            ("flood rss", vec![most - before]),
        ])
    }

    /// Drains some domains at once, and plugs them again at once: for each, for how long the daemon's own part took, in
    /// milliseconds, and the processor time of one.
    async fn burst(&self, daemon: &Daemon, at_once: usize, go: usize) -> Result<Vec<(&'static str, Vec<f64>)>> {
        let mut found = Vec::new();
        for (verb, cpu_of) in [("drain", "drain cpu"), ("plug", "plug cpu")] {
            let watched = Watched::begin(daemon.pid())?;
            let mut under_way = Vec::new();
            for n in 0..at_once {
                let i = (go * at_once + n) % self.domains.len();
                let (Some(domain), Some(end)) = (self.domains.get(i), self.ends.get(i)) else {
                    continue;
                };
                let (name, end) = (domain.name.clone(), Rc::clone(end));
                let request = match verb {
                    "drain" => Request::Drain { domain: name },
                    _ => Request::Plug { domain: name },
                };
                under_way.push(tokio::task::spawn_local(own_ms(request, end)));
            }
            let mut own = Vec::new();
            for one in under_way {
                own.push(one.await??);
            }
            let cpu_ms = watched.end()?.cpu.as_secs_f64() * 1e3;
            found.push((verb, own));
            found.push((cpu_of, vec![cpu_ms / at_once as f64]));
            self.quiet().await?;
        }
        Ok(found)
    }

    /// Waits until the daemon says nothing more.
    async fn quiet(&self) -> Result<()> {
        self.quiet_for(SILENCE).await
    }

    async fn quiet_for(&self, silence: Duration) -> Result<()> {
        let begun = Instant::now();
        while self.heard.get().elapsed() < silence {
            ensure!(begun.elapsed() < SETTLE, "the daemon does not come to rest");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits until every domain is on its primary and the daemon says nothing more; how long after `begun` it last did.
    async fn settled(&self, begun: Instant) -> Result<Duration> {
        let mut last = String::new();
        while begun.elapsed() < SETTLE {
            self.quiet().await?;
            let heard = self.heard.get();
            match ask(&Request::Status { domain: None }).await? {
                Response::Status { domains } => {
                    let well = domains.iter().filter(|domain| {
                        let on_primary = |pair: &hybond_wire::control::PairStatus| {
                            pair.plugged && pair.active == Some(ActivePath::Primary)
                        };
                        domain.stage == "running" && domain.agent && domain.pairs.iter().all(on_primary)
                    });
                    let well = well.count();
                    if well == self.domains.len() {
                        return Ok(heard.saturating_duration_since(begun));
                    }
                    let why = domains
                        .iter()
                        .flat_map(|domain| &domain.pairs)
                        .find_map(|pair| pair.degraded.clone());
                    last = format!("{well} of {} on their primaries; {why:?}", self.domains.len());
                }
                other => bail!("no status: {other:?}"),
            }
        }
        bail!("not settled after {} s: {last}", SETTLE.as_secs())
    }
}

/// Has the daemon do something; the time of it, less what the other ends took, in milliseconds.
async fn own_ms(request: Request, end: Rc<RefCell<End>>) -> Result<f64> {
    end.borrow_mut().begin();
    let begun = Instant::now();
    let answer = ask(&request).await?;
    let total = begun.elapsed();
    ensure!(matches!(answer, Response::Done { .. }), "{request:?}: {answer:?}");
    Ok(total.saturating_sub(end.borrow().waited()).as_secs_f64() * 1e3)
}

/// As hybondctl does; progress is read and passed over.
async fn ask(request: &Request) -> Result<Response> {
    let mut stream = UnixStream::connect(SOCKET).await.context("hybondd does not listen")?;
    stream.write_all(&line::encode(request, RESPONSE_LIMIT)?).await?;
    let mut lines = LineBuffer::new(RESPONSE_LIMIT);
    let mut bytes = vec![0; 64 * 1024];
    loop {
        while let Some(line) = lines.next_line()? {
            match line::decode::<Response>(&line, RESPONSE_LIMIT)? {
                Response::Progress { .. } => {}
                answer => return Ok(answer),
            }
        }
        let n = stream.read(&mut bytes).await?;
        ensure!(n > 0, "hybondd closed the connection without an answer");
        lines.push(bytes.get(..n).unwrap_or_default());
    }
}
