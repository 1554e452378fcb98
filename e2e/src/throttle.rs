//! A client whose first requests of each kind are turned away with 429, as a server under load does,
//! and a record of who came back before time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::client::Body;
use serde_json::json;

use crate::intercept;

/// What is turned away. Clones are the same one.
#[derive(Clone)]
pub struct Throttle {
    inner: kube::Client,
    times: u32,
    wait: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// How often each line was turned away, and until when.
    turned_away: BTreeMap<String, (u32, Instant)>,
    early: Vec<String>,
    passed: usize,
    refused: usize,
}

impl Throttle {
    /// Turns each request away this many times, each time with this `Retry-After`, which is in whole
    /// seconds; requests are the same when they have the same method and path. Events pass.
    pub fn new(inner: kube::Client, times: u32, wait: Duration) -> Self {
        Self {
            inner,
            times,
            wait,
            state: Arc::default(),
        }
    }

    /// The client whose requests meet it.
    pub fn client(&self) -> kube::Client {
        let throttle = self.clone();
        intercept::client(move |request| throttle.clone().send(request))
    }

    /// The requests that came before the time that they had been told.
    pub fn early(&self) -> Vec<String> {
        self.lock().early.clone()
    }

    /// How many requests passed, and how many were turned away.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.passed, state.refused)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turns_away(&self, line: String) -> bool {
        let mut guard = self.lock();
        let state = &mut *guard;
        let now = Instant::now();
        let met = state.turned_away.get(&line).copied();
        if let Some((_, until)) = met
            && now < until
        {
            state.early.push(line.clone());
        }
        let times = met.map_or(0, |(times, _)| times);
        let refuse = times < self.times && !line.ends_with("/events");
        if refuse {
            state.turned_away.insert(line, (times + 1, now + self.wait));
            state.refused += 1;
        } else {
            state.turned_away.entry(line).and_modify(|met| met.1 = now);
            state.passed += 1;
        }
        refuse
    }

    async fn send(self, request: http::Request<Body>) -> Result<http::Response<Body>, kube::Error> {
        let line = format!("{} {}", request.method(), request.uri().path());
        if !self.turns_away(line) {
            return self.inner.send(request).await;
        }
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "message": "too many requests, please try again later",
            "reason": "TooManyRequests", "code": 429});
        http::Response::builder()
            .status(429)
            .header("retry-after", self.wait.as_secs())
            .body(Body::from(status.to_string().into_bytes()))
            .map_err(kube::Error::HttpError)
    }
}
