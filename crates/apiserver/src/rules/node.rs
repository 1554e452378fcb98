//! Node: what a kubelet registers and reports.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::check::{Check, Field, default_to, items, same, text};
use super::{Rules, amounts, names};

pub(super) struct Node;

impl Rules for Node {
    fn default(&self, node: &mut Value) -> Result<(), String> {
        default_to(node, "spec", json!({}));
        let status = &mut node["status"];
        default_to(
            status,
            "daemonEndpoints",
            json!({"kubeletEndpoint": {"Port": 0}}),
        );
        for name in [
            "machineID",
            "systemUUID",
            "bootID",
            "kernelVersion",
            "osImage",
            "containerRuntimeVersion",
            "kubeletVersion",
            "kubeProxyVersion",
            "operatingSystem",
            "architecture",
        ] {
            default_to(&mut status["nodeInfo"], name, "");
        }
        if !status["capacity"].is_null() {
            default_to(status, "allocatable", status["capacity"].clone());
        }
        for name in ["capacity", "allocatable"] {
            if let Some(map) = status.get_mut(name) {
                amounts::canonicalize_all(map)?;
            }
        }
        Ok(())
    }

    fn check(&self, node: &Value, check: &mut Check) {
        // The API looks for taints in the wrong place when it reports them.
        taints(
            &node["spec"]["taints"],
            &Field::of("metadata.taints"),
            check,
        );
        for (index, range) in items(&node["spec"]["podCIDRs"]).iter().enumerate() {
            if !is_address_range(text(range)) {
                let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                check.invalid(
                    &Field::of("spec.podCIDRs").index(index),
                    range.clone(),
                    detail,
                );
            }
        }
    }

    fn check_update(&self, old: &Value, new: &Value, check: &mut Check) {
        let (old, new, field) = (&old["spec"], &new["spec"], Field::of("spec"));
        if !items(&old["podCIDRs"]).is_empty() && !same(&old["podCIDRs"], &new["podCIDRs"]) {
            let detail = "node updates may not change podCIDR except from \"\" to valid";
            check.forbidden(&field.child("podCIDRs"), detail);
        }
        let (old, new) = (text(&old["providerID"]), text(&new["providerID"]));
        if !old.is_empty() && old != new {
            let what = if new.is_empty() {
                "cleared"
            } else {
                "modified"
            };
            let detail = format!("field cannot be {what} once set");
            check.invalid(&field.child("providerID"), Value::Null, &detail);
        }
    }
}

fn taints(taints: &Value, field: &Field, check: &mut Check) {
    let mut known = BTreeSet::new();
    for (index, taint) in items(taints).iter().enumerate() {
        let field = field.index(index);
        let (key, value, effect) = (
            text(&taint["key"]),
            text(&taint["value"]),
            text(&taint["effect"]),
        );
        check.complaints(&field.child("key"), key, names::qualified(key));
        let complaints = names::label_value(value);
        if !complaints.is_empty() {
            check.invalid(&field.child("value"), value, &complaints.join(";"));
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        if !effects.contains(&effect) {
            check.unsupported(&field.child("effect"), &effect.into(), &effects);
        }
        if !known.insert((key, effect)) {
            let printed = format!(
                "Duplicate value: {{\"Key\":{},\"Value\":{},\"Effect\":{},\"TimeAdded\":null}}: taints must be unique by key and effect pair",
                json!(key),
                json!(value),
                json!(effect),
            );
            check.duplicate_as_printed(&field, printed);
        }
    }
}

fn is_address_range(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        match (address.parse(), bits.parse::<u8>()) {
            (Ok(std::net::IpAddr::V4(_)), Ok(bits)) => bits <= 32,
            (Ok(std::net::IpAddr::V6(_)), Ok(bits)) => bits <= 128,
            _ => false,
        }
    })
}
