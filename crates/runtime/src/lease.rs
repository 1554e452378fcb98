//! Which process runs a role: leader election on a `coordination.k8s.io` Lease.
//!
//! Clocks of different machines are never compared. A candidate counts a lease's time from when it
//! saw the record change, on its own monotonic clock (as client-go does); the holder counts from
//! before it sent the renewal that succeeded. So the holder always stops first.

mod object;

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use self::object::{Record, Wire, now};
use crate::gate::Gate;
use crate::{Host, LeaseOptions};

/// Giving a lease back must not hold up the end of a process for long.
const RELEASE_PATIENCE: Duration = Duration::from_secs(2);

/// What a candidate last saw, and when it first saw exactly that.
#[derive(Clone, Debug)]
struct Observed {
    record: Record,
    since: Instant,
}

impl Observed {
    /// Whether the lease may be taken by `identity`.
    fn is_free(&self, identity: &str, now: Instant, fallback: Duration) -> bool {
        match self.record.holder() {
            None => true,
            // Our own try took effect although its answer was lost.
            Some(holder) if holder == identity => true,
            Some(_) => {
                let lasts = match self.record.spec.lease_duration_seconds {
                    Some(seconds) => Duration::from_secs(seconds.into()),
                    None => fallback,
                };
                now.duration_since(self.since) >= lasts
            }
        }
    }
}

/// A process that wants to run a role.
pub(crate) struct Candidate {
    host: Host,
    options: LeaseOptions,
    observed: Option<Observed>,
}

impl Candidate {
    pub(crate) fn new(host: Host, options: LeaseOptions) -> Self {
        Self {
            host,
            options,
            observed: None,
        }
    }

    /// Waits until the lease can be taken, and takes it. `None` on shutdown; a try that is under way
    /// is not broken off, for it may succeed.
    pub(crate) async fn acquire(mut self, shutdown: &CancellationToken) -> Option<Leader> {
        loop {
            let sent = Instant::now();
            match self.try_to_take().await {
                Ok(Some(record)) => {
                    return Some(Leader {
                        gate: Gate::until(sent + self.options.renew_deadline),
                        host: self.host,
                        options: self.options,
                        record,
                    });
                }
                Ok(None) => {}
                Err(problem) => {
                    let lease = self.options.to_string();
                    tracing::warn!(lease, problem, "cannot compete for the lease");
                }
            }
            shutdown
                .run_until_cancelled(sleep(self.options.retry))
                .await?;
        }
    }

    async fn try_to_take(&mut self) -> Result<Option<Record>, String> {
        let wire = Wire {
            host: &self.host,
            options: &self.options,
        };
        let Some(record) = wire.get().await? else {
            return wire.create().await;
        };
        let now = Instant::now();
        let observed = match self.observed.take() {
            Some(observed) if observed.record == record => observed,
            _ => Observed { record, since: now },
        };
        let free = observed.is_free(&self.options.identity, now, self.options.duration);
        let record = self.observed.insert(observed).record.clone();
        if !free {
            return Ok(None);
        }
        wire.patch(&record, &wire.taken(&record)).await
    }
}

/// A process that holds the lease.
pub(crate) struct Leader {
    host: Host,
    options: LeaseOptions,
    record: Record,
    gate: Gate,
}

impl Leader {
    /// Open as long as the lease is held.
    pub(crate) fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Renews the lease until that fails for too long or somebody else has it; returns why.
    pub(crate) async fn keep(&mut self) -> String {
        let mut problem = "no answer".to_owned();
        loop {
            let renewed = timeout_at(self.gate.end(), async {
                sleep(self.options.renew_deadline / 5).await;
                loop {
                    let sent = Instant::now();
                    match self.renew().await {
                        Ok(Some(record)) => return Ok((sent, record)),
                        Ok(None) => {}
                        Err(Lost::Taken(by)) => return Err(by),
                        Err(Lost::Problem(text)) => problem = text,
                    }
                    sleep(self.options.retry).await;
                }
            })
            .await;
            match renewed {
                Ok(Ok((sent, record))) => {
                    self.record = record;
                    self.gate.extend(sent + self.options.renew_deadline);
                }
                Ok(Err(by)) => {
                    self.gate.extend(Instant::now());
                    return by;
                }
                Err(_) => {
                    return format!(
                        "it could not be renewed for {:?} ({problem})",
                        self.options.renew_deadline
                    );
                }
            }
        }
    }

