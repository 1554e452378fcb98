//! A volume in a pod's directory: made, and bound to what it shows.

use std::time::Duration;

use bitts_mount::bind::{self, Options};
use bitts_mount::dir::{Component, Dir};
use bitts_mount::group;

use crate::stage::something_else;
use crate::task::{Give, Group, How, Mount, MountKey, Warning};
use crate::tree::{Step, Tree, Trouble, Watcher, name};

/// Where a volume is mounted for a pod.
pub(crate) struct Place {
    /// The directory, or what is mounted there.
    pub(crate) dir: Dir,
    above: Dir,
    name: Component,
}

impl Place {
    /// Removes the directory after a mount failed (M40). That it stays where it cannot be removed
    /// harms nobody.
    pub(crate) fn give_up(self) {
        drop(self.dir);
        let _ = self.above.remove(&self.name);
    }
}

impl Tree {
    /// Makes the directory of a volume and all above it.
    pub(crate) fn make_target(
        &self,
        key: &MountKey,
        watcher: Watcher<'_>,
    ) -> Result<Place, Trouble> {
        let pod = key.pod.to_string();
        let above = ["pods", &pod, "volumes", key.plugin.directory()];
        self.make(above, key.volume.as_str(), watcher)
    }

    /// Makes a directory of this name and those above it, below the kubelet's.
    pub(crate) fn make<'a>(
        &self,
        above: impl IntoIterator<Item = &'a str>,
        last: &str,
        watcher: Watcher<'_>,
    ) -> Result<Place, Trouble> {
        let above = self.make_directory(above, watcher)?;
        watcher(Step::Make(last))?;
        let name = name(last)?;
        Ok(Place {
            dir: above.make_child(&name)?,
            above,
            name,
        })
    }

    /// Makes directories below the kubelet's; returns the innermost.
    pub(crate) fn make_directory<'a>(
        &self,
        parts: impl IntoIterator<Item = &'a str>,
        watcher: Watcher<'_>,
    ) -> Result<Dir, Trouble> {
        let mut dir = Dir::open(&self.kubelet_dir)?;
        for part in parts {
            watcher(Step::Make(part))?;
            dir = dir.make_child(&name(part)?)?;
        }
        Ok(dir)
    }

    /// Opens a directory some levels below the kubelet's.
    pub(crate) fn directory(&self, parts: &[&str]) -> Result<Option<Dir>, Trouble> {
        descend(Dir::open(&self.kubelet_dir)?, parts)
    }

    /// Shows a directory of the node in a pod's.
    pub(crate) fn bind_directory(
        &self,
        mount: &Mount,
        source: &Dir,
        watcher: Watcher<'_>,
    ) -> Result<How, Trouble> {
        let options = Options::parse(mount.options.iter().map(|text| &**text))
            .map_err(|error| Trouble::Other(error.to_string()))?;
        self.bind(mount, source, options, watcher)
    }

    /// The same with options that were read already.
    pub(crate) fn bind(
        &self,
        mount: &Mount,
        source: &Dir,
        options: Options,
        watcher: Watcher<'_>,
    ) -> Result<How, Trouble> {
        let options = if mount.read_only {
            options.read_only()
        } else {
            options
        };
        let place = self.make_target(&mount.key, watcher)?;
        let there = place.dir.identity()?;
        if there.is_mount_point {
            if !there.is_same_file(&source.identity()?) {
                return Err(something_else(&mount.source.to_string(), &place.dir));
            }
            // An agent that was killed may not have come to this.
            watcher(Step::Configure)?;
            bind::configure(source, &place.dir, options)?;
            return Ok(How::Before);
        }
        watcher(Step::Bind)?;
        if let Err(error) = bind::bind(source, &place.dir, options) {
            place.give_up();
            return Err(error.into());
        }
        Ok(How::Now)
    }
}

/// Opens a directory some levels down.
pub(crate) fn descend(mut dir: Dir, parts: &[&str]) -> Result<Option<Dir>, Trouble> {
    for part in parts {
        match dir.child(&name(part)?)? {
            Some(child) => dir = child,
            None => return Ok(None),
        }
    }
    Ok(Some(dir))
}

/// A walk through a volume that takes longer is given up for the time being.
const LONGEST_WALK: Duration = Duration::from_secs(60 * 60);

impl Tree {
    /// Gives what is mounted for a pod to its group; tells what keeps the pod from using all of it.
    pub(crate) fn give(&self, mount: &Mount) -> Result<Option<Warning>, Trouble> {
        let Some(Group { gid, give }) = mount.group else {
            return Ok(None);
        };
        let pod = mount.key.pod.to_string();
        let above = ["pods", &pod, "volumes", mount.key.plugin.directory()];
        let above = self.directory(&above)?;
        let name = name(mount.key.volume.as_str())?;
        let dir = above.map(|above| above.child(&name)).transpose()?.flatten();
        let inner = mount.key.plugin.volume_type().inner();
        let dir = match (dir, inner) {
            (Some(dir), Some(inner)) => descend(dir, &[inner])?,
            (dir, _) => dir,
        };
        let Some(dir) = dir else {
            return Ok(None); // taken away meanwhile
        };
        if group::is_given(&dir, gid)? && give != Give::Always {
            return Ok(None);
        }
        let volume = &mount.key.volume;
        if give == Give::Never {
            let has = group::of(&dir)?;
            let message = format!(
                "The requested fsGroup is {gid}, but the volume {volume} has GID {has}. The volume may not be shareable."
            );
            let reason = "AlreadyMountedVolume";
            return Ok((has != gid).then_some(Warning { reason, message }));
        }
        let given = group::give_in_child(&dir, gid, LONGEST_WALK).map_err(|error| {
            Trouble::Other(format!("giving the volume to fsGroup {gid}: {error}"))
        })?;
        if given.failed == 0 {
            return Ok(None);
        }
        let message = format!(
            "fsGroup {gid} could not be set on {} files of volume {volume:?}, the first is {}: the pod may not be able to use them",
            given.failed, given.first
        );
        let reason = "VolumePermissionChangeFailed";
        Ok(Some(Warning { reason, message }))
    }
}
