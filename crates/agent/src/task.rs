//! What the agent's machine asks of its worker, and what it is told.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use bitts_api::{AccessModes, Name, Node, ObjectKey, Source, Uid, VolumeMode};

use crate::heal::Ailment;
use crate::plugins::Plugin;

/// A volume in a pod: the unit of work. One task of it runs at a time, those of different ones run
/// side by side (M7).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MountKey {
    /// The pod.
    pub pod: Uid,
    /// The PersistentVolume.
    pub volume: Name,
    /// Its type.
    pub plugin: Plugin,
    /// Whether the pod gets a directory or the device itself.
    pub mode: VolumeMode,
}

impl MountKey {
    /// Where the pod finds it, below the kubelet's directory.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        let Self {
            pod,
            volume,
            plugin,
            mode,
        } = self;
        let kind = in_pod(*mode);
        let target = format!("pods/{pod}/{kind}/{}/{volume}", plugin.directory());
        match plugin.volume_type().inner() {
            Some(inner) => PathBuf::from(target).join(inner),
            None => target.into(),
        }
    }
}

/// The directory of a pod's volumes of this mode.
pub(crate) fn in_pod(mode: VolumeMode) -> &'static str {
    match mode {
        VolumeMode::Filesystem => "volumes",
        VolumeMode::Block => "volumeDevices",
    }
}

/// A mount as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Of which volume, in which pod.
    pub key: MountKey,
    /// What is mounted, as the volume names it.
    pub source: Source,
    /// The volume's mount options.
    pub options: Box<[Box<str>]>,
    /// Whether the pod only reads.
    pub read_only: bool,
    /// The group to which the files are given.
    pub group: Option<Group>,
    /// The device that must be mounted before, where the volume is on one.
    pub staging: Option<Box<Staging>>,
    /// What a CSI driver is told besides.
    pub csi: Option<Box<ForDriver>>,
}

/// What a CSI driver is told of a volume besides its source (M19, M20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForDriver {
    /// How the volume may be used.
    pub modes: AccessModes,
    /// Whether it is attached to the node.
    pub attached: Attached,
    /// The group of the pod, which a driver that can give files to it is told (M37).
    pub gid: Option<u32>,
    /// For which pod it is, where the driver wants to know.
    pub pod: Option<PodInfo>,
}

/// Whether a volume of a CSI driver is attached to the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attached {
    /// Its driver attaches nothing.
    NotNeeded,
    /// Not yet, and why not, where something is wrong.
    Waits(Option<Box<str>>),
    /// It is, and this is what the driver noted then.
    Yes(BTreeMap<Box<str>, Box<str>>),
}

/// What some CSI drivers are told of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInfo {
    /// Its name.
    pub name: Name,
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its uid.
    pub uid: Uid,
    /// Its service account.
    pub service_account: Box<str>,
}

/// The group of a volume's files (M35).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub gid: u32,
    /// Which files are given to it.
    pub give: Give,
}

/// Which files of a volume are given to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Give {
    /// All, at each mount.
    Always,
    /// All, unless the root is the group's (M36).
    OnRootMismatch,
    /// None, as another pod uses them; that its group is another one is told (M38).
    Never,
}

/// A device on the node, mounted once for all pods that use a volume on it (M6). One task of it
/// runs at a time (M7).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StageKey {
    /// The type of its volumes.
    pub plugin: Plugin,
    /// Its name in that type's directory.
    pub name: Name,
}

impl StageKey {
    /// Where it is mounted, below the kubelet's directory; nowhere for types that stage nothing.
    #[must_use]
    pub fn target(&self) -> Option<PathBuf> {
        self.plugin.volume_type().stage_target(&self.name)
    }
}

impl fmt::Display for StageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target() {
            Some(target) => write!(f, "{}", target.display()),
            None => f.write_str(self.name.as_str()),
        }
    }
}

/// A device as it shall be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staging {
    /// Which.
    pub key: StageKey,
    /// The volume that asks for it.
    pub volume: Name,
    /// The device, as the volume names it.
    pub source: Source,
    /// The volume's mount options.
    pub options: Box<[Box<str>]>,
    /// Whether nothing is ever written to the device: then it is neither formatted nor checked.
    pub read_only: bool,
    /// What a CSI driver is told besides.
    pub csi: Option<Box<ForDriver>>,
}

