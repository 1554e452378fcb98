//! What is asked of a driver (M19, M20).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bitts_api::{AccessMode, AccessModes, CsiVolume};
use bitts_csi::v1::volume_capability::access_mode::Mode;
use bitts_csi::v1::volume_capability::{AccessType, MountVolume};
use bitts_csi::v1::{self};
use bitts_csi::{CsiError, Driver, NodeCapabilities};

use crate::task::{Attached, ForDriver, Mount, PodInfo, Staging};
use crate::tree::{Tree, Trouble, name};

/// How long a call may take, as with the kubelet.
const PATIENCE: Duration = Duration::from_secs(2 * 60);

/// Calls the driver of this name: once connected, within a deadline each.
pub(super) fn call<T>(
    tree: &Tree,
    driver: &str,
    calls: impl AsyncFnOnce(&Driver) -> Result<T, CsiError>,
) -> Result<T, Trouble> {
    let socket = socket(tree, driver)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Trouble::Other(format!("starting a call to driver {driver}: {error}")))?;
    let answer = runtime.block_on(async {
        let driver = Driver::connect(&socket, PATIENCE).await?;
        calls(&driver).await
    });
    // What the connection left behind is not waited for.
    runtime.shutdown_background();
    Ok(answer?)
}

fn socket(tree: &Tree, driver: &str) -> Result<PathBuf, Trouble> {
    let driver = name(driver)?;
    let folder = tree.kubelet_dir.join("plugins").join(driver.as_str());
    Ok(folder.join("csi.sock"))
}

/// What is asked when a volume is staged at this path.
pub(super) fn stage(
    volume: &CsiVolume,
    staging: &Staging,
    told: &ForDriver,
    can: NodeCapabilities,
    path: String,
) -> v1::NodeStageVolumeRequest {
    v1::NodeStageVolumeRequest {
        volume_id: volume.handle.to_string(),
        publish_context: context(told),
        staging_target_path: path,
        volume_capability: Some(capability(volume, &staging.options, told, can)),
        volume_context: owned(&volume.attributes),
        ..Default::default()
    }
}

/// What is asked when a volume is published at this path.
pub(super) fn publish(
    volume: &CsiVolume,
    mount: &Mount,
    told: &ForDriver,
    can: NodeCapabilities,
    staged: Option<String>,
    path: String,
) -> v1::NodePublishVolumeRequest {
    let mut attributes = owned(&volume.attributes);
    attributes.extend(told.pod.iter().flat_map(about));
    v1::NodePublishVolumeRequest {
        volume_id: volume.handle.to_string(),
        publish_context: context(told),
        staging_target_path: staged.unwrap_or_default(),
        target_path: path,
        volume_capability: Some(capability(volume, &mount.options, told, can)),
        readonly: mount.read_only,
        volume_context: attributes,
        ..Default::default()
    }
}

fn capability(
    volume: &CsiVolume,
    options: &[Box<str>],
    told: &ForDriver,
    can: NodeCapabilities,
) -> v1::VolumeCapability {
    let gid = told.gid.filter(|_| can.mounts_for_group);
    v1::VolumeCapability {
        access_mode: Some(v1::volume_capability::AccessMode {
            mode: mode(told.modes, can).into(),
        }),
        access_type: Some(AccessType::Mount(MountVolume {
            fs_type: volume.fs_type.as_deref().unwrap_or_default().to_owned(),
            mount_flags: options.iter().map(ToString::to_string).collect(),
            volume_mount_group: gid.map(|gid| gid.to_string()).unwrap_or_default(),
        })),
    }
}

/// The widest of a volume's access modes. The kubelet takes the first that the manifest names, but
/// their order means nothing (B12).
fn mode(modes: AccessModes, can: NodeCapabilities) -> Mode {
    if modes.contains(AccessMode::ReadWriteMany) {
        Mode::MultiNodeMultiWriter
    } else if modes.contains(AccessMode::ReadWriteOnce) {
        match can.one_writer {
            true => Mode::SingleNodeMultiWriter,
            false => Mode::SingleNodeWriter,
        }
    } else if modes.contains(AccessMode::ReadWriteOncePod) {
        match can.one_writer {
            true => Mode::SingleNodeSingleWriter,
            false => Mode::SingleNodeWriter,
        }
    } else if modes.contains(AccessMode::ReadOnlyMany) {
        Mode::MultiNodeReaderOnly
    } else {
        Mode::Unknown
    }
}

fn context(told: &ForDriver) -> BTreeMap<String, String> {
    match &told.attached {
        Attached::Yes(context) => owned(context),
        Attached::NotNeeded | Attached::Waits(_) => BTreeMap::new(),
    }
}

fn owned(map: &BTreeMap<Box<str>, Box<str>>) -> BTreeMap<String, String> {
    let pairs = map.iter();
    pairs
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

fn about(pod: &PodInfo) -> [(String, String); 5] {
    [
        ("pod.name", pod.name.to_string()),
        ("pod.namespace", pod.namespace.to_string()),
        ("pod.uid", pod.uid.to_string()),
        ("serviceAccount.name", pod.service_account.to_string()),
        ("ephemeral", "false".to_owned()),
    ]
    .map(|(key, value)| (format!("csi.storage.k8s.io/{key}"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_the_widest_and_a_driver_may_tell_single_writers_apart() {
        use AccessMode::{ReadOnlyMany, ReadWriteMany, ReadWriteOnce, ReadWriteOncePod};
        let of = |modes: &[AccessMode], one_writer| {
            let can = NodeCapabilities {
                one_writer,
                ..NodeCapabilities::default()
            };
            mode(modes.iter().copied().collect(), can)
        };
        for one_writer in [false, true] {
            let all = [ReadOnlyMany, ReadWriteOnce, ReadWriteMany];
            assert_eq!(of(&all, one_writer), Mode::MultiNodeMultiWriter);
            assert_eq!(of(&[ReadOnlyMany], one_writer), Mode::MultiNodeReaderOnly);
        }
        let both = [ReadOnlyMany, ReadWriteOnce];
        assert_eq!(of(&both, false), Mode::SingleNodeWriter);
        assert_eq!(of(&both, true), Mode::SingleNodeMultiWriter);
        assert_eq!(of(&[ReadWriteOncePod], false), Mode::SingleNodeWriter);
        assert_eq!(of(&[ReadWriteOncePod], true), Mode::SingleNodeSingleWriter);
    }
}
