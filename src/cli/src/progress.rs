//! What goes on, on stderr: one line for each phase that has ended, and on a terminal a line for what is under way.

use crate::output::{note, plain};
use crate::time::duration;
use hybond_wire::control::Phase;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

/// Where progress goes. Shared by the threads of a migration.
#[derive(Debug)]
pub struct Progress {
    quiet: bool,
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What stands in the terminal's last line.
    current: String,
    /// Tenths of the migration that were told where there is no terminal.
    tenths: u64,
}

impl Progress {
    /// `quiet`: says nothing.
    pub fn new(quiet: bool) -> Self {
        Self {
            quiet,
            terminal: std::io::stderr().is_terminal(),
            state: Mutex::new(State::default()),
        }
    }

    /// A phase has begun or ended.
    pub fn phase(&self, phase: &Phase) {
        let name = plain(&phase.name);
        let detail = phase
            .detail
            .as_deref()
            .map_or(String::new(), |d| format!("  {}", plain(d)));
        match phase.end_ms {
            Some(end) => self.line(&format!("{name:<16} {:>9}{detail}", duration(end - phase.start_ms))),
            None => self.under_way(&format!("{name} …")),
        }
    }

    /// Something that happened.
    pub fn line(&self, line: &str) {
        if self.quiet {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        erase(&mut state);
        note(line);
    }

    /// Something that goes on. Without a terminal it is a line as any other.
    pub fn under_way(&self, line: &str) {
        if self.quiet {
            return;
        }
        if !self.terminal {
            note(line);
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        erase(&mut state);
        draw(&mut state, line);
    }

    /// How far the copying of memory is: bytes done and all in all, as libvirt counts them.
    pub fn copied(&self, done: u64, all: u64) {
        if self.quiet || all == 0 {
            return;
        }
        let percent = (done.saturating_mul(100) / all).min(100);
        let mib = |bytes: u64| bytes / (1024 * 1024);
        let line = format!("copying memory   {percent:>3} %  {} of {} MiB", mib(done), mib(all));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.terminal {
            erase(&mut state);
            draw(&mut state, &line);
        } else if percent / 10 > state.tenths {
            state.tenths = percent / 10;
            note(&line);
        }
    }

    /// Nothing goes on any more.
    pub fn clear(&self) {
        erase(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Takes the terminal's last line back.
fn erase(state: &mut State) {
    if !state.current.is_empty() {
        state.current.clear();
        to_terminal("\r\x1b[K");
    }
}

fn draw(state: &mut State, line: &str) {
    state.current = line.to_owned();
    to_terminal(line);
}

/// Progress that cannot be shown is no failure of what it tells of.
fn to_terminal(text: &str) {
    let mut stderr = std::io::stderr();
    drop(stderr.write_all(text.as_bytes()));
    drop(stderr.flush());
}
