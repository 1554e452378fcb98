//! Single objects that a machine asked to be told about ([`Effect::Follow`]).
//!
//! A follow is a read, and only where it lasts a watch: an agent whose volumes are all mounted
//! follows nothing, one that starts a pod reads each object once. So the number of watches, which
//! cost the server something each, does not grow with what is in use; and there is a most of them,
//! beyond which objects are read now and then. A task runs only for what is read or watched at the
//! time: a thousand follows that wait are a thousand lines in a table.
//!
//! [`Effect::Follow`]: bitts_api::machine::Effect::Follow

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bitts_api::ObjectKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue;

use crate::Host;
use crate::resync::jittered;
use crate::watch::{News, follow, read};

/// Reads at once.
const READS: usize = 64;
/// Watches at once.
const WATCHES: usize = 64;
/// A follow that ends sooner than this needs no watch.
const LINGER: Duration = Duration::from_secs(1);
/// How often an object is read that gets no watch.
const READ_AGAIN: Duration = Duration::from_secs(30);

/// An object that is read or watched.
pub(crate) struct Followed {
    pub(crate) key: ObjectKey,
    /// One that no other follow of the role has.
    pub(crate) number: u64,
    reads: Arc<Semaphore>,
    /// What it was given to begin with.
    turn: Option<OwnedSemaphorePermit>,
}

impl Followed {
    /// Waits until it may be read.
    pub(crate) async fn turn_to_read(&mut self) -> Option<OwnedSemaphorePermit> {
        match self.turn.take() {
            Some(turn) => Some(turn),
            None => self.reads.clone().acquire_owned().await.ok(),
        }
    }
}

/// What a role's machine follows.
pub(crate) struct Follows {
    host: Host,
    role: &'static str,
    tell: mpsc::Sender<News>,
    reads: Arc<Semaphore>,
    watches: usize,
    under_way: BTreeMap<ObjectKey, Follow>,
    numbers: BTreeSet<u64>,
    next: u64,
    /// Those that are to be read, in this order; some may have ended meanwhile.
    waiting: VecDeque<(ObjectKey, u64)>,
    later: DelayQueue<ObjectKey>,
    tasks: JoinSet<(ObjectKey, u64, Option<String>)>,
}

struct Follow {
    number: u64,
    stage: Stage,
}

enum Stage {
    /// It is to be read.
    Waiting,
    /// It is read.
    Reading(AbortHandle),
    /// It was read, at this place in the history.
    Lingering(String, delay_queue::Key),
    /// It is watched.
    Watching(AbortHandle),
    /// There are watches enough: it is read again some time.
    Resting(delay_queue::Key),
}

impl Follows {
    pub(crate) fn new(host: Host, role: &'static str, tell: mpsc::Sender<News>) -> Self {
        Self {
            host,
            role,
            tell,
            reads: Arc::new(Semaphore::new(READS)),
            watches: 0,
            under_way: BTreeMap::new(),
            numbers: BTreeSet::new(),
            next: 0,
            waiting: VecDeque::new(),
            later: DelayQueue::new(),
            tasks: JoinSet::new(),
        }
    }

    pub(crate) fn begin(&mut self, key: ObjectKey) {
        if self.under_way.contains_key(&key) {
            return;
        }
        let number = self.next;
        self.next += 1;
        self.host
            .health()
            .expect_watch(self.role, key.kind.plural());
        self.numbers.insert(number);
        let stage = Stage::Waiting;
        self.under_way.insert(key.clone(), Follow { number, stage });
        self.waiting.push_back((key, number));
        if let Ok(turn) = self.reads.clone().try_acquire_owned() {
            self.read_next(turn);
        }
    }

    pub(crate) fn end(&mut self, key: &ObjectKey) {
        let Some(Follow { number, stage }) = self.under_way.remove(key) else {
            return;
        };
        match stage {
            Stage::Waiting => {}
            Stage::Reading(task) => task.abort(),
            Stage::Watching(task) => {
                task.abort();
                self.watches -= 1;
            }
            Stage::Lingering(_, alarm) | Stage::Resting(alarm) => {
                self.later.try_remove(&alarm);
            }
        }
        self.numbers.remove(&number);
        if !self.under_way.keys().any(|other| other.kind == key.kind) {
            self.host
                .health()
                .forget_watch(self.role, key.kind.plural());
        }
    }

    /// Whether news are of a follow that ended while they were on their way.
    pub(crate) fn is_over(&self, of: Option<u64>) -> bool {
        of.is_some_and(|number| !self.numbers.contains(&number))
    }

    /// Goes on with all of them until one panicked, for ever if need be.
    pub(crate) async fn panicked(&mut self) {
        loop {
            let reads = self.reads.clone();
            tokio::select! {
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok((key, number, version)) => self.was_read(&key, number, version),
                    Err(error) if error.is_panic() => return,
                    Err(_) => {}
                },
                Ok(turn) = reads.acquire_owned(), if !self.waiting.is_empty() => {
                    self.read_next(turn);
                }
                Some(due) = poll_fn(|cx| self.later.poll_expired(cx)), if !self.later.is_empty() => {
                    self.due(due.into_inner());
                }
                else => std::future::pending().await,
            }
        }
    }

    /// Reads the next that is still followed.
    fn read_next(&mut self, turn: OwnedSemaphorePermit) {
        while let Some((key, number)) = self.waiting.pop_front() {
            let Some(one) = self.under_way.get_mut(&key) else {
                continue;
            };
            if one.number != number {
                continue;
            }
            let followed = Followed {
                key: key.clone(),
                number,
                reads: self.reads.clone(),
                turn: Some(turn),
            };
            let read = read(self.host.clone(), self.role, followed, self.tell.clone());
            let task = async move { (key, number, read.await) };
            one.stage = Stage::Reading(self.tasks.spawn(task));
            return;
        }
    }

    fn was_read(&mut self, key: &ObjectKey, number: u64, version: Option<String>) {
        let one = self.under_way.get_mut(key);
        if let Some(one) = one.filter(|one| one.number == number)
            && let Some(version) = version
        {
            let alarm = self.later.insert(key.clone(), LINGER);
            one.stage = Stage::Lingering(version, alarm);
        }
    }

    /// What lasts gets a watch, or is read again.
    fn due(&mut self, key: ObjectKey) {
        let Some(one) = self.under_way.get_mut(&key) else {
            return;
        };
        let number = one.number;
        match std::mem::replace(&mut one.stage, Stage::Waiting) {
            Stage::Lingering(version, _) if self.watches < WATCHES => {
                let followed = Followed {
                    key: key.clone(),
                    number,
                    reads: self.reads.clone(),
                    turn: None,
                };
                let (host, tell) = (self.host.clone(), self.tell.clone());
                let watch = follow(host, self.role, followed, version, tell);
                let task = async move {
                    watch.await;
                    (key, number, None)
                };
                one.stage = Stage::Watching(self.tasks.spawn(task));
                self.watches += 1;
            }
            Stage::Lingering(..) => {
                let alarm = self.later.insert(key, jittered(READ_AGAIN));
                one.stage = Stage::Resting(alarm);
            }
            Stage::Resting(_) => self.waiting.push_back((key, number)),
            stage => one.stage = stage,
        }
    }
}
