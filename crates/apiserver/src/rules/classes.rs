//! StorageClass (V7) and VolumeAttributesClass.

use serde_json::Value;

use super::check::{Check, Field, default_to, entries, same, text};
use super::{Cluster, Rules, names, protect, selectors};
use crate::status::Status;

const PARAMETERS: usize = 512;
const PARAMETERS_BYTES: usize = 256 * 1024;

pub(super) struct StorageClass;

impl Rules for StorageClass {
    fn default(&self, class: &mut Value) -> Result<(), String> {
        default_to(class, "reclaimPolicy", "Delete");
        default_to(class, "volumeBindingMode", "Immediate");
        Ok(())
    }

    fn check(&self, class: &Value, check: &mut Check) {
        provisioner(&class["provisioner"], &Field::of("provisioner"), check);
        parameters(&class["parameters"], &Field::of("parameters"), check);
        check.one_of(
            &class["reclaimPolicy"],
            &Field::of("reclaimPolicy"),
            &["Delete", "Retain"],
        );
        check.one_of(
            &class["volumeBindingMode"],
            &Field::of("volumeBindingMode"),
            &["Immediate", "WaitForFirstConsumer"],
        );
        selectors::topologies(
            &class["allowedTopologies"],
            &Field::of("allowedTopologies"),
            check,
        );
    }

    fn check_update(&self, old: &Value, new: &Value, check: &mut Check) {
        for name in [
            "provisioner",
            "parameters",
            "reclaimPolicy",
            "volumeBindingMode",
        ] {
            if !same(&old[name], &new[name]) {
                check.invalid(&Field::of(name), Value::Null, "field is immutable");
            }
        }
    }
}

pub(super) struct VolumeAttributesClass;

impl Rules for VolumeAttributesClass {
    fn admit_create(&self, class: &mut Value, _: &dyn Cluster) -> Result<(), Status> {
        protect(class, "kubernetes.io/vac-protection");
        Ok(())
    }

    fn check(&self, class: &Value, check: &mut Check) {
        provisioner(&class["driverName"], &Field::of("driverName"), check);
        let field = Field::of("parameters");
        parameters(&class["parameters"], &field, check);
        if entries(&class["parameters"]).next().is_none() {
            check.required(&field, "must contain at least one key/value pair");
        }
    }

    fn check_update(&self, old: &Value, new: &Value, check: &mut Check) {
        for name in ["driverName", "parameters"] {
            if !same(&old[name], &new[name]) {
                check.forbidden(
                    &Field::of(name),
                    &format!("updates to {name} are forbidden."),
                );
            }
        }
    }
}

fn provisioner(name: &Value, field: &Field, check: &mut Check) {
    match text(name) {
        "" => check.required(field, ""),
        given => check.complaints(field, given, names::qualified(&given.to_lowercase())),
    }
}

fn parameters(parameters: &Value, field: &Field, check: &mut Check) {
    if entries(parameters).count() > PARAMETERS {
        check.too_long(field, PARAMETERS);
        return;
    }
    for (key, _) in entries(parameters).filter(|(key, _)| key.is_empty()) {
        check.invalid(field, key, "field can not be empty.");
    }
    let size: usize = entries(parameters)
        .map(|(key, value)| key.len() + text(value).len())
        .sum();
    if size > PARAMETERS_BYTES {
        check.too_long(field, PARAMETERS_BYTES);
    }
}
