//! Does the machine's tasks, by whatever a cloud can do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bitts_api::{Node, NodeName};
use bitts_runtime::Worker;
use kube::Client;

use super::call::{Attach, Detach, Look, Looked, Report, Task, Trouble};
use super::place::{Disk, Instance, Zone};

/// How long a read from the API may take.
const READ: Duration = Duration::from_secs(10);

/// What a cloud has to be able to do. Another cloud is another implementation.
///
/// Each call ends when it is known what came of it, or with an error: then it may come true later, and
/// [`Cloud::settle`] waits for that.
pub trait Cloud: Send + Sync + 'static {
    /// Attaches a disk, under a name by which its node finds it. That it is attached there already is a
    /// success.
    fn attach(
        &self,
        disk: &Disk,
        to: &Instance,
        read_only: bool,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Detaches a disk. That it is not attached there, or that there is no such machine, is a success.
    fn detach(
        &self,
        disk: &Disk,
        from: &Instance,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Waits until all that attaches or detaches in a zone now has ended; of these machines, or of all.
    fn settle(
        &self,
        zone: &Zone,
        only: Option<&[Instance]>,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// The machines that a disk is attached to; none where there is no such disk.
    fn users(
        &self,
        disk: &Disk,
    ) -> impl Future<Output = Result<BTreeSet<Instance>, CloudError>> + Send;

    /// A machine, if there is one.
    fn machine(
        &self,
        instance: &Instance,
    ) -> impl Future<Output = Result<Option<Machine>, CloudError>> + Send;
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Whether anything may run on it.
    pub runs: bool,
    /// The disks that it has, but for the one that it started from; and whether under the name by which
    /// its node finds it.
    pub disks: BTreeMap<Disk, bool>,
}

/// Why a cloud did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// Something else has the disk.
    #[error(
        "{disk} is attached to {}; it is attached here when it was detached from there",
        names(by)
    )]
    InUse {
        /// The disk.
        disk: Disk,
        /// What has it.
        by: BTreeSet<Instance>,
    },
    /// There is no such thing.
    #[error(
        "{call}: {message}; see whether the disk is in the zone that its PersistentVolume and its node say"
    )]
    NotFound {
        /// What was asked for.
        call: String,
        /// What the cloud said.
        message: String,
    },
    /// The cloud has too much to do, or a quota is used up.
    #[error("{call}: {message}; it is asked again later")]
    Throttled {
        /// What was asked for.
        call: String,
        /// What the cloud said.
        message: String,
    },
    /// The cloud does not want to.
    #[error("{call}: {status}: {message}")]
    Refused {
        /// What was asked for.
        call: String,
        /// The status of its answer.
        status: u16,
        /// What it said.
        message: String,
    },
    /// It began, and failed.
    #[error("{call} failed: {code}: {message}")]
    Failed {
        /// What was asked for.
        call: String,
        /// What happened, in a word.
        code: String,
        /// What it said.
        message: String,
    },
    /// The cloud cannot be reached, or is not well.
    #[error("{call}: {message}")]
    Unavailable {
        /// What was asked for.
        call: String,
        /// What happened.
        message: String,
    },
    /// It takes too long.
    #[error("{call} did not end within {} s; it is asked for again", patience.as_secs())]
    Late {
        /// What was asked for.
        call: String,
        /// How long it was waited for.
        patience: Duration,
    },
    /// Nobody says who is asking.
    #[error(
        "no access token from {from}: {message}. Run it on a machine of the cloud with a service account, or \
         give --compute-metadata-host where one is given"
    )]
    Token {
        /// Who was asked.
        from: String,
        /// What happened.
        message: String,
    },
}

fn names(all: &BTreeSet<Instance>) -> String {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    match &all[..] {
        [] => "something else".to_owned(),
        all => all.join(", "),
    }
}

impl From<CloudError> for Trouble {
    fn from(error: CloudError) -> Self {
        let (code, overload) = match &error {
            CloudError::InUse { .. } => ("in-use", false),
            CloudError::NotFound { .. } => ("not-found", false),
            CloudError::Throttled { .. } => ("throttled", true),
            CloudError::Refused { .. } => ("refused", false),
            CloudError::Failed { .. } => ("failed", false),
            CloudError::Unavailable { .. } => ("unavailable", true),
            CloudError::Late { .. } => ("late", true),
            CloudError::Token { .. } => ("token", false),
        };
        Self {
            message: error.to_string(),
            code,
            overload,
        }
    }
}

