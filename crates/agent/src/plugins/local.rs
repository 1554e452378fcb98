//! Volumes on the node itself: a directory, shown to each pod, or a block device (M40).

use super::VolumeType;

/// `local`.
pub(super) struct Local;

impl VolumeType for Local {
    fn directory(&self) -> &'static str {
        "kubernetes.io~local-volume"
    }

    fn stage_directory(&self) -> Option<&'static str> {
        Some("plugins/kubernetes.io/local-volume/mounts")
    }

    fn may_be_directory(&self) -> bool {
        true
    }

    fn has_one_group(&self) -> bool {
        true
    }
}

#[cfg(feature = "run")]
mod node {
    use std::path::Path;

    use bitts_api::Source;
    use bitts_mount::device::Device;
    use bitts_mount::dir::Dir;
    use bitts_mount::path::{PathKind, Root};

    use super::Local;
    use crate::plugins::node::{Failure, Mounter, not_of_this_type};

    use crate::task::{How, Mount, MountStep, OnNode, Staging};
    use crate::tree::{Tree, Trouble, Watcher};

    /// What the volume's path leads to.
    enum Found {
        Directory(Dir),
        Device(Device),
    }

    impl Mounter for Local {
        fn stage(
            &self,
            tree: &Tree,
            staging: &Staging,
            watcher: Watcher<'_>,
        ) -> Result<OnNode, Failure> {
            match look(tree, &staging.source)? {
                Found::Directory(_) => Ok(OnNode::Nothing),
                Found::Device(device) => tree
                    .stage_device(staging, &device, watcher)
                    .map_err(|trouble| (MountStep::MountDevice, trouble)),
            }
        }

        fn set_up(&self, tree: &Tree, mount: &Mount, watcher: Watcher<'_>) -> Result<How, Failure> {
            match look(tree, &mount.source)? {
                Found::Directory(dir) => tree.bind_directory(mount, &dir, watcher),
                Found::Device(device) => tree.bind_staged(mount, &device, watcher),
            }
            .map_err(|trouble| (MountStep::SetUp, trouble))
        }

        fn device(&self, tree: &Tree, source: &Source) -> Result<Device, Failure> {
            match look(tree, source)? {
                Found::Device(device) => Ok(device),
                Found::Directory(dir) => {
                    let path = dir.path().display();
                    let text = format!("{path} is a directory: volumeMode Block needs a device");
                    Err((MountStep::NewMounter, Trouble::Other(text)))
                }
            }
        }
    }

    fn look(tree: &Tree, source: &Source) -> Result<Found, Failure> {
        let found = match source {
            Source::Local { path, .. } => Root::open(&tree.local_root)
                .and_then(|root| root.resolve(Path::new(&**path)))
                .map_err(|error| Trouble::Other(error.to_string())),
            other => Err(not_of_this_type(other)),
        };
        found
            .and_then(|found| match found.kind {
                PathKind::Directory => Ok(Found::Directory(found.dir)),
                PathKind::BlockDevice => Ok(Found::Device(Device::resolved(&found.dir)?)),
            })
            .map_err(|trouble| (MountStep::NewMounter, trouble))
    }
}
