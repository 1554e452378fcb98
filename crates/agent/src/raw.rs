//! Raw block volumes: the device itself for a pod (M26 to M28).
//!
//! The device is bound to a file in the type's directory of maps, and a link in the pod's leads
//! there: whatever becomes of the device's name, the pod's link stays with the device. Unlike the
//! kubelet no loop device is put on top of it to keep it.

use bitts_mount::bind::{self, Options};
use bitts_mount::census::Census;
use bitts_mount::device::Device;
use bitts_mount::dir::{Component, Dir, Removal};

use crate::plugins::Plugin;
use crate::publish::descend;
use crate::stage::something_else;
use crate::task::{How, MountKey};
use crate::tree::{Down, Step, Tree, Trouble, Watcher, held, name};

/// Below a type's directory of maps, one directory a volume and in it one file a pod.
pub(crate) const MAPS: &str = "volumeDevices";

impl Tree {
    /// Gives a device to a pod.
    pub(crate) fn map(
        &self,
        key: &MountKey,
        device: &Device,
        watcher: Watcher<'_>,
    ) -> Result<How, Trouble> {
        let (pod, volume) = (key.pod.to_string(), key.volume.as_str());
        let above = ["plugins", key.plugin.directory(), MAPS, volume];
        let maps = self.make_directory(above, watcher)?;
        watcher(Step::Make(&pod))?;
        let file = maps.make_file(&name(&pod)?)?;
        let how = if file.identity()?.is_mount_point {
            if Device::resolved(&file)?.number() != device.number() {
                return Err(something_else(&device.path().display().to_string(), &file));
            }
            How::Before
        } else {
            watcher(Step::Bind)?;
            bind::bind(device, &file, Options::default())?;
            How::Now
        };
        let above = ["pods", &pod, MAPS, key.plugin.directory()];
        let links = self.make_directory(above, watcher)?;
        watcher(Step::Make(volume))?;
        links.make_link(&name(volume)?, file.path())?;
        Ok(how)
    }

    /// Takes it back, unless something still uses it.
    pub(crate) fn unmap(&self, key: &MountKey, watcher: Watcher<'_>) -> Result<Down, Trouble> {
        let (pod, volume) = (name(&key.pod.to_string())?, name(key.volume.as_str())?);
        let above = ["plugins", key.plugin.directory(), MAPS];
        let maps = self.directory(&above)?;
        let of_volume = maps
            .as_ref()
            .map(|maps| maps.child(&volume))
            .transpose()?
            .flatten();
        let mut was_mounted = false;
        if let Some(of_volume) = &of_volume {
            while let Some(file) = of_volume.entry(&pod)? {
                if !file.identity()?.is_mount_point {
                    break;
                }
                let census = Census::take()?;
                if let Some(holders) = held(key, &census, census.of_mount(&file)?) {
                    return Ok(Down::Held(holders));
                }
                // Open, it would keep the mount busy.
                drop(file);
                watcher(Step::Unmount)?;
                of_volume.unmount(&pod)?;
                was_mounted = true;
            }
        }
        // The link goes after its end, so that a scan finds what is left by either.
        let above = ["pods", pod.as_str(), MAPS, key.plugin.directory()];
        if let Some(links) = self.directory(&above)? {
            watcher(Step::Remove(volume.as_str()))?;
            expect_gone(&links, &volume, links.remove_link(&volume)?)?;
        }
        if let (Some(maps), Some(of_volume)) = (maps, of_volume) {
            watcher(Step::Remove(pod.as_str()))?;
            expect_gone(&of_volume, &pod, of_volume.remove_file(&pod)?)?;
            drop(of_volume);
            watcher(Step::Remove(volume.as_str()))?;
            maps.remove(&volume)?; // stays while another pod has the volume
        }
        Ok(Down::Gone { was_mounted })
    }
}

/// The pods that have a device of this type, with the volume.
pub(crate) fn mapped(
    kubelet: &Dir,
    plugin: Plugin,
) -> Result<Vec<(Component, Component)>, Trouble> {
    let parts = ["plugins", plugin.directory(), MAPS];
    let Some(dir) = descend(kubelet.clone(), &parts)? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for volume in dir.children()? {
        if let Some(of_volume) = dir.child(&volume)? {
            let pods = of_volume.names()?.into_iter();
            found.extend(pods.map(|pod| (pod, volume.clone())));
        }
    }
    Ok(found)
}

fn expect_gone(dir: &Dir, name: &Component, removal: Removal) -> Result<(), Trouble> {
    let wrong = match removal {
        Removal::Removed | Removal::Absent => return Ok(()),
        Removal::MountPoint => "has something mounted at it",
        Removal::NotEmpty => "is not what was put there",
    };
    let path = dir.path().join(name.as_str());
    Err(Trouble::Other(format!(
        "{} {wrong}: move it away",
        path.display()
    )))
}
