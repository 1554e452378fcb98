//! Events for users: what `kubectl describe` shows below an object.
//!
//! They are core/v1 events as the stock controllers write them. kube's `Recorder` is not used: it
//! counts events of the same reason as one whatever their messages say, and waits for the API.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::mem;
use std::time::Duration;

use bitts_api::machine::{Event, Severity};
use bitts_api::names::reason;
use bitts_api::{Namespace, ObjectKey, Uid};
use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::api::{Answer, Call, JSON, MERGE_PATCH};
use crate::caller::Caller;
use crate::metrics::OfReason;

/// Events that wait for the API; further ones are dropped and counted.
const QUEUE: usize = 4096;
/// Events of one batch: what comes in while the API is busy is merged before it is written.
const BATCH: usize = 256;
/// An event that was not repeated for this long is told as a new one.
const MEMORY: Duration = Duration::from_secs(600);
/// How long what went well gives way to what the role writes: somebody waits for that.
const GIVES_WAY: Duration = Duration::from_secs(5);
/// The API's own limits.
const LONGEST_MESSAGE: usize = 1024;
const LONGEST_NAME: usize = 253;

/// Takes events without ever waiting.
pub(crate) struct Recorder {
    queue: mpsc::Sender<Event>,
    caller: Caller,
    /// How many were dropped since the queue was full first.
    dropped: u64,
    busy: watch::Sender<bool>,
}

/// A recorder, and the task that writes what it takes. The task ends when the recorder is gone and
/// everything is written.
pub(crate) fn recorder(
    caller: Caller,
    source: &'static str,
) -> (Recorder, impl Future<Output = ()>) {
    let (queue, events) = mpsc::channel(QUEUE);
    let (busy, is_busy) = watch::channel(false);
    let writer = write_all(caller.clone(), source, events, is_busy);
    let recorder = Recorder {
        queue,
        caller,
        dropped: 0,
        busy,
    };
    (recorder, writer)
}

impl Recorder {
    /// Whether the role is writing something.
    pub(crate) fn busy(&self, busy: bool) {
        self.busy
            .send_if_modified(|was| mem::replace(was, busy) != busy);
    }

    pub(crate) fn record(&mut self, event: Event) {
        let role = self.caller.role();
        if self.queue.try_send(event).is_err() {
            count(&self.caller, "dropped");
            if self.dropped == 0 {
                tracing::warn!(
                    role,
                    "events for users are being dropped: the API takes them too slowly, and \
                     {QUEUE} wait. They are counted in bitts_events_total{{reason=\"dropped\"}}; \
                     `bitts explain` says what they would"
                );
            }
            self.dropped += 1;
        } else if self.dropped > 0 && self.queue.capacity() >= QUEUE / 2 {
            // Not as soon as there is room for one: it would be told with each.
            let dropped = mem::take(&mut self.dropped);
            tracing::warn!(role, dropped, "events for users are written again");
        }
    }
}

async fn write_all(
    caller: Caller,
    source: &'static str,
    mut events: mpsc::Receiver<Event>,
    mut busy: watch::Receiver<bool>,
) {
    let mut known = Known::default();
    let mut giving_way = GivingWay::default();
    let mut batch = Vec::new();
    loop {
        let key = tokio::select! {
            biased;
            more = events.recv_many(&mut batch, BATCH), if giving_way.0.len() < QUEUE => {
                if more == 0 {
                    break;
                }
                let now = Instant::now();
                known.forget(now);
                for key in known.take_in(mem::take(&mut batch), now) {
                    if key.warning {
                        write(&caller, source, &mut known, &key).await;
                    } else if known.waits_anew(&key) {
                        giving_way.0.push_back((now + GIVES_WAY, key));
                    }
                }
                continue;
            }
            Some(key) = giving_way.next(&mut busy) => key,
        };
        write(&caller, source, &mut known, &key).await;
    }
    // The role ends.
    for (_, key) in giving_way.0 {
        write(&caller, source, &mut known, &key).await;
    }
}

/// Events of what went well, and until when each gives way.
#[derive(Default)]
struct GivingWay(VecDeque<(Instant, Key)>);

impl GivingWay {
    /// The first, once the role has time or it is due.
    async fn next(&mut self, busy: &mut watch::Receiver<bool>) -> Option<Key> {
        let until = self.0.front()?.0;
        // Of too many the first gives way no more.
        if self.0.len() < QUEUE {
            tokio::select! {
                // An error is the role's end.
                _ = busy.wait_for(|busy| !busy) => {}
                () = sleep_until(until) => {}
            }
        }
        self.0.pop_front().map(|(_, key)| key)
    }
}

