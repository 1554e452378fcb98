//! The volume as the API is to have it, and what its object comes to later.

#[cfg(feature = "run")]
use bitts_api::ClassName;
use bitts_api::machine::{Create, Destroy, Destruction, Evidence, Part, Target, Write};
use bitts_api::{
    Claim, Kind, Name, Node, ObjectKey, ReclaimPolicy, Source, StorageClass, Volume, VolumePhase,
    names,
};
use serde_json::{Value, json};

use crate::site::{CSI_SERVER, CSI_SHARE, Share, Site, on_server};
#[cfg(feature = "run")]
use crate::task::Record;

/// The label that a local volume's node affinity goes by.
pub(crate) const HOSTNAME: &str = "kubernetes.io/hostname";

/// The parameter of a class that says what becomes of its volumes on nodes that are gone.
pub(crate) const NODE_GONE: &str = "nodeGone";
/// The parameter of a class that names the CSI driver by which its volumes are mounted.
pub(crate) const CSI_DRIVER: &str = "csiDriver";

/// The name of the volume of a claim (P12).
pub(crate) fn name_for(claim: &bitts_api::Uid) -> Name {
    format!("pvc-{claim}").into()
}

/// The object of a volume that was made (P12): reserved for its claim from its first moment, and held
/// until its data is gone. `node` is where it was made, if on a node.
pub(crate) fn create(
    claim: &Claim,
    class: &StorageClass,
    site: &Site,
    node: Option<&Node>,
    path: &str,
) -> Create {
    let volume = name_for(&claim.meta.uid);
    let made_on = match (site, node) {
        (Site::Share(share), _) => json!(share.to_string()),
        (Site::Disks, node) => json!(node.map(|node| &node.meta.name)),
    };
    let node_gone = class.parameters.get(NODE_GONE);
    let mut metadata = json!({"annotations": {
        names::PROVISIONED_BY: class.provisioner,
        names::PROVISIONED_ON: made_on,
    }});
    // The class may be gone when it is looked for.
    if let Some(node_gone) = node_gone {
        metadata["annotations"][names::NODE_GONE] = json!(node_gone);
    }
    if class.reclaim_policy == ReclaimPolicy::Delete {
        metadata["finalizers"] = json!([names::EXTERNAL_PROVISIONER]);
    }
    let mut spec = json!({
        "capacity": {"storage": claim.request},
        "accessModes": claim.access_modes,
        "volumeMode": claim.volume_mode,
        "storageClassName": class.meta.name,
        "persistentVolumeReclaimPolicy": class.reclaim_policy.as_str(),
        "claimRef": {
            "apiVersion": "v1",
            "kind": Kind::Claim.name(),
            "namespace": claim.meta.namespace,
            "name": claim.meta.name,
            "uid": claim.meta.uid,
        },
    });
    match site {
        Site::Disks => {
            let hostname = node.and_then(|node| node.meta.labels.get(HOSTNAME));
            on_node(&mut spec, path, hostname);
        }
        Site::Share(share) => match class.parameters.get(CSI_DRIVER) {
            Some(driver) => on_share_by(&mut spec, path, share, (driver, &volume)),
            None => on_share(&mut spec, path, share),
        },
    }
    Create {
        step: "record-volume",
        key: ObjectKey::volume(volume),
        body: json!({"metadata": metadata, "spec": spec}),
    }
}

/// The object of a volume whose data was put back: as one that an operator made, reserved for whoever
/// gets the name of the claim that it was made for. `site` is where it lies, at this path; `hostname` is
/// that of the node, if on one.
#[cfg(feature = "run")]
#[must_use]
pub fn restored(record: &Record, site: &Site, path: &str, hostname: Option<&str>) -> Value {
    let mut spec = json!({
        "capacity": {"storage": record.bytes.to_string()},
        // Whatever it was used as: the claim asks for some of them.
        "accessModes": ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"],
        "storageClassName": record.class.as_ref().map_or("", ClassName::as_str),
        "persistentVolumeReclaimPolicy": ReclaimPolicy::Retain.as_str(),
        "claimRef": {
            "apiVersion": "v1",
            "kind": Kind::Claim.name(),
            "namespace": record.claim.namespace,
            "name": record.claim.name,
        },
    });
    match site {
        Site::Disks => on_node(&mut spec, path, hostname),
        Site::Share(share) => on_share(&mut spec, path, share),
    }
    json!({
        "apiVersion": "v1",
        "kind": Kind::Volume.name(),
        "metadata": {"name": record.volume},
        "spec": spec,
    })
}

fn on_node(spec: &mut Value, path: &str, hostname: Option<&str>) {
    spec["local"] = json!({ "path": path });
    spec["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": HOSTNAME, "operator": "In", "values": [hostname]},
    ]}]}});
}

fn on_share(spec: &mut Value, path: &str, share: &Share) {
    spec["nfs"] = json!({"server": share.server, "path": path});
    mounted_with(spec, share);
}

