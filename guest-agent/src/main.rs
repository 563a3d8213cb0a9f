//! hybond's end in the guest: makes an active-backup bond of a pair's two NICs and switches it when the host asks.
//!
//! ```text
//!   port ──▶ agent ──▶ pair ──▶ takeover (making the bond), switch (moving the traffic)    decide; no I/O, no clock
//!                        │ Action
//!   nl ◀── kernel ◀──────┘                                                                   act; decide nothing
//! ```
//!
//! One thread, one epoll, no wake-up while nothing happens.

#[macro_use]
mod log;
mod agent;
mod announcer;
mod cli;
mod kernel;
mod model;
mod nl;
mod outbox;
mod pair;
mod port;
mod report;
mod retry;
mod run;
#[cfg(test)]
mod scripts;
#[cfg(test)]
mod scripts_pairs;
mod state;
mod switch;
mod takeover;

use cli::Command;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match cli::parse(std::env::args().skip(1)) {
        Ok(Command::Run(options)) => run::run(&options).map(|()| ExitCode::SUCCESS),
        Ok(Command::Check(options)) => report::check(&options),
        Ok(Command::Role(name)) => report::role(&name),
        Ok(Command::Help) => print(cli::HELP),
        Ok(Command::Version) => print(concat!("hybond-agent ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(reason) => Err(reason),
    };
    result.unwrap_or_else(|reason| {
        log!(error, "{reason}");
        ExitCode::from(2)
    })
}

/// To standard output.
fn print(text: &str) -> Result<ExitCode, String> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|e| format!("cannot write to standard output: {e}"))?;
    Ok(ExitCode::SUCCESS)
}
