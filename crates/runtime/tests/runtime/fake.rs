//! A scripted Kubernetes API of just what these tests need: objects, versions, watches, and faults
//! on request.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower_service::Service;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, Error>>;

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Answered with this status (and `Retry-After`), not carried out.
    Status(u16, Option<u32>),
    /// Carried out, and answered with this status.
    StatusAfter(u16),
    /// Never answered, not carried out.
    Hang,
    /// Carried out, never answered.
    HangAfter,
    /// The connection breaks.
    Break,
    /// Answered with 200 and this, not carried out.
    Body(Value),
}

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<String, Value>,
    history: Vec<(u64, &'static str, Value)>,
    oldest: u64,
    watchers: Vec<Watcher>,
    faults: Vec<(String, usize, Fault)>,
    log: Vec<String>,
    bodies: Vec<(String, Value)>,
    running: usize,
    most_running: usize,
    lacks: Vec<String>,
    /// So many events are stored, but told to nobody.
    lose: usize,
}

struct Watcher {
    route: Route,
    events: mpsc::UnboundedSender<Bytes>,
}

/// The API. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

/// Where a path leads.
#[derive(Clone, Debug)]
struct Route {
    group: String,
    resource: String,
    namespace: Option<String>,
    name: Option<String>,
    status: bool,
}

impl Route {
    fn parse(path: &str) -> Self {
        let mut parts = path.trim_start_matches('/').split('/');
        let group = match parts.next() {
            Some("api") => format!("/api/{}", parts.next().unwrap()),
            _ => format!("/apis/{}/{}", parts.next().unwrap(), parts.next().unwrap()),
        };
        let mut rest: Vec<_> = parts.collect();
        let namespace = (rest.first() == Some(&"namespaces") && rest.len() > 2).then(|| {
            rest.remove(0);
            rest.remove(0).to_owned()
        });
        Self {
            group,
            namespace,
            resource: rest[0].to_owned(),
            name: rest.get(1).map(|n| (*n).to_owned()),
            status: rest.get(2) == Some(&"status"),
        }
    }

    fn key(&self) -> String {
        let ns = self.namespace.as_deref().unwrap_or_default();
        let name = self.name.as_deref().unwrap_or_default();
        format!("{}/{}/{ns}/{name}", self.group, self.resource)
    }

    fn holds(&self, key: &str) -> bool {
        let ns = self
            .namespace
            .as_ref()
            .map(|n| format!("{n}/"))
            .unwrap_or_default();
        key.starts_with(&format!("{}/{}/{ns}", self.group, self.resource))
    }
}

