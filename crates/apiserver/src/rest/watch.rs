//! Watch: the changes of a kind from a revision on, each watcher at its own pace.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::answer::{self, Form, Reply};
use super::{Call, Closing, Core, view};
use crate::body::{Body, Cut};
use crate::faults::{Fault, Requested};
use crate::status::Status;
use crate::store::{Change, State};

/// How long a watch lasts whose client sets no limit.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(40 * 60);
/// How often a watch says where it is.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// How long before its end a watch says so for the last time.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
/// How many bytes of initial events go out together, more or less.
const CHUNK: usize = 64 * 1024;
/// How many changes are read under one lock.
const BATCH: usize = 256;
/// Marks the bookmark behind the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

impl Core {
    pub(super) fn watch(
        self: Arc<Self>,
        call: &Call,
        closing: Option<Closing>,
    ) -> Result<Reply, Status> {
        let changed = self.store.subscribe(call.table());
        let now = Instant::now();
        let deadline = now + call.params.timeout.unwrap_or(DEFAULT_TIMEOUT);
        let mut watcher = Watcher {
            call: call.clone(),
            changed,
            position: 0,
            initial: VecDeque::new(),
            initial_bookmark: false,
            columns_told: false,
            pending: Vec::new(),
            deadline,
            bookmark_at: next_bookmark(now, deadline),
            closing,
            end: End::No,
            core: Arc::clone(&self),
        };
        watcher.start(&self.store.read());
        let stream = futures::stream::unfold(watcher, |mut watcher| async move {
            let item = watcher.next().await?;
            Some((item, watcher))
        });
        Ok(Reply::Watch(Body::stream(stream)))
    }
}

/// An event as it goes over the wire.
#[derive(Serialize)]
struct Line<'a> {
    r#type: &'a str,
    object: &'a Value,
}

/// How a watch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    No,
    /// Nothing comes behind what is pending.
    Clean,
    /// The connection breaks behind what is pending.
    Cut,
    /// Open, and silent for good.
    Silent,
}

struct Watcher {
    core: Arc<Core>,
    call: Call,
    changed: watch::Receiver<u64>,
    /// The revision up to which the client has seen everything.
    position: u64,
    /// What there was when the watch began and is not yet sent.
    initial: VecDeque<Arc<Value>>,
    /// Whether a bookmark marks the end of that.
    initial_bookmark: bool,
    columns_told: bool,
    /// Lines that go out next, together.
    pending: Vec<u8>,
    deadline: Instant,
    bookmark_at: Instant,
    closing: Option<Closing>,
    end: End,
}

impl Watcher {
    fn start(&mut self, state: &State) {
        let version = self.call.params.version.unwrap_or_default();
        let initial = self.call.params.initial_events;
        if version != 0 && initial != Some(true) {
            self.position = version;
            let oldest = state.oldest(self.call.table());
            if version < oldest {
                self.expire(oldest);
            }
            return;
        }
        self.position = state.revision();
        if initial == Some(false) {
            return;
        }
        let all = state.scan(self.call.table(), self.call.namespace_filter(), None);
        let selected = all.filter(|(_, object)| self.selects(object));
        self.initial = selected.map(|(_, object)| Arc::clone(object)).collect();
        self.initial_bookmark = self.call.params.bookmarks;
    }

    /// Sends what there was at the start, as much as fits.
    fn send_initial(&mut self) {
        while self.pending.len() < CHUNK
            && let Some(object) = self.initial.pop_front()
        {
            self.send("ADDED", &object);
        }
        if self.initial.is_empty() && std::mem::take(&mut self.initial_bookmark) {
            self.bookmark(json!({"annotations": {INITIAL_EVENTS_END: "true"}}));
        }
    }

    async fn next(&mut self) -> Option<Result<Bytes, Cut>> {
        loop {
            self.send_initial();
            if !self.pending.is_empty() {
                return Some(Ok(std::mem::take(&mut self.pending).into()));
            }
            match self.end {
                End::Clean => return None,
                End::Cut => {
                    self.end = End::Clean;
                    return Some(Err(Cut));
                }
                End::Silent => {
                    closed(self.closing.clone()).await;
                    return None;
                }
                End::No => {}
            }
            self.changed.borrow_and_update();
            if !self.read_changes() {
                self.wait().await;
            }
        }
    }

    /// Takes up what has happened since; false when that is nothing.
    fn read_changes(&mut self) -> bool {
        let core = Arc::clone(&self.core);
        let (changes, revision) = {
            let state = core.store.read();
            (
                state.changes(self.call.table(), self.position, BATCH),
                state.revision(),
            )
        };
        let changes = match changes {
            Ok(changes) => changes,
            Err(expired) => {
                self.expire(expired.oldest);
                return true;
            }
        };
        for change in &changes {
            self.position = change.revision;
            self.take(change);
            if self.end != End::No {
                return true;
            }
        }
        if changes.len() < BATCH {
            self.position = self.position.max(revision);
        }
        !changes.is_empty()
    }

