//! Every state that a small world can get into, each once, whatever the order in which things happen.
//!
//! A state is a [`World`] without its history ([`World::settle_down`]); what can happen in it is in [`crate::moment`]. Depth
//! first, on every core, over a set of the states that were seen, by their hashes (64 bits: of a million states two are taken
//! for one with a probability of 3 in 10⁸). First without misfortunes, then with one, and so on to as many as are allowed: a
//! state is looked at again only where more may still go wrong than before, and what is found first needs the fewest.
//!
//! The search ends when there is nothing left that could happen. Wherever nothing is under way, what must hold of a world at
//! rest ([`crate::invariants::restless`]) must come about by itself.

use crate::case::{Case, Faults};
use crate::dice::Choices;
use crate::moment::{Moment, Wish, Wrong, possible};
use crate::plant::Plant;
use crate::world::World;
use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Locks of the set of states: enough that cores seldom meet.
const SHARDS: usize = 64;

/// Nodes that a core keeps for itself while others have none.
const KEPT: usize = 8;

/// What is searched.
#[derive(Debug, Clone)]
pub struct Search {
    /// The size of the world. Its seed, its steps and its faults mean nothing here.
    pub case: Case,
    /// What people want, and how often, in any order.
    pub wishes: Vec<(Wish, u8)>,
    /// They want it at any time; otherwise when nothing is under way.
    pub hasty: bool,
    /// What may go wrong: anything that is more than 0.
    pub faults: Faults,
    /// What is under way may also take longer than the next deadline.
    pub slow: bool,
    /// How much may go wrong in one run.
    pub misfortunes: u8,
    /// A planted bug.
    pub plant: Option<Plant>,
}

/// What was seen, when nothing was left to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// States.
    pub states: u64,
    /// Moments that led from one to another.
    pub moments: u64,
    /// States in which nothing is under way, and from which the world came to rest.
    pub rests: u64,
    /// Migrations that arrived, in all of these moments.
    pub migrated: u64,
}

/// What must not be, and how it came about.
#[derive(Debug, Clone)]
pub struct Found {
    /// What.
    pub why: String,
    /// How much had gone wrong.
    pub misfortunes: u8,
    /// Everything that happened, a line each; those that begin with `--` are the moments that were chosen.
    pub trace: Vec<String>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        write!(f, "{} (after {} misfortunes)", self.why, self.misfortunes)
    }
}

/// How a state came about.
struct Path {
    before: Option<Arc<Path>>,
    moment: Moment,
    choices: Choices,
}

impl Drop for Path {
    /// One after the other: a long path must not fill the stack.
    fn drop(&mut self) {
        let mut next = self.before.take();
        while let Some(mut path) = next.and_then(Arc::into_inner) {
            next = path.before.take();
        }
    }
}

struct Node {
    world: World,
    wishes: Vec<(Wish, u8)>,
    /// How much may still go wrong.
    left: u8,
    path: Option<Arc<Path>>,
}

#[derive(Default)]
struct Queue {
    nodes: Vec<Node>,
    idle: usize,
    over: bool,
}

/// What the cores share.
struct Shared<'a> {
    search: &'a Search,
    cores: usize,
    queue: Mutex<Queue>,
    wake: Condvar,
    hungry: AtomicUsize,
    /// By hash: how much could still go wrong when the state was last looked at.
    states: Vec<Mutex<HashMap<u64, u8>>>,
    moments: AtomicU64,
    rests: AtomicU64,
    migrated: AtomicU64,
    found: Mutex<Option<(String, Node)>>,
}

