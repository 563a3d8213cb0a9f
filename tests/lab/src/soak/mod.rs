//! The soak: guests go back and forth between two namespaced hosts whose pool has VFs of two PFs, in random order, several
//! at a time, by plain `virsh migrate --live`. Everything is looked at after each migration, and the cost of it all after
//! each leg.

mod board;
mod cost;
mod judge;
mod plan;
mod view;

pub use cost::Cost;
pub use judge::{Identity, unsettled};
pub use plan::{Size, migrations};
pub use view::View;

use crate::domain::addresses;
use crate::tier2::{Node, Pair};
use crate::tier2_hybond::{Daemon, Hybrid, Lost, POOL, Programs, Traffic, leftovers, results};
use crate::{Machine, process};
use anyhow::{Context, Result, bail, ensure};
use board::Board;
use judge::Place;
use plan::{Side, Step};
use serde::Serialize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Names of the hosts, by their [`Side`].
const HOSTS: [&str; 2] = ["src", "dst"];
/// Migrations between two quiet moments.
const LEG: usize = 10;
/// Legs after which a daemon's memory may grow no more.
const WARM: usize = 2;
/// From the end of `virsh migrate` until the guest is on its VF and the source has nothing of it any more.
const SETTLE: Duration = Duration::from_secs(180);
/// Between two looks at both hosts, which cost the machine more than any guest.
const PAUSE: Duration = Duration::from_secs(1);
/// The same where only one guest is waited for.
const LOOK: Duration = Duration::from_millis(300);
/// Packets go on for so long after a guest has settled: as long as a loss counts as a switch's.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// A host that the last guest has left has taken everything away within this.
const CLEAN: Duration = Duration::from_secs(60);
/// Memory of a guest, in MiB: little more than the least that boots. Its initramfs is unpacked into it.
const MEMORY: u32 = 112;

/// What became of a soak.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How large it was.
    pub guests: u8,
    /// Migrations at one time.
    pub at_once: usize,
    /// Of the order.
    pub seed: u64,
    /// VFs of each host.
    pub vfs: [usize; 2],
    /// Seconds until all guests were on their VFs.
    pub boot_seconds: u64,
    /// Seconds that all migrations took.
    pub seconds: u64,
    /// Each migration.
    pub moves: Vec<Move>,
    /// What each host paid, at the start, with all guests, after each leg, and at the end.
    pub costs: Vec<(String, [Cost; 2])>,
}

/// One migration.
#[derive(Debug, Clone, Serialize)]
pub struct Move {
    /// Which guest.
    pub guest: String,
    /// Where it went.
    pub to: &'static str,
    /// How long `virsh migrate` took.
    pub migrate_ms: u64,
    /// From then until it was on its VF, and nothing of it was left on the source.
    pub settle_ms: u64,
    /// Packets lost at the failover and at the failback, in both directions.
    pub lost_at_switches: [u32; 2],
    /// Packets lost in all.
    pub lost: u32,
    /// The longest time without a packet.
    pub longest_gap_ms: f64,
}

impl Report {
    /// A few lines for people.
    ///
    /// # Errors
    /// Nothing has moved.
    pub fn summary(&self) -> Result<String> {
        let (migrate, longest) = cost::times(self.moves.iter().map(|m| m.migrate_ms).collect())?;
        let (settle, slowest) = cost::times(self.moves.iter().map(|m| m.settle_ms).collect())?;
        let at = |switch: usize| self.moves.iter().map(|m| m.lost_at_switches[switch]).sum::<u32>();
        let without = self.moves.iter().filter(|m| m.lost_at_switches == [0, 0]).count();
        let (lost, most) = cost::times(self.moves.iter().map(|m| m.lost.into()).collect())?;
        Ok(format!(
            "{} migrations of {} guests, {} at a time, in {} s, none refused; virsh migrate {:.1} s (at most {:.1}), until \
             settled {:.1} s more (at most {:.1}); lost at all failovers {}, at all failbacks {}, none at either in {without}; \
             lost in a whole migration {lost} packets (at most {most})",
            self.moves.len(),
            self.guests,
            self.at_once,
            self.seconds,
            migrate as f64 / 1000.0,
            longest as f64 / 1000.0,
            settle as f64 / 1000.0,
            slowest as f64 / 1000.0,
            at(0),
            at(1),
        ))
    }
}

