//! What a CSI driver is called for, and what the agent makes and removes around it.

use bitts_api::{CsiVolume, Source};
use bitts_csi::{Class, NodeCapabilities};
use bitts_mount::census::Census;
use bitts_mount::dir::{Component, Dir, Removal};
use bitts_mount::table::MountTable;

use super::call::{self, call};
use super::record::Record;
use super::{Csi, GLOBAL, MOUNT, STAGES, sha256, stage_name};
use crate::plugins::Plugin;
use crate::plugins::node::{Failure, Mounter, not_of_this_type};
use crate::scan::{Staged, mounted_at};
use crate::stage::refuse;
use crate::task::{ForDriver, How, Mount, MountKey, MountStep, OnNode, StageKey, Staging};
use crate::tree::{Down, Step, Tree, Trouble, Watcher, held, name};

impl Mounter for Csi {
    fn stage(
        &self,
        tree: &Tree,
        staging: &Staging,
        watcher: Watcher<'_>,
    ) -> Result<OnNode, Failure> {
        stage(tree, staging, watcher).map_err(|trouble| (MountStep::MountDevice, trouble))
    }

    fn unstage(&self, tree: &Tree, key: &StageKey, watcher: Watcher<'_>) -> Result<bool, Trouble> {
        unstage(tree, key, watcher)
    }

    fn staged(
        &self,
        plugin: Plugin,
        all: &Dir,
        table: &MountTable,
    ) -> Result<Vec<Staged>, Trouble> {
        let mut found = Vec::new();
        for driver in all.children()? {
            let Some(volumes) = all.child(&driver)? else {
                continue;
            };
            for volume in volumes.children()? {
                let Some(dir) = volumes.child(&volume)? else {
                    continue;
                };
                // Others keep directories of their own here, which have no such file.
                let record = match Record::read(&dir) {
                    Ok(Some(record)) if volume.as_str() == sha256(&[&record.handle]) => record,
                    Ok(_) => continue,
                    Err(error) => {
                        tracing::warn!(%error, "a volume's directory is left alone");
                        continue;
                    }
                };
                let global = dir.child(&name(GLOBAL)?)?;
                let device = global.map(|dir| mounted_at(&dir, table)).transpose()?;
                found.push(Staged {
                    key: StageKey {
                        plugin,
                        name: stage_name(&record.driver, &record.handle),
                    },
                    device: device.flatten(),
                });
            }
        }
        Ok(found)
    }

    fn stage_of(
        &self,
        parent: &Dir,
        volume: &Component,
        staged: &[Staged],
        _table: &MountTable,
    ) -> Result<Option<StageKey>, Trouble> {
        let dir = parent.child(volume)?;
        let record = dir.map(|dir| Record::read(&dir)).transpose()?.flatten();
        Ok(record.and_then(|Record { driver, handle }| {
            let name = stage_name(&driver, &handle);
            let one = staged.iter().find(|staged| staged.key.name == name);
            one.map(|staged| staged.key.clone())
        }))
    }

    fn set_up(&self, tree: &Tree, mount: &Mount, watcher: Watcher<'_>) -> Result<How, Failure> {
        publish(tree, mount, watcher).map_err(|trouble| (MountStep::SetUp, trouble))
    }

    fn gives_group(&self, tree: &Tree, mount: &Mount) -> Result<bool, Trouble> {
        let (volume, _) = asked(&mount.source, mount.csi.as_deref())?;
        let can = call(tree, &volume.driver, async |driver| {
            driver.node_capabilities().await
        })?;
        Ok(can.mounts_for_group)
    }

    fn take_down(
        &self,
        tree: &Tree,
        key: &MountKey,
        watcher: Watcher<'_>,
    ) -> Result<Down, Trouble> {
        take_down(tree, key, watcher)
    }
}

impl Tree {
    /// The driver of a volume that is in a pod's directory.
    pub(crate) fn driver_of(&self, key: &MountKey) -> Option<String> {
        let pod = key.pod.to_string();
        let parts = [
            "pods",
            &pod,
            "volumes",
            key.plugin.directory(),
            key.volume.as_str(),
        ];
        let dir = self.directory(&parts).ok()??;
        Some(Record::read(&dir).ok()??.driver)
    }
}

/// A CSI volume, and what its driver is told.
fn asked<'a>(
    source: &'a Source,
    told: Option<&'a ForDriver>,
) -> Result<(&'a CsiVolume, &'a ForDriver), Trouble> {
    match (source, told) {
        (Source::Csi(volume), Some(told)) => Ok((volume, told)),
        _ => Err(not_of_this_type(source)),
    }
}

