//! Does the machine's tasks, each on a thread of its own so that nothing waits for a mount.

use std::path::PathBuf;
use std::time::Duration;

use bitts_api::{NodeName, VolumeMode};
use bitts_runtime::{Host, RoleOptions, RuntimeError, Worker, run_role};
use tokio::sync::mpsc::UnboundedSender;

use crate::Agent;
use crate::Mode;
use crate::lanes::Lanes;
use crate::task::{How, MountKey, MountStep, OnNode, Report, Task};
use crate::tree::{Step, Tree};
use crate::vigil::{News, Vigil};

/// How the agent of a node is run.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The node's name in the API.
    pub node: NodeName,
    /// The kubelet's directory. It must exist.
    pub kubelet_dir: PathBuf,
    /// The directory in which the paths of local volumes start. A link that leaves it is refused,
    /// except in `/`, which nothing leaves.
    pub local_root: PathBuf,
    /// The directory of the node's devices.
    pub devices: PathBuf,
    /// How long a server may take to answer before a mount is given up for the time being, and
    /// before an unmount is forced.
    pub patience: Duration,
    /// Whether to delete the objects of pods whose deletion was asked for, once their volumes are
    /// down; only where nobody else runs the pods.
    pub finish_pods: bool,
    /// Whether the volumes are the agent's or a kubelet's.
    pub mode: Mode,
    /// Whether to mount at all.
    pub mounter: Mounter,
    /// How often each server is asked whether its mounts are well, if at all.
    pub probe_interval: Option<Duration>,
    /// How often it looks again for what pods left that are no more, if at all.
    pub scan_interval: Option<Duration>,
    /// Who is told what came of every task.
    pub observer: Option<UnboundedSender<Report>>,
}

impl AgentConfig {
    /// How often each server is asked whether its mounts are well.
    pub const PROBE_INTERVAL: Duration = Duration::from_secs(30);
    /// How often it looks again for what pods left.
    pub const SCAN_INTERVAL: Duration = Duration::from_secs(300);

    /// An agent for this node with the kubelet's usual directory, whose volumes may be anywhere.
    #[must_use]
    pub fn new(node: NodeName) -> Self {
        Self {
            node,
            kubelet_dir: "/var/lib/kubelet".into(),
            local_root: "/".into(),
            devices: "/dev".into(),
            patience: Tree::PATIENCE,
            finish_pods: false,
            mode: Mode::Owner,
            mounter: Mounter::System,
            probe_interval: Some(Self::PROBE_INTERVAL),
            scan_interval: Some(Self::SCAN_INTERVAL),
            observer: None,
        }
    }
}

/// Who mounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mounter {
    /// The kernel.
    #[default]
    System,
    /// Nobody: mounts are reported as [`How::Shown`], and nothing on the node is looked at or
    /// changed.
    DryRun,
}

/// After the mount table could not be watched.
const WATCH_AGAIN: Duration = Duration::from_secs(30);

/// Runs the agent of a node until the host shuts down.
///
/// # Errors
/// As [`run_role`].
pub async fn run(host: &Host, config: AgentConfig) -> Result<(), RuntimeError> {
    let options = RoleOptions {
        name: "agent",
        event_source: match config.mode {
            Mode::Owner => "kubelet",
            Mode::BesideKubelet => "bitts-agent",
        },
        lease: None,
        writes_at_once: 16,
    };
    let mode = config.mode;
    let mut machine = Agent::new(config.node.clone(), config.finish_pods)
        .in_mode(mode)
        .scanning(config.scan_interval);
    if config.mounter == Mounter::System {
        machine = machine.healing(config.probe_interval);
    }
    let mut worker = NodeWorker::new(config);
    worker.host = Some(host.clone());
    run_role(host, options, machine, worker).await
}

/// Does the tasks of one node.
#[derive(Clone)]
pub struct NodeWorker {
    tree: Tree,
    lanes: Lanes,
    vigil: Vigil,
    /// Says when to end.
    host: Option<Host>,
    mounter: Mounter,
    mode: Mode,
    observer: Option<UnboundedSender<Report>>,
}

