//! `make bench`: what hybond costs, measured, as a table, JSON, pictures and a page.
//!
//! Benchmarks are no tests: nothing here fails because a machine is slow, and `make test` runs the unit tests of this crate
//! only. Each benchmark gives a [`figures::Section`]; what it compares are [`variant::Variant`]s.

mod figures;
mod machine;
mod migrate;
mod own;
mod page;
mod picture;
mod scale;
mod table;
mod usage;
mod variant;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use figures::Section;
use page::{Measured, Report};
use scale::plan::Plan;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Every benchmark, in the order of the page.
const KNOWN: [&str; 6] = ["migrate", "memory", "hook", "agent", "switch", "scale"];

/// The programs that are measured: those of the packages.
#[derive(Debug, Args)]
pub struct Programs {
    /// The daemon.
    #[arg(long, default_value = "target/packages/hybond/usr/sbin/hybondd", value_name = "FILE")]
    pub hybondd: PathBuf,
    /// libvirt's hook.
    #[arg(
        long,
        default_value = "target/packages/hybond/usr/lib/libvirt/hybond-hook",
        value_name = "FILE"
    )]
    pub hook: PathBuf,
    /// The guest's agent.
    #[arg(
        long,
        default_value = "target/packages/hybond-agent/usr/sbin/hybond-agent",
        value_name = "FILE"
    )]
    pub agent: PathBuf,
}

/// Measures what hybond costs.
///
/// Leave the machine alone meanwhile: what else runs on it is in the figures. Needs root, cc, libvirt's headers and
/// rsvg-convert.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Args)]
struct Run {
    /// Which: migrate and memory (on two emulated hosts), hook, agent, switch, scale. All without.
    only: Vec<String>,
    /// How often each variant is taken. After each round the report has what was measured until then.
    #[arg(long, default_value_t = 10, value_name = "N")]
    rounds: usize,
    /// How often the hook is called in each variant.
    #[arg(long, default_value_t = 400, value_name = "N")]
    calls: usize,
    /// For how long an idle program is watched, in seconds.
    #[arg(long, default_value_t = 20, value_name = "N")]
    idle: u64,
    /// Sizes of hosts, as DOMAINS:PFS.
    #[arg(long, value_delimiter = ',', default_values = ["10:1", "100:2", "1000:16", "1000:64"], value_name = "LIST")]
    sizes: Vec<String>,
    /// Memory of guests, in MiB. Both emulated hosts have a GiB more than the largest, and 2 GiB at least.
    #[arg(long, value_delimiter = ',', default_values_t = [256, 512, 1024, 2048, 4096, 8192], value_name = "LIST")]
    memory: Vec<u32>,
    /// Where to write report.json and the pictures. What it has of benchmarks that are not run now is kept.
    #[arg(long, default_value = "target/bench", value_name = "FOLDER")]
    out: PathBuf,
    #[command(flatten)]
    programs: Programs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Writes performance.md out of a report, with the pictures beside it, and measures nothing.
    Page {
        /// What was measured.
        #[arg(long, default_value = "target/bench/report.json", value_name = "FILE")]
        report: PathBuf,
        /// Where to write it.
        #[arg(long, default_value = "docs", value_name = "FOLDER")]
        into: PathBuf,
    },
    /// The peer's side of a stream of TCP.
    #[command(hide = true)]
    Sink {
        #[arg(long)]
        out: PathBuf,
    },
    /// One go of `scale`, which takes namespaces of its own.
    #[command(hide = true)]
    Inside {
        #[arg(long)]
        domains: usize,
        #[arg(long)]
        pfs: usize,
        #[arg(long)]
        idle: u64,
        #[arg(long)]
        work: PathBuf,
        #[arg(long)]
        hybondd: PathBuf,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Page { report, into }) => page::publish(&report, &into, &KNOWN),
        Some(Command::Sink { out }) => migrate::tcp::sink(&out),
        Some(Command::Inside {
            domains,
            pfs,
            idle,
            work,
            hybondd,
        }) => {
            let measures = scale::inside::once(Plan { domains, pfs }, &work, &hybondd, Duration::from_secs(idle))?;
            say(&serde_json::to_string(&measures)?)
        }
        None => run(arguments.run),
    }
}

fn say(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot print")
}

fn size(text: &str) -> Result<Plan> {
    let (domains, pfs) = text
        .split_once(':')
        .with_context(|| format!("{text:?} is not DOMAINS:PFS"))?;
    Ok(Plan {
        domains: domains.parse()?,
        pfs: pfs.parse()?,
    })
}

/// As the programs that are started elsewhere need it.
fn absolute(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("{} is missing: run 'make packages'", path.display()))
}

fn run(mut run: Run) -> Result<()> {
    let sizes: Vec<Plan> = run.sizes.iter().map(|text| size(text)).collect::<Result<_>>()?;
    if let Some(unknown) = run.only.iter().find(|name| !KNOWN.contains(&name.as_str())) {
        bail!("no benchmark is named {unknown}; there are {}", KNOWN.join(", "));
    }
    fs::create_dir_all(&run.out).with_context(|| format!("cannot make {}", run.out.display()))?;
    let out = absolute(&run.out)?;
    let programs = &mut run.programs;
    for program in [&mut programs.hybondd, &mut programs.hook, &mut programs.agent] {
        *program = absolute(program)?;
    }
    let idle = Duration::from_secs(run.idle);
    let file = out.join("report.json");
    let mut report = Report::read(&file)?;
    for name in KNOWN {
        if !run.only.is_empty() && !run.only.iter().any(|only| only == name) {
            continue;
        }
        let about = machine::About::here()?;
        let mut last = None;
        // After each round: what was measured for half an hour is not lost to what comes after it.
        let mut keep = |section: Section, rounds: usize| {
            report.put(
                Measured {
                    about: about.clone(),
                    rounds,
                    section: section.clone(),
                },
                &KNOWN,
            );
            last = Some(section);
            report.write(&file)
        };
        let count = run.rounds;
        match name {
            "migrate" => migrate::bench(&out, count, &mut keep)?,
            "memory" => migrate::memory::bench(&out, count, &run.memory, &mut keep)?,
            "hook" => keep(own::hook::bench(&run.programs, &out, run.calls)?, count)?,
            "agent" => keep(own::agent::bench(&run.programs, count, idle)?, count)?,
            // Each gives two figures.
            "switch" => keep(own::switch::bench(&out, count.max(10) * 5)?, count)?,
            _ => scale::bench(&run.programs, &out, count, &sizes, idle, &mut keep)?,
        }
        if let Some(section) = last {
            say(&table::plain(&section))?;
        }
    }
    Ok(())
}
