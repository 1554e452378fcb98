//! What the agent's machine asks of its worker, and what it is told.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bitts_api::{Name, ObjectKey, Uid};

/// A type of volume that the agent mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plugin {
    /// Directories of the node (M40).
    Local,
    /// Exports of NFS servers (M41).
    Nfs,
}

impl Plugin {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Local, Self::Nfs];

    /// The directory in which a pod's volumes of this type are mounted, as the kubelet names it.
    #[must_use]
    pub fn directory(self) -> &'static str {
        match self {
            Self::Local => "kubernetes.io~local-volume",
            Self::Nfs => "kubernetes.io~nfs",
        }
    }
}

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
}

impl MountKey {
    /// Where it is mounted, below the kubelet's directory.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        let Self {
            pod,
            volume,
            plugin,
        } = self;
        format!("pods/{pod}/volumes/{}/{volume}", plugin.directory()).into()
    }
}

/// A mount as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Of which volume, in which pod.
    pub key: MountKey,
    /// What is mounted.
    pub source: MountSource,
    /// The volume's mount options.
    pub options: Box<[Box<str>]>,
    /// Whether the pod only reads.
    pub read_only: bool,
}

/// What is mounted, as the volume names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A directory on the node.
    Local(Box<str>),
    /// An export.
    Nfs {
        /// The server's name or address.
        server: Box<str>,
        /// The path there.
        path: Box<str>,
    },
}

impl MountSource {
    /// The type of volume that it belongs to.
    #[must_use]
    pub fn plugin(&self) -> Plugin {
        match self {
            Self::Local(_) => Plugin::Local,
            Self::Nfs { .. } => Plugin::Nfs,
        }
    }
}

impl fmt::Display for MountSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => f.write_str(path),
            Self::Nfs { server, path } => write!(f, "{server}:{path}"),
        }
    }
}

/// Work for the worker. Each is idempotent: doing it again after it was cut off anywhere is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Find the volumes that an earlier agent left in the kubelet's directory (M29).
    Scan,
    /// Mount a volume for a pod.
    Mount(Mount),
    /// Take a volume from a pod that is over, unless something still uses it.
    Unmount(MountKey),
    /// Remove the empty directories of a pod that is over.
    RemovePodDirectory(Uid),
}

/// What came of a [`Task`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// What is there.
    Scanned {
        /// Directories of volumes, mounted or not.
        volumes: Vec<MountKey>,
        /// Pods of which only empty directories are left.
        empty: Vec<Uid>,
    },
    /// The kubelet's directory cannot be read.
    ScanFailed(String),
    /// The volume is mounted.
    Mounted {
        /// The mount that was asked for.
        mount: Mount,
        /// Where it is.
        target: PathBuf,
        /// How that came about.
        how: How,
    },
    /// The volume is not mounted.
    MountFailed {
        /// The mount that was asked for.
        mount: Mount,
        /// The step that failed.
        stage: Stage,
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
}

/// How a volume came to be mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It was mounted just now.
    Now,
    /// It was mounted before.
    Before,
    /// It was not: mounts are only shown here.
    Shown,
}

/// The steps of a mount by the names that users know from the kubelet's events (M16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Looking at what the volume names.
    NewMounter,
    /// Mounting it.
    SetUp,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NewMounter => "MountVolume.NewMounter initialization failed",
            Self::SetUp => "MountVolume.SetUp failed",
        })
    }
}

/// What a timer is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Scan again.
    Scan,
    /// Try a volume again; stale unless it is the volume's latest try.
    Retry(MountKey, u32),
    /// Try again to delete the object of a pod that is over.
    Finish(ObjectKey),
}

/// How long to wait after this many failures in a row: 500 ms, doubling to 2 m 2 s (N11).
pub(crate) fn back_off(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(500);
    const MOST: Duration = Duration::from_secs(122);
    let doublings = failures.saturating_sub(1).min(8);
    (FIRST * 2_u32.pow(doublings)).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backs_off_as_the_kubelet_does() {
        let millis = [1, 2, 3, 8, 9, 40].map(|n| back_off(n).as_millis());
        assert_eq!(millis, [500, 1000, 2000, 64_000, 122_000, 122_000]);
    }

    #[test]
    fn the_target_is_where_the_kubelet_has_it() {
        let key = MountKey {
            pod: "u-1".into(),
            volume: "cqh".into(),
            plugin: Plugin::Local,
        };
        let target = "pods/u-1/volumes/kubernetes.io~local-volume/cqh";
        assert_eq!(key.target().to_str(), Some(target));
    }
}
