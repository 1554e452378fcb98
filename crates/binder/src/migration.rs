//! In-tree types that CSI drivers took over for good (N3): annotations and finalizers say so
//! (B8.1, D12).

use bitts_api::machine::{Part, Target, Write};
use bitts_api::{Claim, Kind, ReclaimPolicy, Volume, names};
use serde_json::{Value, json};

use crate::reclaim::IN_TREE;

/// Each in-tree plugin that was taken over, and by which driver.
const TAKEN_OVER: [(&str, &str); 7] = [
    ("kubernetes.io/aws-ebs", "ebs.csi.aws.com"),
    ("kubernetes.io/azure-disk", "disk.csi.azure.com"),
    ("kubernetes.io/azure-file", "file.csi.azure.com"),
    ("kubernetes.io/cinder", "cinder.csi.openstack.org"),
    ("kubernetes.io/gce-pd", "pd.csi.storage.gke.io"),
    ("kubernetes.io/portworx-volume", "pxd.portworx.com"),
    ("kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"),
];

pub(crate) const MARK_CLAIM: &str = "mark-claim-migrated";
pub(crate) const MARK_VOLUME: &str = "mark-volume-migrated";

/// The CSI driver that took over an in-tree plugin.
pub(crate) fn driver(plugin: &str) -> Option<&'static str> {
    TAKEN_OVER
        .iter()
        .find(|(in_tree, _)| *in_tree == plugin)
        .map(|(_, driver)| *driver)
}

/// What a claim must say about who took over its provisioner (B8.1).
pub(crate) fn of_claim(claim: &Claim) -> Option<Write> {
    let annotations = &claim.meta.annotations;
    let provisioner = annotations
        .get(names::STORAGE_PROVISIONER)
        .or_else(|| annotations.get(names::BETA_STORAGE_PROVISIONER))?;
    let driver = differing(annotations.get(names::MIGRATED_TO), provisioner)?;
    Some(Write {
        step: MARK_CLAIM,
        target: Target::of(Kind::Claim, &claim.meta),
        part: Part::Main,
        patch: json!({"metadata": {"annotations": {names::MIGRATED_TO: driver}}}),
    })
}

/// What a volume must say about who took over its provisioner, and the finalizers that follow from
/// it (B24.0, D12). Only volumes that somebody provisioned are looked at.
pub(crate) fn of_volume(volume: &Volume) -> Option<Write> {
    let annotations = &volume.meta.annotations;
    let provisioner = annotations.get(names::PROVISIONED_BY)?;
    let mut metadata = json!({});
    if let Some(driver) = differing(annotations.get(names::MIGRATED_TO), provisioner) {
        metadata["annotations"] = json!({names::MIGRATED_TO: driver});
    }
    if let Some(finalizers) = finalizers(volume, provisioner) {
        metadata["finalizers"] = json!(finalizers);
    }
    let changes = metadata.as_object().is_some_and(|m| !m.is_empty());
    changes.then(|| Write {
        step: MARK_VOLUME,
        target: Target::of(Kind::Volume, &volume.meta),
        part: Part::Main,
        patch: json!({ "metadata": metadata }),
    })
}

/// The annotation's value (`null` for none) where it is not yet what the provisioner asks for. One
/// that is there and empty means as little as none.
fn differing(said: Option<&str>, provisioner: &str) -> Option<Value> {
    let said = said.unwrap_or_default();
    match driver(provisioner) {
        Some(driver) if said != driver => Some(driver.into()),
        None if !said.is_empty() => Some(Value::Null),
        _ => None,
    }
}

/// The finalizers that a provisioned volume has to have, where they are others than it has.
fn finalizers<'a>(volume: &'a Volume, provisioner: &str) -> Option<Vec<&'a str>> {
    let has: Vec<&str> = volume.meta.finalizers.iter().map(|f| &**f).collect();
    let without = |finalizer| has.iter().copied().filter(move |f| *f != finalizer);
    let mut wanted: Vec<&str>;
    if driver(provisioner).is_some() {
        wanted = without(names::VOLUME_CONTROLLER).collect();
    } else if provisioner.starts_with(IN_TREE) {
        // The driver that gave the volume back no longer holds it.
        wanted = without(names::EXTERNAL_PROVISIONER).collect();
        let held = wanted.contains(&names::VOLUME_CONTROLLER);
        match volume.reclaim_policy {
            // The API takes no new finalizer on what is being deleted.
            ReclaimPolicy::Delete if !held && !volume.meta.is_deleting() => {
                wanted.push(names::VOLUME_CONTROLLER);
            }
            ReclaimPolicy::Retain | ReclaimPolicy::Recycle => {
                wanted.retain(|f| *f != names::VOLUME_CONTROLLER);
            }
            ReclaimPolicy::Delete | ReclaimPolicy::Other(_) => {}
        }
    } else {
        return None;
    }
    (wanted != has).then_some(wanted)
}
