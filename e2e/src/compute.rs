//! A Compute Engine API that behaves like the real one, as far as disks go: operations that go on after the
//! answer, are waited for and may fail late; refusals in its words; quotas; tokens from a metadata server.
//!
//! ```no_run
//! # async fn demo() -> anyhow::Result<()> {
//! use bitts_e2e::compute::Compute;
//!
//! let compute = Compute::start().await?;
//! compute.add_instance("n-1");
//! compute.add_disk("data");
//! println!("--compute-endpoint={}", compute.endpoint());
//! # Ok(()) }
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The only project there is,
pub const PROJECT: &str = "shop";
/// and its only zone.
pub const ZONE: &str = "us-east1-b";

/// How long a wait for an operation is held back; the real API takes two minutes.
const HELD: Duration = Duration::from_secs(2);

/// What comes of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// What it asks for.
    #[default]
    Fine,
    /// Nothing but this status and reason.
    Refused(u16, &'static str),
    /// It is done, and the connection breaks before the answer.
    Lost,
    /// Its operation begins, and fails in the end with this code.
    FailsLate(&'static str),
}

/// A disk that comes to a machine or goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// It comes.
    pub attaches: bool,
    /// The disk.
    pub disk: String,
    /// The machine.
    pub instance: String,
    /// As what the machine's guest finds it: `/dev/disk/by-id/google-<this>`.
    pub device_name: String,
    /// Never to be written there.
    pub read_only: bool,
}

type Decide = Box<dyn FnMut(&str) -> Turn + Send>;
type Watch = Box<dyn FnMut(&Move) -> anyhow::Result<()> + Send>;

struct Operation {
    kind: &'static str,
    step: Move,
    due: Instant,
    is_done: bool,
    error: Option<(String, String)>,
}

struct Attached {
    device_name: String,
    read_only: bool,
}

struct State {
    /// The machines that have it, by disk.
    disks: BTreeMap<String, BTreeMap<String, Attached>>,
    /// Their status, by machine.
    instances: BTreeMap<String, &'static str>,
    operations: Vec<Operation>,
    delay: Duration,
    token: u32,
    decide: Decide,
    begins: Watch,
    moves: Watch,
    requests: Vec<String>,
    broken: Vec<String>,
}