/// Two hosts with hybond, and the guests.
struct Soak<'a> {
    pair: &'a Pair,
    programs: &'a Programs,
    nodes: [&'a Node; 2],
    pids: [u32; 2],
    guests: Vec<Hybrid>,
    identities: Vec<Identity>,
    at_once: usize,
    board: Board,
    moves: Mutex<Vec<Move>>,
    costs: Vec<(String, [Cost; 2])>,
}

/// Starts the guests, moves them about, and ends them. Hosts and daemons are as they were before.
///
/// # Errors
/// Something was not as it must be: all of what was found, with the seed that leads there.
pub fn run(pair: &Pair, programs: &Programs, daemons: &[Daemon; 2], size: Size) -> Result<Report> {
    soak(pair, programs, daemons, size).with_context(|| format!("{size:?}"))
}

fn soak(pair: &Pair, programs: &Programs, daemons: &[Daemon; 2], size: Size) -> Result<Report> {
    let nodes = HOSTS.map(|name| pair.host(name));
    let vfs = [View::of(nodes[0])?.vfs(), View::of(nodes[1])?.vfs()];
    let room = vfs[0].min(vfs[1]);
    let steps = plan::steps(size, room);
    ensure!(
        steps.len() == size.migrations,
        "{room} VFs of each host are too few for these guests"
    );
    let guests: Vec<Hybrid> = (1..=size.guests).map(hybrid).collect();
    let identities = guests.iter().map(Identity::of).collect::<Result<Vec<_>>>()?;
    let places = (0..guests.len())
        .map(|guest| Place::Moves(plan::start(guest)))
        .collect();
    let mut soak = Soak {
        pair,
        programs,
        nodes,
        pids: [daemons[0].pid(), daemons[1].pid()],
        guests,
        identities,
        at_once: size.at_once,
        board: Board::new(places, room),
        moves: Mutex::default(),
        costs: Vec::new(),
    };
    soak.pay("before any guest")?;

    let begun = Instant::now();
    let boots = soak.boot(size.at_once)?;
    let boot_seconds = begun.elapsed().as_secs();
    soak.quiet("all guests are on their VFs")?;

    let begun = Instant::now();
    for (leg, steps) in steps.chunks(LEG).enumerate() {
        soak.leg(steps, size.at_once)?;
        soak.quiet(&format!("after {} migrations", leg * LEG + steps.len()))?;
    }
    let seconds = begun.elapsed().as_secs();

    soak.nobody_has_booted_again(&boots)?;
    soak.end()?;
    soak.pay("all guests are gone")?;
    soak.nothing_has_grown()?;
    let moves = soak.moves.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Report {
        guests: size.guests,
        at_once: size.at_once,
        seed: size.seed,
        vfs,
        boot_seconds,
        seconds,
        moves,
        costs: soak.costs,
    })
}

/// Waits until a guest rests on a host: on its VF, its standby on that VF's PF, and nothing of it on the other host.
///
/// # Errors
/// It does not within `limit`; the error has what is not as it must be.
pub fn rests(nodes: [&Node; 2], guest: &Identity, at: usize, limit: Duration) -> Result<()> {
    let mut last = Vec::new();
    process::until_every(
        LOOK,
        &format!(
            "{} on its VF on {}, and nothing of it elsewhere",
            guest.name,
            nodes[at].name()
        ),
        limit,
        || {
            last = unsettled(guest, at, &[View::of(nodes[0])?, View::of(nodes[1])?]);
            Ok(last.is_empty().then_some(()))
        },
    )
    .with_context(|| last.join("\n"))
}

fn hybrid(number: u8) -> Hybrid {
    let mut hybrid = Hybrid::numbered(&format!("soak{number:02}"), number);
    hybrid.domain.memory = MEMORY;
    hybrid
}

