//! Ctrl-C: cancel in order, instead of dying in the middle.

use crate::failure::{Failure, Kind};
use nix::sys::signal::{SigSet, Signal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of a program that a second interrupt ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// Whether an interrupt came.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes SIGINT and SIGTERM from here on; before any other thread is there, so that all of them have it blocked and
    /// only the one that waits gets it. A second one ends the program at once.
    pub fn catch() -> Result<Self, Failure> {
        let fault = |error: String| Failure::new(Kind::Failed, format!("interrupts cannot be caught: {error}"));
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.thread_block().map_err(|errno| fault(errno.to_string()))?;
        let came = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&came);
        let wait = move || {
            while signals.wait().is_ok() {
                if flag.swap(true, Ordering::SeqCst) {
                    std::process::exit(INTERRUPTED);
                }
            }
        };
        let thread = std::thread::Builder::new().name("interrupt".to_owned()).spawn(wait);
        thread.map_err(|error| fault(error.to_string()))?;
        Ok(Self(came))
    }

    /// Whether one came.
    pub fn came(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
