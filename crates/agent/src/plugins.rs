//! The types of volumes that the agent mounts, one file each.
//!
//! A new one is a file with a [`VolumeType`] and a line in each list here.

mod csi;
mod gce_persistent_disk;
mod host_path;
mod iscsi;
mod local;
mod nfs;

use std::path::PathBuf;

use bitts_api::{Name, NodeName, Source};
#[cfg(feature = "run")]
pub(crate) use node::Mounter;

/// A type of volume that the agent mounts: a plugin, as the kubelet calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plugin {
    /// Directories and block devices of the node (M40).
    Local,
    /// Exports of NFS servers (M41).
    Nfs,
    /// Disks of Google's cloud, once they are attached.
    GcePersistentDisk,
    /// Disks of iSCSI targets, once the node is logged in there.
    Iscsi,
    /// Paths of whichever node the pod runs on (M42).
    HostPath,
    /// Volumes of CSI drivers on the node (M19, M20).
    Csi,
}

impl Plugin {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Local,
        Self::Nfs,
        Self::GcePersistentDisk,
        Self::Iscsi,
        Self::HostPath,
        Self::Csi,
    ];

    /// The plugin that mounts this.
    #[must_use]
    pub fn of(source: &Source) -> Option<Self> {
        match source {
            Source::Local { .. } => Some(Self::Local),
            Source::Nfs { .. } => Some(Self::Nfs),
            Source::GcePersistentDisk { .. } => Some(Self::GcePersistentDisk),
            Source::Iscsi { .. } => Some(Self::Iscsi),
            Source::HostPath { .. } => Some(Self::HostPath),
            Source::Csi(_) => Some(Self::Csi),
            Source::Other(_) => None,
        }
    }

    pub(crate) fn volume_type(self) -> &'static dyn VolumeType {
        match self {
            Self::Local => &local::Local,
            Self::Nfs => &nfs::Nfs,
            Self::GcePersistentDisk => &gce_persistent_disk::GcePersistentDisk,
            Self::Iscsi => &iscsi::Iscsi,
            Self::HostPath => &host_path::HostPath,
            Self::Csi => &csi::Csi,
        }
    }

    #[cfg(feature = "run")]
    pub(crate) fn mounter(self) -> &'static dyn Mounter {
        match self {
            Self::Local => &local::Local,
            Self::Nfs => &nfs::Nfs,
            Self::GcePersistentDisk => &gce_persistent_disk::GcePersistentDisk,
            Self::Iscsi => &iscsi::Iscsi,
            Self::HostPath => &host_path::HostPath,
            Self::Csi => &csi::Csi,
        }
    }

    /// The directory in which a pod's volumes of this type are mounted, as the kubelet names it.
    #[must_use]
    pub fn directory(self) -> &'static str {
        self.volume_type().directory()
    }

    /// The directory in which the devices of such volumes are mounted, below the kubelet's; none
    /// where a volume is mounted for each pod anew.
    #[must_use]
    pub fn stage_directory(self) -> Option<&'static str> {
        self.volume_type().stage_directory()
    }
}

/// The name of the VolumeAttachment of a CSI volume on a node (A23).
pub(crate) fn attachment(driver: &str, handle: &str, node: &NodeName) -> Name {
    let name = format!("csi-{}", csi::sha256(&[handle, driver, node.as_str()]));
    name.as_str().into()
}

/// What there is to know of a type of volume before anything is done for one.
pub(crate) trait VolumeType {
    /// See [`Plugin::directory`].
    fn directory(&self) -> &'static str;

    /// See [`Plugin::stage_directory`].
    fn stage_directory(&self) -> Option<&'static str> {
        None
    }

    /// The name that the device of a volume has in there: the same for all volumes that are on it.
    fn stage_name(&self, _source: &Source, volume: &Name) -> Name {
        volume.clone()
    }

    /// Where the device of this name is mounted, below the kubelet's directory.
    fn stage_target(&self, name: &Name) -> Option<PathBuf> {
        Some(PathBuf::from(self.stage_directory()?).join(name.as_str()))
    }

    /// The directory in the pod's for the volume that the mount is at, where it is not that one itself.
    fn inner(&self) -> Option<&'static str> {
        None
    }

    /// Whether a pod may have the device itself.
    fn has_devices(&self) -> bool {
        self.stage_directory().is_some()
    }

    /// The server that a mount of this source waits for; none where the node is enough.
    fn server<'a>(&self, _source: &'a Source) -> Option<&'a str> {
        None
    }

    /// Whether a volume of this type may turn out to be a directory, which is not staged.
    fn may_be_directory(&self) -> bool {
        false
    }

    /// How the names of its disks begin in a node's `volumesInUse`; none where nothing is attached.
    fn attachable_prefix(&self) -> Option<&'static str> {
        None
    }

    /// The names that a disk may have there, by the name that it is staged under.
    fn attachable_names(&self, _stage: &Name) -> Vec<String> {
        Vec::new()
    }

    /// Whether the attach controller is waited for (A35).
    fn waits_for_attach(&self) -> bool {
        false
    }

    /// Whether mount options mean anything for this type (M16).
    fn has_mount_options(&self) -> bool {
        true
    }

    /// Whether the files are given to the pod's group (M35).
    fn has_groups(&self) -> bool {
        self.stage_directory().is_some()
    }

    /// Whether that is done only for the first pod on the node (M38).
    fn has_one_group(&self) -> bool {
        false
    }
}

