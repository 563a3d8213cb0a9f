//! Ctrl-C: cancel in order, instead of dying in the middle.

use crate::failure::{Failure, Kind};
use nix::sys::signal::{SigSet, Signal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of a program that a second interrupt ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// Whether an interrupt came.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    /// There is something that has to be ended in order.
    armed: AtomicBool,
    came: AtomicBool,
}

impl Interrupt {
    /// Takes SIGINT and SIGTERM from here on; before any other thread is there, so that all of them have it blocked and
    /// only the one that waits gets it. Until [`Interrupt::arm`], and for a second one, it ends the program at once.
    pub fn catch() -> Result<Self, Failure> {
        let fault = |error: String| Failure::new(Kind::Failed, format!("interrupts cannot be caught: {error}"));
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.thread_block().map_err(|errno| fault(errno.to_string()))?;
        let flags = Arc::new(Flags::default());
        let ours = Arc::clone(&flags);
        let wait = move || {
            while signals.wait().is_ok() {
                let again = flags.came.swap(true, Ordering::SeqCst);
                if again || !flags.armed.load(Ordering::SeqCst) {
                    std::process::exit(INTERRUPTED);
                }
            }
        };
        let thread = std::thread::Builder::new().name("interrupt".to_owned()).spawn(wait);
        thread.map_err(|error| fault(error.to_string()))?;
        Ok(Self(ours))
    }

    /// From here on something changes that an interrupt must not leave half done.
    pub fn arm(&self) {
        self.0.armed.store(true, Ordering::SeqCst);
    }

    /// Whether one came.
    pub fn came(&self) -> bool {
        self.0.came.load(Ordering::SeqCst)
    }
}
