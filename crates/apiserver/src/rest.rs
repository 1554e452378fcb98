//! From a request to an answer.
//!
//! A request is read into a [`Call`], meets the faults, is executed under the store's lock by the file
//! of its verb, and its [`Reply`] is put into the form that the client accepts.

mod answer;
mod call;
mod create;
mod decode;
mod delete;
mod namespace;
mod params;
mod read;
mod update;
mod watch;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, request::Parts};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::body::Body;
use crate::discovery;
use crate::entropy::{Entropy, RunningClock};
use crate::faults::{Effect, Fault, FaultState, Requested};
use crate::kind::Kind;
use crate::rules::Cluster;
use crate::serve::Credentials;
use crate::status::Status;
use crate::store::{Key, State, Store, TableId};
use crate::trace::{Trace, Traced};
use crate::{Options, events, rules};

pub(crate) use answer::{Reply, refusal};
pub(crate) use call::{Call, Subresource, Verb};
pub(crate) use delete::{DeleteOptions, FOREGROUND, ORPHAN, is_done};

/// What `/version` says.
const GIT_VERSION: &str = "v1.37.2+bitts";

/// Namespaces that exist from the start, as on a real cluster.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// Ends the watches of one server when it stops. Travels as an extension of the request.
#[derive(Debug, Clone)]
pub(crate) struct Closing(pub(crate) CancellationToken);

/// The API behind all of its services.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) store: Store,
    pub(crate) faults: FaultState,
    pub(crate) trace: Trace,
    pub(crate) clock: RunningClock,
    pub(crate) entropy: Entropy,
    /// Made when the API is first served on a socket.
    credentials: OnceLock<Credentials>,
}

impl Core {
    pub(crate) fn new(options: Options) -> Self {
        let core = Self {
            store: Store::new(options.history),
            faults: FaultState::new(options.faults, options.seed.unwrap_or_default()),
            trace: Trace::new(options.trace),
            clock: RunningClock::new(options.clock),
            entropy: Entropy::new(options.seed),
            credentials: OnceLock::new(),
        };
        for name in NAMESPACES {
            let mut namespace = json!({
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {
                    "name": name,
                    "uid": core.entropy.uid(),
                    "creationTimestamp": core.clock.stamp(),
                },
            });
            // These fit their own rules; the tests look at them.
            let _ = rules::default("Namespace", &mut namespace);
            rules::prepare_create("Namespace", &mut namespace, &core.clock.stamp());
            core.store.write().put(namespaces(), namespace);
        }
        core
    }

    /// The certificate authority and token, the same for as long as the API lives.
    pub(crate) fn credentials(&self) -> Result<&Credentials, rcgen::Error> {
        if let Some(credentials) = self.credentials.get() {
            return Ok(credentials);
        }
        let credentials = Credentials::new()?;
        Ok(self.credentials.get_or_init(|| credentials))
    }

    /// Answers one request.
    pub(crate) async fn handle(self: Arc<Self>, parts: Parts, body: Bytes) -> Response<Body> {
        if let Some(response) = outside_resources(&parts) {
            return response;
        }
        match Call::read(&parts) {
            Ok(call) => self.answer(call, body, parts).await,
            Err(_) if !is_served_group(parts.uri.path()) => answer::bytes(
                StatusCode::NOT_FOUND,
                "text/plain; charset=utf-8",
                "404 page not found\n",
            ),
            Err(status) => answer::refusal(&status),
        }
    }

