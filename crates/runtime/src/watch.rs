//! Keeps a machine told of all objects of one kind, whatever the API does.
//!
//! This is list and watch by hand on `kube::Client`, not kube's `watcher`, for that one cannot do four
//! things a role's life depends on: it waits for ever on a list that never answers, it asks again
//! for ever where the server answers a watch with 410 as an HTTP status, it does not show
//! bookmarks (so the age of a quiet watch cannot be told from that of a dead one), and one object
//! that cannot be read fails the whole list.
//!
//! Every watch is a task of its own with its own back-off: none delays another.

use std::pin::pin;
use std::time::Duration;

use bitts_api::machine::{Scope, Watch};
use bitts_api::{Kind, Object, ObjectKey, Uid};
use http::StatusCode;
use kube::core::Status;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Host;
use crate::api::{self, Answer, Call, open, send};
use crate::backoff::Backoff;
use crate::discovery::is_served;
use crate::follow::Followed;
use crate::lines::{Line, Lines};
use crate::list::{PAGE, Page, escaped, page_path};
use crate::metrics::OfWatch;

/// A watch that is silent for this much longer than the server was to keep it is dead.
const MARGIN: Duration = Duration::from_secs(5);
/// A list without pages may take so many times as long as another request.
const WHOLE: u32 = 6;
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// A kind that the API lacks may be added to it.
const ABSENT_RETRY: Duration = Duration::from_secs(300);

/// What a watch tells.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    Listed(Kind, Vec<Object>),
    Found(ObjectKey, Option<Object>),
    Seen(Object),
    Deleted(ObjectKey, Uid),
}

impl Told {
    /// The one object that it is about.
    fn key(&self) -> Option<ObjectKey> {
        match self {
            Self::Listed(..) => None,
            Self::Found(key, _) | Self::Deleted(key, _) => Some(key.clone()),
            Self::Seen(object) => Some(object.key()),
        }
    }
}

/// What a watch tells, and when it heard of it.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) at: Instant,
    /// Of which follow it is, by its number; `None` for a watch.
    pub(crate) of: Option<u64>,
    pub(crate) told: Told,
}

/// The receiver is gone: the role ends.
struct Over;

/// Why a list or watch ended.
enum Trouble {
    /// The role ends.
    Over,
    /// What was known of the history is worth nothing: list again.
    Relist(&'static str),
    /// The API says that it does not serve the kind.
    Absent,
    /// Try again later, from the same point.
    Failed { problem: String, after: Duration },
}

/// With what to go on after trouble.
enum Next {
    AsBefore,
    List,
}

impl From<Over> for Trouble {
    fn from(_: Over) -> Self {
        Self::Over
    }
}

impl Trouble {
    fn failed(problem: String) -> Self {
        Self::Failed {
            problem,
            after: Duration::ZERO,
        }
    }
}

/// Runs a watch until nobody listens any more.
pub(crate) async fn watch(host: Host, role: &'static str, watch: Watch, tell: mpsc::Sender<News>) {
    let selector = match &watch.scope {
        Scope::All => String::new(),
        Scope::OnNode(node) => format!("spec.nodeName={node}"),
        Scope::Named(name) => format!("metadata.name={name}"),
    };
    let mut watcher = Watcher::new(host, role, watch.kind, tell);
    watcher.selector = selector;
    watcher.run(None).await;
}

/// Reads one object and tells of it, trying until that is done. Returns where in the history that was;
/// nothing where nobody listens any more.
pub(crate) async fn read(
    host: Host,
    role: &'static str,
    followed: Followed,
    tell: mpsc::Sender<News>,
) -> Option<String> {
    Watcher::of_one(host, role, followed, tell).first().await
}

/// Tells what happens to one object after `version`, until nobody listens any more.
pub(crate) async fn follow(
    host: Host,
    role: &'static str,
    followed: Followed,
    version: String,
    tell: mpsc::Sender<News>,
) {
    let mut watcher = Watcher::of_one(host, role, followed, tell);
    watcher.run(Some(version)).await;
}

struct Watcher {
    host: Host,
    of: OfWatch,
    kind: Kind,
    collection: String,
    selector: String,
    tell: mpsc::Sender<News>,
    was_listed: bool,
    was_absent: bool,
    /// The next list is taken without pages.
    whole: bool,
    /// The one object, where it is not a kind that is watched.
    followed: Option<Followed>,
}

impl Watcher {
    /// For all objects of the kind.
    fn new(host: Host, role: &'static str, kind: Kind, tell: mpsc::Sender<News>) -> Self {
        Self {
            of: OfWatch {
                role,
                resource: kind.plural(),
            },
            collection: api::collection(kind, None),
            selector: String::new(),
            kind,
            was_listed: false,
            was_absent: false,
            whole: false,
            followed: None,
            host,
            tell,
        }
    }

