//! The pods' part of the kubelet's directory: what a task does to it, step by step.
//!
//! Each operation may be cut off between any two steps; doing it again, or the opposite one, ends
//! where it should. Nothing is removed but empty directories, and none on which something is
//! mounted (M34).

use std::path::{Path, PathBuf};
use std::time::Duration;

use bitts_mount::bind::{self, Options};
use bitts_mount::dir::{Component, Dir, NameError, Removal};
use bitts_mount::nfs::{NfsError, Share};
use bitts_mount::path::{PathKind, Root};
use bitts_mount::{SystemError, holders};

use crate::nfs;
use crate::task::{How, Mount, MountKey, MountSource, Plugin, Report, Stage, Task};

/// Where the agent mounts, and from where.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The kubelet's directory.
    pub kubelet_dir: PathBuf,
    /// The directory in which the paths of local volumes start.
    pub local_root: PathBuf,
    /// How long a server may take to answer.
    pub patience: Duration,
}

/// A change that is about to be made, for whoever wants to know or to stop before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A directory is made, unless it is there.
    Make(&'a str),
    /// The volume is mounted.
    Bind,
    /// The options of a mount are set once more.
    Configure,
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
    #[error("{0}")]
    Other(String),
}

enum Down {
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
                Ok((volumes, empty)) => Report::Scanned { volumes, empty },
                Err(trouble) => Report::ScanFailed(trouble.to_string()),
            },
            Task::Mount(mount) => match self.mount(&mount, watcher) {
                Ok(how) => Report::Mounted {
                    target: self.target(&mount.key),
                    mount,
                    how,
                },
                Err((stage, message)) => Report::MountFailed {
                    mount,
                    stage,
                    message,
                },
            },
            Task::Unmount(key) => match self.unmount(&key, watcher) {
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
        }
    }

    pub(crate) fn target(&self, key: &MountKey) -> PathBuf {
        self.kubelet_dir.join(key.target())
    }

    /// Finds the volumes of every pod, and the pods of which only empty directories are left (M29).
    /// Directories of other types are not looked into.
    fn scan(&self) -> Result<(Vec<MountKey>, Vec<bitts_api::Uid>), Trouble> {
        let kubelet = Dir::open(&self.kubelet_dir).map_err(|error| {
            Trouble::Other(format!(
                "{error}: create it or start the agent with --kubelet-dir"
            ))
        })?;
        let (mut volumes, mut empty) = (Vec::new(), Vec::new());
        let Some(pods) = kubelet.child(&name("pods")?)? else {
            return Ok((volumes, empty));
        };
        for uid in pods.children()? {
            match found_in(&pods, &uid) {
                Ok(Found::Volumes(found)) => {
                    volumes.extend(found.iter().map(|(plugin, volume)| MountKey {
                        pod: uid.as_str().into(),
                        volume: volume.as_str().into(),
                        plugin: *plugin,
                    }));
                }
                Ok(Found::Nothing) => empty.push(uid.as_str().into()),
                Ok(Found::NotOurs) => {}
                // One odd directory does not keep the others from being looked after.
                Err(error) => tracing::warn!(pod = %uid, %error, "a pod's directory is left alone"),
            }
        }
        Ok((volumes, empty))
    }

    fn mount(&self, mount: &Mount, watcher: Watcher<'_>) -> Result<How, (Stage, String)> {
        let new_mounter = |error: &dyn ToString| (Stage::NewMounter, error.to_string());
        let path = match &mount.source {
            MountSource::Local(path) => path,
            MountSource::Nfs { server, path } => {
                let share = nfs::share(server, path).map_err(|error| new_mounter(&error))?;
                return self
                    .set_up_nfs(mount, &share, watcher)
                    .map_err(|trouble| (Stage::SetUp, trouble.to_string()));
            }
        };
        let source = Root::open(&self.local_root)
            .and_then(|root| root.resolve(Path::new(&**path)))
            .map_err(|error| new_mounter(&error))?;
        if source.kind == PathKind::BlockDevice {
            return Err(new_mounter(&format!(
                "path {path:?} is a block device: this agent mounts only directories so far"
            )));
        }
        self.set_up(mount, &source.dir, watcher)
            .map_err(|trouble| (Stage::SetUp, trouble.to_string()))
    }

    fn set_up(&self, mount: &Mount, source: &Dir, watcher: Watcher<'_>) -> Result<How, Trouble> {
        let mut options = Options::parse(mount.options.iter().map(|text| &**text))
            .map_err(|error| Trouble::Other(error.to_string()))?;
        if mount.read_only {
            options = options.read_only();
        }
        let volume = name(mount.key.volume.as_str())?;
        let (dir, target) = self.make_target(&mount.key, watcher)?;
        let there = target.identity()?;
        if there.is_mount_point {
            if !there.is_same_file(&source.identity()?) {
                return Err(Trouble::Other(format!(
                    "something else than {:?} is mounted at {}: if nothing needs it, unmount it",
                    mount.source.to_string(),
                    target.path().display()
                )));
            }
            // An agent that was killed may not have come to this.
            watcher(Step::Configure)?;
            bind::configure(source, &target, options)?;
            return Ok(How::Before);
        }
        watcher(Step::Bind)?;
        if let Err(error) = bind::bind(source, &target, options) {
            drop(target);
            // M40; that it stays where it cannot be removed harms nobody.
            let _ = dir.remove(&volume);
            return Err(error.into());
        }
        Ok(How::Now)
    }

    fn set_up_nfs(
        &self,
        mount: &Mount,
        share: &Share,
        watcher: Watcher<'_>,
    ) -> Result<How, Trouble> {
        let options = nfs::options(mount)?;
        let (dir, target) = self.make_target(&mount.key, watcher)?;
        if target.identity()?.is_mount_point {
            nfs::expect(share, &target)?;
            return Ok(How::Before);
        }
        watcher(Step::Bind)?;
        let mounted = bitts_mount::nfs::mount(share, &target, &options, self.patience);
        if let Err(error) = mounted {
            drop(target);
            // M40; that it stays where it cannot be removed harms nobody.
            let _ = dir.remove(&name(mount.key.volume.as_str())?);
            return Err(Trouble::Nfs(error));
        }
        Ok(How::Now)
    }

    /// Makes the directory of a volume and all above it; returns the one above, too.
    fn make_target(&self, key: &MountKey, watcher: Watcher<'_>) -> Result<(Dir, Dir), Trouble> {
        let mut dir = Dir::open(&self.kubelet_dir)?;
        let (pod, plugin) = (key.pod.to_string(), key.plugin.directory());
        for part in ["pods", &pod, "volumes", plugin] {
            watcher(Step::Make(part))?;
            dir = dir.make_child(&name(part)?)?;
        }
        watcher(Step::Make(key.volume.as_str()))?;
        let target = dir.make_child(&name(key.volume.as_str())?)?;
        Ok((dir, target))
    }

    fn unmount(&self, key: &MountKey, watcher: Watcher<'_>) -> Result<Down, Trouble> {
        let (pod, volume) = (name(&key.pod.to_string())?, name(key.volume.as_str())?);
        let mut was_mounted = false;
        // Who uses the mount is asked anew before force, for which the answer must still be nobody.
        let mut by_force = false;
        if let Some(parent) = self.plugin_directory(key.plugin, &pod)? {
            while let Some(target) = parent.child(&volume)? {
                if !target.identity()?.is_mount_point {
                    break;
                }
                if let Some(holders) = held(key, holders::of_mount(&target)?)? {
                    return Ok(Down::Held(holders));
                }
                // Open, it would keep the mount busy.
                drop(target);
                watcher(Step::Unmount)?;
                match key.plugin {
                    Plugin::Local => parent.unmount(&volume)?,
                    Plugin::Nfs if by_force => {
                        nfs::force(&parent, &volume)?;
                        by_force = false;
                    }
                    Plugin::Nfs => {
                        let ended = nfs::unmount(&parent, &volume, self.patience)?;
                        by_force = ended == nfs::Ended::TooLate;
                    }
                }
                was_mounted = true;
            }
            // What is mounted there for others only would go with the directory.
            if let Some(bare) = parent.child(&volume)? {
                let foreign = holders::of_foreign_mount_on(&bare)?;
                if let Some(holders) = held(key, foreign)? {
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
        self.remove_empty(&pod, watcher)?;
        Ok(Down::Gone { was_mounted })
    }

    fn plugin_directory(&self, plugin: Plugin, pod: &Component) -> Result<Option<Dir>, Trouble> {
        let mut dir = Dir::open(&self.kubelet_dir)?;
        for part in ["pods", pod.as_str(), "volumes", plugin.directory()] {
            match dir.child(&name(part)?)? {
                Some(child) => dir = child,
                None => return Ok(None),
            }
        }
        Ok(Some(dir))
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
        if let Some(volumes) = pod_dir.child(&name("volumes")?)? {
            for plugin in Plugin::ALL.map(Plugin::directory) {
                watcher(Step::Remove(plugin))?;
                volumes.remove(&name(plugin)?)?;
            }
        }
        watcher(Step::Remove("volumes"))?;
        pod_dir.remove(&name("volumes")?)?;
        watcher(Step::Remove(pod.as_str()))?;
        pods.remove(pod)?;
        Ok(())
    }
}

enum Found {
    Volumes(Vec<(Plugin, Component)>),
    Nothing,
    NotOurs,
}

fn found_in(pods: &Dir, uid: &Component) -> Result<Found, Trouble> {
    let Some(pod) = pods.child(uid)? else {
        return Ok(Found::NotOurs);
    };
    let volumes = name("volumes")?;
    let mut only_ours = pod.children()?.iter().all(|child| *child == volumes);
    if let Some(volumes) = pod.child(&volumes)? {
        let mut found = Vec::new();
        for child in volumes.children()? {
            let plugin = Plugin::ALL
                .into_iter()
                .find(|plugin| plugin.directory() == child.as_str());
            match (plugin, volumes.child(&child)?) {
                (Some(plugin), Some(dir)) => {
                    found.extend(dir.children()?.into_iter().map(|name| (plugin, name)));
                }
                _ => only_ours = false,
            }
        }
        if !found.is_empty() {
            return Ok(Found::Volumes(found));
        }
    }
    Ok(if only_ours {
        Found::Nothing
    } else {
        Found::NotOurs
    })
}

/// The evidence against taking a mount away: processes of the pod, and others that
/// use the mount.
fn held(key: &MountKey, of_mount: Vec<holders::Holder>) -> Result<Option<String>, Trouble> {
    let mut found = holders::in_cgroup_of(&key.pod.to_string())?;
    found.extend(of_mount);
    let more = found.len().saturating_sub(3);
    let mut texts: Vec<_> = found.iter().take(3).map(ToString::to_string).collect();
    if more > 0 {
        texts.push(format!("and {more} more"));
    }
    Ok((!texts.is_empty()).then(|| texts.join(", ")))
}

fn name(text: &str) -> Result<Component, Trouble> {
    Ok(Component::new(text)?)
}