fn record(volume: &CsiVolume) -> Record {
    Record {
        driver: volume.driver.to_string(),
        handle: volume.handle.to_string(),
    }
}

/// The path of a directory, as the driver is told it.
fn path(dir: &Dir, inner: &str) -> String {
    dir.path().join(inner).display().to_string()
}

/// M19. Nothing is made for a driver that stages nothing.
fn stage(tree: &Tree, staging: &Staging, watcher: Watcher<'_>) -> Result<OnNode, Trouble> {
    let (volume, told) = asked(&staging.source, staging.csi.as_deref())?;
    let can = call(tree, &volume.driver, async |driver| {
        driver.node_capabilities().await
    })?;
    if !can.stages {
        return Ok(OnNode::Nothing);
    }
    let hash = sha256(&[&volume.handle]);
    let drivers = STAGES.split('/').chain([&*volume.driver]);
    let place = tree.make(drivers, &hash, watcher)?;
    watcher(Step::Make("vol_data.json"))?;
    record(volume).write(&place.dir, &[])?;
    watcher(Step::Make(GLOBAL))?;
    drop(place.dir.make_child(&name(GLOBAL)?)?);
    watcher(Step::Stage)?;
    let request = call::stage(volume, staging, told, can, path(&place.dir, GLOBAL));
    let staged = call(tree, &volume.driver, async |driver| {
        driver.stage(request).await
    });
    if let Err(trouble) = staged {
        // It did not take effect, so nothing has to be taken down.
        if is_final(&trouble) && !place.dir.is_mount_point(&name(GLOBAL)?)? {
            let removed = place.dir.remove(&name(GLOBAL)?)?;
            if matches!(removed, Removal::Removed | Removal::Absent) {
                let volumes = volumes(tree, &volume.driver)?;
                drop(place);
                volumes.map_or(Ok(()), |all| Record::remove(&all, &name(&hash)?))?;
            }
        }
        return Err(trouble);
    }
    Ok(OnNode::Device {
        how: How::Now,
        warning: None,
    })
}

/// Whether what was asked did not take effect (M9).
fn is_final(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Csi(error) if error.class() == Class::Final)
}

/// The directory of a driver's staged volumes.
fn volumes(tree: &Tree, driver: &str) -> Result<Option<Dir>, Trouble> {
    let parts: Vec<_> = STAGES.split('/').chain([driver]).collect();
    tree.directory(&parts)
}

/// M23.
fn unstage(tree: &Tree, key: &StageKey, watcher: Watcher<'_>) -> Result<bool, Trouble> {
    let odd = || Trouble::Other(format!("{key} is no volume of a driver: report this"));
    let (driver, handle) = key.name.as_str().split_once('^').ok_or_else(odd)?;
    let hash = name(&sha256(&[handle]))?;
    let Some(parent) = volumes(tree, driver)? else {
        return Ok(false);
    };
    let Some(dir) = parent.child(&hash)? else {
        return Ok(false);
    };
    let global = name(GLOBAL)?;
    let mut was_mounted = false;
    if let Some(mounted) = dir.child(&global)? {
        let census = Census::take()?;
        if mounted.identity()?.is_mount_point {
            was_mounted = true;
            refuse(&census.of_mount(&mounted)?)?;
            ensure_unpublished(tree, &mounted)?;
        } else {
            refuse(&census.of_foreign_mount_on(&mounted)?)?;
        }
    }
    if Record::read(&dir)?.is_some() {
        watcher(Step::Unmount)?;
        let staged = path(&dir, GLOBAL);
        call(tree, driver, async |driver| {
            match driver.node_capabilities().await?.stages {
                true => driver.unstage(handle, &staged).await,
                false => Ok(()),
            }
        })?;
    }
    watcher(Step::Remove(GLOBAL))?;
    match dir.remove(&global)? {
        Removal::Removed | Removal::Absent => {}
        Removal::MountPoint => return Err(still_mounted(&dir, GLOBAL)),
        Removal::NotEmpty => return Err(not_empty(&dir, GLOBAL)),
    }
    drop(dir);
    watcher(Step::Remove(hash.as_str()))?;
    Record::remove(&parent, &hash)?;
    Ok(was_mounted)
}

/// What is staged is not taken from what still shows it to a pod.
fn ensure_unpublished(tree: &Tree, staged: &Dir) -> Result<(), Trouble> {
    let table = MountTable::read()?;
    let Some(ours) = table.get(staged.identity()?.mount) else {
        return Ok(()); // unmounted meanwhile
    };
    let pods = tree.kubelet_dir.join("pods");
    let pods = pods.canonicalize().unwrap_or(pods);
    let shows = |mount: &&bitts_mount::table::Mount| {
        mount.device == ours.device && mount.root == ours.root && mount.point.starts_with(&pods)
    };
    match table.iter().find(shows) {
        Some(other) => Err(Trouble::Other(format!(
            "the volume is still mounted at {}",
            other.point.display()
        ))),
        None => Ok(()),
    }
}

