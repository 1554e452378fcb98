//! How a role is run.

use std::convert::Infallible;
use std::time::Duration;
use std::{env, fs};

use uuid::Uuid;

/// Executes the tasks of a role: what only this role can do, a mount for one.
pub trait Worker: Send + Sync + 'static {
    /// What is to be done.
    type Task: Send + 'static;
    /// What came of it.
    type Report: Send + 'static;

    /// Does it. Each task runs on its own, so this may take as long as it takes; what blocks a
    /// thread belongs in `spawn_blocking`. It may be dropped at any await when the process ends.
    fn perform(&self, task: Self::Task) -> impl Future<Output = Self::Report> + Send;
}

/// The worker of a role whose effects are all writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTasks;

impl Worker for NoTasks {
    type Task = Infallible;
    type Report = Infallible;

    async fn perform(&self, task: Infallible) -> Infallible {
        task
    }
}

/// How a role is run.
#[derive(Clone, Debug)]
pub struct RoleOptions {
    /// The role's name in logs and metrics, e.g. `binder`.
    pub name: &'static str,
    /// Whom events come from (N9), e.g. `persistentvolume-controller`.
    pub event_source: &'static str,
    /// With a lease, only one process at a time runs the role.
    pub lease: Option<LeaseOptions>,
    /// How many writes may be under way at a time.
    pub writes_at_once: usize,
}

/// The lease that decides which process runs a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseOptions {
    /// Where the Lease object lives.
    pub namespace: String,
    /// Its name; the same for all processes that compete.
    pub name: String,
    /// Who this process is; different for each.
    pub identity: String,
    /// For how long nobody else may take the lease after its holder was last heard of.
    pub duration: Duration,
    /// A holder that could not renew for this long gives up; shorter than `duration`, so that what
    /// it has under way ends before anyone else begins.
    pub renew_deadline: Duration,
    /// Between two tries to renew or to take the lease.
    pub retry: Duration,
}

impl LeaseOptions {
    /// The usual times (15 s, given up after 10 s) and an identity made of the host's name and
    /// something random.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: format!("{}_{}", host_name(), Uuid::new_v4()),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            // Also how soon a lease that was given up is taken: hand-over stays under 2 s.
            retry: Duration::from_secs(1),
        }
    }
}

fn host_name() -> String {
    // In a pod, the pod's name.
    env::var("HOSTNAME")
        .ok()
        .or_else(|| fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "bitts".to_owned())
}