/// A core that has panicked has been heard of; what it held is as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Search {
    /// Sees everything.
    ///
    /// # Errors
    /// What must not be, if anything; of what is found with the fewest misfortunes.
    pub fn run(&self) -> Result<Seen, Box<Found>> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let shared = Shared {
            search: self,
            cores,
            queue: Mutex::default(),
            wake: Condvar::new(),
            hungry: AtomicUsize::new(0),
            states: (0..SHARDS).map(|_| Mutex::default()).collect(),
            moments: AtomicU64::new(0),
            rests: AtomicU64::new(0),
            migrated: AtomicU64::new(0),
            found: Mutex::default(),
        };
        for misfortunes in 0..=self.misfortunes {
            let first = self.first(misfortunes);
            *lock(&shared.queue) = Queue {
                nodes: vec![first],
                ..Queue::default()
            };
            std::thread::scope(|scope| {
                for _ in 0..cores {
                    scope.spawn(|| shared.work());
                }
            });
            if let Some((why, node)) = lock(&shared.found).take() {
                let trace = self.replay(node.path.as_ref());
                let misfortunes = misfortunes - node.left;
                return Err(Box::new(Found {
                    why,
                    misfortunes,
                    trace,
                }));
            }
        }
        Ok(Seen {
            states: shared.states.iter().map(|states| lock(states).len() as u64).sum(),
            moments: shared.moments.into_inner(),
            rests: shared.rests.into_inner(),
            migrated: shared.migrated.into_inner(),
        })
    }

    fn first(&self, misfortunes: u8) -> Node {
        let mut world = World::new(Case {
            faults: Faults::default(),
            ..self.case
        });
        world.peaceful = false;
        world.plant = self.plant;
        world.dice.choose(Choices::default());
        world.happen();
        world.settle_down();
        Node {
            world,
            wishes: self.wishes.clone(),
            left: misfortunes,
            path: None,
        }
    }

    /// Everything that has happened on a path.
    fn replay(&self, path: Option<&Arc<Path>>) -> Vec<String> {
        let mut steps = Vec::new();
        let mut next = path;
        while let Some(path) = next {
            steps.push(path);
            next = path.before.as_ref();
        }
        let mut world = self.first(0).world;
        world.trace = Some(Vec::new());
        for path in steps.into_iter().rev() {
            self.take(&mut world, path.moment, path.choices.clone());
            if world.violation.is_none() {
                world.settle_down();
            }
        }
        if world.violation.is_none() {
            calm(&mut world);
        }
        world.trace.unwrap_or_default()
    }

    /// One moment, with these choices. What was chosen.
    fn take(&self, world: &mut World, moment: Moment, choices: Choices) -> Choices {
        if choices.misfortunes > 0 {
            world.faults = possible(self.faults);
        }
        world.dice.choose(choices);
        world.take(moment);
        world.faults = Faults::default();
        world.dice.chosen().unwrap_or_default()
    }
}

/// Nothing is under way: of itself all must become as it should be.
fn calm(world: &mut World) {
    world.dice.choose(Choices::default());
    world.calm();
}

impl Node {
    /// What can happen next, and what it costs.
    fn moments(&self, search: &Search) -> Vec<(Moment, u8)> {
        let world = &self.world;
        let mut all = Vec::new();
        if self.left > 0 {
            let wrong = world.could_go_wrong(search.faults).into_iter();
            all.extend(wrong.map(|wrong| (Moment::Wrong(wrong), 1)));
        }
        let under_way = world.under_way();
        let may_wish = search.hasty || under_way.is_empty();
        for (wish, _) in self.wishes.iter().filter(|(_, times)| may_wish && *times > 0) {
            let ids = world.ids().into_iter().filter(|id| world.may_wish(*wish, *id));
            all.extend(ids.map(|id| (Moment::Wish(*wish, id), 0)));
        }
        all.extend(world.recoveries().into_iter().map(|moment| (moment, 0)));
        if world.next_time().is_some() {
            if under_way.is_empty() {
                all.push((Moment::Time, 0));
            } else if search.slow && self.left > 0 {
                all.push((Moment::Wrong(Wrong::Slow), 1));
            }
        }
        all.extend(under_way.into_iter().map(|moment| (moment, 0)));
        all
    }