impl Staging {
    /// What nodes call it as long as it has to stay attached; nothing for what is not attached.
    pub(crate) fn attachable_names(&self) -> Vec<String> {
        match &self.csi {
            Some(csi) if csi.attached == Attached::NotNeeded => Vec::new(),
            _ => self
                .key
                .plugin
                .volume_type()
                .attachable_names(&self.key.name),
        }
    }

    /// Whether it may be used on this node (A35, M18): the attach controller says so, and the driver.
    pub(crate) fn is_attached(&self, node: &Node) -> bool {
        if let Some(csi) = &self.csi
            && matches!(csi.attached, Attached::Waits(_))
        {
            return false;
        }
        let names = self.attachable_names();
        let waits = self.key.plugin.volume_type().waits_for_attach() && node.is_attached_to();
        !waits || names.is_empty() || names.iter().any(|name| node.lists(name))
    }
}

/// Work for the worker. Each is idempotent: doing it again after it was cut off anywhere is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Find the volumes that an earlier agent left in the kubelet's directory (M29).
    Scan,
    /// Have a volume's device mounted; does nothing for a volume that has none.
    Stage(Staging),
    /// Mount a volume for a pod.
    Mount(Mount),
    /// Take a volume from a pod that is over, unless something still uses it.
    Unmount(MountKey),
    /// Take a device down that no pod uses any more.
    Unstage(StageKey),
    /// Remove the empty directories of a pod that is over.
    RemovePodDirectory(Uid),
    /// Wait until something that was mounted no longer is.
    Watch,
    /// Ask a server whether these mounts of it are well.
    Probe {
        /// Its name or address, as volumes have it.
        server: Box<str>,
        /// What is mounted from there.
        mounts: Vec<MountKey>,
    },
    /// Mount a volume anew, and let go of what is mounted in its place. Only for network file
    /// systems: who has files open there goes on with the old mount.
    Renew(Mount),
    /// Notice when a kubelet has mounted this.
    Await(MountKey),
    /// Do not look after a kubelet's mount any more.
    Leave(MountKey),
}

impl Task {
    /// Where it mounts or unmounts, below the kubelet's directory.
    #[must_use]
    pub fn target(&self) -> Option<PathBuf> {
        match self {
            Self::Mount(mount) | Self::Renew(mount) => Some(mount.key.target()),
            Self::Unmount(key) => Some(key.target()),
            Self::Stage(staging) => staging.key.target(),
            Self::Unstage(key) => key.target(),
            Self::Scan
            | Self::RemovePodDirectory(_)
            | Self::Probe { .. }
            | Self::Watch
            | Self::Await(_)
            | Self::Leave(_) => None,
        }
    }
}

/// What came of a [`Task`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// What is there.
    Scanned {
        /// Directories of volumes, mounted or not.
        volumes: Vec<Leftover>,
        /// Directories of devices, mounted or not.
        stages: Vec<StageKey>,
        /// Pods of which only empty directories are left.
        empty: Vec<Uid>,
    },
    /// The kubelet's directory cannot be read.
    ScanFailed(String),
    /// The device is ready for the volume's pods.
    Staged {
        /// What was asked for.
        staging: Staging,
        /// What the node has of it.
        on_node: OnNode,
    },
    /// The device is not ready.
    StageFailed {
        /// What was asked for.
        staging: Staging,
        /// The step that failed.
        step: MountStep,
        /// Why, and what to do.
        message: String,
    },
    /// Nothing of the device is left mounted.
    Unstaged {
        /// Which.
        key: StageKey,
        /// Whether it was mounted at all.
        was_mounted: bool,
    },
    /// The device could not be taken down.
    UnstageFailed {
        /// Which.
        key: StageKey,
        /// Why, and what to do.
        message: String,
    },
    /// The volume is mounted.
    Mounted {
        /// The mount that was asked for.
        mount: Mount,
        /// Where it is.
        target: PathBuf,
        /// How that came about.
        how: How,
        /// What went wrong without keeping the volume from being used.
        warning: Option<Warning>,
    },
    /// The volume is on a device, which must be staged first. Nothing was done.
    NeedsDevice(Mount),
    /// The volume is not mounted.
    MountFailed {
        /// The mount that was asked for.
        mount: Mount,
        /// The step that failed.
        step: MountStep,
        /// Why, and what to do.
        message: String,
    },
    /// Nothing of the volume is left in the pod's directory.
    Unmounted {
        /// Which.
        key: MountKey,
        /// Where it was.
        target: PathBuf,
        /// Whether it was mounted at all.
        was_mounted: bool,
    },
    /// Something still uses the volume, so it stays.
    Kept {
        /// Which.
        key: MountKey,
        /// Where it is.
        target: PathBuf,
        /// What uses it.
        holders: String,
    },
    /// The volume could not be taken down.
    UnmountFailed {
        /// Which.
        key: MountKey,
        /// Why, and what to do.
        message: String,
    },
    /// A pod's empty directories were removed, as far as they were empty.
    PodDirectoryRemoved(Uid),
    /// These were mounted and no longer are, and nobody here took them down.
    Missing(Vec<MountKey>),
    /// A kubelet has mounted these, which were [awaited](Task::Await).
    Appeared(Vec<MountKey>),
    /// A volume is left to the kubelet: as was asked for, or because nothing of its pod runs any more.
    Left(MountKey),
    /// How mounts of a server are.
    Probed {
        /// Its name or address, as volumes have it.
        server: Box<str>,
        /// Each with what is wrong with it, if anything.
        mounts: Vec<(MountKey, Option<Ailment>)>,
    },
}