    async fn wait(&mut self) {
        tokio::select! {
            biased;
            () = closed(self.closing.clone()) => self.end = End::Clean,
            _ = self.changed.changed() => {}
            () = tokio::time::sleep_until(self.bookmark_at) => {
                self.bookmark_at = next_bookmark(Instant::now(), self.deadline);
                // Other kinds have moved the revision since the last change of this one.
                self.read_changes();
                if self.call.params.bookmarks && self.end == End::No {
                    self.bookmark(json!({}));
                }
            }
            () = tokio::time::sleep_until(self.deadline) => self.end = End::Clean,
        }
    }

    fn selects(&self, object: &Value) -> bool {
        let of_call = |field: &str, wanted: &str| {
            wanted.is_empty() || object["metadata"][field].as_str() == Some(wanted)
        };
        of_call("namespace", &self.call.namespace)
            && of_call("name", &self.call.name)
            && self.call.params.selection.matches(object)
    }

    /// Turns a change into the event that it is for this selection: an object that enters the
    /// selection is added, one that leaves it is deleted.
    fn take(&mut self, change: &Change) {
        let was = change
            .previous
            .as_ref()
            .filter(|object| self.selects(object));
        let is = change.object.as_ref().filter(|object| self.selects(object));
        let (event, object) = match (was, is) {
            (None, None) => return,
            (None, Some(object)) => ("ADDED", Arc::clone(object)),
            (Some(_), Some(object)) => ("MODIFIED", Arc::clone(object)),
            (Some(object), None) => {
                // The last state that was seen, at the revision of its end.
                let mut last = Value::clone(object);
                last["metadata"]["resourceVersion"] = change.revision.to_string().into();
                ("DELETED", Arc::new(last))
            }
        };
        let fault = self.core.faults.on_event(Requested {
            verb: "watch",
            resource: self.call.kind.plural,
            namespace: &change.key.namespace,
            name: &change.key.name,
        });
        match fault {
            Some(Fault::DropEvent) => {}
            Some(Fault::DuplicateEvent) => {
                self.send(event, &object);
                self.send(event, &object);
            }
            Some(Fault::Silence) => self.end = End::Silent,
            Some(Fault::End) => self.end = End::Clean,
            Some(Fault::ExpireWatch) => self.expire(change.revision),
            Some(Fault::Cut) => {
                let before = self.pending.len();
                self.send(event, &object);
                self.pending
                    .truncate(usize::midpoint(before, self.pending.len()));
                self.end = End::Cut;
            }
            _ => self.send(event, &object),
        }
    }

    fn send(&mut self, event: &str, object: &Arc<Value>) {
        let object = view(self.call.kind, object);
        let mut shaped = answer::shape(&self.call, &object, &self.core.clock.stamp());
        // Only the first of a watch's tables says what the columns are.
        if self.call.form == Form::Table && std::mem::replace(&mut self.columns_told, true) {
            Arc::make_mut(&mut shaped)["columnDefinitions"] = Value::Null;
        }
        self.line(event, &shaped);
    }

    fn bookmark(&mut self, mut metadata: Value) {
        metadata["resourceVersion"] = self.position.to_string().into();
        let object = Arc::new(json!({
            "kind": self.call.kind.kind,
            "apiVersion": self.call.kind.api_version(),
            "metadata": metadata,
        }));
        self.line("BOOKMARK", &object);
    }

    fn expire(&mut self, oldest: u64) {
        let why = format!("too old resource version: {} ({oldest})", self.position);
        self.line("ERROR", &Status::expired(why).to_json());
        self.end = End::Clean;
    }

    fn line(&mut self, event: &str, object: &Value) {
        // Two texts and a value always serialize.
        let line = Line {
            r#type: event,
            object,
        };
        self.pending
            .extend(serde_json::to_vec(&line).unwrap_or_default());
        self.pending.push(b'\n');
    }
}

/// One a period, and one shortly before the end.
fn next_bookmark(now: Instant, deadline: Instant) -> Instant {
    let periodic = now + BOOKMARK_PERIOD;
    match deadline.checked_sub(LAST_BOOKMARK) {
        Some(last) if now < last => last.min(periodic),
        _ => periodic,
    }
}

async fn closed(closing: Option<Closing>) {
    match closing {
        Some(Closing(token)) => token.cancelled_owned().await,
        None => std::future::pending().await,
    }
}