impl Fake {
    pub(crate) fn client(&self) -> Client {
        Client::new(self.clone(), "default")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Stores an object at its path; its version and, where it is new, its uid are made up here.
    pub(crate) fn put(&self, path: &str, object: Value) -> Value {
        self.state().store(&Route::parse(path).key(), object)
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state().objects.get(&Route::parse(path).key()).cloned()
    }

    pub(crate) fn delete(&self, path: &str) {
        self.state().remove(&Route::parse(path).key());
    }

    /// The next `times` requests whose `METHOD path?query` (and a blank) contains `part` go wrong.
    pub(crate) fn fail(&self, part: &str, times: usize, fault: Fault) {
        self.state().faults.push((part.to_owned(), times, fault));
    }

    pub(crate) fn heal(&self) {
        self.state().faults.clear();
    }

    /// Requests so far, `METHOD path?query`, that contain `part`.
    pub(crate) fn requests(&self, part: &str) -> Vec<String> {
        self.state()
            .log
            .iter()
            .filter(|line| line.contains(part))
            .cloned()
            .collect()
    }

    /// The bodies of requests whose line contains `part`.
    pub(crate) fn bodies(&self, part: &str) -> Vec<Value> {
        let state = self.state();
        state
            .bodies
            .iter()
            .filter(|(l, _)| l.contains(part))
            .map(|(_, b)| b.clone())
            .collect()
    }

    /// The most requests other than watches that were under way at one time.
    pub(crate) fn most_running(&self) -> usize {
        self.state().most_running
    }

    /// Forgets the history: older watches get a 410.
    pub(crate) fn compact(&self) {
        let mut state = self.state();
        state.oldest = state.version;
    }

    /// Ends all watches as a server does that restarts.
    pub(crate) fn drop_watches(&self) {
        self.state().watchers.clear();
    }

    /// Sends a line to the watches of a resource.
    pub(crate) fn say(&self, resource: &str, event: &Value) {
        for watcher in &self.state().watchers {
            if watcher.route.resource == resource {
                let _ = watcher.events.send(format!("{event}\n").into());
            }
        }
    }

    /// From now on, events are stored but no watch hears of them.
    pub(crate) fn silence(&self) {
        // The senders live on elsewhere, so that the streams do not end.
        for watcher in self.state().watchers.drain(..) {
            std::mem::forget(watcher.events);
        }
    }

    /// Sends a bookmark to all watches now and then, as servers do, as long as this runs.
    pub(crate) async fn bookmarks(self) {
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(20)).await;
            let state = self.state();
            let meta = json!({"resourceVersion": state.version.to_string()});
            let line = json!({"type": "BOOKMARK", "object": {"metadata": meta}});
            for watcher in &state.watchers {
                let _ = watcher.events.send(format!("{line}\n").into());
            }
        }
    }

    /// The next events, so many, are stored, but no watch hears of them.
    pub(crate) fn lose(&self, events: usize) {
        self.state().lose = events;
    }

    /// Goes back to an earlier version, as after a restore from a backup.
    pub(crate) fn restore(&self, version: u64) {
        let mut state = self.state();
        state.version = version;
        state.oldest = 0;
        state.history.clear();
        state.watchers.clear();
    }

    async fn serve(self, request: Request<Body>) -> Result<Answer, Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let line = format!("{} {}", head.method, head.uri.path_and_query().unwrap());
        let fault = {
            let mut state = self.state();
            state.log.push(line.clone());
            if let Ok(body) = serde_json::from_slice(&body) {
                state.bodies.push((line.clone(), body));
            }
            state.fault(&line)
        };
        match fault {
            Some(Fault::Status(code, after)) => return Ok(failure(code, after, "as asked")),
            Some(Fault::Hang) => return pending().await,
            Some(Fault::Break) => return Err("connection reset".into()),
            Some(Fault::Body(body)) => return Ok(plain(200, &body, None)),
            _ => {}
        }
        let query: BTreeMap<_, _> = head
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.replace("%3D", "=")))
            .collect();
        if let Some(served) = self.discovery(head.uri.path()) {
            return Ok(served);
        }
        let route = Route::parse(head.uri.path());
        if query.contains_key("watch") {
            return Ok(self.watch(route, &query));
        }
        let _running = Running::begin(&self);
        // Real servers take a moment; without one nothing ever runs side by side.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let (code, answer) = self
            .state()
            .answer(head.method.as_str(), &route, &query, &body);
        match fault {
            Some(Fault::StatusAfter(code)) => Ok(failure(code, None, "as asked, afterwards")),
            Some(Fault::HangAfter) => pending().await,
            _ => Ok(plain(code, &answer, None)),
        }
    }

    /// The answer to what the API serves.
    fn discovery(&self, path: &str) -> Option<Answer> {
        let state = self.state();
        let served = |plural: &str| !state.lacks.iter().any(|lacked| lacked == plural);
        let all = ["storageclasses", "volumeattachments"];
        let list = match path {
            "/apis" => json!({"kind": "APIGroupList", "groups": [
                {"name": "storage.k8s.io", "versions": [{"version": "v1"}]}]}),
            "/apis/storage.k8s.io/v1" => json!({"kind": "APIResourceList", "resources": all
                .iter().filter(|plural| served(plural)).map(|plural| json!({"name": plural}))
                .collect::<Vec<_>>()}),
            path => {
                let plural = path.rsplit('/').next()?;
                (!served(plural)).then_some(())?;
                let mut status = status(404, "the server could not find the requested resource");
                status["reason"] = json!("NotFound");
                status["details"] = json!({});
                return Some(plain(404, &status, None));
            }
        };
        Some(plain(200, &list, None))
    }

    /// From now on the API has no such kind, or has it again.
    pub(crate) fn lack(&self, plural: &str, lacks: bool) {
        let mut state = self.state();
        state.lacks.retain(|lacked| lacked != plural);
        if lacks {
            state.lacks.push(plural.to_owned());
        }
    }

    fn watch(&self, route: Route, query: &BTreeMap<String, String>) -> Answer {
        let from: u64 = query["resourceVersion"].parse().unwrap();
        let mut state = self.state();
        if from < state.oldest {
            let gone = json!({"type": "ERROR", "object": status(410, "too old")});
            return Response::new(full(format!("{gone}\n")));
        }
        let (events, receiver) = mpsc::unbounded_channel();
        for (version, kind, object) in &state.history {
            if *version > from && route.holds(object["key"].as_str().unwrap()) {
                let event = json!({"type": kind, "object": object["object"]});
                events.send(format!("{event}\n").into()).unwrap();
            }
        }
        state.watchers.push(Watcher { route, events });
        let lines = stream::unfold(
            receiver,
            |mut receiver: mpsc::UnboundedReceiver<Bytes>| async {
                let line = receiver.recv().await?;
                Some((Ok::<_, Infallible>(Frame::data(line)), receiver))
            },
        );
        let body = StreamBody::new(lines.boxed()).map_err(|never| match never {});
        Response::new(body.boxed_unsync())
    }
}

impl State {
    fn fault(&mut self, line: &str) -> Option<Fault> {
        let (_, times, fault) = self
            .faults
            .iter_mut()
            .find(|(part, times, _)| *times > 0 && format!("{line} ").contains(&**part))?;
        *times -= 1;
        Some(fault.clone())
    }

