//! Single objects that a machine asked to be told about ([`Effect::Follow`]).
//!
//! A follow is a read, and only where it lasts a watch: an agent whose volumes are all mounted
//! follows nothing, one that starts a pod reads each object once. So the number of watches, which
//! cost the server and this process a connection each, does not grow with what is in use; and there
//! is a most of them, beyond which objects are read now and then.
//!
//! [`Effect::Follow`]: bitts_api::machine::Effect::Follow

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitts_api::ObjectKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use crate::Host;
use crate::resync::jittered;
use crate::watch::{News, follow};

/// Reads at once: a connection each.
const READS: usize = 16;
/// Watches at once.
const WATCHES: usize = 64;
/// A follow that ends sooner than this needs no watch.
const LINGER: Duration = Duration::from_secs(1);
/// How often an object is read that gets no watch.
const READ_AGAIN: Duration = Duration::from_secs(30);

/// An object that is followed.
#[derive(Clone)]
pub(crate) struct Followed {
    pub(crate) key: ObjectKey,
    /// One that no other follow of the role has.
    pub(crate) number: u64,
    limits: Limits,
}

#[derive(Clone)]
struct Limits {
    reads: Arc<Semaphore>,
    watches: Arc<Semaphore>,
}

impl Followed {
    /// Waits until it may be read.
    pub(crate) async fn turn_to_read(&self) -> Option<OwnedSemaphorePermit> {
        self.limits.reads.clone().acquire_owned().await.ok()
    }

    /// Waits until a watch is worth its cost. Without leave, it is to be read again instead.
    pub(crate) async fn leave_to_watch(&self) -> Option<OwnedSemaphorePermit> {
        sleep(LINGER).await;
        let leave = self.limits.watches.clone().try_acquire_owned().ok();
        if leave.is_none() {
            sleep(jittered(READ_AGAIN)).await;
        }
        leave
    }
}

/// What a role's machine follows.
pub(crate) struct Follows {
    host: Host,
    role: &'static str,
    tell: mpsc::Sender<News>,
    limits: Limits,
    under_way: BTreeMap<ObjectKey, (u64, AbortHandle)>,
    numbers: BTreeSet<u64>,
    next: u64,
    tasks: JoinSet<()>,
}

impl Follows {
    pub(crate) fn new(host: Host, role: &'static str, tell: mpsc::Sender<News>) -> Self {
        Self {
            host,
            role,
            tell,
            limits: Limits {
                reads: Arc::new(Semaphore::new(READS)),
                watches: Arc::new(Semaphore::new(WATCHES)),
            },
            under_way: BTreeMap::new(),
            numbers: BTreeSet::new(),
            next: 0,
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
        let followed = Followed {
            key: key.clone(),
            number,
            limits: self.limits.clone(),
        };
        let task = follow(self.host.clone(), self.role, followed, self.tell.clone());
        let handle = self.tasks.spawn(task);
        self.under_way.insert(key, (number, handle));
        self.numbers.insert(number);
    }

    pub(crate) fn end(&mut self, key: &ObjectKey) {
        let Some((number, task)) = self.under_way.remove(key) else {
            return;
        };
        task.abort();
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

    /// Waits until one of them panicked, for ever if need be.
    pub(crate) async fn panicked(&mut self) {
        loop {
            match self.tasks.join_next().await {
                Some(Err(error)) if error.is_panic() => return,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}
