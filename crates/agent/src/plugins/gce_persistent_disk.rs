//! Disks of Google's cloud: what its guest environment names below `/dev/disk/by-id` once the disk
//! is attached.

use bitts_api::{Name, Source};

use super::VolumeType;

const PREFIX: &str = "kubernetes.io/gce-pd/";

/// `gcePersistentDisk`.
pub(super) struct GcePersistentDisk;

impl VolumeType for GcePersistentDisk {
    fn directory(&self) -> &'static str {
        "kubernetes.io~gce-pd"
    }

    fn stage_directory(&self) -> Option<&'static str> {
        Some("plugins/kubernetes.io/gce-pd/mounts")
    }

    /// By the disk, as the kubelet has it; by its part as well, which that one forgot.
    fn stage_name(&self, source: &Source, volume: &Name) -> Name {
        match name(source) {
            Some(name) => name.as_str().into(),
            None => volume.clone(),
        }
    }

    fn waits_for_attach(&self) -> bool {
        true
    }

    fn attachable_prefix(&self) -> Option<&'static str> {
        Some(PREFIX)
    }

    /// Whether it is a part of a disk or a disk of such a name cannot be told from it: one more keeps
    /// nothing that is used from being kept.
    fn attachable_names(&self, stage: &Name) -> Vec<String> {
        let whole = stage.as_str();
        let part = whole.rsplit_once("-part");
        let disk = part.filter(|(_, number)| number.parse::<u32>().is_ok());
        let names = [whole].into_iter().chain(disk.map(|(disk, _)| disk));
        names.map(|name| format!("{PREFIX}{name}")).collect()
    }
}

/// The disk's name with its part, as the link to the device has it after `google-`.
fn name(source: &Source) -> Option<String> {
    match source {
        Source::GcePersistentDisk {
            disk, partition: 0, ..
        } => Some(disk.to_string()),
        Source::GcePersistentDisk {
            disk, partition, ..
        } => Some(format!("{disk}-part{partition}")),
        _ => None,
    }
}

#[cfg(feature = "run")]
mod node {
    use bitts_api::Source;
    use bitts_mount::device::Device;

    use super::{GcePersistentDisk, name};
    use crate::plugins::node::{Disk, not_of_this_type};
    use crate::stage::linked_device;
    use crate::tree::{Tree, Trouble};

    impl Disk for GcePersistentDisk {
        fn find(&self, tree: &Tree, source: &Source) -> Result<Device, Trouble> {
            let name = name(source).ok_or_else(|| not_of_this_type(source))?;
            let directory = tree.devices.join("disk/by-id");
            linked_device(&directory, &format!("google-{name}"), || {
                format!(
                    "disk {name} is not attached to this node, or its guest environment did not \
                     name it: there is no {}",
                    directory.join(format!("google-{name}")).display()
                )
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(partition: u32) -> Source {
        Source::GcePersistentDisk {
            disk: "data".into(),
            partition,
            fs_type: None,
            read_only: false,
        }
    }

    #[test]
    fn a_disk_and_its_parts_are_staged_apart() {
        let name = |source| GcePersistentDisk.stage_name(&source, &"pv".into());
        assert_eq!(name(disk(0)).as_str(), "data");
        assert_eq!(name(disk(2)).as_str(), "data-part2");
        let names = GcePersistentDisk.attachable_names(&name(disk(2)));
        let both = [
            "kubernetes.io/gce-pd/data-part2",
            "kubernetes.io/gce-pd/data",
        ];
        assert_eq!(names, both);
    }
}