async fn write(caller: &Caller, source: &'static str, known: &mut Known, key: &Key) {
    let Some(series) = known.0.get_mut(key) else {
        return;
    };
    series.waits = false;
    match publish(caller, source, key, series).await {
        Ok(()) => count(caller, "written"),
        Err(problem) => {
            count(caller, "failed");
            tracing::warn!(
                role = caller.role(), about = %key.about, reason = key.reason,
                message = key.message, problem, "an event could not be written"
            );
        }
    }
}

fn count(caller: &Caller, reason: &'static str) {
    let role = caller.role();
    caller
        .metrics()
        .events
        .get_or_create(&OfReason { role, reason })
        .inc();
}

/// What makes two events the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    about: ObjectKey,
    uid: Uid,
    warning: bool,
    reason: &'static str,
    message: String,
    /// Who says so, where that is not the role.
    source: Option<&'static str>,
}

/// How often an event happened, and where that is written.
#[derive(Clone, Debug)]
struct Series {
    first: Timestamp,
    last: Timestamp,
    count: u32,
    heard: Instant,
    /// Whether it gives way: what happens meanwhile is counted, and written with it.
    waits: bool,
    /// The path of the event object once there is one.
    path: Option<String>,
}

#[derive(Debug, Default)]
struct Known(BTreeMap<Key, Series>);

impl Known {
    fn forget(&mut self, now: Instant) {
        self.0
            .retain(|_, series| now.duration_since(series.heard) < MEMORY);
    }

    /// Whether an event gives way from now on, and did not before.
    fn waits_anew(&mut self, key: &Key) -> bool {
        let series = self.0.get_mut(key);
        series.is_some_and(|series| !mem::replace(&mut series.waits, true))
    }

    /// Counts the events of a batch; returns those to be written, each once, in the order in which
    /// they happened first.
    fn take_in(&mut self, batch: Vec<Event>, now: Instant) -> Vec<Key> {
        let wall = Timestamp::now();
        let mut changed = Vec::new();
        for event in batch {
            let key = Key {
                about: event.about,
                uid: event.uid,
                warning: event.severity == Severity::Warning,
                reason: event.reason,
                message: cut(event.message, LONGEST_MESSAGE),
                source: event.source,
            };
            match self.0.entry(key.clone()) {
                Entry::Vacant(place) => {
                    place.insert(Series {
                        first: wall,
                        last: wall,
                        count: 1,
                        heard: now,
                        waits: false,
                        path: None,
                    });
                }
                Entry::Occupied(mut place) => {
                    let series = place.get_mut();
                    series.count += 1;
                    series.last = wall;
                    series.heard = now;
                }
            }
            if !changed.contains(&key) {
                changed.push(key);
            }
        }
        changed
    }
}

async fn publish(
    caller: &Caller,
    source: &'static str,
    key: &Key,
    series: &mut Series,
) -> Result<(), String> {
    if let Some(path) = &series.path {
        let patch = json!({"count": series.count, "lastTimestamp": second(series.last)});
        let call = Call::with_body(Method::PATCH, path.clone(), MERGE_PATCH, &patch);
        match caller.call(&call.map_err(|error| error.to_string())?).await {
            Answer::Ok(_) => return Ok(()),
            // The API forgets events after an hour.
            Answer::Missing => {}
            answer => return Err(problem(answer)),
        }
    }
    let namespace = key
        .about
        .namespace
        .clone()
        .unwrap_or_else(|| Namespace::from("default"));
    let unique = unique(key);
    let name = cut(key.about.name.to_string(), LONGEST_NAME - 1 - unique.len());
    let name = format!("{}.{unique}", name.trim_end_matches(['.', '-']));
    let collection = format!("/api/v1/namespaces/{namespace}/events");
    let source = key.source.unwrap_or(source);
    let body = object(source, key, series, &namespace, &name);
    let path = format!("{collection}?fieldManager=bitts-{}", caller.role());
    let call = Call::with_body(Method::POST, path, JSON, &body);
    match caller.call(&call.map_err(|error| error.to_string())?).await {
        // A conflict: an earlier try took effect though its answer was lost.
        Answer::Ok(_) | Answer::Conflict => {
            series.path = Some(format!("{collection}/{name}"));
            Ok(())
        }
        answer => Err(problem(answer)),
    }
}

