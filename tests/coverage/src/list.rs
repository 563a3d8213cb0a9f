//! The list: what a user can do, who could do it before, and which tests show it.

use anyhow::{Result, ensure};
use serde::Deserialize;
use std::collections::BTreeSet;

/// Everything that is claimed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// In the order of the page.
    pub capability: Vec<Capability>,
    /// What was there before hybond.
    pub predecessor: Vec<Predecessor>,
}

/// One thing that a user can do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capability {
    /// A number, and a letter where a subject has several rows.
    pub id: String,
    /// What.
    pub what: String,
    /// Tests that show it, each as `PROGRAM::NAME`: the test program as cargo names it, and the function.
    #[serde(default)]
    pub tests: Vec<String>,
}

/// A system that could do some of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predecessor {
    /// Its name.
    pub name: String,
    /// What it could do.
    pub had: String,
    /// Rows that do the same or better.
    pub rows: Vec<String>,
}

impl List {
    /// Reads it.
    pub fn parse(text: &str) -> Result<Self> {
        let list: Self = toml::from_str(text)?;
        let mut ids = BTreeSet::new();
        for row in &list.capability {
            ensure!(ids.insert(row.id.as_str()), "row {} is there twice", row.id);
            ensure!(!row.what.contains('\n'), "row {}: a cell is one line", row.id);
            for test in &row.tests {
                ensure!(test.contains("::"), "row {}: {test:?} is not PROGRAM::NAME", row.id);
            }
        }
        for predecessor in &list.predecessor {
            ensure!(!predecessor.rows.is_empty(), "{} has no row", predecessor.name);
            for row in &predecessor.rows {
                ensure!(
                    ids.contains(row.as_str()),
                    "{}: there is no row {row}",
                    predecessor.name
                );
            }
        }
        Ok(list)
    }

    /// A row.
    pub fn row(&self, id: &str) -> Option<&Capability> {
        self.capability.iter().find(|row| row.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_can_be_read() {
        List::parse(include_str!("../coverage.toml")).expect("a list");
    }

    #[test]
    fn what_cannot_be_looked_up_is_named() {
        for (text, why) in [
            (
                "[[capability]]\nid = '1'\nwhat = 'a'\n[[capability]]\nid = '1'\nwhat = 'b'\n",
                "row 1 is there twice",
            ),
            (
                "[[capability]]\nid = '1'\nwhat = 'a'\ntests = ['b']\n",
                "\"b\" is not PROGRAM::NAME",
            ),
            ("[[capability]]\nid = '1'\nwhat = \"a\\nb\"\n", "a cell is one line"),
        ] {
            let text = format!("{text}[[predecessor]]\nname = 'p'\nhad = 'a'\nrows = ['1']\n");
            let error = List::parse(&text).expect_err(why);
            assert!(error.to_string().contains(why), "{error}");
        }
        let text = "[[capability]]\nid = '1'\nwhat = 'a'\n[[predecessor]]\nname = 'p'\nhad = 'a'\nrows = ['2']\n";
        assert!(
            List::parse(text)
                .expect_err("no row")
                .to_string()
                .contains("there is no row 2")
        );
    }
}
