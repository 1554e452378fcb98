//! CSIDriver, CSINode and CSIStorageCapacity.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::check::{Check, Field, default_to, is_empty, items, same, text, texts};
use super::{Rules, amounts, names, selectors, source};

const NODE_ID_LENGTH: usize = 256;

pub(super) struct Driver;

impl Rules for Driver {
    fn default(&self, driver: &mut Value) -> Result<(), String> {
        let spec = &mut driver["spec"];
        for (name, value) in [
            ("attachRequired", json!(true)),
            ("podInfoOnMount", json!(false)),
            ("storageCapacity", json!(false)),
            ("fsGroupPolicy", json!("ReadWriteOnceWithFSType")),
            ("requiresRepublish", json!(false)),
            ("seLinuxMount", json!(false)),
            ("preventPodSchedulingIfMissing", json!(false)),
        ] {
            default_to(spec, name, value);
        }
        if is_empty(&spec["volumeLifecycleModes"]) {
            spec["volumeLifecycleModes"] = json!(["Persistent"]);
        }
        Ok(())
    }

    fn check(&self, driver: &Value, check: &mut Check) {
        let (spec, field) = (&driver["spec"], Field::of("spec"));
        check.one_of(
            &spec["fsGroupPolicy"],
            &field.child("fsGroupPolicy"),
            &["File", "None", "ReadWriteOnceWithFSType"],
        );
        token_requests(&spec["tokenRequests"], &field.child("tokenRequests"), check);
        for mode in items(&spec["volumeLifecycleModes"]) {
            let field = field.child("volumeLifecycleModes");
            check.one_of(mode, &field, &["Persistent", "Ephemeral"]);
        }
        let period = &spec["nodeAllocatableUpdatePeriodSeconds"];
        if period.as_i64().is_some_and(|seconds| seconds < 10) {
            check.invalid(
                &field.child("nodeAllocatableUpdatePeriodSeconds"),
                period.clone(),
                "must be greater than or equal to 10 seconds",
            );
        }
    }

    fn check_update(&self, old: &Value, new: &Value, check: &mut Check) {
        let (old, new, field) = (&old["spec"], &new["spec"], Field::of("spec"));
        // The API misspells this one.
        check.unchanged(
            &old["attachRequired"],
            &new["attachRequired"],
            &field.child("attachedRequired"),
        );
        check.unchanged(
            &old["volumeLifecycleModes"],
            &new["volumeLifecycleModes"],
            &field.child("volumeLifecycleModes"),
        );
    }
}

fn token_requests(requests: &Value, field: &Field, check: &mut Check) {
    let mut audiences = BTreeSet::new();
    for (index, request) in items(requests).iter().enumerate() {
        let (field, audience) = (field.index(index), text(&request["audience"]));
        if !audiences.insert(audience) {
            check.duplicate(&field.child("audience"), audience, "");
            continue;
        }
        let detail = match request["expirationSeconds"].as_i64() {
            Some(seconds) if seconds < 600 => "may not specify a duration less than 10 minutes",
            Some(seconds) if seconds > 1 << 32 => {
                "may not specify a duration larger than 2^32 seconds"
            }
            _ => continue,
        };
        let value = request["expirationSeconds"].clone();
        check.invalid(&field.child("expirationSeconds"), value, detail);
    }
}

pub(super) struct Node;

impl Rules for Node {
    fn default(&self, node: &mut Value) -> Result<(), String> {
        // Without drivers the API answers a null, not an empty list.
        default_to(&mut node["spec"], "drivers", Value::Null);
        Ok(())
    }

    fn check(&self, node: &Value, check: &mut Check) {
        let mut known = BTreeSet::new();
        for (index, driver) in items(&node["spec"]["drivers"]).iter().enumerate() {
            let field = Field::of("spec.drivers").index(index);
            source::driver_name(&driver["name"], &field.child("name"), check);
            let id = text(&driver["nodeID"]);
            check.text(&driver["nodeID"], &field.child("nodeID"));
            if id.len() > NODE_ID_LENGTH {
                let detail = format!("must be {NODE_ID_LENGTH} characters or less");
                check.invalid(&field.child("nodeID"), id, &detail);
            }
            let count = &driver["allocatable"]["count"];
            if count.as_i64().is_some_and(|count| count < 0) {
                check.invalid(
                    &field.child("allocatable").child("count"),
                    count.clone(),
                    "must be greater than or equal to 0",
                );
            }
            if !known.insert(text(&driver["name"])) {
                check.duplicate(&field.child("name"), driver["name"].clone(), "");
            }
            let mut keys = BTreeSet::new();
            for key in texts(&driver["topologyKeys"]) {
                if key.is_empty() {
                    check.required(&field, "");
                }
                if !keys.insert(key) {
                    check.duplicate(&field, key, "");
                }
                check.complaints(&field, key, names::qualified(key));
            }
        }
    }

    fn check_update(&self, old: &Value, new: &Value, check: &mut Check) {
        for old in items(&old["spec"]["drivers"]) {
            for new in items(&new["spec"]["drivers"])
                .iter()
                .filter(|new| new["name"] == old["name"])
            {
                let differs = ["nodeID", "topologyKeys"]
                    .iter()
                    .any(|name| !same(&old[*name], &new[*name]));
                if differs {
                    let printed = format!(
                        "Invalid value: {{\"Name\":{},\"NodeID\":{},\"TopologyKeys\":{},\"Allocatable\":null}}: field is immutable",
                        new["name"], new["nodeID"], new["topologyKeys"],
                    );
                    check.as_printed(&Field::of("spec.drivers"), printed);
                }
            }
        }
    }
}

pub(super) struct Capacity;

impl Rules for Capacity {
    fn namespaced(&self) -> bool {
        true
    }

    fn default(&self, capacity: &mut Value) -> Result<(), String> {
        for name in ["capacity", "maximumVolumeSize"] {
            if let Some(value) = capacity.get_mut(name) {
                amounts::canonicalize(value)?;
            }
        }
        Ok(())
    }

    fn check(&self, capacity: &Value, check: &mut Check) {
        selectors::label_selector(&capacity["nodeTopology"], &Field::of("nodeTopology"), check);
        let class = text(&capacity["storageClassName"]);
        check.complaints(
            &Field::of("storageClassName"),
            class,
            names::subdomain(class),
        );
        amounts::not_negative(&capacity["capacity"], &Field::of("capacity"), check);
    }

    fn check_update(&self, old: &Value, new: &Value, check: &mut Check) {
        for name in ["nodeTopology", "storageClassName"] {
            check.unchanged(&old[name], &new[name], &Field::of(name));
        }
    }
}
