//! `hybondctl`: hybond's domains, pools and migrations from a shell.

mod args;
mod change;
mod check;
mod config;
mod control;
mod define;
mod drain;
mod failure;
mod generate;
mod interrupt;
mod inventory;
mod job;
mod libvirt;
mod migrate;
mod output;
mod progress;
mod reserve;
mod save;
mod show;
mod svg;
mod time;
mod timeline;

use args::{Args, Command};
use clap::Parser;
use failure::Failure;
use output::Output;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    let output = Output::new(args.json, args.quiet);
    match run(args, &output) {
        Ok(code) => code,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.kind.code())
        }
    }
}

fn run(args: Args, output: &Output) -> Result<ExitCode, Failure> {
    let Args {
        socket,
        connect,
        command,
        ..
    } = args;
    let done = match command {
        Command::Enable(what) => define::enable(&connect, &what, output),
        Command::Disable(what) => define::disable(&connect, &what, output),
        Command::Status { domain } => show::status(&socket, domain, output),
        Command::Pool { pool } => show::pools(&socket, pool.as_ref(), output),
        Command::Inventory => inventory::inventory(&socket, output),
        Command::Config(args::Config::Check(what)) => config::check(&what, output),
        Command::Host => show::host(&socket, output),
        Command::Set(what) => change::set(&socket, &what, output),
        Command::Drain(what) => drain::drain(&socket, &what, output),
        Command::Plug(what) => drain::plug(&socket, &what, output),
        Command::Save(what) => save::save(&socket, &connect, &what, output),
        Command::Managedsave(what) => save::managedsave(&socket, &connect, &what, output),
        Command::Check(what) => return check::check(&socket, &what, output),
        Command::Reserve(what) => reserve::reserve(&socket, &what, output),
        Command::Migrate(what) => migrate::migrate(&socket, &connect, &what, output),
        Command::Timeline(what) => timeline::timeline(&socket, &what, output),
        Command::Generate { what, directory } => generate::generate(what, &directory),
    };
    done.map(|()| ExitCode::SUCCESS)
}
