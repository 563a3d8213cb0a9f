//! libvirt's job, a migration or a save, that another thread has started: how far it is, and its end before its time.

use crate::interrupt::Interrupt;
use crate::progress::Progress;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use virt::domain::Domain;
use virt::sys;

/// How often libvirt is asked. It answers from what QEMU last said.
const EVERY: Duration = Duration::from_millis(500);

/// Looks after the job until it is told to stop.
#[derive(Debug)]
pub struct Monitor {
    domain: Domain,
    progress: Arc<Progress>,
    interrupt: Interrupt,
    started: Instant,
    within: Option<Duration>,
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    /// Why, from the moment that libvirt took the cancellation.
    cancelled: Option<String>,
}

impl Monitor {
    /// `within`: how long the job may take.
    pub fn new(domain: Domain, progress: Arc<Progress>, interrupt: Interrupt, within: Option<Duration>) -> Self {
        Self {
            domain,
            progress,
            interrupt,
            started: Instant::now(),
            within,
            state: Mutex::new(State::default()),
            stopped: Condvar::new(),
        }
    }

    /// Looks after what `work` does.
    pub fn watch<T>(&self, work: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            scope.spawn(|| self.run());
            let result = work();
            self.stop();
            result
        })
    }

    /// Until [`Monitor::stop`].
    pub fn run(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.stopped {
            let waited = self.stopped.wait_timeout(state, EVERY);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.stopped {
                return;
            }
            if state.cancelled.is_none() {
                state.cancelled = self.reason_to_cancel().filter(|_| self.cancel());
            }
            self.show();
        }
    }

    /// The job has ended.
    pub fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.stopped.notify_all();
    }

    /// Why the job was cancelled, if it was.
    pub fn cancelled(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.cancelled.clone()
    }

    fn reason_to_cancel(&self) -> Option<String> {
        if self.interrupt.came() {
            return Some("interrupted".to_owned());
        }
        let within = self.within.filter(|within| self.started.elapsed() >= *within)?;
        Some(format!("it took more than {} s", within.as_secs()))
    }

    /// Whether libvirt took it. Before the job has begun it does not; then it is tried again.
    fn cancel(&self) -> bool {
        abort(&self.domain)
    }

    /// Not `job_stats`: virt 0.5 makes a vector of a null pointer there when libvirt has nothing to say.
    fn show(&self) {
        // Between the job's end and ours libvirt has no job, which is no news.
        if let Ok(job) = self.domain.job_info() {
            let all = job.mem_total.unwrap_or(0);
            // Not what was processed: that counts pages again that the guest has written to meanwhile.
            let done = all.saturating_sub(job.mem_remaining.unwrap_or(all));
            self.progress.copied(done, all);
        }
    }
}

/// virt has no `virDomainAbortJob`.
#[allow(unsafe_code, reason = "a call of libvirt's that its binding has no safe form of")]
fn abort(domain: &Domain) -> bool {
    // SAFETY: `domain` holds a reference on the libvirt object for as long as it is borrowed, and the call only reads
    // the pointer.
    unsafe { sys::virDomainAbortJob(domain.as_ptr()) == 0 }
}