    fn after(&self, world: World, moment: Moment, choices: Choices, left: u8) -> Node {
        let mut wishes = self.wishes.clone();
        if let Moment::Wish(wish, _) = moment {
            let of = wishes.iter_mut().find(|(of, _)| *of == wish);
            of.into_iter().for_each(|(_, times)| *times -= 1);
        }
        let before = self.path.clone();
        Node {
            world,
            wishes,
            left,
            path: Some(Arc::new(Path {
                before,
                moment,
                choices,
            })),
        }
    }

    fn hash(&self, text: &mut String) -> u64 {
        text.clear();
        self.world
            .write_state(text)
            .expect("a String takes all that is written");
        let mut hasher = DefaultHasher::new();
        hasher.write(text.as_bytes());
        for (_, times) in &self.wishes {
            hasher.write_u8(*times);
        }
        hasher.finish()
    }
}

impl Shared<'_> {
    fn work(&self) {
        let mut own: Vec<Node> = Vec::new();
        let mut text = String::new();
        while let Some(node) = own.pop().or_else(|| self.fetch(&mut own)) {
            self.look_at(node, &mut own, &mut text);
            if own.len() > KEPT && self.hungry.load(Ordering::Relaxed) > 0 {
                // The oldest have most behind them.
                let half = own.len() / 2;
                lock(&self.queue).nodes.extend(own.drain(..half));
                self.wake.notify_all();
            }
        }
    }

    /// Work of others'. `None`: nobody has any.
    fn fetch(&self, own: &mut Vec<Node>) -> Option<Node> {
        let mut queue = lock(&self.queue);
        queue.idle += 1;
        self.hungry.fetch_add(1, Ordering::Relaxed);
        loop {
            if queue.over || queue.nodes.is_empty() && queue.idle == self.cores {
                queue.over = true;
                self.wake.notify_all();
                self.hungry.fetch_sub(1, Ordering::Relaxed);
                return None;
            }
            if !queue.nodes.is_empty() {
                queue.idle -= 1;
                self.hungry.fetch_sub(1, Ordering::Relaxed);
                let half = queue.nodes.len() / 2;
                own.extend(queue.nodes.drain(half + 1..));
                return queue.nodes.pop();
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn found(&self, why: String, node: Node) {
        lock(&self.found).get_or_insert((why, node));
        lock(&self.queue).over = true;
        self.wake.notify_all();
    }

    /// Everything that can happen in a state; where that leads is what the core looks at next.
    fn look_at(&self, node: Node, own: &mut Vec<Node>, text: &mut String) {
        for (moment, price) in node.moments(self.search) {
            let left = node.left - price;
            let mut answers = Some(Vec::new());
            while let Some(chosen) = answers {
                let mut world = node.world.clone();
                let choices = Choices::new(chosen, left);
                let chosen = self.search.take(&mut world, moment, choices);
                self.moments.fetch_add(1, Ordering::Relaxed);
                self.migrated.fetch_add(world.tally.migrated.into(), Ordering::Relaxed);
                let taken = Choices::new(chosen.answers.clone(), left);
                let mut next = node.after(world, moment, taken, chosen.misfortunes);
                answers = chosen.next();
                if let Some(why) = next.world.violation.take() {
                    return self.end(own, why, next);
                }
                next.world.settle_down();
                if !self.is_new(&next, text) {
                    continue;
                }
                if next.world.under_way().is_empty() {
                    let mut world = next.world.clone();
                    calm(&mut world);
                    if let Some(why) = world.violation {
                        return self.end(own, why, next);
                    }
                    self.rests.fetch_add(1, Ordering::Relaxed);
                }
                own.push(next);
            }
        }
        if lock(&self.queue).over {
            own.clear();
        }
    }

    fn end(&self, own: &mut Vec<Node>, why: String, node: Node) {
        own.clear();
        self.found(why, node);
    }

    fn is_new(&self, node: &Node, text: &mut String) -> bool {
        let hash = node.hash(text);
        let mut states = lock(&self.states[hash as usize % SHARDS]);
        match states.get_mut(&hash) {
            Some(left) if *left >= node.left => false,
            Some(left) => {
                *left = node.left;
                true
            }
            None => states.insert(hash, node.left).is_none(),
        }
    }
}
