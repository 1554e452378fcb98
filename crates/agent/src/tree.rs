//! The pods' part of the kubelet's directory: what a task does to it, step by step.
//!
//! Each operation may be cut off between any two steps; doing it again, or the opposite one, ends
//! where it should. Nothing is removed but empty directories, and none on which something is
//! mounted (M34).

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use bitts_api::VolumeMode;
use bitts_csi::CsiError;
use bitts_mount::SystemError;
use bitts_mount::census::Census;
use bitts_mount::device::DeviceError;
use bitts_mount::dir::{Component, Dir, NameError, Removal};
use bitts_mount::holders::Holder;
use bitts_mount::nfs::NfsError;

use crate::plugins::Plugin;
use crate::task::{How, Mount, MountKey, MountStep, Report, Task, Warning, in_pod};

/// How often processes that are about to end are looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Where the agent mounts, and from where.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The kubelet's directory.
    pub kubelet_dir: PathBuf,
    /// The directory in which the paths of local volumes start.
    pub local_root: PathBuf,
    /// The directory of the node's devices.
    pub devices: PathBuf,
    /// How long a server may take to answer.
    pub patience: Duration,
}

/// A change that is about to be made, for whoever wants to know or to stop before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A directory is made, unless it is there.
    Make(&'a str),
    /// The device is mounted, and formatted before if it is blank.
    Stage,
    /// The volume is mounted.
    Bind,
    /// The options of a mount are set once more.
    Configure,
    /// The volume is mounted anew in the place of a mount of no more use.
    Renew,
    /// The volume is unmounted.
    Unmount,
    /// A directory is removed if it is empty.
    Remove(&'a str),
}

/// Called before every change; an error ends the task there.
pub type Watcher<'a> = &'a mut dyn FnMut(Step<'_>) -> Result<(), Stopped>;

/// A task was to end before its next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped before the next step")]
pub struct Stopped;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    System(#[from] SystemError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error(transparent)]
    Nfs(#[from] NfsError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Csi(#[from] CsiError),
    /// The volume is on a device that is not staged.
    #[error("its device is not mounted")]
    NotStaged,
    #[error("{0}")]
    Other(String),
}

/// What came of an unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It is done.
    InTime,
    /// The server did not answer; the mount may be there or not.
    TooLate,
}

pub(crate) enum Down {
    Gone { was_mounted: bool },
    Held(String),
}

impl Tree {
    /// As the kubelet has it before it forces an unmount (M41).
    pub const PATIENCE: Duration = Duration::from_secs(60);

    /// Does a task. Blocks.
    #[must_use]
    pub fn perform(&self, task: Task, watcher: Watcher<'_>) -> Report {
        match task {
            Task::Scan => match self.scan() {
                Ok(scanned) => scanned,
                Err(trouble) => Report::ScanFailed(trouble.to_string()),
            },
            Task::Stage(staging) => {
                let mounter = staging.key.plugin.mounter();
                match mounter.stage(self, &staging, watcher) {
                    Ok(on_node) => Report::Staged { staging, on_node },
                    Err((step, trouble)) => Report::StageFailed {
                        staging,
                        step,
                        message: trouble.to_string(),
                    },
                }
            }
            Task::Unstage(key) => match key.plugin.mounter().unstage(self, &key, watcher) {
                Ok(was_mounted) => Report::Unstaged { key, was_mounted },
                Err(trouble) => Report::UnstageFailed {
                    key,
                    message: trouble.to_string(),
                },
            },
            Task::Mount(mount) => match self.mount(&mount, watcher) {
                Ok((how, warning)) => Report::Mounted {
                    target: self.target(&mount.key),
                    mount,
                    how,
                    warning,
                },
                Err((_, Trouble::NotStaged)) => Report::NeedsDevice(mount),
                Err((step, trouble)) => Report::MountFailed {
                    mount,
                    step,
                    message: trouble.to_string(),
                },
            },
            Task::Unmount(key) => match self.take_down(&key, watcher) {
                Ok(Down::Gone { was_mounted }) => Report::Unmounted {
                    target: self.target(&key),
                    key,
                    was_mounted,
                },
                Ok(Down::Held(holders)) => Report::Kept {
                    target: self.target(&key),
                    key,
                    holders,
                },
                Err(trouble) => Report::UnmountFailed {
                    key,
                    message: trouble.to_string(),
                },
            },
            Task::RemovePodDirectory(pod) => {
                // What cannot be removed stays; the next scan finds it again.
                let removed = Component::new(&pod.to_string())
                    .map_err(Trouble::from)
                    .and_then(|name| self.remove_empty(&name, watcher));
                if let Err(error) = removed {
                    tracing::warn!(%pod, %error, "an ended pod's directory stays");
                }
                Report::PodDirectoryRemoved(pod)
            }
            Task::Renew(mount) => match mount.key.plugin.mounter().renew(self, &mount, watcher) {
                Ok(how) => Report::Mounted {
                    target: self.target(&mount.key),
                    mount,
                    how,
                    warning: None,
                },
                Err((step, trouble)) => Report::MountFailed {
                    mount,
                    step,
                    message: trouble.to_string(),
                },
            },
            Task::Probe { server, mounts } => Report::Probed {
                mounts: self.probe(&server, mounts),
                server,
            },
            // Who waits for the table does not block.
            Task::Watch => Report::Missing(Vec::new()),
            Task::Await(key) | Task::Leave(key) => Report::Left(key),
        }
    }

    pub(crate) fn target(&self, key: &MountKey) -> PathBuf {
        self.kubelet_dir.join(key.target())
    }

    fn mount(
        &self,
        mount: &Mount,
        watcher: Watcher<'_>,
    ) -> Result<(How, Option<Warning>), (MountStep, Trouble)> {
        let mounter = mount.key.plugin.mounter();
        let set_up = |trouble| (MountStep::SetUp, trouble);
        match mount.key.mode {
            VolumeMode::Filesystem => {
                let how = mounter.set_up(self, mount, watcher)?;
                let gives = |_| mounter.gives_group(self, mount);
                let given = mount.group.map_or(Ok(true), gives).map_err(set_up)?;
                let warning = match given {
                    true => None,
                    false => self.give(mount).map_err(set_up)?,
                };
                Ok((how, warning))
            }
            VolumeMode::Block => {
                let device = mounter.device(self, &mount.source)?;
                let how = self.map(&mount.key, &device, watcher).map_err(set_up)?;
                Ok((how, None))
            }
        }
    }

    fn take_down(&self, key: &MountKey, watcher: Watcher<'_>) -> Result<Down, Trouble> {
        let down = match key.mode {
            VolumeMode::Filesystem => key.plugin.mounter().take_down(self, key, watcher)?,
            VolumeMode::Block => self.unmap(key, watcher)?,
        };
        if let Down::Gone { .. } = &down {
            self.remove_empty(&name(&key.pod.to_string())?, watcher)?;
        }
        Ok(down)
    }

    pub(crate) fn unmount(&self, key: &MountKey, watcher: Watcher<'_>) -> Result<Down, Trouble> {
        let (pod, volume) = (name(&key.pod.to_string())?, name(key.volume.as_str())?);
        let mut was_mounted = false;
        // Who uses the mount is asked anew before force, for which the answer must still be nobody.
        let mut by_force = false;
        let above = ["pods", pod.as_str(), "volumes", key.plugin.directory()];
        if let Some(parent) = self.directory(&above)? {
            while let Some(target) = parent.child(&volume)? {
                if !target.identity()?.is_mount_point {
                    break;
                }
                let census = Census::take()?;
                if let Some(holders) = held(key, &census, census.of_mount(&target)?) {
                    return Ok(Down::Held(holders));
                }
                // Killed processes may wait for the server, and it for nobody.
                let ending = census.ending_in_cgroup_of(pod.as_str());
                if !ending.is_empty() && !by_force {
                    by_force = !self.ends_in_time(pod.as_str())?;
                    if by_force && key.plugin.mounter().server_of().is_none() {
                        return Ok(Down::Held(texts(&ending)));
                    }
                    continue;
                }
                // Open, it would keep the mount busy.
                drop(target);
                watcher(Step::Unmount)?;
                let mounter = key.plugin.mounter();
                let ended = mounter.unmount(self, &parent, &volume, by_force)?;
                by_force = ended == Ended::TooLate;
                was_mounted = true;
            }
            // What is mounted there for others only would go with the directory.
            if let Some(bare) = parent.child(&volume)? {
                let census = Census::take()?;
                let foreign = census.of_foreign_mount_on(&bare)?;
                if let Some(holders) = held(key, &census, foreign) {
                    return Ok(Down::Held(holders));
                }
            }
            watcher(Step::Remove(volume.as_str()))?;
            let target = self.target(key);
            match parent.remove(&volume)? {
                Removal::NotEmpty => {
                    return Err(Trouble::Other(format!(
                        "{} has files in it that were written while nothing was mounted there: move them away",
                        target.display()
                    )));
                }
                Removal::MountPoint => {
                    let text = format!("something was mounted at {} meanwhile", target.display());
                    return Err(Trouble::Other(text));
                }
                Removal::Removed | Removal::Absent => {}
            }
        }
        Ok(Down::Gone { was_mounted })
    }

    /// Waits until what is left of the pod's processes has ended. Whether it has.
    fn ends_in_time(&self, pod: &str) -> Result<bool, Trouble> {
        let looks = self.patience.div_duration_f64(LOOK_AGAIN).ceil() as u32;
        for _ in 0..looks {
            if Census::take()?.ending_in_cgroup_of(pod).is_empty() {
                return Ok(true);
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(false)
    }

    /// Removes the directories that the agent makes for a pod, innermost first, until one is not
    /// empty.
    fn remove_empty(&self, pod: &Component, watcher: Watcher<'_>) -> Result<(), Trouble> {
        let kubelet = Dir::open(&self.kubelet_dir)?;
        let Some(pods) = kubelet.child(&name("pods")?)? else {
            return Ok(());
        };
        let Some(pod_dir) = pods.child(pod)? else {
            return Ok(());
        };
        for mode in [VolumeMode::Block, VolumeMode::Filesystem] {
            let kind = in_pod(mode);
            let Some(volumes) = pod_dir.child(&name(kind)?)? else {
                continue;
            };
            for plugin in Plugin::ALL.map(Plugin::directory) {
                watcher(Step::Remove(plugin))?;
                volumes.remove(&name(plugin)?)?;
            }
            watcher(Step::Remove(kind))?;
            pod_dir.remove(&name(kind)?)?;
        }
        watcher(Step::Remove(pod.as_str()))?;
        pods.remove(pod)?;
        Ok(())
    }
}

/// The evidence against taking a mount away: processes of the pod, and others that
/// use the mount.
pub(crate) fn held(key: &MountKey, census: &Census, of_mount: Vec<Holder>) -> Option<String> {
    let mut found = census.in_cgroup_of(&key.pod.to_string());
    found.extend(of_mount);
    (!found.is_empty()).then(|| texts(&found))
}

/// The first few, and how many there are besides.
fn texts(holders: &[Holder]) -> String {
    let more = holders.len().saturating_sub(3);
    let mut texts: Vec<_> = holders.iter().take(3).map(ToString::to_string).collect();
    if more > 0 {
        texts.push(format!("and {more} more"));
    }
    texts.join(", ")
}

pub(crate) fn name(text: &str) -> Result<Component, Trouble> {
    Ok(Component::new(text)?)
}