#[cfg(feature = "run")]
mod node {
    use bitts_api::Source;
    use bitts_mount::device::Device;
    use bitts_mount::dir::{Component, Dir};
    use bitts_mount::table::MountTable;

    use super::Plugin;
    use crate::scan::Staged;
    use crate::task::{How, Mount, MountKey, MountStep, OnNode, StageKey, Staging};
    use crate::tree::{Down, Ended, Tree, Trouble, Watcher};

    /// What is done on the node for a type of volume. Each is idempotent, and is asked at every
    /// [`Step`](crate::tree::Step) whether it shall go on.
    pub(crate) trait Mounter {
        /// How it is read from what the mount table has as the source; none where there is no server.
        fn server_of(&self) -> Option<fn(&str) -> Option<&str>> {
            None
        }

        /// Has the volume's device at its place in the stage directory.
        fn stage(
            &self,
            _tree: &Tree,
            _staging: &Staging,
            _watcher: Watcher<'_>,
        ) -> Result<OnNode, Failure> {
            Ok(OnNode::Nothing)
        }

        /// Takes down what [`Mounter::stage`] made. Returns whether it was mounted.
        fn unstage(
            &self,
            tree: &Tree,
            key: &StageKey,
            watcher: Watcher<'_>,
        ) -> Result<bool, Trouble> {
            tree.unstage_device(key, watcher)
        }

        /// The devices that are in the stage directory.
        fn staged(
            &self,
            plugin: Plugin,
            all: &Dir,
            table: &MountTable,
        ) -> Result<Vec<Staged>, Trouble> {
            Staged::each_child(plugin, all, table)
        }

        /// The device of a volume whose directory was found in a pod's.
        fn stage_of(
            &self,
            parent: &Dir,
            volume: &Component,
            staged: &[Staged],
            table: &MountTable,
        ) -> Result<Option<StageKey>, Trouble> {
            Staged::below(parent, volume, staged, table)
        }

        /// Has the volume in the pod's directory.
        fn set_up(&self, tree: &Tree, mount: &Mount, watcher: Watcher<'_>) -> Result<How, Failure>;

        /// The device that a pod gets as it is (M27).
        fn device(&self, _tree: &Tree, source: &Source) -> Result<Device, Failure> {
            Err((MountStep::NewMounter, not_of_this_type(source)))
        }

        /// Mounts a volume anew in the place of a mount that only a new one can replace.
        fn renew(
            &self,
            _tree: &Tree,
            mount: &Mount,
            _watcher: Watcher<'_>,
        ) -> Result<How, Failure> {
            Err((MountStep::SetUp, not_of_this_type(&mount.source)))
        }

        /// Whether it sees to the files of the pod's group itself (M37).
        fn gives_group(&self, _tree: &Tree, _mount: &Mount) -> Result<bool, Trouble> {
            Ok(false)
        }

        /// Takes the volume from the pod's directory, unless something still uses it.
        fn take_down(
            &self,
            tree: &Tree,
            key: &MountKey,
            watcher: Watcher<'_>,
        ) -> Result<Down, Trouble> {
            tree.unmount(key, watcher)
        }

        /// Whether anything is mounted for a pod at all.
        fn is_mounted(&self) -> bool {
            true
        }

        /// Takes the topmost mount from a pod's directory.
        fn unmount(
            &self,
            _tree: &Tree,
            parent: &Dir,
            volume: &Component,
            _by_force: bool,
        ) -> Result<Ended, Trouble> {
            parent.unmount(volume)?;
            Ok(Ended::InTime)
        }
    }

    /// The step at which it failed, and why.
    pub(super) type Failure = (MountStep, Trouble);

    /// A type of which every volume is a disk that the node has under a known name.
    pub(super) trait Disk {
        /// The disk, where it is there.
        fn find(&self, tree: &Tree, source: &Source) -> Result<Device, Trouble>;
    }

    impl<T: Disk> Mounter for T {
        fn stage(
            &self,
            tree: &Tree,
            staging: &Staging,
            watcher: Watcher<'_>,
        ) -> Result<OnNode, Failure> {
            self.find(tree, &staging.source)
                .and_then(|device| tree.stage_device(staging, &device, watcher))
                .map_err(|trouble| (MountStep::MountDevice, trouble))
        }

        fn set_up(&self, tree: &Tree, mount: &Mount, watcher: Watcher<'_>) -> Result<How, Failure> {
            self.find(tree, &mount.source)
                .and_then(|device| tree.bind_staged(mount, &device, watcher))
                .map_err(|trouble| (MountStep::SetUp, trouble))
        }

        fn device(&self, tree: &Tree, source: &Source) -> Result<Device, Failure> {
            self.find(tree, source)
                .map_err(|trouble| (MountStep::NewMounter, trouble))
        }
    }

    /// A source of another type than the plugin's: a bug of the machine's, told like any failure.
    pub(super) fn not_of_this_type(source: &Source) -> Trouble {
        Trouble::Other(format!(
            "{source} was given to the wrong plugin: report this"
        ))
    }
}
