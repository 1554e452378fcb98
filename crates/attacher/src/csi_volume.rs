//! What a PersistentVolume is to a CSI driver: its own kind, and in-tree types that a driver took over.

use std::borrow::Cow;

use bitts_api::{AccessMode, AccessModes, CsiVolume, Source, Volume};

/// The driver that took Google's disks over.
pub(crate) const GCE: &str = "pd.csi.storage.gke.io";
/// What is not known of a disk, in the driver's name for it.
const UNSPECIFIED: &str = "UNSPECIFIED";

/// A volume as its driver knows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OfDriver<'a> {
    pub(crate) volume: Cow<'a, CsiVolume>,
    pub(crate) modes: AccessModes,
}

/// The driver's volume that a PersistentVolume is; `None` for types that no driver attaches.
pub(crate) fn of_driver(volume: &Volume) -> Option<OfDriver<'_>> {
    match &volume.source {
        Source::Csi(csi) => Some(OfDriver {
            volume: Cow::Borrowed(csi),
            modes: volume.access_modes,
        }),
        Source::GcePersistentDisk {
            disk,
            partition,
            fs_type,
            read_only,
        } => {
            let partition = match partition {
                0 => String::new(),
                number => number.to_string(),
            };
            let csi = CsiVolume {
                driver: GCE.into(),
                handle: format!(
                    "projects/{UNSPECIFIED}/{}/disks/{disk}",
                    match place(volume)? {
                        Place::Unknown => format!("zones/{UNSPECIFIED}"),
                        Place::Zone(zone) => format!("zones/{zone}"),
                        Place::Region(region) => format!("regions/{region}"),
                    }
                )
                .into(),
                fs_type: fs_type.clone(),
                read_only: *read_only,
                attributes: [("partition".into(), partition.into())].into(),
                ..CsiVolume::default()
            };
            Some(OfDriver {
                volume: Cow::Owned(csi),
                modes: as_always(volume.access_modes),
            })
        }
        _ => None,
    }
}

/// Where a disk of Google's cloud is.
pub(crate) enum Place {
    /// Its volume does not say.
    Unknown,
    Zone(String),
    /// In several zones of this.
    Region(String),
}

/// Where a disk is, from the labels of its volume. `None` where those contradict each other.
pub(crate) fn place(volume: &Volume) -> Option<Place> {
    let labels = &volume.meta.labels;
    let zones = labels.get("topology.kubernetes.io/zone");
    let zones = zones.or_else(|| labels.get("failure-domain.beta.kubernetes.io/zone"));
    let zones: Vec<&str> = zones.unwrap_or_default().split("__").collect();
    match zones[..] {
        [""] => Some(Place::Unknown),
        [zone] => Some(Place::Zone(zone.to_owned())),
        _ => {
            let region = |zone: &&str| zone.rsplit_once('-').map(|(region, _)| region.to_owned());
            let mut regions = zones.iter().map(region);
            let first = regions.next()??;
            let same = regions.all(|region| region.as_ref() == Some(&first));
            same.then_some(Place::Region(first))
        }
    }
}

/// The in-tree plugin let a disk that says it is for many writers be used by one node.
pub(crate) fn as_always(modes: AccessModes) -> AccessModes {
    let one = |mode| match mode {
        AccessMode::ReadWriteMany => AccessMode::ReadWriteOnce,
        other => other,
    };
    modes.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use bitts_api::{Kind, Object};
    use serde_json::json;

    use super::*;

    fn disk(labels: &serde_json::Value, partition: u32) -> Volume {
        let json = json!({"metadata": {"name": "v", "labels": labels}, "spec": {
            "accessModes": ["ReadWriteMany"],
            "gcePersistentDisk": {"pdName": "d", "partition": partition, "fsType": "ext4"}}});
        match Kind::Volume.read(json.to_string().as_bytes()).unwrap() {
            Object::Volume(volume) => (*volume).clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_disk_of_google_is_called_as_its_driver_calls_it() {
        let zone = "topology.kubernetes.io/zone";
        for (labels, handle) in [
            (
                json!({}),
                Some("projects/UNSPECIFIED/zones/UNSPECIFIED/disks/d"),
            ),
            (
                json!({zone: "us-east1-b"}),
                Some("projects/UNSPECIFIED/zones/us-east1-b/disks/d"),
            ),
            (
                json!({"failure-domain.beta.kubernetes.io/zone": "us-east1-b"}),
                Some("projects/UNSPECIFIED/zones/us-east1-b/disks/d"),
            ),
            (
                json!({zone: "us-east1-b__us-east1-c"}),
                Some("projects/UNSPECIFIED/regions/us-east1/disks/d"),
            ),
            (json!({zone: "us-east1-b__us-west1-c"}), None),
        ] {
            let volume = disk(&labels, 0);
            let found = of_driver(&volume);
            assert_eq!(
                found.as_ref().map(|v| &*v.volume.handle),
                handle,
                "{labels}"
            );
            if let Some(found) = found {
                assert_eq!(
                    (&*found.volume.driver, &found.volume.fs_type),
                    (GCE, &Some("ext4".into()))
                );
                assert_eq!(
                    found.modes,
                    [AccessMode::ReadWriteOnce].into_iter().collect()
                );
            }
        }
        let volume = disk(&json!({}), 3);
        let attributes = &of_driver(&volume).unwrap().volume.attributes;
        assert_eq!(&*attributes["partition"], "3");
    }
}
