//! A device at its place below the kubelet's directory, for all pods of the node.

use std::path::Path;
use std::time::Duration;

use bitts_mount::bind;
use bitts_mount::census::Census;
use bitts_mount::device::{self, Device, FsType, Options};
use bitts_mount::dir::{Component, Dir, Removal};
use bitts_mount::holders::Holder;
use bitts_mount::nfs;
use bitts_mount::table::MountTable;

use crate::task::{How, Mount, OnNode, StageKey, Staging};
use crate::tree::{Step, Tree, Trouble, Watcher, name};

/// How long a device may take to be identified, formatted or checked, mounted and grown: a large one
/// takes minutes.
const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// How long it may take until what was written is on it.
const FLUSHED: Duration = Duration::from_secs(5 * 60);

impl Tree {
    /// Mounts a device for the volumes that are on it, unless it is.
    pub(crate) fn stage_device(
        &self,
        staging: &Staging,
        device: &Device,
        watcher: Watcher<'_>,
    ) -> Result<OnNode, Trouble> {
        let fs = fs_type(staging)?;
        let options = Options::parse(staging.options.iter().map(|text| &**text))
            .map_err(|error| Trouble::Other(error.to_string()))?;
        let options = if staging.read_only {
            options.read_only()
        } else {
            options
        };
        let directory = directory(&staging.key)?;
        let place = self.make(directory.split('/'), staging.key.name.as_str(), watcher)?;
        if place.dir.identity()?.is_mount_point {
            expect(device, &place.dir)?;
            return Ok(OnNode::Device {
                how: How::Before,
                warning: None,
            });
        }
        watcher(Step::Stage)?;
        match device::stage(device, &place.dir, fs, &options, DEADLINE) {
            Ok(staged) => Ok(OnNode::Device {
                how: How::Now,
                warning: staged.grown.err().map(|error| error.to_string()),
            }),
            Err(error) => {
                place.give_up();
                Err(error.into())
            }
        }
    }

    /// Shows a device that is staged in a pod's directory.
    pub(crate) fn bind_staged(
        &self,
        mount: &Mount,
        device: &Device,
        watcher: Watcher<'_>,
    ) -> Result<How, Trouble> {
        let key = &mount.staging.as_ref().ok_or(Trouble::NotStaged)?.key;
        let (_, staged) = self.staged(key)?.ok_or(Trouble::NotStaged)?;
        let dir = staged.ok_or(Trouble::NotStaged)?;
        if !dir.identity()?.is_mount_point {
            return Err(Trouble::NotStaged);
        }
        expect(device, &dir)?;
        // The volume's options are those of the file system, which the pod's mount takes over.
        self.bind(mount, &dir, bind::Options::default(), watcher)
    }

    /// Takes a device down that no pod uses. Returns whether it was mounted.
    pub(crate) fn unstage_device(
        &self,
        key: &StageKey,
        watcher: Watcher<'_>,
    ) -> Result<bool, Trouble> {
        let volume = name(key.name.as_str())?;
        let Some((parent, mut staged)) = self.staged(key)? else {
            return Ok(false);
        };
        let mut was_mounted = false;
        while let Some(dir) = staged {
            if !dir.identity()?.is_mount_point {
                let foreign = Census::take()?.of_foreign_mount_on(&dir)?;
                refuse(&foreign)?;
                break;
            }
            refuse(&Census::take()?.of_mount(&dir)?)?;
            ensure_not_elsewhere(&dir)?;
            // Open, it would keep the mount busy.
            drop(dir);
            watcher(Step::Unmount)?;
            nfs::unmount(&parent, &volume, nfs::Unmount::Normal, FLUSHED)?;
            was_mounted = true;
            staged = parent.child(&volume)?;
        }
        watcher(Step::Remove(volume.as_str()))?;
        match parent.remove(&volume)? {
            Removal::Removed | Removal::Absent => Ok(was_mounted),
            Removal::MountPoint => Err(Trouble::Other("it was mounted again meanwhile".to_owned())),
            Removal::NotEmpty => Err(Trouble::Other(format!(
                "{} has files in it that were written while nothing was mounted there: move them away",
                parent.path().join(volume.as_str()).display()
            ))),
        }
    }

    /// The directory of a type's devices, and the one of this device in it.
    fn staged(&self, key: &StageKey) -> Result<Option<(Dir, Option<Dir>)>, Trouble> {
        let parts: Vec<_> = directory(key)?.split('/').collect();
        let Some(dir) = self.directory(&parts)? else {
            return Ok(None);
        };
        let staged = dir.child(&name(key.name.as_str())?)?;
        Ok(Some((dir, staged)))
    }
}

fn directory(key: &StageKey) -> Result<&'static str, Trouble> {
    let directory = key.plugin.stage_directory();
    directory.ok_or_else(|| Trouble::Other(format!("{key} is of a type that stages nothing")))
}

fn fs_type(staging: &Staging) -> Result<FsType, Trouble> {
    let asked = staging.source.fs_type().unwrap_or_default();
    FsType::named(asked).ok_or_else(|| {
        Trouble::Other(format!(
            "fsType {asked:?} cannot be mounted by this agent: ext4, ext3, ext2 and xfs can"
        ))
    })
}

/// Whether what is mounted at a directory is this device.
fn expect(device: &Device, mounted: &Dir) -> Result<(), Trouble> {
    let table = MountTable::read()?;
    let found = table.get(mounted.identity()?.mount);
    if found.is_some_and(|mount| mount.device == device.number()) {
        return Ok(());
    }
    Err(something_else(
        &device.path().display().to_string(),
        mounted,
    ))
}

/// What is mounted is not what was asked for.
pub(crate) fn something_else(asked: &str, mounted: &Dir) -> Trouble {
    Trouble::Other(format!(
        "something else than {asked:?} is mounted at {}: if nothing needs it, unmount it",
        mounted.path().display()
    ))
}

/// A device is not taken from what else shows it (M23).
fn ensure_not_elsewhere(staged: &Dir) -> Result<(), Trouble> {
    let table = MountTable::read()?;
    let Some(ours) = table.get(staged.identity()?.mount) else {
        return Ok(()); // unmounted meanwhile
    };
    let other = table
        .iter()
        .find(|mount| mount.device == ours.device && mount.point != ours.point);
    match other {
        Some(other) => Err(Trouble::Other(format!(
            "the device is still mounted at {}",
            other.point.display()
        ))),
        None => Ok(()),
    }
}

pub(crate) fn refuse(holders: &[Holder]) -> Result<(), Trouble> {
    match holders {
        [] => Ok(()),
        [first, ..] => Err(Trouble::Other(format!("{first}. End what uses it"))),
    }
}

/// The device that a link of this name leads to; links are made by udev, below a directory that only
/// root may write.
pub(crate) fn linked_device(
    directory: &Path,
    link: &str,
    absent: impl FnOnce() -> String,
) -> Result<Device, Trouble> {
    let link = Component::new(link)?;
    let path = directory.join(link.as_str());
    match Device::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Trouble::Other(absent())),
        device => Ok(device?),
    }
}
