//! Manual pages and completions, from the same definition as the command line.

use crate::args::{Args, Generated};
use crate::failure::{Failure, Kind};
use clap::CommandFactory;
use clap_complete::Shell;
use std::path::Path;

/// `hybondctl generate`.
pub fn generate(what: Generated, directory: &Path) -> Result<(), Failure> {
    let written = match what {
        Generated::Man => clap_mangen::generate_to(Args::command(), directory),
        Generated::Completions => [Shell::Bash, Shell::Zsh, Shell::Fish]
            .into_iter()
            .try_for_each(|shell| {
                clap_complete::generate_to(shell, &mut Args::command(), "hybondctl", directory).map(drop)
            }),
    };
    let at = directory.display();
    written.map_err(|error| Failure::new(Kind::Failed, format!("writing to {at} failed: {error}")))
}
