//! The page: two tables, of what can be done and of what could be done before.

use crate::list::{Capability, List};
use crate::logs::Results;
use std::fmt::Write;

const HEAD: &str = "# What works, and what shows it

Each row is something that a user can do, with the tests that do it and what became of them. This page is the output of a
test run (`make test-all`), not written by hand: the rows are in `tests/coverage/coverage.toml`, the results come from the logs
of the suites. A row has passed when each of its tests has. Tests are named `program::test`: `cargo test` prints both.
";

/// Words for a result.
fn word(result: Option<bool>) -> &'static str {
    match result {
        Some(true) => "passed",
        Some(false) => "failed",
        None => "not run",
    }
}

/// What became of a row: failed if any of its tests has, passed if all have.
fn of_row(row: &Capability, results: &Results) -> &'static str {
    if row.tests.is_empty() {
        return "no test yet";
    }
    let all: Vec<Option<bool>> = row.tests.iter().map(|test| results.of(test)).collect();
    if all.contains(&Some(false)) {
        return word(Some(false));
    }
    word(all.into_iter().try_fold(true, |_, passed| passed))
}

/// A text as a cell has it.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// Everything of a row before its result.
fn row_head(row: &Capability) -> String {
    let tests: Vec<String> = row.tests.iter().map(|test| format!("`{test}`")).collect();
    format!("| {} | {} | {} |", row.id, cell(&row.what), tests.join("<br>"))
}

fn predecessor_heads(list: &List) -> Vec<String> {
    let heads = list.predecessor.iter();
    heads
        .map(|p| format!("| {} | {} | {} |", cell(&p.name), cell(&p.had), p.rows.join(", ")))
        .collect()
}

/// The page.
pub fn render(list: &List, results: &Results, about: &str) -> String {
    let mut page = format!("{HEAD}\nRun: {about}\n\n| | what a user can do | tests | result |\n|---|---|---|---|\n");
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for row in &list.capability {
        let result = of_row(row, results);
        *counts.entry(result).or_default() += 1;
        // Writing into a string cannot fail.
        writeln!(page, "{} {result} |", row_head(row)).ok();
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(result, count)| format!("{count} {result}"))
        .collect();
    write!(
        page,
        "\nOf {} rows: {}.\n\n## What was there before\n\n",
        list.capability.len(),
        counts.join(", ")
    )
    .ok();
    page += "| system | what it could do | rows | result |\n|---|---|---|---|\n";
    for (predecessor, head) in list.predecessor.iter().zip(predecessor_heads(list)) {
        let rows = predecessor.rows.iter().filter_map(|id| list.row(id));
        let open: Vec<String> = rows
            .map(|row| (row, of_row(row, results)))
            .filter(|(_, result)| *result != "passed")
            .map(|(row, result)| format!("{}: {result}", row.id))
            .collect();
        let result = if open.is_empty() {
            "passed".to_owned()
        } else {
            open.join(", ")
        };
        writeln!(page, "{head} {result} |").ok();
    }
    page
}

/// How a page's rows differ from the list's, results aside.
pub fn differs(list: &List, page: &str) -> Option<String> {
    let expected: Vec<String> = list
        .capability
        .iter()
        .map(row_head)
        .chain(predecessor_heads(list))
        .collect();
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| |") && !line.starts_with("| system |"));
    let heads: Vec<&str> = rows
        .filter_map(|row| row.trim_end().strip_suffix('|')?.rfind('|').map(|end| &row[..=end]))
        .collect();
    let mut found = heads.iter();
    for head in &expected {
        match found.next() {
            Some(row) if row == head => {}
            Some(row) => return Some(format!("{row:?} is there, and should be {head:?}")),
            None => return Some(format!("{head:?} is missing")),
        }
    }
    found.next().map(|row| format!("{row:?} is not in the list"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> List {
        List::parse(
            "[[capability]]\nid = '1'\nwhat = 'spread'\ntests = ['core::spreads', 'soak::moves']\n\
             [[capability]]\nid = '2'\nwhat = 'fly|swim'\n\
             [[capability]]\nid = '3'\nwhat = 'break'\ntests = ['core::breaks', 'core::never']\n\
             [[predecessor]]\nname = 'old'\nhad = 'some'\nrows = ['1', '3']\n",
        )
        .expect("a list")
    }

    fn results(log: &str) -> Results {
        let mut results = Results::default();
        results.read(&format!(
            "Running unittests src/lib.rs (d/core-1)\n{log}\nRunning tests/soak.rs (d/soak-1)\ntest moves ... ok\n"
        ));
        results
    }

    #[test]
    fn a_row_is_as_good_as_its_worst_test() {
        let page = render(
            &list(),
            &results("test p::spreads ... ok\ntest breaks ... FAILED"),
            "today",
        );
        assert!(
            page.contains("| 1 | spread | `core::spreads`<br>`soak::moves` | passed |\n"),
            "{page}"
        );
        assert!(page.contains("| 2 | fly\\|swim |  | no test yet |\n"), "{page}");
        assert!(
            page.contains("| 3 | break | `core::breaks`<br>`core::never` | failed |\n"),
            "{page}"
        );
        assert!(page.contains("Of 3 rows: 1 failed, 1 no test yet, 1 passed."), "{page}");
        assert!(page.contains("| old | some | 1, 3 | 3: failed |\n"), "{page}");
        assert!(render(&list(), &results(""), "today").contains("`soak::moves` | not run |\n"));
    }

    #[test]
    fn a_page_with_other_rows_than_the_list_is_found_and_one_with_other_results_is_not() {
        let page = render(&list(), &results(""), "today");
        assert_eq!(differs(&list(), &page), None);
        assert_eq!(differs(&list(), &page.replace("not run", "passed")), None);
        assert!(differs(&list(), &page.replace("fly", "walk")).is_some());
        assert!(differs(&list(), &format!("{page}| 4 | more | | passed |\n")).is_some());
        let shorter = page
            .lines()
            .filter(|line| !line.starts_with("| old"))
            .collect::<Vec<_>>()
            .join("\n");
        assert!(differs(&list(), &shorter).is_some());
    }
}