/// A running API.
pub struct Compute {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Drop for Compute {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A refusal, with what the real API says.
struct Refused(u16, &'static str, String);

impl Compute {
    /// Starts one without machines and disks, whose operations end at once.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State {
            disks: BTreeMap::new(),
            instances: BTreeMap::new(),
            operations: Vec::new(),
            delay: Duration::ZERO,
            token: 1,
            decide: Box::new(|_| Turn::Fine),
            begins: Box::new(|_| Ok(())),
            moves: Box::new(|_| Ok(())),
            requests: Vec::new(),
            broken: Vec::new(),
        }));
        let shared = state.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = shared.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let state = state.clone();
                        async move { serve(&state, request).await }
                    });
                    // A connection that breaks is the client's to notice.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self {
            state,
            address,
            server,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// What `--compute-endpoint` is told.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}/compute/v1", self.address)
    }

    /// What `GCE_METADATA_HOST` is told.
    #[must_use]
    pub fn metadata_host(&self) -> String {
        self.address.to_string()
    }

    /// A machine that runs.
    pub fn add_instance(&self, name: &str) {
        self.state().instances.insert(name.to_owned(), "RUNNING");
    }

    /// It runs no more, and keeps its disks.
    pub fn stop_instance(&self, name: &str) {
        self.state().instances.insert(name.to_owned(), "TERMINATED");
    }

    /// A disk that nobody has.
    pub fn add_disk(&self, name: &str) {
        self.state().disks.insert(name.to_owned(), BTreeMap::new());
    }

    /// Somebody attaches a disk by hand, or detaches it.
    pub fn give(&self, disk: &str, instance: &str, has_it: bool) {
        let mut state = self.state();
        let users = state.disks.entry(disk.to_owned()).or_default();
        if has_it {
            users.insert(
                instance.to_owned(),
                Attached {
                    device_name: disk.to_owned(),
                    read_only: false,
                },
            );
        } else {
            users.remove(instance);
        }
    }

    /// The machines that have a disk.
    #[must_use]
    pub fn users(&self, disk: &str) -> Vec<String> {
        let state = self.state();
        let users = state.disks.get(disk).into_iter().flatten();
        users.map(|(instance, _)| instance.clone()).collect()
    }

    /// How long operations take.
    pub fn take(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// The tokens that were given are good no more.
    pub fn revoke(&self) {
        self.state().token += 1;
    }

    /// What comes of each request from now on, by its method and path.
    pub fn decide(&self, decide: impl FnMut(&str) -> Turn + Send + 'static) {
        self.state().decide = Box::new(decide);
    }

    /// Is told of each operation when it begins; what it does not like is an entry of [`Self::broken`].
    pub fn on_begin(&self, watch: impl FnMut(&Move) -> anyhow::Result<()> + Send + 'static) {
        self.state().begins = Box::new(watch);
    }

    /// Is told of each disk that comes or goes, when it does.
    pub fn on_move(&self, watch: impl FnMut(&Move) -> anyhow::Result<()> + Send + 'static) {
        self.state().moves = Box::new(watch);
    }

    /// All that was asked, as method and path.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    /// What must never be.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        self.state().broken.clone()
    }

    /// Whether no operation is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let mut state = self.state();
        state.go_on();
        state.operations.iter().all(|operation| operation.is_done)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(
    state: &Mutex<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("", |path| path.as_str());
    let call = format!("{} {target}", head.method);
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Err(std::io::Error::other(error)),
    };
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if let Some(answer) = token(state, &head) {
        return Ok(answer);
    }
    let turn = {
        let mut state = lock(state);
        state.requests.push(call.clone());
        (state.decide)(&call)
    };
    if let Turn::Refused(status, reason) = turn {
        return Ok(refused(&Refused(
            status,
            reason,
            format!("{reason} (injected)"),
        )));
    }
    let path = head
        .uri
        .path()
        .trim_start_matches("/compute/v1/")
        .to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    let parts = match parts[..] {
        ["projects", PROJECT, "zones", ZONE, ref rest @ ..] => rest.to_vec(),
        _ => Vec::new(),
    };
    let query: BTreeMap<String, String> = pairs(head.uri.query().unwrap_or_default());
    let answered = match (head.method.as_str(), &parts[..]) {
        ("POST", ["operations", name, "wait"]) => wait(state, name).await,
        (method, parts) => lock(state).answer(method, parts, &query, &body, &turn),
    };
    if turn == Turn::Lost {
        return Err(std::io::Error::other("lost"));
    }
    Ok(match answered {
        Ok(value) => answer(200, &value),
        Err(why) => refused(&why),
    })
}

/// The metadata server's answer, or that of an API that does not know who is asking.
fn token(state: &Mutex<State>, head: &http::request::Parts) -> Option<Response<Full<Bytes>>> {
    let token = format!("token-{}", lock(state).token);
    if head.uri.path().ends_with("/service-accounts/default/token") {
        if head
            .headers
            .get("Metadata-Flavor")
            .is_none_or(|flavor| flavor != "Google")
        {
            return Some(answer(
                403,
                &json!("Missing Metadata-Flavor:Google header."),
            ));
        }
        let token = json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"});
        return Some(answer(200, &token));
    }
    let given = head.headers.get(header::AUTHORIZATION);
    let known = given.is_some_and(|given| *given == format!("Bearer {token}"));
    let unknown = || Refused(401, "authError", "Invalid Credentials".to_owned());
    (!known).then(|| refused(&unknown()))
}

