//! stdout: text for people, or JSON. stderr: what went wrong.

use crate::failure::{Failure, Kind};
use serde::Serialize;
use std::io::{ErrorKind, Write};

/// How to print.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    quiet: bool,
}

#[derive(Serialize)]
struct JsonFailure<'a> {
    error: JsonError<'a>,
}

#[derive(Serialize)]
struct JsonError<'a> {
    kind: Kind,
    message: &'a str,
}

impl Output {
    /// As the command line says.
    pub fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// No progress.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// The result: `json`, or what `text` makes.
    pub fn result(&self, json: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if !self.json {
            return write_stdout(&text());
        }
        let mut line = serde_json::to_string_pretty(json)
            .map_err(|error| Failure::new(Kind::Failed, format!("the result cannot be written as JSON: {error}")))?;
        line.push('\n');
        write_stdout(&line)
    }

    /// A sentence on what was done.
    pub fn done(&self, message: &str) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct Done<'a> {
            message: &'a str,
        }
        self.result(&Done { message }, || format!("{message}\n"))
    }

    /// Why there is no result.
    pub fn failure(&self, failure: &Failure) {
        if self.json {
            let error = JsonError {
                kind: failure.kind,
                message: &failure.message,
            };
            // Where stdout is closed, the exit code is what is left.
            drop(self.result(&JsonFailure { error }, String::new));
        }
        note(&format!("hybondctl: {}", failure.message));
    }
}

/// A line on stderr. Where that is closed there is nobody to tell.
pub fn note(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// Prints as it is. A reader that went away (`| head`) is no failure.
pub fn write_stdout(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Kind::Failed, format!("stdout cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Lines up columns; the last one is as wide as it is.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line += &format!("{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What a table shows for a value that is not there.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| v.to_string())
}

/// Text that came from elsewhere, for a terminal: one line, no control characters.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