/// What a pod is told besides that its volume is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The event's reason.
    pub reason: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

/// How a volume came to be mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It was mounted just now.
    Now,
    /// It was mounted before.
    Before,
    /// It was mounted before, and is mounted anew.
    Anew,
    /// It was not: mounts are only shown here.
    Shown,
}

/// A volume's directory in a pod's, as an earlier agent left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Whose.
    pub key: MountKey,
    /// The device that is mounted there.
    pub stage: Option<StageKey>,
}

/// What the node has of a volume's device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnNode {
    /// Nothing: there is no device, or mounts are only shown here.
    Nothing,
    /// It is mounted.
    Device {
        /// How that came about.
        how: How,
        /// What went wrong without keeping the volume from being used: it could not be grown.
        warning: Option<String>,
    },
}

/// The steps of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountStep {
    /// Looking at what the volume names.
    NewMounter,
    /// Mounting its device.
    MountDevice,
    /// Mounting it for the pod.
    SetUp,
}

impl MountStep {
    /// What failed, by the names that users know from the kubelet's events (M16, M27).
    #[must_use]
    pub fn failed(self, mode: VolumeMode) -> &'static str {
        match (self, mode) {
            (Self::NewMounter, VolumeMode::Filesystem) => {
                "MountVolume.NewMounter initialization failed"
            }
            (Self::MountDevice, VolumeMode::Filesystem) => "MountVolume.MountDevice failed",
            (Self::SetUp, VolumeMode::Filesystem) => "MountVolume.SetUp failed",
            (Self::NewMounter, VolumeMode::Block) => {
                "MapVolume.NewBlockVolumeMapper initialization failed"
            }
            (Self::MountDevice, VolumeMode::Block) => "MapVolume.SetUpDevice failed",
            (Self::SetUp, VolumeMode::Block) => "MapVolume.MapBlockVolume failed",
        }
    }
}

/// What a timer is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Scan again.
    Scan,
    /// Try a volume again; stale unless it is the volume's latest try.
    Retry(MountKey, u32),
    /// Try a device again; stale unless it is the device's latest try.
    RetryStage(StageKey, u32),
    /// Try again to tell what the node uses; stale unless it is the latest try.
    InUse(u32),
    /// Try again to delete the object of a pod that is over.
    Finish(ObjectKey),
    /// Ask the servers how their mounts are.
    Probe,
    /// Mount again what vanished.
    Heal(MountKey),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_where_the_kubelet_has_it() {
        let key = MountKey {
            pod: "u-1".into(),
            volume: "cqh".into(),
            plugin: Plugin::Local,
            mode: VolumeMode::Filesystem,
        };
        let target = "pods/u-1/volumes/kubernetes.io~local-volume/cqh";
        assert_eq!(key.target().to_str(), Some(target));
        let raw = MountKey {
            mode: VolumeMode::Block,
            ..key
        };
        let target = "pods/u-1/volumeDevices/kubernetes.io~local-volume/cqh";
        assert_eq!(raw.target().to_str(), Some(target));
    }
}
