//! What the API does to an object before it stores it: defaults, admission, validation.
//!
//! A file a kind; each implements [`Rules`]. Everything here is a function of JSON, and the texts
//! are the API's own: `recorded.json` holds what a kube-apiserver 1.37.2 said to each case.

mod amounts;
mod attachment;
mod check;
mod claim;
mod classes;
mod config;
mod csi;
mod event;
mod lease;
mod meta;
mod names;
mod namespace;
mod node;
mod pod;
mod selectors;
mod source;
mod volume;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::status::{Cause, Part, Status};
use check::Check;
use names::NameRule;

pub(crate) use event::{
    validate_create as validate_new_event, validate_update as validate_changed_event,
};

/// What admission may look at.
pub(crate) trait Cluster {
    /// All objects of a resource.
    fn list(&self, plural: &str) -> Vec<Arc<Value>>;
    /// One object; the namespace of cluster-wide ones is empty.
    fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>>;
}

/// The rules of one kind. What a kind does not say is as here.
trait Rules: Sync {
    /// Whether objects live in a namespace.
    fn namespaced(&self) -> bool {
        false
    }

    /// What names must look like.
    fn name_rule(&self) -> NameRule {
        names::subdomain
    }

    /// Fills what the writer left out and brings quantities into canonical form.
    fn default(&self, _object: &mut Value) -> Result<(), String> {
        Ok(())
    }

    /// Admission that changes or refuses a new object.
    fn admit_create(&self, _object: &mut Value, _cluster: &dyn Cluster) -> Result<(), Status> {
        Ok(())
    }

    /// Admission that refuses a change.
    fn admit_update(
        &self,
        _old: &Value,
        _new: &Value,
        _cluster: &dyn Cluster,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// Clears and sets what is the API's to write in a new object.
    fn prepare_create(&self, _object: &mut Value, _now: &str) {}

    /// Clears and sets what is the API's to write in a changed object.
    fn prepare_update(&self, _old: &Value, _new: &mut Value, _part: Part, _now: &str) {}

    /// What must hold of a new object and of every new main part, beyond its metadata.
    fn check(&self, _object: &Value, _check: &mut Check) {}

    /// What a change of the main part must respect besides.
    fn check_update(&self, _old: &Value, _new: &Value, _check: &mut Check) {}

    /// What a change of the status must respect, beyond the metadata.
    fn check_status(&self, _old: &Value, _new: &Value, _check: &mut Check) {}

    /// What the writer should know although the object is accepted.
    fn warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }
}

/// The rules of a kind, by its name.
fn of(kind: &str) -> &'static dyn Rules {
    match kind {
        "PersistentVolume" => &volume::Volume,
        "PersistentVolumeClaim" => &claim::Claim,
        "StorageClass" => &classes::StorageClass,
        "VolumeAttributesClass" => &classes::VolumeAttributesClass,
        "VolumeAttachment" => &attachment::Attachment,
        "CSIDriver" => &csi::Driver,
        "CSINode" => &csi::Node,
        "CSIStorageCapacity" => &csi::Capacity,
        "Pod" => &pod::Pod,
        "Node" => &node::Node,
        "Namespace" => &namespace::Namespace,
        "ConfigMap" => &config::ConfigMap,
        "Secret" => &config::Secret,
        "ServiceAccount" => &config::ServiceAccount,
        "Lease" => &lease::Lease,
        "Event" => &event::Event,
        _ => &ClusterWide,
    }
}

/// A kind without rules of its own.
struct ClusterWide;

impl Rules for ClusterWide {}

/// Fills what the writer left out and brings quantities into canonical form.
pub(crate) fn default(kind: &str, object: &mut Value) -> Result<(), Status> {
    of(kind).default(object).map_err(|why| {
        let version = object["apiVersion"].as_str().unwrap_or_default();
        let version = version.rsplit('/').next().unwrap_or_default();
        Status::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"
        ))
    })
}

/// Clears and sets what is the API's to write in a new object (V1, V5).
pub(crate) fn prepare_create(kind: &str, object: &mut Value, now: &str) {
    of(kind).prepare_create(object, now);
}

/// Clears and sets what is the API's to write in a changed object. The part that the request does
/// not write is in place already.
pub(crate) fn prepare_update(kind: &str, old: &Value, new: &mut Value, part: Part, now: &str) {
    of(kind).prepare_update(old, new, part, now);
}

/// What is wrong with a new object.
pub(crate) fn validate_create(kind: &str, object: &Value) -> Vec<Cause> {
    let (rules, mut check) = (of(kind), Check::default());
    meta::check(
        &object["metadata"],
        rules.namespaced(),
        rules.name_rule(),
        &mut check,
    );
    rules.check(object, &mut check);
    check.into_causes()
}

/// What is wrong with a change.
pub(crate) fn validate_update(kind: &str, old: &Value, new: &Value, part: Part) -> Vec<Cause> {
    let (rules, mut check) = (of(kind), Check::default());
    meta::check_update(&old["metadata"], &new["metadata"], &mut check);
    match part {
        Part::Main => {
            rules.check(new, &mut check);
            rules.check_update(old, new, &mut check);
        }
        Part::Status => rules.check_status(old, new, &mut check),
    }
    check.into_causes()
}

/// Admission of a new object: DefaultStorageClass, StorageObjectInUseProtection (V8) and, for pods,
/// the defaults that the Priority and DefaultTolerationSeconds plugins set.
pub(crate) fn admit_create(
    kind: &str,
    object: &mut Value,
    cluster: &dyn Cluster,
) -> Result<(), Status> {
    of(kind).admit_create(object, cluster)
}

/// Admission of a change: PersistentVolumeClaimResize (V9).
pub(crate) fn admit_update(
    kind: &str,
    old: &Value,
    new: &Value,
    part: Part,
    cluster: &dyn Cluster,
) -> Result<(), Status> {
    match part {
        Part::Main => of(kind).admit_update(old, new, cluster),
        Part::Status => Ok(()),
    }
}

/// What the writer should know although the object is accepted.
pub(crate) fn warnings(kind: &str, object: &Value) -> Vec<String> {
    of(kind).warnings(object)
}

/// Adds a finalizer that keeps an object while it is in use (StorageObjectInUseProtection).
fn protect(object: &mut Value, finalizer: &str) {
    add_to(&mut object["metadata"]["finalizers"], finalizer);
}

/// Adds a text to a list that may not be there yet.
fn add_to(list: &mut Value, text: &str) {
    match list {
        Value::Array(known) => {
            if !known.iter().any(|known| known == text) {
                known.push(text.into());
            }
        }
        none => *none = json!([text]),
    }
}

#[cfg(test)]
mod tests;