/// The same, to be mounted by a CSI driver, in the words of csi-driver-nfs.
fn on_share_by(spec: &mut Value, path: &str, share: &Share, (driver, handle): (&str, &Name)) {
    spec["csi"] = json!({"driver": driver, "volumeHandle": handle,
        "volumeAttributes": {CSI_SERVER: share.server, CSI_SHARE: path}});
    mounted_with(spec, share);
}

fn mounted_with(spec: &mut Value, share: &Share) {
    if !share.options.is_empty() {
        spec["mountOptions"] = json!(share.options);
    }
}

/// Where a volume lies, if it is one of ours.
pub(crate) fn path(volume: &Volume) -> Option<&str> {
    match &volume.source {
        Source::Local { path, .. } | Source::HostPath { path, .. } => Some(path),
        source => on_server(source).map(|(_, path)| path),
    }
}

/// What a volume's object asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wish {
    /// Nothing.
    Rest,
    /// It has to be held, or let go.
    Hold(Write),
    /// Its claim is gone, and its data is to go: say so, if a live look agrees.
    Mark(Destroy),
    /// Its data goes: that was looked at.
    Remove,
}

/// Decides for a volume of ours (D10). `replaced` says that a new claim has the old one's name: its
/// pods are no users of this volume.
pub(crate) fn wish(volume: &Volume, replaced: bool) -> Wish {
    let held = is_held(volume);
    let deletes = volume.reclaim_policy == ReclaimPolicy::Delete;
    let owner = volume.claim_ref.as_ref().filter(|r| r.lacks().is_none());
    let uid = owner.and_then(|owner| owner.uid.as_ref());
    if let (VolumePhase::Released, true, Some(owner), Some(uid)) =
        (volume.phase, deletes, owner, uid)
    {
        let marked = volume.meta.annotations.get(names::DELETING);
        if marked.is_some_and(|marked| *uid == *marked) {
            return Wish::Remove;
        }
        let claim = ObjectKey::claim(owner.namespace.clone(), owner.name.clone());
        let mut evidence = vec![Evidence::ClaimGone(claim.clone(), uid.clone())];
        if !replaced {
            evidence.push(Evidence::ClaimAtRest(claim));
        }
        let patch = json!({"metadata": {"annotations": {names::DELETING: uid}}});
        return Wish::Mark(Destroy {
            step: "mark-deleting",
            target: Target::of(Kind::Volume, &volume.meta),
            action: Destruction::Patch(Part::Main, patch),
            evidence,
        });
    }
    let deleting = volume.meta.is_deleting();
    // The API takes no new finalizer on what is being deleted.
    if deletes && !held && !deleting {
        let mut all: Vec<&str> = volume.meta.finalizers.iter().map(|f| &**f).collect();
        all.push(names::EXTERNAL_PROVISIONER);
        return Wish::Hold(finalizers(volume, "hold-volume", all));
    }
    // Nobody's volume that somebody deletes: it goes, and its data stays.
    if held && (!deletes || (deleting && volume.claim_ref.is_none())) {
        return Wish::Hold(let_go(volume));
    }
    Wish::Rest
}

pub(crate) fn is_held(volume: &Volume) -> bool {
    let ours = |f: &&std::sync::Arc<str>| ***f == *names::EXTERNAL_PROVISIONER;
    volume.meta.finalizers.iter().any(|f| ours(&f))
}

/// Takes the finalizer away.
pub(crate) fn let_go(volume: &Volume) -> Write {
    finalizers(volume, "let-volume-go", others(volume))
}

/// The finalizers that are not ours.
pub(crate) fn others(volume: &Volume) -> Vec<&str> {
    let all = volume.meta.finalizers.iter().map(|f| &**f);
    all.filter(|f| *f != names::EXTERNAL_PROVISIONER).collect()
}

/// Deletes the object of a volume whose data is gone.
pub(crate) fn drop_object(volume: &Volume) -> Destroy {
    let owner = volume.claim_ref.as_ref();
    let gone = owner.and_then(|owner| {
        let claim = ObjectKey::claim(owner.namespace.clone(), owner.name.clone());
        Some(Evidence::ClaimGone(claim, owner.uid.clone()?))
    });
    Destroy {
        step: "delete-volume",
        target: Target::of(Kind::Volume, &volume.meta),
        action: Destruction::Delete,
        evidence: gone.into_iter().collect(),
    }
}

/// Asks the scheduler for another node (P12).
pub(crate) fn reschedule(claim: &Claim) -> Write {
    Write {
        step: "reschedule-claim",
        target: Target::of(Kind::Claim, &claim.meta),
        part: Part::Main,
        patch: json!({"metadata": {"annotations": {names::SELECTED_NODE: Value::Null}}}),
    }
}

fn finalizers(volume: &Volume, step: &'static str, all: Vec<&str>) -> Write {
    Write {
        step,
        target: Target::of(Kind::Volume, &volume.meta),
        part: Part::Main,
        patch: json!({"metadata": {"finalizers": all}}),
    }
}
