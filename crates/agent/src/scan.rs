//! What an earlier agent left in the kubelet's directory (M29).

use bitts_api::VolumeMode;
use bitts_mount::dir::{Component, Dir};
use bitts_mount::table::{Device, MountTable};

use crate::plugins::Plugin;
use crate::publish::descend;
use crate::raw::{self, MAPS};
use crate::task::{Leftover, MountKey, Report, StageKey};
use crate::tree::{Tree, Trouble, name};

/// A device's directory, and what is mounted there.
pub(crate) struct Staged {
    pub(crate) key: StageKey,
    pub(crate) device: Option<Device>,
}

impl Staged {
    /// Each directory in the stage directory of a type.
    pub(crate) fn each_child(
        plugin: Plugin,
        all: &Dir,
        table: &MountTable,
    ) -> Result<Vec<Self>, Trouble> {
        let mut found = Vec::new();
        for name in all.children()? {
            let dir = all.child(&name)?;
            let device = dir.map(|dir| mounted_at(&dir, table)).transpose()?;
            found.push(Self {
                key: StageKey {
                    plugin,
                    name: name.as_str().into(),
                },
                device: device.flatten(),
            });
        }
        Ok(found)
    }

    /// The device that is mounted in a pod's directory.
    pub(crate) fn below(
        parent: &Dir,
        volume: &Component,
        staged: &[Self],
        table: &MountTable,
    ) -> Result<Option<StageKey>, Trouble> {
        let Some(dir) = parent.child(volume)? else {
            return Ok(None);
        };
        let Some(device) = mounted_at(&dir, table)? else {
            return Ok(None);
        };
        let on_it = staged.iter().find(|staged| staged.device == Some(device));
        Ok(on_it.map(|staged| staged.key.clone()))
    }
}

impl Tree {
    /// Finds the devices, the volumes of every pod, and the pods of which only empty directories
    /// are left. Directories of other types are not looked into.
    pub(crate) fn scan(&self) -> Result<Report, Trouble> {
        let kubelet = Dir::open(&self.kubelet_dir).map_err(|error| {
            Trouble::Other(format!(
                "{error}: create it or start the agent with --kubelet-dir"
            ))
        })?;
        let table = MountTable::read()?;
        let staged = staged(&kubelet, &table)?;
        let (mut volumes, mut empty) = (mapped(&kubelet)?, Vec::new());
        if let Some(pods) = kubelet.child(&name("pods")?)? {
            for uid in pods.children()? {
                match of_pod(&pods, &uid, &staged, &table) {
                    Ok(Found::Volumes(found)) => volumes.extend(found),
                    Ok(Found::Nothing) => empty.push(uid.as_str().into()),
                    Ok(Found::NotOurs) => {}
                    // One odd directory does not keep the others from being looked after.
                    Err(error) => {
                        tracing::warn!(pod = %uid, %error, "a pod's directory is left alone");
                    }
                }
            }
        }
        Ok(Report::Scanned {
            volumes,
            stages: staged.into_iter().map(|staged| staged.key).collect(),
            empty,
        })
    }
}

fn staged(kubelet: &Dir, table: &MountTable) -> Result<Vec<Staged>, Trouble> {
    let mut found = Vec::new();
    for plugin in Plugin::ALL {
        let Some(directory) = plugin.stage_directory() else {
            continue;
        };
        let parts: Vec<_> = directory.split('/').collect();
        let Some(all) = descend(kubelet.clone(), &parts)? else {
            continue;
        };
        found.extend(plugin.mounter().staged(plugin, &all, table)?);
    }
    Ok(found)
}

/// The devices that pods have as they are, or had.
fn mapped(kubelet: &Dir) -> Result<Vec<Leftover>, Trouble> {
    let mut found = Vec::new();
    for plugin in Plugin::ALL {
        for (pod, volume) in raw::mapped(kubelet, plugin)? {
            let key = MountKey {
                pod: pod.as_str().into(),
                volume: volume.as_str().into(),
                plugin,
                mode: VolumeMode::Block,
            };
            found.push(Leftover { key, stage: None });
        }
    }
    Ok(found)
}

enum Found {
    Volumes(Vec<Leftover>),
    Nothing,
    NotOurs,
}

fn of_pod(
    pods: &Dir,
    uid: &Component,
    staged: &[Staged],
    table: &MountTable,
) -> Result<Found, Trouble> {
    let Some(pod) = pods.child(uid)? else {
        return Ok(Found::NotOurs);
    };
    let (volumes, maps) = (name("volumes")?, name(MAPS)?);
    let children = pod.children()?;
    let mut only_ours = children
        .iter()
        .all(|child| [&volumes, &maps].contains(&child));
    let mut found = Vec::new();
    for (mode, kind) in [
        (VolumeMode::Filesystem, &volumes),
        (VolumeMode::Block, &maps),
    ] {
        let Some(of_mode) = pod.child(kind)? else {
            continue;
        };
        for child in of_mode.children()? {
            let plugin = Plugin::ALL
                .into_iter()
                .find(|plugin| plugin.directory() == child.as_str());
            let (Some(plugin), Some(of_type)) = (plugin, of_mode.child(&child)?) else {
                only_ours = false;
                continue;
            };
            if mode == VolumeMode::Block && !plugin.volume_type().has_devices() {
                only_ours = false;
                continue;
            }
            let volumes = match mode {
                VolumeMode::Filesystem => of_type.children()?,
                VolumeMode::Block => of_type.names()?,
            };
            for volume in volumes {
                let stage = match mode {
                    VolumeMode::Filesystem => stage_of(plugin, &of_type, &volume, staged, table)?,
                    VolumeMode::Block => None,
                };
                let key = MountKey {
                    pod: uid.as_str().into(),
                    volume: volume.as_str().into(),
                    plugin,
                    mode,
                };
                found.push(Leftover { key, stage });
            }
        }
    }
    Ok(match (found.is_empty(), only_ours) {
        (false, _) => Found::Volumes(found),
        (true, true) => Found::Nothing,
        (true, false) => Found::NotOurs,
    })
}

/// The device on which a volume in a pod's directory is.
fn stage_of(
    plugin: Plugin,
    parent: &Dir,
    volume: &Component,
    staged: &[Staged],
    table: &MountTable,
) -> Result<Option<StageKey>, Trouble> {
    if plugin.stage_directory().is_none() {
        return Ok(None);
    }
    plugin.mounter().stage_of(parent, volume, staged, table)
}

/// The device of what is mounted at a directory; none where nothing is.
pub(crate) fn mounted_at(dir: &Dir, table: &MountTable) -> Result<Option<Device>, Trouble> {
    let identity = dir.identity()?;
    let mounted = table
        .get(identity.mount)
        .filter(|_| identity.is_mount_point);
    Ok(mounted.map(|mount| mount.device))
}
