//! Volumes as directories on NFS shares, made by one process of the cluster.
//!
//! All that is done on a share is done by a child ([`keeper`]; its part is [`serve`]): it mounts the
//! share nowhere in the tree, keeps a [`Disk`](crate::disk::Disk) on it, and does [`call`]s, several at
//! a time. Past a deadline it is killed, and what was asked for counts as not known. So a server that
//! does not answer costs a child and no thread here, and holds up no other server.

mod call;
mod keeper;
mod serve;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitts_mount::attendant::Service;
use bitts_runtime::{Host, LeaseOptions, RoleOptions, RuntimeError, Worker, run_role};

use crate::run::{failed, log};
use crate::site::{Share, Site};
use crate::task::{Errand, Reply, Report, Task};
use crate::{Options, Provisioner};
pub(crate) use call::{Outcome, Work};
pub(crate) use keeper::Keeper;
use tokio::time::Instant;

/// How many writes are under way at a time.
const WRITES_AT_ONCE: usize = 16;
/// Tasks at a time on a share: each is a handful of requests to the server, one after the other.
const AT_ONCE: usize = 8;
/// How much longer than anything else a scan may take: it reads a file for each volume.
const SCAN: u32 = 10;

/// What children of the program that runs [`run_shares`] do: its `main` must begin with
/// [`bitts_mount::child::serve_with`] and this.
pub const SERVICE: Service = Service {
    name: "share",
    serve: serve::serve,
};

/// How the provisioner of NFS shares is run.
#[derive(Clone, Debug)]
pub struct ShareConfig {
    /// What it is.
    pub options: Options,
    /// With a lease, one process at a time makes volumes.
    pub lease: Option<LeaseOptions>,
    /// How long a server may take for a mount or a directory before it counts as unreachable.
    pub patience: Duration,
}

impl ShareConfig {
    /// The usual one, without a lease.
    #[must_use]
    pub fn new() -> Self {
        Self {
            options: Options::of_shares(),
            lease: None,
            patience: Duration::from_secs(20),
        }
    }
}

impl Default for ShareConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs the provisioner of NFS shares until the host shuts down.
///
/// # Errors
/// When something panicked: start again.
pub async fn run_shares(host: &Host, config: ShareConfig) -> Result<(), RuntimeError> {
    let role = RoleOptions {
        name: "nfs-provisioner",
        event_source: "bitts-nfs-provisioner",
        lease: config.lease,
        writes_at_once: WRITES_AT_ONCE,
    };
    let worker = ShareWorker {
        patience: config.patience,
        places: Arc::default(),
    };
    let machine = Provisioner::new(config.options);
    run_role(host, role, machine, worker).await
}

/// Makes volumes on shares.
#[derive(Clone, Debug)]
struct ShareWorker {
    patience: Duration,
    /// By server and path: what is mounted in two ways is one place to make directories in.
    places: Arc<Mutex<BTreeMap<Export, Arc<Place>>>>,
}

/// A server, and a path that it exports.
type Export = (Box<str>, Box<str>);

/// An export.
#[derive(Debug, Default)]
struct Place(tokio::sync::Mutex<Kept>);

/// Who keeps an export, or why nobody does.
#[derive(Debug, Default)]
enum Kept {
    #[default]
    NotYet,
    By(Arc<Keeper>),
    /// It could not be mounted in this way at this time.
    Failed(Share, Instant, String),
}

impl Place {
    /// Who keeps the share, mounted first where it is not.
    async fn keeper(&self, share: &Share, patience: Duration) -> Result<Arc<Keeper>, String> {
        let came = Instant::now();
        let mut kept = self.0.lock().await;
        match &*kept {
            Kept::By(keeper) if keeper.is_there() => return Ok(keeper.clone()),
            // Tried while this waited: all who wait learn it at once.
            Kept::Failed(tried, when, why) if tried == share && *when >= came => {
                return Err(why.clone());
            }
            _ => {}
        }
        match Keeper::start(share, patience).await {
            Ok(keeper) => {
                let keeper = Arc::new(keeper);
                *kept = Kept::By(keeper.clone());
                Ok(keeper)
            }
            Err(why) => {
                *kept = Kept::Failed(share.clone(), Instant::now(), why.clone());
                Err(why)
            }
        }
    }
}

impl ShareWorker {
    fn place(&self, share: &Share) -> Arc<Place> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (share.server.clone(), share.path.clone());
        places.entry(key).or_default().clone()
    }

    async fn perform_on(&self, share: &Share, task: Task) -> Result<Report, String> {
        let keeper = self.place(share).keeper(share, self.patience).await?;
        let deadline = match task {
            Task::Scan => self.patience * SCAN,
            _ => self.patience,
        };
        match keeper.call(Work::Task(task), deadline).await? {
            Outcome::Report(report) => Ok(report),
            Outcome::Told(told) => Err(format!("no answer to a task: {told:?}: a bug in bitts")),
        }
    }
}

impl Worker for ShareWorker {
    type Task = Errand;
    type Report = Reply;

    async fn perform(&self, Errand { site, task }: Errand) -> Reply {
        let report = match &site {
            Site::Share(share) => {
                // Where the API has it, and what it is called on the share.
                let task = call::of_server(share, task);
                match self.perform_on(share, task.clone()).await {
                    Ok(report) => call::of_volume(share, report),
                    Err(why) => call::out_of_reach(task, format!("{share}: {why}")),
                }
            }
            Site::Disks => failed(task, "there are no disks here: a bug in bitts".to_owned()),
        };
        log(&site, &report);
        Reply { site, report }
    }
}