    fn store(&mut self, key: &str, mut object: Value) -> Value {
        self.version += 1;
        let old = self.objects.get(key);
        let meta = object["metadata"].as_object_mut().unwrap();
        meta.insert(
            "resourceVersion".to_owned(),
            json!(self.version.to_string()),
        );
        let uid = old.map_or_else(
            || format!("uid-{}", self.version),
            |o| text(o, "uid").to_owned(),
        );
        meta.entry("uid").or_insert_with(|| json!(uid));
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        self.objects.insert(key.to_owned(), object.clone());
        self.tell(kind, key, object.clone());
        object
    }

    fn remove(&mut self, key: &str) {
        if let Some(mut object) = self.objects.remove(key) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.tell("DELETED", key, object);
        }
    }

    fn tell(&mut self, kind: &'static str, key: &str, object: Value) {
        if self.lose > 0 {
            self.lose -= 1;
            return;
        }
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        self.watchers.retain(|watcher| {
            !watcher.route.holds(key) || watcher.events.send(line.clone().into()).is_ok()
        });
        self.history
            .push((self.version, kind, json!({"key": key, "object": object})));
    }

    fn answer(
        &mut self,
        method: &str,
        route: &Route,
        query: &BTreeMap<String, String>,
        body: &Value,
    ) -> (u16, Value) {
        let key = route.key();
        let known = self.objects.get(&key).cloned();
        match (method, &route.name, known) {
            ("GET", None, _) => (200, self.list(route, query)),
            ("POST", None, _) => {
                let mut route = route.clone();
                route.name = Some(text(body, "name").to_owned());
                let key = route.key();
                if self.objects.contains_key(&key) {
                    return (409, status(409, "already exists"));
                }
                (201, self.store(&key, body.clone()))
            }
            (_, Some(name), None) => {
                let mut status = status(404, "not found");
                status["reason"] = json!("NotFound");
                status["details"] = json!({"name": name, "kind": route.resource});
                (404, status)
            }
            ("GET", _, Some(object)) => (200, object),
            ("PATCH", _, Some(mut object)) => {
                if !holds(&body["metadata"], &object) {
                    return (409, status(409, "the object has been modified"));
                }
                let mut patch = body.clone();
                if route.status {
                    patch = json!({"status": body["status"]});
                }
                merge(&mut object, &patch);
                let ends = object["metadata"]["deletionTimestamp"].is_string()
                    && object["metadata"]["finalizers"]
                        .as_array()
                        .is_none_or(Vec::is_empty);
                if ends {
                    self.remove(&key);
                    return (200, object);
                }
                (200, self.store(&key, object))
            }
            ("DELETE", _, Some(object)) => {
                if !holds(&body["preconditions"], &object) {
                    return (409, status(409, "precondition failed"));
                }
                self.remove(&key);
                (200, object)
            }
            _ => (405, status(405, "not here")),
        }
    }

    fn list(&self, route: &Route, query: &BTreeMap<String, String>) -> Value {
        let limit: usize = query
            .get("limit")
            .map_or(usize::MAX, |n| n.parse().unwrap());
        let from: usize = query.get("continue").map_or(0, |n| n.parse().unwrap());
        let wanted = query.get("fieldSelector").map(String::as_str);
        let all: Vec<_> = self
            .objects
            .iter()
            .filter(|(key, _)| route.holds(key))
            .map(|(_, object)| object)
            .filter(|o| match wanted.and_then(|w| w.split_once('=')) {
                Some(("metadata.name", name)) => text(o, "name") == name,
                Some(("spec.nodeName", node)) => o["spec"]["nodeName"] == node,
                _ => true,
            })
            .collect();
        let end = from.saturating_add(limit).min(all.len());
        let next = if end < all.len() {
            end.to_string()
        } else {
            String::new()
        };
        json!({
            "kind": "List",
            "metadata": {"resourceVersion": self.version.to_string(), "continue": next},
            "items": all[from..end],
        })
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

fn holds(precondition: &Value, object: &Value) -> bool {
    ["uid", "resourceVersion"].iter().all(|field| {
        precondition
            .get(field)
            .is_none_or(|wanted| *wanted == object["metadata"][field])
    })
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

struct Running(Fake);

impl Running {
    fn begin(fake: &Fake) -> Self {
        let mut state = fake.state();
        state.running += 1;
        state.most_running = state.most_running.max(state.running);
        drop(state);
        Self(fake.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.state().running -= 1;
    }
}

pub(crate) fn status(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
           "reason": "Asked", "message": message})
}

fn failure(code: u16, after: Option<u32>, message: &str) -> Answer {
    plain(code, &status(code, message), after)
}

fn plain(code: u16, body: &Value, after: Option<u32>) -> Answer {
    let mut response = Response::builder().status(code);
    if let Some(after) = after {
        response = response.header("Retry-After", after);
    }
    response.body(full(body.to_string())).unwrap()
}

fn full(text: String) -> UnsyncBoxBody<Bytes, Error> {
    Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed_unsync()
}

impl Service<Request<Body>> for Fake {
    type Response = Answer;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().serve(request))
    }
}