    /// For one object.
    fn of_one(
        host: Host,
        role: &'static str,
        followed: Followed,
        tell: mpsc::Sender<News>,
    ) -> Self {
        let key = &followed.key;
        let mut watcher = Self::new(host, role, key.kind, tell);
        watcher.collection = api::collection(key.kind, key.namespace.as_ref());
        watcher.selector = format!("metadata.name={}", key.name);
        watcher.followed = Some(followed);
        watcher
    }

    /// Lists, until that succeeds.
    async fn first(&mut self) -> Option<String> {
        let mut backoff = self.backoff();
        loop {
            match self.list().await {
                Ok(version) => return Some(version),
                Err(trouble) => self.after(trouble, &mut backoff).await.ok()?,
            };
        }
    }

    /// Lists unless it knows where in the history it is, and watches, again and again.
    async fn run(&mut self, mut version: Option<String>) {
        let mut backoff = self.backoff();
        loop {
            let result = match &mut version {
                None => self.list().await.map(|listed| version = Some(listed)),
                Some(version) => {
                    let before = version.clone();
                    let result = self.follow(version).await;
                    // Only a watch that works is proof: lists succeed where every watch fails.
                    if result.is_ok() || *version != before {
                        backoff.reset();
                    }
                    result
                }
            };
            if let Err(trouble) = result {
                match self.after(trouble, &mut backoff).await {
                    Ok(Next::AsBefore) => {}
                    Ok(Next::List) => version = None,
                    Err(Over) => return,
                }
            }
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(FIRST_RETRY, self.host.timing().watch_retry)
    }

    /// Tells of trouble, and waits as long as it takes to try again.
    async fn after(&mut self, trouble: Trouble, backoff: &mut Backoff) -> Result<Next, Over> {
        let OfWatch { role, resource } = self.of;
        match trouble {
            Trouble::Over => Err(Over),
            Trouble::Relist(why) => {
                tracing::info!(role, resource, why, "listing again");
                // A server that always says so must not be asked all the time.
                sleep(backoff.next()).await;
                Ok(Next::List)
            }
            Trouble::Absent => {
                self.absent().await?;
                sleep(ABSENT_RETRY).await;
                Ok(Next::AsBefore)
            }
            Trouble::Failed { problem, after } => {
                let wait = backoff.next().max(after);
                tracing::warn!(
                    role,
                    resource,
                    problem,
                    ?wait,
                    "a watch failed and is tried again"
                );
                self.host.health().failed(role, resource, problem);
                let failures = &self.host.metrics().watch_failures;
                failures.get_or_create(&self.of).inc();
                sleep(wait).await;
                Ok(Next::AsBefore)
            }
        }
    }

    /// Takes a consistent list and tells it as one. Returns its place in the history.
    async fn list(&mut self) -> Result<String, Trouble> {
        let _turn = match &mut self.followed {
            Some(followed) => followed.turn_to_read().await,
            None => None,
        };
        let mut objects = Vec::new();
        let mut next: Option<String> = None;
        let (limit, patience) = match std::mem::take(&mut self.whole) {
            false => (Some(PAGE), self.host.timing().request),
            true => (None, self.host.timing().request * WHOLE),
        };
        loop {
            let path = page_path(&self.collection, &self.selector, limit, next.as_deref());
            let body = match send(self.host.client(), &Call::get(path), patience).await {
                Answer::Ok(body) => body,
                // A list that takes longer than the API keeps its history: without pages it is
                // one look at the store.
                Answer::Refused(StatusCode::GONE, _) if next.is_some() => {
                    self.whole = true;
                    return Err(Trouble::Relist("the list expired between two pages"));
                }
                answer => return Err(self.judge(answer).await),
            };
            let page: Page<'_> = serde_json::from_slice(&body)
                .map_err(|error| Trouble::failed(format!("the list cannot be read: {error}")))?;
            objects.extend(page.items().filter_map(|item| self.read(item)));
            next = page.next();
            self.heard(Instant::now());
            if next.is_some() {
                continue;
            }
            let version = page
                .version()
                .ok_or_else(|| Trouble::failed("the list has no resourceVersion".to_owned()))?;
            self.tell(Instant::now(), self.all(objects)).await?;
            self.listed();
            return Ok(version);
        }
    }

    /// Why a list or the start of a watch failed.
    async fn judge(&self, answer: Answer) -> Trouble {
        let problem = format!("{} was not found", self.collection);
        match answer {
            // The core group is in every Kubernetes API, and a kind that was there is not taken
            // away: then this is a server in trouble, or none of Kubernetes.
            Answer::NoSuchPath(_) if self.kind.group().is_empty() || self.was_listed => {
                Trouble::failed(problem)
            }
            Answer::NoSuchPath(_) => {
                let patience = self.host.timing().request;
                match is_served(self.host.client(), self.kind, patience).await {
                    Ok(false) => Trouble::Absent,
                    Ok(true) => Trouble::failed(format!("{problem}, though the API lists it")),
                    Err(why) => Trouble::failed(format!(
                        "{problem}, and what the API serves cannot be read: {why}"
                    )),
                }
            }
            Answer::Missing => Trouble::failed(problem),
            Answer::Refused(StatusCode::GONE, _) => Trouble::Relist("the history was compacted"),
            Answer::Refused(StatusCode::FORBIDDEN, message) => Trouble::failed(format!(
                "forbidden: {message}. Grant get, list and watch on {}",
                self.of.resource
            )),
            Answer::Refused(code, message) => Trouble::failed(format!("{message} ({code})")),
            Answer::Failed(failure) => Trouble::Failed {
                problem: failure.message,
                after: failure.after.unwrap_or_default(),
            },
            Answer::Ok(_) | Answer::Conflict => Trouble::failed("unexpected answer".to_owned()),
        }
    }

    /// Tells what happens after `version`, and moves it along, until the server ends the watch as
    /// it was asked to.
    async fn follow(&mut self, version: &mut String) -> Result<(), Trouble> {
        let timing = *self.host.timing();
        let call = Call::get(self.watch_path(version, timing.watch));
        let body = match open(self.host.client(), &call, timing.request).await {
            Ok(body) => body,
            Err(answer) => return Err(self.judge(answer).await),
        };
        let mut lines = Lines::new(body);
        let patience = timing.watch + MARGIN;
        let mut heard = Instant::now();
        self.heard(heard);
        // One timer for all lines: thousands come while it runs.
        let mut timer = pin!(sleep_until(heard + patience));
        let mut silent = true;
        loop {
            let line = tokio::select! {
                biased;
                line = lines.next() => line,
                () = &mut timer => {
                    if heard + patience <= Instant::now() {
                        // Dead, or the API was restored to an earlier state and waits to get here again.
                        return Err(Trouble::Relist("the watch fell silent"));
                    }
                    timer.as_mut().reset(heard + patience);
                    continue;
                }
            };
            heard = Instant::now();
            let Some(line) = line.map_err(Trouble::failed)? else {
                if silent {
                    // Servers send a bookmark before they end a watch. Where this one does not,
                    // the place in the history grows old.
                    return Err(Trouble::Relist("the watch ended without a word"));
                }
                return Ok(());
            };
            let Ok(Line { kind, object }) = serde_json::from_slice(&line) else {
                return Err(Trouble::Relist("the watch sent a line that is no event"));
            };
            let said = match kind {
                "ADDED" | "MODIFIED" => match self.read(object) {
                    Some(object) => {
                        let version = object.resource_version().to_string();
                        heard = self.tell(heard, Told::Seen(object)).await?;
                        version
                    }
                    None => version_of(object),
                },
                "DELETED" => match self.read(object) {
                    Some(object) => {
                        let version = object.resource_version().to_string();
                        let told = Told::Deleted(object.key(), object.uid().clone());
                        heard = self.tell(heard, told).await?;
                        version
                    }
                    // That it is gone can be told of any object.
                    None => {
                        let Stub { metadata } = stub(object);
                        if !metadata.uid.is_empty() {
                            let key = metadata.key(self.kind);
                            let told = Told::Deleted(key, metadata.uid.as_str().into());
                            heard = self.tell(heard, told).await?;
                        }
                        metadata.resource_version
                    }
                },
                "BOOKMARK" => version_of(object),
                _ => return Err(told_off(object)),
            };
            self.heard(heard);
            if silent && is_older(&said, version) {
                return Err(Trouble::Relist("the history went back"));
            }
            silent = false;
            // An event that is delivered twice does not take the watch back.
            if !said.is_empty() && !is_older(&said, version) {
                *version = said;
            }
        }
    }

    fn watch_path(&self, version: &str, lasts: Duration) -> String {
        let path = page_path(&self.collection, &self.selector, None, None);
        let and = if self.selector.is_empty() { '?' } else { '&' };
        format!(
            "{path}{and}watch=true&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}",
            lasts.as_secs().max(1),
            escaped(version),
        )
    }

    /// Reads an object; one that cannot be read is named and left out.
    fn read(&self, json: &RawValue) -> Option<Object> {
        match self.kind.read(json.get().as_bytes()) {
            Ok(object) => Some(object),
            Err(error) => {
                let Stub { metadata } = stub(json);
                tracing::error!(
                    role = self.of.role, kind = self.kind.name(),
                    namespace = metadata.namespace, name = metadata.name, %error,
                    "an object cannot be read and is left out"
                );
                self.host.metrics().unreadable.get_or_create(&self.of).inc();
                None
            }
        }
    }

    /// Tells of a kind that the API lacks as of one without objects: its feature is off, and
    /// nothing waits for it.
    async fn absent(&mut self) -> Result<(), Over> {
        self.heard(Instant::now());
        if std::mem::replace(&mut self.was_absent, true) {
            return Ok(());
        }
        tracing::warn!(
            role = self.of.role,
            resource = self.of.resource,
            "this API has no {}: what depends on them is off",
            self.kind.name()
        );
        self.tell(Instant::now(), self.all(Vec::new())).await?;
        let OfWatch { role, resource } = self.of;
        self.host.health().listed(role, resource);
        Ok(())
    }

    /// What a consistent list says.
    fn all(&self, mut objects: Vec<Object>) -> Told {
        match &self.followed {
            Some(followed) => Told::Found(followed.key.clone(), objects.pop()),
            None => Told::Listed(self.kind, objects),
        }
    }

    /// Tells what was heard `at` this time; returns when that was done.
    async fn tell(&self, at: Instant, told: Told) -> Result<Instant, Over> {
        let of = self.followed.as_ref().map(|followed| followed.number);
        if tracing::enabled!(tracing::Level::TRACE)
            && let Some(key) = told.key()
        {
            tracing::trace!(role = self.of.role, %key, "heard");
        }
        match self.tell.try_reserve() {
            Ok(place) => {
                place.send(News { at, of, told });
                Ok(at)
            }
            Err(_) => {
                let place = self.tell.reserve().await.map_err(|_| Over)?;
                place.send(News { at, of, told });
                Ok(Instant::now())
            }
        }
    }

    fn heard(&self, at: Instant) {
        let OfWatch { role, resource } = self.of;
        self.host.health().heard(role, resource, at);
    }

    fn listed(&mut self) {
        self.was_listed = true;
        self.host.health().listed(self.of.role, self.of.resource);
        self.host.metrics().lists.get_or_create(&self.of).inc();
    }
}

/// What even an object that cannot be read has.
#[derive(Default, Deserialize)]
struct Stub {
    metadata: StubMeta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StubMeta {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
}

impl StubMeta {
    fn key(&self, kind: Kind) -> ObjectKey {
        ObjectKey {
            kind,
            namespace: kind.namespaced().then(|| self.namespace.as_str().into()),
            name: self.name.as_str().into(),
        }
    }
}

/// What an error within a watch means.
fn told_off(status: &RawValue) -> Trouble {
    match serde_json::from_str::<Status>(status.get()) {
        Ok(status) if status.code == 410 => Trouble::Relist("the history was compacted"),
        Ok(status) => Trouble::failed(status.message),
        Err(_) => Trouble::failed(status.get().to_owned()),
    }
}

fn version_of(json: &RawValue) -> String {
    stub(json).metadata.resource_version
}

fn stub(json: &RawValue) -> Stub {
    serde_json::from_str(json.get()).unwrap_or_default()
}

/// Whether a version comes before another in the history; versions of one kind can be compared as
/// numbers (B3).
fn is_older(one: &str, other: &str) -> bool {
    matches!((one.parse::<u64>(), other.parse::<u64>()), (Ok(one), Ok(other)) if one < other)
}