/// Asks one cloud.
pub(super) struct CloudWorker<C> {
    pub(super) cloud: C,
    pub(super) client: Client,
}

impl<C: Cloud> Worker for CloudWorker<C> {
    type Task = Task;
    type Report = Report;

    async fn perform(&self, task: Task) -> Report {
        match task {
            Task::Settle(zone) => {
                let settled = self.cloud.settle(&zone, None).await;
                if let Err(error) = &settled {
                    tracing::warn!(?zone, %error, "what is under way in the cloud is not known yet");
                }
                Report::Settled(zone, settled.map_err(Into::into))
            }
            Task::Look(look) => {
                let looked = self.look(&look).await;
                if let Err(error) = &looked {
                    tracing::warn!(disk = %look.disk, %error, "where it is is not known");
                }
                Report::Looked(look.disk, looked.map_err(Into::into))
            }
            Task::Attach(Attach {
                disk,
                instance,
                read_only,
            }) => {
                let attached = self.cloud.attach(&disk, &instance, read_only).await;
                match &attached {
                    Ok(()) => tracing::info!(%disk, %instance, "attached"),
                    Err(error) => tracing::warn!(%disk, %instance, %error, "not attached"),
                }
                Report::Attached(disk, instance, attached.map_err(Into::into))
            }
            Task::Detach(detach) => self.detach(detach).await,
            Task::Sweep(instance) => {
                let machine = self.cloud.machine(&instance).await;
                if let Err(error) = &machine {
                    tracing::warn!(%instance, %error, "what it has is not known");
                }
                let disks = machine.map(|machine| machine.unwrap_or_default().disks);
                Report::Swept(instance, disks.map_err(Into::into))
            }
        }
    }
}

impl<C: Cloud> CloudWorker<C> {
    async fn look(&self, look: &Look) -> Result<Looked, CloudError> {
        let zones: BTreeSet<Zone> = look.around.iter().map(Instance::zone).collect();
        for zone in zones {
            self.cloud.settle(&zone, Some(&look.around)).await?;
        }
        let mut looked = Looked {
            users: self.cloud.users(&look.disk).await?,
            off: BTreeSet::new(),
        };
        for instance in &look.silent {
            if !self.runs(instance).await? {
                looked.off.insert(instance.clone());
            }
        }
        Ok(looked)
    }

    async fn runs(&self, instance: &Instance) -> Result<bool, CloudError> {
        let machine = self.cloud.machine(instance).await?;
        Ok(machine.is_some_and(|machine| machine.runs))
    }

    async fn detach(&self, detach: Detach) -> Report {
        let Detach {
            disk,
            instance,
            node,
            because,
        } = detach;
        let done = async {
            let object = self.node(&node).await?;
            let runs = match because {
                super::Because::Off => self.runs(&instance).await?,
                _ => true,
            };
            if !because.holds(&disk, object.as_ref(), runs) {
                return Ok(false);
            }
            self.cloud.detach(&disk, &instance).await?;
            Ok::<_, CloudError>(true)
        };
        match done.await {
            Ok(false) => {
                tracing::info!(%disk, %instance, "not detached: the reason no longer holds");
                Report::Spared(disk, instance)
            }
            Ok(true) => {
                tracing::info!(%disk, %instance, ?because, "detached");
                Report::Detached(disk, instance, Ok(()))
            }
            Err(error) => {
                tracing::warn!(%disk, %instance, %error, "not detached");
                Report::Detached(disk, instance, Err(error.into()))
            }
        }
    }

    /// A node as the API says now; `None` where there is none.
    async fn node(&self, name: &NodeName) -> Result<Option<Node>, CloudError> {
        let call = || format!("node {name} cannot be read");
        let failed = |error: &dyn std::fmt::Display| CloudError::Unavailable {
            call: call(),
            message: error.to_string(),
        };
        let request = http::Request::get(format!("/api/v1/nodes/{name}")).body(Vec::new());
        let request = request.map_err(|error| failed(&error))?;
        match tokio::time::timeout(READ, self.client.request(request)).await {
            Ok(Ok(node)) => Ok(Some(node)),
            Ok(Err(kube::Error::Api(status)))
                if status.code == 404 && status.reason == "NotFound" =>
            {
                Ok(None)
            }
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(CloudError::Late {
                call: call(),
                patience: READ,
            }),
        }
    }
}