impl NodeWorker {
    /// The worker for an agent that is run like this.
    #[must_use]
    pub fn new(config: AgentConfig) -> Self {
        Self {
            tree: Tree {
                kubelet_dir: config.kubelet_dir,
                local_root: config.local_root,
                devices: config.devices,
                patience: config.patience,
            },
            lanes: Lanes::default(),
            vigil: Vigil::default(),
            host: None,
            mounter: config.mounter,
            mode: config.mode,
            observer: config.observer,
        }
    }

    /// Says what would be done.
    fn show(&self, task: Task) -> Report {
        match task {
            Task::Scan => Report::Scanned {
                volumes: Vec::new(),
                stages: Vec::new(),
                empty: Vec::new(),
            },
            Task::Stage(staging) => Report::Staged {
                staging,
                on_node: OnNode::Nothing,
            },
            Task::Unstage(key) => Report::Unstaged {
                key,
                was_mounted: false,
            },
            Task::Mount(mount) | Task::Renew(mount) => {
                let target = self.tree.target(&mount.key);
                Report::Mounted {
                    mount,
                    target,
                    how: How::Shown,
                    warning: None,
                }
            }
            Task::Unmount(key) => {
                let target = self.tree.target(&key);
                Report::Unmounted {
                    key,
                    target,
                    was_mounted: false,
                }
            }
            Task::RemovePodDirectory(pod) => Report::PodDirectoryRemoved(pod),
            Task::Watch => Report::Missing(Vec::new()),
            Task::Await(key) | Task::Leave(key) => Report::Left(key),
            Task::Probe { server, .. } => Report::Probed {
                server,
                mounts: Vec::new(),
            },
        }
    }

    /// Waits until something that was mounted is not, or the host shuts down.
    async fn watch(&self) -> Report {
        let ended = async {
            match &self.host {
                Some(host) => host.shutdown().cancelled().await,
                None => std::future::pending().await,
            }
        };
        let news = tokio::select! {
            () = ended => Ok(News::Missing(Vec::new())),
            news = self.vigil.news(&self.tree) => news,
        };
        match news {
            Ok(News::Missing(keys)) => Report::Missing(self.of_running_pods(keys).await),
            Ok(News::Appeared(keys)) => Report::Appeared(keys),
            Err(error) => {
                tracing::error!(%error, "cannot watch the mount table");
                tokio::time::sleep(WATCH_AGAIN).await;
                Report::Missing(Vec::new())
            }
        }
    }
}

impl NodeWorker {
    /// Those that a kubelet did not take down: it does when nothing of the pod runs any more, and says
    /// in the API only later that the pod is over.
    async fn of_running_pods(&self, keys: Vec<MountKey>) -> Vec<MountKey> {
        if self.mode == Mode::Owner || keys.is_empty() {
            return keys;
        }
        let tree = self.tree.clone();
        let runs = move || keys.into_iter().filter(|key| tree.runs(&key.pod)).collect();
        tokio::task::spawn_blocking(runs).await.unwrap_or_default()
    }
}

impl Worker for NodeWorker {
    type Task = Task;
    type Report = Report;

    async fn perform(&self, task: Task) -> Report {
        let report = match self.mounter {
            Mounter::DryRun => self.show(task),
            Mounter::System if task == Task::Watch => self.watch().await,
            Mounter::System => {
                self.vigil.begin(&task);
                let (tree, copy) = (self.tree.clone(), task.clone());
                let _lane = self.lanes.enter(&task, &tree).await;
                let mode = self.mode;
                let done = tokio::task::spawn_blocking(move || {
                    let at = copy.target().unwrap_or_default();
                    let at = at.display();
                    tree.perform_as(mode, copy, &mut |step| {
                        match step {
                            Step::Bind | Step::Unmount => tracing::debug!(%at, ?step),
                            _ => tracing::trace!(%at, ?step),
                        }
                        Ok(())
                    })
                });
                done.await
                    .unwrap_or_else(|error| failed(task, error.to_string()))
            }
        };
        self.vigil.end(&self.tree, &report);
        log(&report);
        if let Some(observer) = &self.observer {
            // Nobody has to listen.
            let _ = observer.send(report.clone());
        }
        report
    }
}