    async fn renew(&self) -> Result<Option<Record>, Lost> {
        let wire = Wire {
            host: &self.host,
            options: &self.options,
        };
        let renewal = json!({"renewTime": now()});
        if let Some(renewed) = wire.patch(&self.record, &renewal).await? {
            return Ok(Some(renewed));
        }
        // The record changed: by an earlier renewal whose answer was lost, or by somebody else.
        match wire.get().await? {
            None => Err(Lost::Taken("the Lease object was deleted".to_owned())),
            Some(record) => match record.holder() {
                Some(holder) if holder == self.options.identity => {
                    Ok(wire.patch(&record, &renewal).await?)
                }
                Some(holder) => Err(Lost::Taken(format!("{holder} has it now"))),
                None => Err(Lost::Taken("somebody gave it up in our name".to_owned())),
            },
        }
    }

    /// Gives the lease back, so that the next one need not wait for its end.
    pub(crate) async fn release(self) {
        self.gate.extend(Instant::now());
        let wire = Wire {
            host: &self.host,
            options: &self.options,
        };
        let given_up =
            json!({"holderIdentity": null, "renewTime": now(), "leaseDurationSeconds": 1});
        let release = wire.patch(&self.record, &given_up);
        match tokio::time::timeout(RELEASE_PATIENCE, release).await {
            Ok(Ok(Some(_))) => {
                tracing::info!(lease = self.options.to_string(), "gave the lease back")
            }
            Ok(Ok(None)) => {}
            Ok(Err(problem)) => {
                tracing::warn!(
                    lease = self.options.to_string(),
                    problem,
                    "could not give the lease back"
                );
            }
            Err(_) => tracing::warn!(
                lease = self.options.to_string(),
                "no time to give the lease back"
            ),
        }
    }
}

/// Why a renewal failed.
enum Lost {
    Taken(String),
    Problem(String),
}

impl From<String> for Lost {
    fn from(problem: String) -> Self {
        Self::Problem(problem)
    }
}

impl std::fmt::Display for LeaseOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::object::{RecordMeta, Spec};
    use super::*;

    const DURATION: Duration = Duration::from_secs(15);

    fn seen(holder: Option<&str>, seconds: Option<u32>) -> Observed {
        Observed {
            record: Record {
                metadata: RecordMeta {
                    resource_version: "1".to_owned(),
                    uid: "u".to_owned(),
                },
                spec: Spec {
                    holder_identity: holder.map(str::to_owned),
                    lease_duration_seconds: seconds,
                    lease_transitions: None,
                },
            },
            since: Instant::now(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_free_when_nobody_holds_it_or_it_did_not_change_for_its_duration() {
        let now = Instant::now();
        assert!(seen(None, None).is_free("me", now, DURATION));
        assert!(seen(Some(""), None).is_free("me", now, DURATION));
        assert!(seen(Some("me"), Some(15)).is_free("me", now, DURATION));
        let other = seen(Some("other"), Some(30));
        assert!(!other.is_free("me", now + Duration::from_secs(29), DURATION));
        assert!(other.is_free("me", now + Duration::from_secs(30), DURATION));
        let silent = seen(Some("other"), None);
        assert!(!silent.is_free("me", now + Duration::from_secs(14), DURATION));
        assert!(silent.is_free("me", now + DURATION, DURATION));
    }
}
