//! PersistentVolume: V1 to V4.

use serde_json::{Value, json};

use super::amounts;
use super::check::{Check, Field, default_to, difference, entries, is_empty, same, text, texts};
use super::{Cluster, Rules, names, protect, selectors, source};
use crate::status::{Part, Status};

pub(super) const ACCESS_MODES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
pub(super) const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
const RECLAIM_POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];
const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";

/// Node labels that were renamed: the affinity may follow.
const RENAMED_LABELS: [(&str, &str); 5] = [
    (
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/zone",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
    ),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
];

pub(super) struct Volume;

impl Rules for Volume {
    fn default(&self, volume: &mut Value) -> Result<(), String> {
        let spec = &mut volume["spec"];
        default_to(spec, "persistentVolumeReclaimPolicy", "Retain");
        default_to(spec, "volumeMode", "Filesystem");
        source::default(spec);
        amounts::canonicalize_all(&mut spec["capacity"])?;
        drop_empty(spec, &["capacity", "storageClassName"]);
        Ok(())
    }

    fn admit_create(&self, volume: &mut Value, _: &dyn Cluster) -> Result<(), Status> {
        protect(volume, "kubernetes.io/pv-protection");
        Ok(())
    }

    fn prepare_create(&self, volume: &mut Value, now: &str) {
        volume["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": now});
    }

    fn prepare_update(&self, old: &Value, new: &mut Value, part: Part, now: &str) {
        if part == Part::Main {
            return;
        }
        let (old, new) = (&old["status"], &mut new["status"]);
        let time = "lastPhaseTransitionTime";
        let moved = !same(&old["phase"], &new["phase"]);
        if moved && (new[time].is_null() || new[time] == old[time]) {
            new[time] = now.into();
        } else if !moved && new[time].is_null() && !old[time].is_null() {
            new[time] = old[time].clone();
        }
    }

    fn check(&self, volume: &Value, check: &mut Check) {
        check_spec(&volume["spec"], &Field::of("spec"), false, check);
        if !source::takes_mount_options(&volume["spec"])
            && volume["metadata"]["annotations"][MOUNT_OPTIONS].is_string()
        {
            check.forbidden(
                &Field::of("metadata.annotations").child(MOUNT_OPTIONS),
                "may not specify mount options for this volume type",
            );
        }
    }

    fn check_update(&self, old: &Value, new: &Value, check: &mut Check) {
        let (old, new) = (&old["spec"], &new["spec"]);
        check_source_unchanged(old, new, check);
        check.unchanged(
            &old["volumeMode"],
            &new["volumeMode"],
            &Field::of("volumeMode"),
        );
        if !old["nodeAffinity"].is_null()
            && !same(
                &renamed(&old["nodeAffinity"]),
                &renamed(&new["nodeAffinity"]),
            )
        {
            check.invalid(
                &Field::of("nodeAffinity"),
                source::go_names(&new["nodeAffinity"]),
                "field is immutable, except for updating from beta label to GA",
            );
        }
        let class = "volumeAttributesClassName";
        if !old[class].is_null() && new[class].is_null() {
            let detail = "update from non-nil value to nil is forbidden";
            check.forbidden(&Field::of("spec").child(class), detail);
        }
    }

    fn warnings(&self, volume: &Value) -> Vec<String> {
        let mut warnings = Vec::new();
        if volume["metadata"]["annotations"][MOUNT_OPTIONS].is_string() {
            warnings.push(format!(
                "metadata.annotations[{MOUNT_OPTIONS}]: deprecated since v1.31; use \"mountOptions\" attribute instead"
            ));
        }
        if volume["spec"]["persistentVolumeReclaimPolicy"] == "Recycle" {
            warnings.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".to_owned());
        }
        for source in ["cephfs", "rbd"] {
            if !volume["spec"][source].is_null() {
                warnings.push(format!(
                    "spec.{source}: deprecated in v1.28, non-functional in v1.31+"
                ));
            }
        }
        warnings
    }
}

