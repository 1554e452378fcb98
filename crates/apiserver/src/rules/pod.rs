//! Pod: as much as the storage side of one needs. Probes, security, networks and resources beyond
//! the defaults are taken as they come.

mod containers;
mod volumes;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::check::{Check, Field, default_to, difference, is_empty, items, same, text};
use super::{Cluster, Rules, meta, names};
use crate::status::{Part, Status};

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const CHANGEABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) struct Pod;

impl Rules for Pod {
    fn namespaced(&self) -> bool {
        true
    }

    fn default(&self, pod: &mut Value) -> Result<(), String> {
        let spec = &mut pod["spec"];
        for (name, value) in [
            ("restartPolicy", json!("Always")),
            ("dnsPolicy", json!("ClusterFirst")),
            ("schedulerName", json!("default-scheduler")),
            ("terminationGracePeriodSeconds", json!(30)),
            ("securityContext", json!({})),
            ("enableServiceLinks", json!(true)),
        ] {
            default_to(spec, name, value);
        }
        if spec["terminationGracePeriodSeconds"]
            .as_i64()
            .is_some_and(|seconds| seconds < 0)
        {
            spec["terminationGracePeriodSeconds"] = 1.into();
        }
        for (from, to) in [
            ("serviceAccountName", "serviceAccount"),
            ("serviceAccount", "serviceAccountName"),
        ] {
            if !is_empty(&spec[from]) {
                spec[to] = spec[from].clone();
            }
        }
        if let Some(spec) = spec.as_object_mut() {
            spec.retain(|_, value| !value.is_null());
        }
        for list in CONTAINERS {
            for container in spec
                .get_mut(list)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                containers::default(container)?;
            }
        }
        for volume in spec
            .get_mut("volumes")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            volumes::default(volume)?;
        }
        Ok(())
    }

    fn admit_create(&self, pod: &mut Value, _: &dyn Cluster) -> Result<(), Status> {
        let spec = &mut pod["spec"];
        default_to(spec, "priority", 0);
        default_to(spec, "preemptionPolicy", "PreemptLowerPriority");
        tolerate_a_while(spec);
        Ok(())
    }

    fn prepare_create(&self, pod: &mut Value, _: &str) {
        let class = quality(&pod["spec"]);
        pod["status"] = json!({"phase": "Pending", "qosClass": class});
    }

    /// A pod's status cannot lose its class, and who owns the pod is not told there.
    fn prepare_update(&self, old: &Value, new: &mut Value, part: Part, _: &str) {
        if part == Part::Main {
            tolerate_a_while(&mut new["spec"]);
        } else {
            default_to(
                &mut new["status"],
                "qosClass",
                old["status"]["qosClass"].clone(),
            );
            match old["metadata"].get("ownerReferences") {
                Some(owners) => new["metadata"]["ownerReferences"] = owners.clone(),
                None => drop_field(&mut new["metadata"], "ownerReferences"),
            }
        }
    }

    fn check(&self, pod: &Value, check: &mut Check) {
        let (spec, field) = (&pod["spec"], Field::of("spec"));
        let volumes = volumes::check(&spec["volumes"], &field.child("volumes"), check);
        if items(&spec["containers"]).is_empty() {
            check.required(&field.child("containers"), "");
        }
        let mut known = BTreeSet::new();
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            for (index, container) in items(&spec[list]).iter().enumerate() {
                let field = field.child(list).index(index);
                containers::check(container, &volumes, &field, check);
                if !known.insert(text(&container["name"])) {
                    check.duplicate(&field.child("name"), container["name"].clone(), "");
                }
            }
        }
        check.one_of(
            &spec["restartPolicy"],
            &field.child("restartPolicy"),
            &["Always", "OnFailure", "Never"],
        );
        check.one_of(
            &spec["dnsPolicy"],
            &field.child("dnsPolicy"),
            &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        );
        meta::labels(&spec["nodeSelector"], &field.child("nodeSelector"), check);
        let group = &spec["securityContext"]["fsGroup"];
        if group
            .as_i64()
            .is_some_and(|id| !(0..=i64::from(i32::MAX)).contains(&id))
        {
            check.invalid(
                &field.child("securityContext").child("fsGroup"),
                group.clone(),
                "must be between 0 and 2147483647, inclusive",
            );
        }
        for name in ["serviceAccountName", "nodeName"] {
            let given = text(&spec[name]);
            if !given.is_empty() {
                check.complaints(&field.child(name), given, names::subdomain(given));
            }
        }
    }

    fn check_update(&self, old: &Value, new: &Value, check: &mut Check) {
        let (old, mut new, field) = (&old["spec"], new["spec"].clone(), Field::of("spec"));
        for list in ["containers", "initContainers"] {
            let (old, new) = (items(&old[list]), items(&new[list]));
            if old.len() != new.len() {
                let detail = "pod updates may not add or remove containers";
                check.forbidden(&field.child(list), detail);
                return;
            }
        }
        let deadline = "activeDeadlineSeconds";
        match (old[deadline].as_i64(), new[deadline].as_i64()) {
            (Some(old), Some(new)) if new > old => {
                let detail = "must be less than or equal to previous value";
                check.invalid(&field.child(deadline), new, detail);
            }
            (Some(_), None) => {
                let detail = "must not update from a positive integer to nil value";
                check.invalid(&field.child(deadline), Value::Null, detail);
            }
            _ => {}
        }
        let kept = |old: &Value| items(&new["tolerations"]).iter().any(|new| same(old, new));
        if !items(&old["tolerations"]).iter().all(kept) {
            let detail = "existing toleration can not be modified except its tolerationSeconds";
            check.forbidden(&field.child("tolerations"), detail);
        }
        take_changeable(old, &mut new);
        if !same(old, &new) {
            let detail = format!("{CHANGEABLE}\n{}", difference(old, &new));
            check.forbidden(&field, &detail);
        }
    }
}