/// What tells the event from others about its object: what many processes say in the same words, they
/// write once.
fn unique(key: &Key) -> String {
    if !reason::SHARED.contains(&key.reason) {
        return Uuid::new_v4().simple().to_string();
    }
    let mut hasher = DefaultHasher::new();
    (key.uid.to_string(), key.reason, &key.message).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn problem(answer: Answer) -> String {
    match answer {
        Answer::Failed(failure) => failure.message,
        Answer::Refused(code, message) => format!("{message} ({code})"),
        other => format!("{other:?}"),
    }
}

fn object(source: &str, key: &Key, series: &Series, namespace: &Namespace, name: &str) -> Value {
    let kind = key.about.kind;
    let api_version = match kind.group() {
        "" => kind.version().to_owned(),
        group => format!("{group}/{}", kind.version()),
    };
    let severity = if key.warning {
        Severity::Warning
    } else {
        Severity::Normal
    };
    let mut about = json!({
        "apiVersion": api_version,
        "kind": kind.name(),
        "name": key.about.name,
        "uid": key.uid,
    });
    if let Some(namespace) = &key.about.namespace {
        about["namespace"] = json!(namespace);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": about,
        "type": severity.as_str(),
        "reason": key.reason,
        "message": key.message,
        "count": series.count,
        "firstTimestamp": second(series.first),
        "lastTimestamp": second(series.last),
        "source": {"component": source},
        "reportingComponent": source,
        "reportingInstance": "",
    })
}

/// Timestamps of core/v1 events have no fractions.
fn second(time: Timestamp) -> String {
    format!("{time:.0}")
}

/// At most `bytes` of the text, without cutting a character in two.
fn cut(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, message: &str) -> Event {
        Event {
            about: ObjectKey::claim("shop", name),
            uid: Uid::from("u-1"),
            severity: Severity::Warning,
            reason: "FailedBinding",
            message: message.to_owned(),
            source: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn repeats_are_counted_and_different_messages_are_not() {
        let mut known = Known::default();
        let now = Instant::now();
        let batch = vec![
            event("a", "x"),
            event("b", "x"),
            event("a", "x"),
            event("a", "y"),
        ];
        let changed = known.take_in(batch, now);
        let names: Vec<_> = changed
            .iter()
            .map(|k| (k.about.name.as_str(), k.message.as_str(), known.0[k].count))
            .collect();
        assert_eq!(names, [("a", "x", 2), ("b", "x", 1), ("a", "y", 1)]);
        known.forget(now + MEMORY);
        assert!(known.0.is_empty());
    }

    /// What all nodes say of a class is one event, and each event of a claim is one of its own.
    #[tokio::test(start_paused = true)]
    async fn what_many_say_alike_has_one_name() {
        let key = |reason, message: &str| {
            let event = Event {
                reason,
                ..event("a", message)
            };
            let mut known = Known::default();
            known.take_in(vec![event], Instant::now()).remove(0)
        };
        let shared = key(reason::CLASS_INVALID, "x");
        assert_eq!(unique(&shared), unique(&key(reason::CLASS_INVALID, "x")));
        assert_ne!(unique(&shared), unique(&key(reason::CLASS_INVALID, "y")));
        let own = key("FailedBinding", "x");
        assert_ne!(unique(&own), unique(&own));
    }

    #[test]
    fn an_event_is_what_the_stock_controllers_write() {
        let time: Timestamp = "2026-11-23T03:00:00.75Z".parse().unwrap();
        let series = Series {
            first: time,
            last: time,
            count: 1,
            heard: Instant::now(),
            waits: false,
            path: None,
        };
        let key = Key {
            about: ObjectKey::volume("v"),
            uid: Uid::from("u-1"),
            warning: false,
            reason: "VolumeDelete",
            message: "done".to_owned(),
            source: None,
        };
        let namespace = Namespace::from("default");
        let event = object(
            "persistentvolume-controller",
            &key,
            &series,
            &namespace,
            "v.1",
        );
        assert_eq!(event["involvedObject"]["apiVersion"], "v1");
        assert!(event["involvedObject"].get("namespace").is_none());
        assert_eq!(event["firstTimestamp"], "2026-11-23T03:00:00Z");
        assert_eq!(event["source"]["component"], "persistentvolume-controller");
        let parsed: k8s_openapi::api::core::v1::Event = serde_json::from_value(event).unwrap();
        assert_eq!(parsed.type_.as_deref(), Some("Normal"));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let text = "ü".repeat(600);
        let short = cut(text, LONGEST_MESSAGE);
        assert_eq!(short.len(), 1024);
        assert_eq!(cut("aü".to_owned(), 2), "a");
    }
}
