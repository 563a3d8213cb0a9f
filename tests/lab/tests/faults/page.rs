//! `docs/failure-matrix.md`, whose tables are those of [`crate::table`].

use crate::fault::{Fault, Part, Sight};
use crate::table::TABLE;
use anyhow::{Context, Result, ensure};
use hybond_lab::tier2_hybond::results;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// The page, from here.
const PAGE: &str = "../../docs/failure-matrix.md";
/// What is written by hand ends with this line.
const BEGIN: &str = "<!-- From here on as tests/lab/tests/faults/table.rs says. -->";
/// This very test.
const HERE: &str = "faults::after_every_fault_the_guest_is_reachable_and_nothing_is_left_where_it_is_not";

fn tables() -> String {
    let mut text = String::new();
    for part in Part::ALL {
        let rows = TABLE.iter().filter(|fault| fault.part == part);
        let rows: String = rows.map(row).collect();
        // Into a String, which takes everything.
        write!(
            text,
            "\n## {}\n| what goes wrong | what happens | what you see | what is tried again | test |\n|---|---|---|---|---|\n{rows}",
            part.title()
        )
        .ok();
    }
    text
}

fn row(fault: &Fault) -> String {
    let sees: Vec<String> = fault.sees.iter().map(sight).collect();
    let mut tests: Vec<String> = fault.tests.iter().map(|test| format!("`{test}`")).collect();
    if fault.play.is_some() {
        tests.insert(0, format!("`faults`: {}", fault.name));
    }
    let cells = [
        fault.what.to_owned(),
        fault.happens.to_owned(),
        sees.join("<br>"),
        fault.retried.to_owned(),
        tests.join("<br>"),
    ];
    format!("| {} |\n", cells.join(" | "))
}

fn sight(sight: &Sight) -> String {
    match sight {
        Sight::Virsh(words) => format!("virsh: “{words}”"),
        Sight::Hybondctl(words) => format!("hybondctl: “{words}”"),
        Sight::Status(words) => format!("`hybondctl status`: “{words}”"),
        Sight::Otherwise(words) => (*words).to_owned(),
    }
}

#[test]
fn the_page_of_faults_is_what_the_table_says() -> Result<()> {
    let page = fs::read_to_string(PAGE).context(PAGE)?;
    let (by_hand, _) = page
        .split_once(BEGIN)
        .context("the page has no line that begins its tables")?;
    let wanted = format!("{by_hand}{BEGIN}\n{}", tables());
    if page != wanted {
        let file = results()?.join("failure-matrix.md");
        fs::write(&file, wanted)?;
        anyhow::bail!("{PAGE} is not what the table says; copy {} there", file.display());
    }
    Ok(())
}

#[test]
fn every_fault_is_told_whole_and_its_tests_exist() -> Result<()> {
    let mut sources = Vec::new();
    for folder in ["src", "tests", "hooks", "guest-agent"] {
        read(&Path::new("../..").join(folder), &mut sources)?;
    }
    let mut names = Vec::new();
    for fault in TABLE {
        let Fault {
            name,
            what,
            happens,
            sees,
            retried,
            ..
        } = fault;
        ensure!(!names.contains(name), "two faults are named {name}");
        names.push(*name);
        let whole = ![*what, *happens, *retried].contains(&"") && !sees.is_empty();
        ensure!(whole, "{name} is not told whole");
        ensure!(
            fault.play.is_some() || !fault.tests.is_empty(),
            "{name} is shown by nothing"
        );
        ensure!(
            fault.tests.iter().all(|test| *test != HERE),
            "{name} names its own test"
        );
        for test in fault.tests {
            let (_, function) = test
                .split_once("::")
                .with_context(|| format!("{test} is no program::test"))?;
            let defined = format!("fn {function}(");
            ensure!(
                sources.iter().any(|source: &String| source.contains(&defined)),
                "{name}: there is no {test}"
            );
        }
    }
    ensure!(
        HERE.split_once("::")
            .is_some_and(|(_, own)| sources.iter().any(|s| s.contains(&format!("fn {own}(")))),
        "{HERE}"
    );
    Ok(())
}

fn read(folder: &Path, sources: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            read(&path, sources)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            sources.push(fs::read_to_string(&path)?);
        }
    }
    Ok(())
}