fn pairs(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn answer(status: u16, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    response
}

fn refused(Refused(status, reason, message): &Refused) -> Response<Full<Bytes>> {
    let error = json!({"error": {"code": status, "message": message,
        "errors": [{"message": message, "domain": "global", "reason": reason}]}});
    answer(*status, &error)
}

/// Holds the answer back while the operation goes on, for a while.
async fn wait(state: &Mutex<State>, name: &str) -> Result<Value, Refused> {
    let until = Instant::now() + HELD;
    loop {
        {
            let mut state = lock(state);
            state.go_on();
            let index = index(name);
            let found = index.and_then(|index| Some((index, state.operations.get(index)?)));
            let (index, operation) = found.ok_or_else(|| not_found("operations", name))?;
            if operation.is_done || Instant::now() >= until {
                return Ok(operation.show(index));
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn index(name: &str) -> Option<usize> {
    name.strip_prefix("operation-")?.parse().ok()
}

fn not_found(kind: &str, name: &str) -> Refused {
    let message = format!("The resource '{}' was not found", link(kind, name));
    Refused(404, "notFound", message)
}

fn link(kind: &str, name: &str) -> String {
    format!("projects/{PROJECT}/zones/{ZONE}/{kind}/{name}")
}

fn url(kind: &str, name: &str) -> String {
    format!("https://www.googleapis.com/compute/v1/{}", link(kind, name))
}

impl Operation {
    fn show(&self, index: usize) -> Value {
        let mut shown = json!({
            "kind": "compute#operation",
            "name": format!("operation-{index}"),
            "operationType": self.kind,
            "targetLink": url("instances", &self.step.instance),
            "status": if self.is_done { "DONE" } else { "RUNNING" },
        });
        if let (true, Some((code, message))) = (self.is_done, &self.error) {
            shown["error"] = json!({"errors": [{"code": code, "message": message}]});
        }
        shown
    }
}

impl State {
    /// Ends what is due.
    fn go_on(&mut self) {
        let now = Instant::now();
        for index in 0..self.operations.len() {
            let operation = &self.operations[index];
            if operation.is_done || operation.due > now {
                continue;
            }
            let step = operation.step.clone();
            let mut error = operation.error.clone();
            if error.is_none()
                && let Err(why) = self.carry_out(&step)
            {
                error = Some(why);
            }
            let operation = &mut self.operations[index];
            operation.is_done = true;
            operation.error = error;
        }
    }

    fn carry_out(&mut self, step: &Move) -> Result<(), (String, String)> {
        if step.attaches
            && let Err(Refused(_, _, message)) = self.may_attach(step)
        {
            return Err(("RESOURCE_IN_USE_BY_ANOTHER_RESOURCE".to_owned(), message));
        }
        (self.moves)(step).map_err(|why| ("INTERNAL_ERROR".to_owned(), format!("{why:#}")))?;
        let users = self.disks.entry(step.disk.clone()).or_default();
        if step.attaches {
            users.insert(
                step.instance.clone(),
                Attached {
                    device_name: step.device_name.clone(),
                    read_only: step.read_only,
                },
            );
        } else {
            users.remove(&step.instance);
        }
        Ok(())
    }

    fn may_attach(&self, step: &Move) -> Result<(), Refused> {
        let users = self.disks.get(&step.disk);
        let users = users.ok_or_else(|| not_found("disks", &step.disk))?;
        let in_the_way = users
            .iter()
            .find(|(user, how)| **user == step.instance || !(step.read_only && how.read_only));
        match in_the_way {
            None => Ok(()),
            Some((user, _)) => Err(Refused(
                400,
                "resourceInUseByAnotherResource",
                format!(
                    "The disk resource '{}' is already being used by '{}'",
                    link("disks", &step.disk),
                    link("instances", user)
                ),
            )),
        }
    }

    fn answer(
        &mut self,
        method: &str,
        parts: &[&str],
        query: &BTreeMap<String, String>,
        body: &Value,
        turn: &Turn,
    ) -> Result<Value, Refused> {
        self.go_on();
        match (method, parts) {
            ("GET", ["disks", name]) => {
                let users = self
                    .disks
                    .get(*name)
                    .ok_or_else(|| not_found("disks", name))?;
                let users: Vec<String> = users.keys().map(|user| url("instances", user)).collect();
                let mut disk = json!({"name": name, "status": "READY"});
                // The real one leaves an empty list out.
                if !users.is_empty() {
                    disk["users"] = json!(users);
                }
                Ok(disk)
            }
            ("GET", ["instances", name]) => {
                let status = self.instances.get(*name);
                let status = status.ok_or_else(|| not_found("instances", name))?;
                let boot =
                    json!({"source": url("disks", name), "deviceName": "boot", "boot": true});
                let has = self.disks.iter().filter_map(|(disk, users)| {
                    let how = users.get(*name)?;
                    let mode = if how.read_only {
                        "READ_ONLY"
                    } else {
                        "READ_WRITE"
                    };
                    Some(
                        json!({"source": url("disks", disk), "deviceName": how.device_name,
                        "mode": mode, "boot": false}),
                    )
                });
                let disks: Vec<Value> = [boot].into_iter().chain(has).collect();
                Ok(json!({"name": name, "status": status, "disks": disks}))
            }
            ("GET", ["operations"]) => {
                let all = self.operations.iter().enumerate();
                let running = all.filter(|(_, operation)| !operation.is_done);
                let items: Vec<Value> = running
                    .map(|(index, operation)| operation.show(index))
                    .collect();
                Ok(json!({"items": items}))
            }
            ("POST", ["instances", name, "attachDisk"]) => {
                let source = body["source"].as_str().unwrap_or_default();
                let disk = source.rsplit('/').next().unwrap_or_default();
                let step = Move {
                    attaches: true,
                    disk: disk.to_owned(),
                    instance: (*name).to_owned(),
                    device_name: body["deviceName"].as_str().unwrap_or_default().to_owned(),
                    read_only: body["mode"] == "READ_ONLY",
                };
                self.has_instance(name)?;
                self.may_attach(&step)?;
                let coming = self.operations.iter().any(|operation| {
                    let other = &operation.step;
                    !operation.is_done
                        && other.attaches
                        && other.disk == step.disk
                        && other.instance != step.instance
                        && !(other.read_only && step.read_only)
                });
                if coming {
                    self.broken.push(format!(
                        "{disk} is on its way elsewhere, and asked for on {name}"
                    ));
                }
                Ok(self.begin("attachDisk", step, turn))
            }
            ("POST", ["instances", name, "detachDisk"]) => {
                self.has_instance(name)?;
                let device = query.get("deviceName").map_or("", String::as_str);
                let mut disks = self.disks.iter();
                let disk = disks.find(|(_, users)| {
                    users
                        .get(*name)
                        .is_some_and(|how| how.device_name == device)
                });
                let (disk, _) = disk.ok_or_else(|| {
                    let message = format!("No attached disk found with device name '{device}'");
                    Refused(400, "invalid", message)
                })?;
                let step = Move {
                    attaches: false,
                    disk: disk.clone(),
                    instance: (*name).to_owned(),
                    device_name: device.to_owned(),
                    read_only: false,
                };
                Ok(self.begin("detachDisk", step, turn))
            }
            _ => Err(Refused(404, "notFound", format!("no such path: {parts:?}"))),
        }
    }

    fn has_instance(&self, name: &str) -> Result<(), Refused> {
        match self.instances.contains_key(name) {
            true => Ok(()),
            false => Err(not_found("instances", name)),
        }
    }

    fn begin(&mut self, kind: &'static str, step: Move, turn: &Turn) -> Value {
        if let Err(why) = (self.begins)(&step) {
            self.broken.push(format!("{why:#}"));
        }
        let error = match turn {
            Turn::FailsLate(code) => Some(((*code).to_owned(), "it failed (injected)".to_owned())),
            _ => None,
        };
        let index = self.operations.len();
        self.operations.push(Operation {
            kind,
            step,
            due: Instant::now() + self.delay,
            is_done: false,
            error,
        });
        self.operations[index].show(index)
    }
}
