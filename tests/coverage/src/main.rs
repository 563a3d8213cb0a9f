//! What hybond can do, and which test shows it: the list `tests/coverage/coverage.toml` held against the logs of a test run.
//!
//! ```text
//! hybond-coverage report LOGS ABOUT >FILE   a page of every row, passed, failed or not run, by the logs of a folder. One line
//!                                           `N passed, N failed` on standard error counts the rows that name tests: one
//!                                           of which a test has failed, or is in no log, has failed
//! hybond-coverage check PAGE                whether a page has the rows of the list, whatever their results
//! ```

mod list;
mod logs;
mod page;

use anyhow::{Context, Result, bail};
use list::List;
use logs::Results;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

const LIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/coverage.toml");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["report", logs, about] => report(Path::new(logs), about),
        ["check", page] => check(Path::new(page)),
        _ => Err(anyhow::anyhow!("usage: hybond-coverage report LOGS ABOUT | check PAGE")),
    };
    done.unwrap_or_else(|error| {
        eprintln!("hybond-coverage: {error:#}");
        ExitCode::FAILURE
    })
}

fn list() -> Result<List> {
    let text = fs::read_to_string(LIST).with_context(|| format!("cannot read {LIST}"))?;
    List::parse(&text).with_context(|| format!("in {LIST}"))
}

fn report(logs: &Path, about: &str) -> Result<ExitCode> {
    let list = list()?;
    let mut results = Results::default();
    for entry in fs::read_dir(logs).with_context(|| format!("cannot list {}", logs.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            results.read(&String::from_utf8_lossy(&bytes));
        }
    }
    std::io::stdout().write_all(page::render(&list, &results, about).as_bytes())?;
    let (mut passed, mut failed) = (0, 0);
    for row in list.capability.iter().filter(|row| !row.tests.is_empty()) {
        let mut as_claimed = true;
        for test in &row.tests {
            let problem = match results.of(test) {
                Some(true) => continue,
                Some(false) => "has failed",
                None => "is in no log",
            };
            eprintln!("row {}: {test} {problem}", row.id);
            as_claimed = false;
        }
        if as_claimed { passed += 1 } else { failed += 1 }
    }
    eprintln!("{passed} passed, {failed} failed");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn check(path: &Path) -> Result<ExitCode> {
    let page = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    if let Some(difference) = page::differs(&list()?, &page) {
        bail!(
            "{} does not have the rows of the list: {difference}. Run make test and copy target/test/coverage.md there",
            path.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}