/// M20.
fn publish(tree: &Tree, mount: &Mount, watcher: Watcher<'_>) -> Result<How, Trouble> {
    let (volume, told) = asked(&mount.source, mount.csi.as_deref())?;
    let can = call(tree, &volume.driver, async |driver| {
        driver.node_capabilities().await
    })?;
    let place = tree.make_target(&mount.key, watcher)?;
    let inner = name(MOUNT)?;
    let was_mounted = place.dir.is_mount_point(&inner)?;
    watcher(Step::Make("vol_data.json"))?;
    let attached = [
        ("specVolID", mount.key.volume.as_str()),
        ("volumeLifecycleMode", "Persistent"),
    ];
    record(volume).write(&place.dir, &attached)?;
    watcher(Step::Bind)?;
    let target = path(&place.dir, MOUNT);
    let request = call::publish(volume, mount, told, can, staged(tree, volume, can), target);
    let published = call(tree, &volume.driver, async |driver| {
        driver.publish(request).await
    });
    if let Err(trouble) = published {
        if is_final(&trouble) && !was_mounted && !place.dir.is_mount_point(&inner)? {
            // The directory goes when the pod does, or with the next try that does better.
            place.dir.remove(&inner)?;
        }
        return Err(trouble);
    }
    Ok(match was_mounted {
        true => How::Before,
        false => How::Now,
    })
}

/// Where a driver that stages has staged the volume.
fn staged(tree: &Tree, volume: &CsiVolume, can: NodeCapabilities) -> Option<String> {
    let volumes = tree.kubelet_dir.join(STAGES).join(&*volume.driver);
    let at = volumes.join(sha256(&[&volume.handle])).join(GLOBAL);
    can.stages.then(|| at.display().to_string())
}

/// M21. The driver is called even where nothing is mounted: it may have more to undo than that.
fn take_down(tree: &Tree, key: &MountKey, watcher: Watcher<'_>) -> Result<Down, Trouble> {
    let (pod, volume) = (name(&key.pod.to_string())?, name(key.volume.as_str())?);
    let above = ["pods", pod.as_str(), "volumes", key.plugin.directory()];
    let mut was_mounted = false;
    let Some(parent) = tree.directory(&above)? else {
        return Ok(Down::Gone { was_mounted });
    };
    let Some(dir) = parent.child(&volume)? else {
        return Ok(Down::Gone { was_mounted });
    };
    let inner = name(MOUNT)?;
    let census = Census::take()?;
    let holders = match dir.child(&inner)? {
        Some(mounted) if mounted.identity()?.is_mount_point => {
            was_mounted = true;
            census.of_mount(&mounted)?
        }
        Some(bare) => census.of_foreign_mount_on(&bare)?,
        None => Vec::new(),
    };
    if let Some(holders) = held(key, &census, holders) {
        return Ok(Down::Held(holders));
    }
    match Record::read(&dir)? {
        Some(Record { driver, handle }) => {
            watcher(Step::Unmount)?;
            let target = path(&dir, MOUNT);
            call(tree, &driver, async |driver| {
                driver.unpublish(&handle, &target).await
            })?;
        }
        None if was_mounted => {
            return Err(Trouble::Other(format!(
                "{} is mounted, and no file beside it says by which driver: unmount it by hand",
                path(&dir, MOUNT)
            )));
        }
        // It was never published, or is no more.
        None => {}
    }
    watcher(Step::Remove(MOUNT))?;
    match dir.remove(&inner)? {
        Removal::Removed | Removal::Absent => {}
        Removal::MountPoint => return Err(still_mounted(&dir, MOUNT)),
        Removal::NotEmpty => return Err(not_empty(&dir, MOUNT)),
    }
    drop(dir);
    watcher(Step::Remove(volume.as_str()))?;
    Record::remove(&parent, &volume)?;
    Ok(Down::Gone { was_mounted })
}

fn still_mounted(dir: &Dir, inner: &str) -> Trouble {
    Trouble::Other(format!(
        "the driver says that it is done, but {} is still mounted",
        path(dir, inner)
    ))
}

fn not_empty(dir: &Dir, inner: &str) -> Trouble {
    Trouble::Other(format!(
        "{} has files in it that were written while nothing was mounted there: move them away",
        path(dir, inner)
    ))
}
