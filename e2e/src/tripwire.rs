//! A client that does something else just before or just after a certain request: the moment at
//! which an API is killed, or another client writes the same object.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::Value;

use crate::intercept;

/// A write that passes, as the wire sees it.
#[derive(Debug, Clone)]
pub struct Passing {
    /// `PATCH /api/v1/persistentvolumes/a/status`, without the query.
    pub line: String,
    /// The body.
    pub body: Value,
}

/// When the action takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// Before the request is sent.
    Before,
    /// After it took effect; its answer is lost.
    After,
}

type Action = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;
type Trigger = Box<dyn Fn(&Passing) -> bool + Send + Sync>;

/// The wire, and what passed it. Clones are the same wire.
#[derive(Clone)]
pub struct Tripwire {
    inner: kube::Client,
    state: Arc<Mutex<State>>,
}

struct State {
    trigger: Trigger,
    timing: Timing,
    action: Option<Action>,
    passed: Vec<Passing>,
    reads: Vec<String>,
}

impl Tripwire {
    /// Runs `action` once, at the first request that `trigger` knows.
    pub fn new<F>(
        inner: kube::Client,
        timing: Timing,
        trigger: impl Fn(&Passing) -> bool + Send + Sync + 'static,
        action: impl FnOnce() -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let state = State {
            trigger: Box::new(trigger),
            timing,
            action: Some(Box::new(move || Box::pin(action()))),
            passed: Vec::new(),
            reads: Vec::new(),
        };
        Self {
            inner,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The client whose requests pass the wire.
    pub fn client(&self) -> kube::Client {
        let wire = self.clone();
        intercept::client(move |request| wire.clone().send(request))
    }

    /// The writes so far, in the order in which they were sent.
    pub fn passed(&self) -> Vec<Passing> {
        self.lock().passed.clone()
    }

    /// The reads so far: method and path, without the query.
    pub fn reads(&self) -> Vec<String> {
        self.lock().reads.clone()
    }

    /// Whether the action took place.
    pub fn tripped(&self) -> bool {
        self.lock().action.is_none()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a write; if it is the one, the action and when.
    fn note(&self, passing: Passing) -> Option<(Timing, Action)> {
        let mut state = self.lock();
        let hit = (state.trigger)(&passing);
        state.passed.push(passing);
        let action = if hit { state.action.take() } else { None };
        action.map(|action| (state.timing, action))
    }

    async fn send(self, request: http::Request<Body>) -> Result<http::Response<Body>, kube::Error> {
        if request.method() == http::Method::GET {
            let line = format!("GET {}", request.uri().path());
            self.lock().reads.push(line);
            return self.inner.send(request).await;
        }
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await?.to_bytes();
        let passing = Passing {
            line: format!("{} {}", parts.method, parts.uri.path()),
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
        };
        let hit = self.note(passing);
        let request = http::Request::from_parts(parts, Body::from(bytes.to_vec()));
        match hit {
            None => self.inner.send(request).await,
            Some((Timing::Before, action)) => {
                action().await;
                self.inner.send(request).await
            }
            Some((Timing::After, action)) => {
                let answer = self.inner.send(request).await?;
                action().await;
                drop(answer);
                let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                Err(kube::Error::Service(Box::new(lost)))
            }
        }
    }
}