/// A volume's spec, of its own or inline in an attachment.
pub(super) fn check_spec(spec: &Value, field: &Field, inline: bool, check: &mut Check) {
    let not_inline = "may not be specified in the context of inline volumes";
    if inline {
        for name in ["claimRef", "capacity"] {
            if !is_empty(&spec[name]) {
                check.forbidden(&field.child(name), not_inline);
            }
        }
        if spec["csi"].is_null() {
            let detail = "has to be specified in the context of inline volumes";
            check.required(&field.child("csi"), detail);
        }
    }
    if texts(&spec["accessModes"]).next().is_none() {
        check.required(&field.child("accessModes"), "");
    }
    access_modes(&spec["accessModes"], &field.child("accessModes"), check);
    if !inline {
        capacity(&spec["capacity"], &field.child("capacity"), check);
    }
    let policy = field.child("persistentVolumeReclaimPolicy");
    match text(&spec["persistentVolumeReclaimPolicy"]) {
        "" | "Retain" => {}
        _ if inline => check.forbidden(
            &policy,
            "may only be Retain in the context of inline volumes",
        ),
        _ => check.one_of(
            &spec["persistentVolumeReclaimPolicy"],
            &policy,
            &RECLAIM_POLICIES,
        ),
    }
    let affinity = field.child("nodeAffinity");
    if !spec["nodeAffinity"].is_null() {
        let required = &spec["nodeAffinity"]["required"];
        if inline {
            check.forbidden(&affinity, not_inline);
        } else if required.is_null() {
            check.required(
                &affinity.child("required"),
                "must specify required node constraints",
            );
        } else {
            selectors::node_selector(required, &affinity.child("required"), check);
        }
    }
    source::check(spec, field, check);
    let class = text(&spec["storageClassName"]);
    if inline && !class.is_empty() {
        check.forbidden(&field.child("storageClassName"), not_inline);
    } else if !class.is_empty() {
        check.complaints(
            &field.child("storageClassName"),
            class,
            names::subdomain(class),
        );
    }
    if inline && spec["volumeMode"] == "Block" {
        let detail =
            "may not specify volumeMode other than Filesystem in the context of inline volumes";
        check.forbidden(&field.child("volumeMode"), detail);
    } else {
        check.one_of(
            &spec["volumeMode"],
            &field.child("volumeMode"),
            &VOLUME_MODES,
        );
    }
    attributes_class(spec, field, check);
}

/// V2: known modes, and ReadWriteOncePod alone.
pub(super) fn access_modes(modes: &Value, field: &Field, check: &mut Check) {
    for mode in super::check::items(modes) {
        check.one_of(mode, field, &ACCESS_MODES);
    }
    let has_other =
        texts(modes).any(|mode| mode != "ReadWriteOncePod" && ACCESS_MODES.contains(&mode));
    if has_other && texts(modes).any(|mode| mode == "ReadWriteOncePod") {
        check.forbidden(
            field,
            "may not use ReadWriteOncePod with other access modes",
        );
    }
}

/// V2: storage alone, and more than nothing of it.
fn capacity(capacity: &Value, field: &Field, check: &mut Check) {
    if is_empty(capacity) {
        check.required(field, "");
    }
    let keys: Vec<&str> = entries(capacity).map(|(key, _)| key).collect();
    if keys != ["storage"] {
        check.unsupported(field, capacity, &["storage"]);
    }
    for (key, value) in entries(capacity) {
        amounts::valid(value, &field.key(key), check);
        amounts::positive(value, &field.key(key), check);
    }
}

fn attributes_class(spec: &Value, field: &Field, check: &mut Check) {
    let Some(class) = spec["volumeAttributesClassName"].as_str() else {
        return;
    };
    let class_field = field.child("volumeAttributesClassName");
    if class.is_empty() {
        check.required(&class_field, "an empty string is disallowed");
    } else {
        check.complaints(&class_field, class, names::subdomain(class));
    }
    if spec["csi"].is_null() {
        let detail = "has to be specified when using volumeAttributesClassName";
        check.required(&field.child("csi"), detail);
    }
}

/// V3: the source stays, but a missing secret for expansion may be added.
fn check_source_unchanged(old: &Value, new: &Value, check: &mut Check) {
    let (old, mut new) = (source::of(old), source::of(new));
    let secret = "controllerExpandSecretRef";
    if old["csi"].is_object()
        && old["csi"][secret].is_null()
        && let Some(csi) = new.get_mut("csi").and_then(Value::as_object_mut)
    {
        csi.remove(secret);
    }
    if !same(&old, &new) {
        let detail = format!(
            "spec.persistentvolumesource is immutable after creation\n{}",
            difference(&old, &new)
        );
        check.forbidden(&Field::of("spec.persistentvolumesource"), &detail);
    }
}

/// The affinity with today's names of labels.
fn renamed(affinity: &Value) -> Value {
    let mut affinity = affinity.clone();
    let terms = affinity["required"]["nodeSelectorTerms"].as_array_mut();
    for term in terms.into_iter().flatten() {
        let requirements = term["matchExpressions"].as_array_mut();
        for requirement in requirements.into_iter().flatten() {
            let new_name = RENAMED_LABELS
                .iter()
                .find(|(beta, _)| requirement["key"] == *beta)
                .map(|(_, stable)| *stable);
            if let Some(name) = new_name {
                requirement["key"] = name.into();
            }
        }
    }
    affinity
}

/// Removes fields that the typed API would not keep when they are empty.
pub(super) fn drop_empty(object: &mut Value, fields: &[&str]) {
    if let Some(object) = object.as_object_mut() {
        object.retain(|name, value| !fields.contains(&name.as_str()) || !is_empty(value));
    }
}