    async fn answer(self: Arc<Self>, call: Call, body: Bytes, parts: Parts) -> Response<Body> {
        let fault = self.faults.on_request(call.requested());
        let mut traced = Traced {
            verb: call.verb.name(),
            resource: call.resource(),
            namespace: call.namespace.clone(),
            name: call.name.clone(),
            code: 0,
            fault: fault.map(Fault::name),
        };
        if let Some(Fault::Delay(milliseconds)) = fault {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
        let closing = parts.extensions.get::<Closing>().cloned();
        let outcome = if strikes_before(fault) {
            Err(Status::internal("the request was not executed"))
        } else {
            Arc::clone(&self).execute(&call, &body, fault, closing)
        };
        let outcome = match struck_answer(fault, &call) {
            None => outcome,
            Some(Struck::Status(status)) => Err(status),
            Some(Struck::Cut) => {
                self.trace.add(traced);
                return Response::new(Body::cut());
            }
        };
        let response = match outcome {
            Ok(reply) => answer::response(reply, &call, &self.clock.stamp()),
            Err(status) => answer::refusal(&status),
        };
        traced.code = response.status().as_u16();
        self.trace.add(traced);
        response
    }

    fn execute(
        self: Arc<Self>,
        call: &Call,
        body: &Bytes,
        fault: Option<Fault>,
        closing: Option<Closing>,
    ) -> Result<Reply, Status> {
        match call.verb {
            Verb::Get => self.get(call),
            Verb::List => self.list(call, fault),
            Verb::Watch => self.watch(call, closing),
            Verb::Create => self.create(call, body),
            Verb::Update => self.update(call, body),
            Verb::Patch => self.patch(call, body),
            Verb::Delete => self.delete(call, body),
            Verb::DeleteCollection => self.delete_collection(call, body),
        }
    }
}

/// Whether the fault keeps the request from being executed.
fn strikes_before(fault: Option<Fault>) -> bool {
    match fault {
        None | Some(Fault::Delay(_) | Fault::StaleList(_)) => false,
        Some(Fault::Error(effect) | Fault::Timeout(effect) | Fault::Disconnect(effect)) => {
            effect == Effect::Before
        }
        Some(_) => true,
    }
}

enum Struck {
    Status(Status),
    Cut,
}

/// What the client sees instead of the real answer.
fn struck_answer(fault: Option<Fault>, call: &Call) -> Option<Struck> {
    let status = match fault? {
        Fault::Conflict => Status::modified(call.about()),
        Fault::TooManyRequests(seconds) => Status::too_many_requests(seconds),
        Fault::Forbidden => Status::forbidden(call.about(), "a fault rule asked for it"),
        Fault::Error(_) => Status::internal("a fault rule asked for it"),
        Fault::Timeout(_) => Status::timeout(
            "Timeout: request did not complete within requested timeout - context deadline exceeded",
        ),
        Fault::Expired => Status::expired("The resourceVersion for the provided list is too old."),
        Fault::Disconnect(_) => return Some(Struck::Cut),
        Fault::Delay(_) | Fault::StaleList(_) => return None,
        // These strike events of a watch, never a request.
        Fault::DropEvent
        | Fault::DuplicateEvent
        | Fault::Silence
        | Fault::Cut
        | Fault::End
        | Fault::ExpireWatch => return None,
    };
    Some(Struck::Status(status))
}

/// Health, version and discovery: what is not about stored objects.
fn outside_resources(parts: &Parts) -> Option<Response<Body>> {
    let path = parts.uri.path().trim_end_matches('/');
    let is_health = |root: &str| {
        path.strip_prefix(root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if ["/healthz", "/livez", "/readyz"].into_iter().any(is_health) {
        return Some(answer::bytes(
            StatusCode::OK,
            "text/plain; charset=utf-8",
            "ok",
        ));
    }
    if path == "/version" {
        let version = json!({
            "major": "1", "minor": "37", "gitVersion": GIT_VERSION, "gitCommit": "",
            "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64",
        });
        return Some(answer::json(StatusCode::OK, &version));
    }
    let accept = answer::header(&parts.headers, &http::header::ACCEPT);
    let (content_type, body) = discovery::respond(path, accept)?;
    Some(answer::bytes(StatusCode::OK, &content_type, body))
}

/// Whether a path lies below a group of resources. Elsewhere the API does not speak of objects.
fn is_served_group(path: &str) -> bool {
    let mut steps = path.split('/').filter(|step| !step.is_empty());
    match (steps.next(), steps.next()) {
        (Some("api"), _) => true,
        (Some("apis"), Some(group)) => crate::kind::ALL.iter().any(|kind| kind.group == group),
        _ => false,
    }
}

pub(crate) fn namespaces() -> TableId {
    table_of("", "namespaces")
}

fn table_of(group: &str, plural: &str) -> TableId {
    Kind::find(group, "v1", plural).map_or_else(|| TableId::of(&crate::kind::ALL[0]), TableId::of)
}

/// The object as this view of it looks.
pub(crate) fn view(kind: &Kind, object: &Arc<Value>) -> Arc<Value> {
    if kind.is_stored_view() {
        Arc::clone(object)
    } else {
        Arc::new(events::to_events_api(Value::clone(object)))
    }
}

/// The kind under whose name an object is stored; its rules apply.
pub(crate) fn stored_kind(kind: &'static Kind) -> &'static Kind {
    let stored = |other: &&Kind| (other.group, other.plural) == kind.stored_as;
    crate::kind::ALL.iter().find(stored).unwrap_or(kind)
}

/// What admission may look at.
impl Cluster for State {
    fn list(&self, plural: &str) -> Vec<Arc<Value>> {
        let Some(kind) = crate::kind::ALL.iter().find(|kind| kind.plural == plural) else {
            return Vec::new();
        };
        self.scan(TableId::of(kind), None, None)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let kind = crate::kind::ALL.iter().find(|kind| kind.plural == plural)?;
        State::get(self, TableId::of(kind), &Key::new(namespace, name)).cloned()
    }
}

impl Call {
    fn requested(&self) -> Requested<'_> {
        Requested {
            verb: self.verb.name(),
            resource: &self.resource,
            namespace: &self.namespace,
            name: &self.name,
        }
    }
}
