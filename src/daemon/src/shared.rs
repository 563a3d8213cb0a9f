//! What the tasks of the daemon share: the host's adapters, the journal, and which guest has which task.

use crate::adapters::Adapters;
use crate::disk::Disk;
use crate::task::{self, Message};
use crate::timeline::Feed;
use hybond_core::guest::{Answer, Event, Record, Request, Token};
use hybond_core::ids::DomainId;
use hybond_journal::JournalError;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Messages that may wait for a guest's task. They are boxed: tokio's channel has room for 32 at any time, in each of them.
const QUEUE: usize = 64;

/// Shared by all tasks.
pub struct Shared {
    /// The host.
    pub adapters: Adapters,
    /// Stable storage.
    pub disk: Disk,
    /// Phases, as they happen.
    pub feed: Arc<Feed>,
    /// When the daemon started: the clock of the guests' machines.
    pub started: Instant,
    /// Held by who writes reservations down.
    pub reserving: tokio::sync::Mutex<()>,
    /// A reservation was made.
    pub reserved: tokio::sync::Notify,
    /// Something was done for a guest.
    pub stirred: tokio::sync::Notify,
    tasks: Mutex<HashMap<DomainId, TaskHandle>>,
    tokens: AtomicU64,
}

/// A guest's task, as others reach it.
#[derive(Clone)]
pub struct TaskHandle {
    /// The domain's name.
    pub name: String,
    sender: mpsc::Sender<Box<Message>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("the guest's task has ended; try again")]
pub struct Ended;

impl TaskHandle {
    /// Tells it something. Waits while its queue is full.
    pub async fn tell(&self, event: Event) {
        // A task that has ended has nothing left to be told.
        drop(self.sender.send(Box::new(Message::Event(event))).await);
    }

    /// Asks it something. Dropping the future withdraws the request.
    ///
    /// # Errors
    /// The task has ended.
    pub async fn ask(&self, shared: &Shared, request: Request) -> Result<Answer, Ended> {
        let token = Token(shared.tokens.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        self.sender
            .send(Box::new(Message::Request(token, request, reply)))
            .await
            .map_err(|_| Ended)?;
        let mut withdrawn = Withdrawn {
            token,
            sender: Some(self.sender.clone()),
        };
        let answer = answer.await.map_err(|_| Ended);
        withdrawn.sender = None;
        answer
    }

    /// Asks for its state; `None` where the task has just ended.
    pub async fn view(&self) -> Option<task::View> {
        let (reply, view) = oneshot::channel();
        self.sender.send(Box::new(Message::View(reply))).await.ok()?;
        view.await.ok()
    }
}

/// Tells the task that nobody waits any more.
struct Withdrawn {
    token: Token,
    sender: Option<mpsc::Sender<Box<Message>>>,
}

impl Drop for Withdrawn {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            // A full queue: the answer then finds nobody, which the task survives too.
            drop(sender.try_send(Box::new(Message::Event(Event::Abandoned(self.token)))));
        }
    }
}

impl Shared {
    /// With no guests yet.
    #[must_use]
    pub fn new(adapters: Adapters, disk: Disk) -> Arc<Self> {
        Arc::new(Self {
            adapters,
            disk,
            feed: Arc::default(),
            started: Instant::now(),
            reserving: tokio::sync::Mutex::new(()),
            reserved: tokio::sync::Notify::new(),
            stirred: tokio::sync::Notify::new(),
            tasks: Mutex::default(),
            tokens: AtomicU64::new(1),
        })
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<DomainId, TaskHandle>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task of a domain.
    #[must_use]
    pub fn task(&self, id: DomainId) -> Option<TaskHandle> {
        self.tasks().get(&id).filter(|task| !task.sender.is_closed()).cloned()
    }

    /// The task of a domain by name or UUID.
    #[must_use]
    pub fn find(&self, domain: &str) -> Option<(DomainId, TaskHandle)> {
        let tasks = self.tasks();
        let by_id = domain.parse::<DomainId>().ok();
        let found = tasks
            .iter()
            .find(|(id, task)| Some(**id) == by_id || task.name == domain);
        found
            .filter(|(_, task)| !task.sender.is_closed())
            .map(|(id, task)| (*id, task.clone()))
    }

    /// Every task.
    #[must_use]
    pub fn all(&self) -> Vec<(DomainId, TaskHandle)> {
        self.tasks().iter().map(|(id, task)| (*id, task.clone())).collect()
    }

    /// The task of a domain, started with `record` where there is none. `asked`: a message follows at once, and nothing is
    /// to be done before it is known.
    pub fn task_or_start(self: &Arc<Self>, record: Record, asked: bool) -> TaskHandle {
        self.start(Arc::new(record), None, asked)
    }

    /// The task of a domain from before, whose record is on stable storage as `kept`.
    pub fn take_up(self: &Arc<Self>, record: Arc<Record>, kept: Arc<Record>) {
        self.start(record, Some(kept), false);
    }

    fn start(self: &Arc<Self>, record: Arc<Record>, kept: Option<Arc<Record>>, asked: bool) -> TaskHandle {
        let mut tasks = self.tasks();
        let id = record.spec.id;
        if let Some(task) = tasks.get(&id).filter(|task| !task.sender.is_closed()) {
            return task.clone();
        }
        let (sender, receiver) = mpsc::channel(QUEUE);
        let handle = TaskHandle {
            name: record.spec.name.clone(),
            sender,
        };
        tasks.insert(id, handle.clone());
        tokio::spawn(task::run(Arc::clone(self), record, kept, receiver, asked));
        handle
    }

    /// A domain has another name.
    pub fn rename(&self, id: DomainId, name: &str) {
        if let Some(task) = self.tasks().get_mut(&id) {
            name.clone_into(&mut task.name);
        }
    }

    /// A task that has ended is forgotten, unless another has taken its place.
    pub fn ended(&self, id: DomainId) {
        let mut tasks = self.tasks();
        if tasks.get(&id).is_some_and(|task| task.sender.is_closed()) {
            tasks.remove(&id);
        }
    }

    /// Tells every guest.
    pub async fn tell_all(&self, event: &Event) {
        for (_, task) in self.all() {
            task.tell(event.clone()).await;
        }
    }

    /// Tells the guests that wait for a VF that there may be one. Nobody else: on a host with a thousand guests each VF that
    /// one gives back would wake all of them.
    pub async fn tell_waiting(&self) {
        let waiting = self.adapters.book().all_waiting();
        for task in waiting.into_iter().filter_map(|id| self.task(id)) {
            task.tell(Event::PoolChanged).await;
        }
    }

    /// Puts a record on stable storage.
    ///
    /// # Errors
    /// It could not be written; the old record is whole.
    pub async fn keep(&self, record: Arc<Record>) -> Result<(), JournalError> {
        self.disk
            .run(move |journal| journal.put(&record.spec.id, record.as_ref()))
            .await
    }

    /// Puts a record of the host on stable storage, or removes it where there is none any more.
    ///
    /// # Errors
    /// It could not be written; the old record is whole.
    pub async fn keep_named<T: Serialize + Send + 'static>(
        &self,
        name: &'static str,
        record: Option<T>,
    ) -> Result<(), JournalError> {
        self.disk
            .run(move |journal| match record {
                Some(record) => journal.put_named(name, &record),
                None => journal.remove_named(name),
            })
            .await
    }

    /// Removes a record.
    ///
    /// # Errors
    /// It could not be removed.
    pub async fn drop_record(&self, id: DomainId) -> Result<(), JournalError> {
        self.disk.run(move |journal| journal.remove(&id)).await
    }
}