/// A task that ended in a way of its own: a bug, told like any other failure so that it is tried
/// again.
fn failed(task: Task, message: String) -> Report {
    match task {
        Task::Scan => Report::ScanFailed(message),
        Task::Stage(staging) => Report::StageFailed {
            staging,
            step: MountStep::MountDevice,
            message,
        },
        Task::Unstage(key) => Report::UnstageFailed { key, message },
        Task::Mount(mount) | Task::Renew(mount) => Report::MountFailed {
            mount,
            step: MountStep::SetUp,
            message,
        },
        Task::Unmount(key) => Report::UnmountFailed { key, message },
        Task::RemovePodDirectory(pod) => Report::PodDirectoryRemoved(pod),
        Task::Watch => Report::Missing(Vec::new()),
        Task::Await(key) | Task::Leave(key) => Report::Left(key),
        Task::Probe { server, .. } => Report::Probed {
            server,
            mounts: Vec::new(),
        },
    }
}

fn log(report: &Report) {
    match report {
        Report::Scanned {
            volumes, stages, ..
        } => {
            tracing::info!(
                volumes = volumes.len(),
                devices = stages.len(),
                "scanned the kubelet's directory"
            );
        }
        Report::ScanFailed(error) => tracing::error!(error, "cannot scan the kubelet's directory"),
        Report::Mounted {
            mount,
            target,
            how,
            warning,
        } => {
            let (volume, pod) = (&mount.key.volume, &mount.key.pod);
            tracing::info!(%volume, %pod, source = %mount.source, target = %target.display(), ?how, ?warning, "mounted");
        }
        Report::NeedsDevice(mount) => {
            tracing::debug!(volume = %mount.key.volume, "is on a device");
        }
        Report::Staged { staging, on_node } => {
            let (volume, device) = (&staging.volume, &staging.source);
            tracing::info!(%volume, %device, target = %staging.key, ?on_node, "staged");
        }
        Report::StageFailed {
            staging,
            step,
            message,
        } => {
            let (volume, device) = (&staging.volume, &staging.source);
            tracing::warn!(%volume, %device, error = message, "{}", step.failed(VolumeMode::Filesystem));
        }
        Report::Unstaged { key, was_mounted } => {
            tracing::info!(target = %key, was_mounted, "unstaged");
        }
        Report::UnstageFailed { key, message } => {
            tracing::warn!(target = %key, error = message, "cannot unstage");
        }
        Report::MountFailed {
            mount,
            step,
            message,
        } => {
            let (volume, pod) = (&mount.key.volume, &mount.key.pod);
            tracing::warn!(%volume, %pod, error = message, "{}", step.failed(mount.key.mode));
        }
        Report::Unmounted {
            key,
            target,
            was_mounted,
        } => {
            let MountKey { volume, pod, .. } = key;
            tracing::info!(%volume, %pod, target = %target.display(), was_mounted, "unmounted");
        }
        Report::Kept {
            key,
            target,
            holders,
        } => {
            let MountKey { volume, pod, .. } = key;
            tracing::warn!(%volume, %pod, target = %target.display(), holders, "kept: still in use");
        }
        Report::UnmountFailed { key, message } => {
            let MountKey { volume, pod, .. } = key;
            tracing::warn!(%volume, %pod, error = message, "cannot unmount");
        }
        Report::Missing(keys) => {
            for MountKey { volume, pod, .. } in keys {
                tracing::warn!(%volume, %pod, "unmounted by somebody else");
            }
        }
        Report::Appeared(keys) => {
            for MountKey { volume, pod, .. } in keys {
                tracing::debug!(%volume, %pod, "mounted by the kubelet");
            }
        }
        Report::Left(MountKey { volume, pod, .. }) => {
            tracing::debug!(%volume, %pod, "left to the kubelet");
        }
        Report::Probed { server, mounts } => {
            for (MountKey { volume, pod, .. }, ailment) in mounts {
                tracing::debug!(server, %volume, %pod, ?ailment, "asked");
            }
        }
        Report::PodDirectoryRemoved(pod) => {
            tracing::debug!(%pod, "removed an ended pod's directory")
        }
    }
}
