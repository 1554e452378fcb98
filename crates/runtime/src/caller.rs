//! Sends the requests of effects: only while the lease is held, in turn, and again where that may
//! help.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::api::{Answer, Call, Failure, send};
use crate::backoff::Backoff;
use crate::gate::Gate;
use crate::metrics::{Metrics, OfReason};
use crate::users::PodLists;
use crate::{Host, Timing};

/// An effect is not held up for longer between two tries: then it is reported as failed, and its
/// object rests for as long as the server asked.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// Sends requests.
#[derive(Clone)]
pub(crate) struct Caller {
    host: Host,
    role: &'static str,
    gate: Gate,
    turns: Option<Turns>,
    pods: Arc<PodLists>,
}

/// Effects take turns. Nobody waits for the next try during a turn: an object that cannot be written
/// must not keep others from being written.
#[derive(Clone)]
struct Turns {
    permits: Arc<Semaphore>,
    /// Whether this effect had a turn yet.
    begun: Arc<AtomicBool>,
}

/// How often something is tried: not too often, and not for long, for what is never answered would
/// hold up its object for minutes.
pub(crate) struct Tries {
    left: u32,
    until: Instant,
    backoff: Backoff,
}

impl Tries {
    /// How long to wait before the next try, if there is to be one.
    pub(crate) fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        (Instant::now() <= self.until).then(|| self.backoff.next())
    }
}

/// A turn: requests can be sent one after the other, each once.
pub(crate) struct Slot<'a> {
    caller: &'a Caller,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Slot<'_> {
    pub(crate) fn pod_lists(&self) -> &PodLists {
        &self.caller.pods
    }

    /// Sends a request, if the lease is held.
    pub(crate) async fn send(&self, call: &Call) -> Answer {
        let Some(patience) = self.caller.gate.open_for() else {
            let message = "the lease is not held".to_owned();
            return Answer::Failed(Failure::last("lease", message));
        };
        let patience = patience.min(self.caller.timing().request);
        match send(self.caller.host.client(), call, patience).await {
            Answer::NoSuchPath(message) => Answer::Failed(Failure::new("path", message)),
            answer => answer,
        }
    }
}

impl Caller {
    pub(crate) fn new(host: Host, role: &'static str, gate: Gate) -> Self {
        Self {
            host,
            role,
            gate,
            turns: None,
            pods: Arc::default(),
        }
    }

    /// A caller for one effect, which takes turns with others. Once the permits are closed nothing
    /// begins, and what had begun goes on.
    pub(crate) fn in_turn(&self, permits: Arc<Semaphore>) -> Self {
        let begun = Arc::default();
        Self {
            turns: Some(Turns { permits, begun }),
            ..self.clone()
        }
    }

    /// Whether there was a turn.
    pub(crate) fn has_begun(&self) -> bool {
        let turns = self.turns.as_ref();
        turns.is_none_or(|turns| turns.begun.load(Ordering::Relaxed))
    }

    pub(crate) fn role(&self) -> &'static str {
        self.role
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        self.host.metrics()
    }

    pub(crate) fn timing(&self) -> &Timing {
        self.host.timing()
    }

    /// The waits between the tries of something that begins now.
    pub(crate) fn tries(&self) -> Tries {
        let timing = self.timing();
        Tries {
            left: timing.tries.saturating_sub(1),
            until: Instant::now() + timing.request,
            backoff: Backoff::new(FIRST_RETRY, timing.write_retry),
        }
    }

    /// Waits for a turn.
    pub(crate) async fn slot(&self) -> Result<Slot<'_>, Failure> {
        let permit = match &self.turns {
            None => None,
            Some(turns) => match turns.permits.clone().acquire_owned().await {
                Ok(permit) => {
                    turns.begun.store(true, Ordering::Relaxed);
                    Some(permit)
                }
                Err(_) if self.has_begun() => None,
                Err(_) => return Err(Failure::last("shutdown", "the process ends".to_owned())),
            },
        };
        Ok(Slot {
            caller: self,
            _permit: permit,
        })
    }

    /// Sends a request until the answer is final or the tries are used up, each in a turn of its own.
    pub(crate) async fn call(&self, call: &Call) -> Answer {
        let mut tries = self.tries();
        loop {
            let answer = match self.slot().await {
                Ok(slot) => slot.send(call).await,
                Err(failure) => Answer::Failed(failure),
            };
            let Answer::Failed(failure) = answer else {
                return answer;
            };
            if !self.rest(&call.path, &failure, &mut tries).await {
                return Answer::Failed(failure);
            }
        }
    }

    /// Waits after a failed try; `false`, at once, where there is to be no other.
    pub(crate) async fn rest(&self, path: &str, failure: &Failure, tries: &mut Tries) -> bool {
        let Some(wait) = tries.next() else {
            return false;
        };
        let wait = wait.max(failure.after.unwrap_or_default());
        if failure.is_last || wait > LONGEST_WAIT {
            return false;
        }
        tracing::debug!(
            role = self.role,
            path,
            reason = failure.reason,
            message = failure.message,
            ?wait,
            "sending a request again"
        );
        let reason = OfReason {
            role: self.role,
            reason: failure.reason,
        };
        self.metrics().retries.get_or_create(&reason).inc();
        tokio::time::sleep(wait).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use kube::Client;
    use kube::client::Body;

    use super::*;

    /// A client whose every request is an error of the test.
    fn nobody_there() -> Client {
        #[derive(Clone)]
        struct Nobody;
        impl tower_service::Service<Request<Body>> for Nobody {
            type Response = http::Response<Body>;
            type Error = kube::Error;
            type Future = std::future::Ready<Result<Self::Response, Self::Error>>;
            fn poll_ready(
                &mut self,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Result<(), Self::Error>> {
                std::task::Poll::Ready(Ok(()))
            }
            fn call(&mut self, request: Request<Body>) -> Self::Future {
                panic!("{} was sent", request.uri());
            }
        }
        Client::new(Nobody, "default")
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_once_the_lease_is_not_held() {
        let gate = Gate::until(Instant::now());
        let caller = Caller::new(Host::new(nobody_there()), "tester", gate);
        let answer = caller.call(&Call::get("/api".to_owned())).await;
        assert!(matches!(answer, Answer::Failed(f) if f.reason == "lease"));
    }
}
