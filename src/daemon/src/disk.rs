//! The journal, and the threads that wait for its disk, so that nobody else has to.
//!
//! They are the journal's alone: a driver that hangs while a VF is bound to it takes threads of the runtime's, and no record may
//! wait for those. A burst of two hundred guests would have the runtime start as many threads, of which each is woken for one
//! flush; here a few take one after the other.

use hybond_journal::Journal;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use tokio::sync::oneshot;

/// A disk does some flushes in the time of one; many more under way at once gain nothing.
const THREADS: usize = 4;

/// A record has some KiB, and is turned into JSON and written from one buffer.
const STACK: usize = 256 * 1024;

type Work = Box<dyn FnOnce(&Journal) + Send>;

/// Stable storage. What is to be done on it is begun in the order in which it was asked for. The queue has no bound of its
/// own: a guest's task waits for each of its records, and adds no run to its timeline meanwhile.
#[derive(Debug)]
pub struct Disk {
    journal: Arc<Journal>,
    /// Always there until it is dropped.
    queue: Option<Sender<Work>>,
    threads: Vec<JoinHandle<()>>,
}

impl Disk {
    /// Starts the journal's threads.
    ///
    /// # Errors
    /// The kernel has no threads left.
    pub fn start(journal: Journal) -> io::Result<Self> {
        let (queue, work) = channel();
        let work = Arc::new(Mutex::new(work));
        let mut disk = Self {
            journal: Arc::new(journal),
            queue: Some(queue),
            threads: Vec::new(),
        };
        for _ in 0..THREADS {
            let (journal, work) = (Arc::clone(&disk.journal), Arc::clone(&work));
            let thread = thread::Builder::new().name("journal".to_owned()).stack_size(STACK);
            disk.threads.push(thread.spawn(move || serve(&journal, &work))?);
        }
        Ok(disk)
    }

    /// To read from, on a thread of the caller's own.
    #[must_use]
    pub fn journal(&self) -> Arc<Journal> {
        Arc::clone(&self.journal)
    }

    /// Has it done, also where the future is dropped.
    ///
    /// # Panics
    /// `work` has.
    pub fn run<T, W>(&self, work: W) -> impl Future<Output = T> + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce(&Journal) -> T + Send + 'static,
    {
        let (reply, done) = oneshot::channel();
        let work: Work = Box::new(move |journal| {
            // Who asked may not wait for it.
            drop(reply.send(work(journal)));
        });
        // The threads end after the queue only; were they gone, the reply would be, too.
        drop(self.queue.as_ref().map(|queue| queue.send(work)));
        async move { done.await.expect("the journal's threads do what they were asked for") }
    }
}

impl Drop for Disk {
    /// Waits until all that was asked for is done.
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            // One that has panicked has said so.
            drop(thread.join());
        }
    }
}

fn serve(journal: &Journal, queue: &Mutex<Receiver<Work>>) {
    loop {
        // One waits for work, the others for their turn to wait.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(work) => work(journal),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn disk() -> (tempfile::TempDir, Disk) {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(folder.path()).expect("a journal");
        (folder, Disk::start(journal).expect("threads"))
    }

    #[tokio::test]
    async fn everything_is_done_and_its_result_comes_back_to_who_asked() {
        let (_folder, disk) = disk();
        let asked: Vec<_> = (0..100).map(|n| disk.run(move |_| n * 2)).collect();
        for (n, answer) in asked.into_iter().enumerate() {
            assert_eq!(answer.await, n * 2);
        }
    }

    #[test]
    fn what_nobody_waits_for_is_done_before_it_ends() {
        let done = Arc::new(AtomicUsize::new(0));
        let (_folder, disk) = disk();
        for _ in 0..100 {
            let done = Arc::clone(&done);
            drop(disk.run(move |_| done.fetch_add(1, Ordering::SeqCst)));
        }
        drop(disk);
        assert_eq!(done.load(Ordering::SeqCst), 100);
    }
}