impl Soak<'_> {
    /// Starts all guests, several at a time, and answers the id of each one's boot.
    fn boot(&self, at_once: usize) -> Result<Vec<String>> {
        let next = Mutex::new(0..self.guests.len());
        let boots = Mutex::new(vec![String::new(); self.guests.len()]);
        each(at_once, || {
            loop {
                let Some(guest) = next.lock().unwrap_or_else(PoisonError::into_inner).next() else {
                    return Ok(());
                };
                let at = plan::start(guest);
                // Every third may not run without a VF: one that is refused is seen at once.
                let policy = if guest % 3 == 2 { "require" } else { "prefer" };
                let hybrid = &self.guests[guest];
                hybrid.define(self.nodes[at], &format!("--pool {POOL} --policy {policy}"))?;
                hybrid.boot(self.nodes[at])?;
                self.settle(guest, at)?;
                self.board.rests(guest, at);
                let boot = boot_id(hybrid, self.nodes[at])?;
                boots.lock().unwrap_or_else(PoisonError::into_inner)[guest] = boot;
            }
        })?;
        Ok(boots.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes these migrations, several at a time.
    fn leg(&self, steps: &[Step], at_once: usize) -> Result<()> {
        self.board.plan(steps);
        each(at_once, || {
            while let Some(step) = self.board.next()? {
                if let Err(error) = self.migrate(step) {
                    self.board.fail();
                    return Err(error);
                }
            }
            Ok(())
        })
    }

    fn migrate(&self, step: Step) -> Result<()> {
        let Step { guest, from } = step;
        let (hybrid, to) = (&self.guests[guest], 1 - from);
        let (address, _) = addresses(u8::try_from(guest + 1)?);
        let records = results()?.join(format!("{}.records", hybrid.name()));
        let mut traffic = Traffic::start(self.pair.peer(), self.programs, &address, &records)?;
        let begun = Instant::now();
        let moved = hybrid.migrate(self.nodes[from], self.nodes[to])?;
        if !moved.success() {
            let free = View::of(self.nodes[to])?.free();
            bail!(
                "{} was not migrated to {}, where {free} VFs are free: {}",
                hybrid.name(),
                HOSTS[to],
                moved.stderr.trim()
            );
        }
        let migrated = Instant::now();
        self.settle(guest, to)?;
        let settle_ms = millis(migrated.elapsed());
        // Those of the other guests that move are counted with its own.
        traffic.flow(AFTERWARDS * u32::try_from(self.at_once)?)?;
        let left = hybrid.last_run(self.nodes[from], "migration-out")?;
        let came = hybrid.last_run(self.nodes[to], "migration-in")?;
        let records = traffic.finish()?;
        // Only now may it begin another journey.
        self.board.rests(guest, to);
        let lost = Lost::of(&records, &left, &came)?;
        let moved = Move {
            guest: hybrid.name().to_owned(),
            to: HOSTS[to],
            migrate_ms: millis(migrated - begun),
            settle_ms,
            lost_at_switches: [lost.failover.lost(), lost.failback.lost()],
            lost: lost.whole.lost(),
            longest_gap_ms: lost.whole.longest_gap_ms(),
        };
        eprintln!("{moved:?}");
        self.moves.lock().unwrap_or_else(PoisonError::into_inner).push(moved);
        Ok(())
    }

    /// Waits until a guest rests on a host: on its VF, its standby on the VF's PF, nothing of it elsewhere. What must hold of
    /// the others is looked at each time, and has to hold each time.
    fn settle(&self, guest: usize, at: Side) -> Result<()> {
        let mut last = Vec::new();
        process::until_every(PAUSE, "rest", SETTLE, || {
            let seen = self.look()?;
            last = judge::unsettled(&self.identities[guest], at, &seen);
            Ok(last.is_empty().then_some(()))
        })
        .with_context(|| last.join("\n"))?;
        let (address, _) = addresses(u8::try_from(guest + 1)?);
        let ping = format!("ping -c 1 -W 2 {address}");
        self.pair.peer().until(&format!("ping of {address}"), &ping, SETTLE)?;
        Ok(())
    }

    /// Looks at both hosts, and at what must hold of those who have stayed where they are meanwhile.
    fn look(&self) -> Result<[View; 2]> {
        let before = self.board.moment();
        let seen = [View::of(self.nodes[0])?, View::of(self.nodes[1])?];
        let places = before.unchanged(&self.board.moment());
        let problems = judge::problems(&self.identities, &places, &seen);
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        Ok(seen)
    }

    /// Nothing moves: each host has what its guests need, and nothing else.
    fn quiet(&mut self, when: &str) -> Result<()> {
        let seen = self.look()?;
        let now = self.board.moment();
        for (side, view) in seen.iter().enumerate() {
            let here = now.resting(side);
            let standbys: Vec<String> = here
                .iter()
                .map(|guest| self.identities[*guest].mac.standby_name().to_string())
                .collect();
            // Taps of emulated primaries have names of their own, and go with the descriptors of QEMU.
            let others: Vec<&String> = view
                .links
                .keys()
                .filter(|l| l.starts_with("hb5") && !standbys.contains(l))
                .collect();
            ensure!(others.is_empty(), "{when}, {} has {others:?}", HOSTS[side]);
            ensure!(
                view.stray_nodes.is_empty(),
                "{when}, {} has {:?}",
                HOSTS[side],
                view.stray_nodes
            );
            ensure!(
                view.held().len() == here.len(),
                "{when}, {} has {} guests and leases {:?}",
                HOSTS[side],
                here.len(),
                view.held()
            );
        }
        self.pay(when)
    }

    fn pay(&mut self, when: &str) -> Result<()> {
        let costs = [
            Cost::of(self.nodes[0], self.pids[0])?,
            Cost::of(self.nodes[1], self.pids[1])?,
        ];
        for (name, cost) in HOSTS.iter().zip(&costs) {
            eprintln!("{when}: {name}: {cost}");
        }
        self.costs.push((when.to_owned(), costs));
        Ok(())
    }

    fn nobody_has_booted_again(&self, boots: &[String]) -> Result<()> {
        let now = self.board.moment();
        for side in 0..2 {
            for guest in now.resting(side) {
                let hybrid = &self.guests[guest];
                let boot = boot_id(hybrid, self.nodes[side])?;
                ensure!(boot == boots[guest], "{} has booted again", hybrid.name());
            }
        }
        Ok(())
    }

    /// Ends all guests, and waits until nothing of them is left.
    fn end(&self) -> Result<()> {
        let now = self.board.moment();
        for (side, node) in self.nodes.iter().enumerate() {
            for guest in now.resting(side) {
                node.ok(&format!("virsh destroy {}", self.guests[guest].name()))?;
            }
            let left = leftovers(node, CLEAN)?;
            ensure!(left.is_empty(), "left behind on {}:\n{left}", node.name());
        }
        Ok(())
    }

    fn nothing_has_grown(&self) -> Result<()> {
        // In order: before any guest, with all, after each leg, without any.
        let legs = self.costs.get(2..self.costs.len() - 1).unwrap_or_default();
        if let (Some((_, warm)), Some((_, last))) = (legs.get(WARM - 1), legs.last()) {
            Cost::is_flat(warm, last)?;
        }
        let (Some((_, first)), Some((_, last))) = (self.costs.first(), self.costs.last()) else {
            bail!("no costs");
        };
        for ((name, first), last) in HOSTS.iter().zip(first).zip(last) {
            last.has_not_grown_since(first).with_context(|| format!("on {name}"))?;
        }
        Ok(())
    }
}

/// Does the same in several threads, and answers all that went wrong.
fn each(threads: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        let joined = running.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined
            .map(|ended| ended.unwrap_or_else(|_| bail!("a thread panicked")))
            .collect()
    });
    let errors: Vec<String> = results
        .into_iter()
        .filter_map(|r| r.err().map(|e| format!("{e:#}")))
        .collect();
    ensure!(errors.is_empty(), "{}", errors.join("\n"));
    Ok(())
}

fn boot_id(hybrid: &Hybrid, node: &Node) -> Result<String> {
    hybrid.guest.ok(node, "cat /proc/sys/kernel/random/boot_id")
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