/// Pods stay for five minutes on a node that went away (DefaultTolerationSeconds).
fn tolerate_a_while(spec: &mut Value) {
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let toleration = json!({
            "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
        });
        match &mut spec["tolerations"] {
            Value::Array(known) => {
                let covers = |known: &Value| {
                    matches!(text(&known["effect"]), "" | "NoExecute")
                        && (known["key"] == key || is_empty(&known["key"]))
                };
                if !known.iter().any(covers) {
                    known.push(toleration);
                }
            }
            none => *none = json!([toleration]),
        }
    }
}

/// Makes equal what may differ.
fn take_changeable(old: &Value, new: &mut Value) {
    for list in ["containers", "initContainers"] {
        let new = new
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten();
        for (old, new) in items(&old[list]).iter().zip(new) {
            new["image"] = old["image"].clone();
        }
    }
    for name in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        match old.get(name) {
            Some(value) => new[name] = value.clone(),
            None => drop_field(new, name),
        }
    }
    let grace = "terminationGracePeriodSeconds";
    if old[grace].as_i64().is_some_and(|seconds| seconds < 0) && new[grace] == 1 {
        new[grace] = old[grace].clone();
    }
}

fn drop_field(object: &mut Value, name: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(name);
    }
}

/// How well a pod is guarded against eviction: by what its containers ask for.
fn quality(spec: &Value) -> &'static str {
    let containers = || {
        CONTAINERS
            .iter()
            .take(2)
            .flat_map(|list| items(&spec[*list]))
    };
    let asks = |container: &Value| {
        ["limits", "requests"].iter().any(|part| {
            ["cpu", "memory"]
                .iter()
                .any(|name| !is_empty(&container["resources"][*part][*name]))
        })
    };
    let bounded = |container: &Value| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = &container["resources"]["limits"][*name];
            !limit.is_null() && *limit == container["resources"]["requests"][*name]
        })
    };
    if !containers().any(asks) {
        "BestEffort"
    } else if containers().all(bounded) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}
