//! What all roles of a process share.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::measures::{Machines, Question};
use crate::metrics::Metrics;

/// What all roles of a process share: the client, metrics, health, and the word to end. Cheap to
/// clone.
#[derive(Clone)]
pub struct Host(Arc<Shared>);

struct Shared {
    client: Client,
    shutdown: CancellationToken,
    metrics: Metrics,
    health: Health,
    machines: Machines,
    timing: Timing,
}

/// How long the runtime waits for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// One request other than a watch.
    pub request: Duration,
    /// One watch: the server ends it then, and one that is silent for longer is taken for dead.
    pub watch: Duration,
    /// Between a failed watch and the next try, at most.
    pub watch_retry: Duration,
    /// How often a write is sent before it is reported as failed.
    pub tries: u32,
    /// Between two tries of a write, at most; the server may ask for more.
    pub write_retry: Duration,
    /// What is under way at shutdown may take this long.
    pub shutdown: Duration,
    /// How often what the watches told is compared with lists; never where absent.
    pub resync: Option<Duration>,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(10),
            watch: Duration::from_secs(120),
            watch_retry: Duration::from_secs(30),
            tries: 6,
            write_retry: Duration::from_secs(5),
            shutdown: Duration::from_secs(10),
            resync: Some(Duration::from_secs(30 * 60)),
        }
    }
}

impl Host {
    /// A host whose roles use this client. [`crate::connect`] makes one whose own retries are off,
    /// as they have to be.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self::with_timing(client, Timing::default())
    }

    /// A host with other patience than the usual.
    #[must_use]
    pub fn with_timing(client: Client, timing: Timing) -> Self {
        Self(Arc::new(Shared {
            client,
            shutdown: CancellationToken::new(),
            metrics: Metrics::new(),
            health: Health::default(),
            machines: Machines::default(),
            timing,
        }))
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// Cancel it, and all roles end as soon as what is under way is finished.
    #[must_use]
    pub fn shutdown(&self) -> &CancellationToken {
        &self.0.shutdown
    }

    /// How long the runtime waits for what.
    #[must_use]
    pub fn timing(&self) -> &Timing {
        &self.0.timing
    }

    /// The metrics as Prometheus reads them; what `/metrics` serves.
    #[must_use]
    pub async fn metrics_text(&self) -> String {
        let machines = self.0.machines.text().await;
        let own = self.0.metrics.text(&self.0.health);
        format!("{machines}{own}")
    }

    /// Where the machine of a role is asked for what it measures.
    pub(crate) fn answers_for(&self, role: &'static str) -> mpsc::Receiver<Question> {
        self.0.machines.answers_for(role)
    }

    /// Whether every role runs, or stands by, with all its watches up; and a line on each.
    #[must_use]
    pub fn readiness(&self) -> (bool, String) {
        self.0.health.readiness()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn health(&self) -> &Health {
        &self.0.health
    }
}
