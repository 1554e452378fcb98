//! Label selectors, node selectors and topology terms.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::check::{Check, Field, items, text, texts};
use super::{meta, names};

/// The selector of a claim, or the node topology of a capacity.
pub(super) fn label_selector(selector: &Value, field: &Field, check: &mut Check) {
    meta::labels(&selector["matchLabels"], &field.child("matchLabels"), check);
    let field = field.child("matchExpressions");
    for (index, requirement) in items(&selector["matchExpressions"]).iter().enumerate() {
        let field = field.index(index);
        match text(&requirement["operator"]) {
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {
                values_fit_operator(requirement, &field, check)
            }
            other => check.invalid(
                &field.child("operator"),
                other,
                "not a valid selector operator",
            ),
        }
        key_and_values(requirement, &field, check);
    }
}

/// The node affinity of a volume.
pub(super) fn node_selector(selector: &Value, field: &Field, check: &mut Check) {
    let field = field.child("nodeSelectorTerms");
    if items(&selector["nodeSelectorTerms"]).is_empty() {
        check.required(&field, "must have at least one node selector term");
    }
    for (index, term) in items(&selector["nodeSelectorTerms"]).iter().enumerate() {
        let field = field.index(index);
        for (index, requirement) in items(&term["matchExpressions"]).iter().enumerate() {
            let field = field.child("matchExpressions").index(index);
            node_labels(requirement, &field, check);
        }
        for (index, requirement) in items(&term["matchFields"]).iter().enumerate() {
            let field = field.child("matchFields").index(index);
            node_fields(requirement, &field, check);
        }
    }
}

fn node_labels(requirement: &Value, field: &Field, check: &mut Check) {
    match text(&requirement["operator"]) {
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {
            values_fit_operator(requirement, field, check)
        }
        "Gt" | "Lt" => {
            if items(&requirement["values"]).len() != 1 {
                check.required(
                    &field.child("values"),
                    "must be specified single value when `operator` is 'Lt' or 'Gt'",
                );
            }
        }
        other => check.invalid(
            &field.child("operator"),
            other,
            "not a valid selector operator",
        ),
    }
    key_and_values(requirement, field, check);
}

fn node_fields(requirement: &Value, field: &Field, check: &mut Check) {
    match text(&requirement["operator"]) {
        "In" | "NotIn" => {
            if items(&requirement["values"]).len() != 1 {
                check.required(
                    &field.child("values"),
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
                );
            }
        }
        other => check.invalid(
            &field.child("operator"),
            other,
            "not a valid selector operator",
        ),
    }
    match text(&requirement["key"]) {
        "metadata.name" => {
            for (index, value) in texts(&requirement["values"]).enumerate() {
                let field = field.child("values").index(index);
                check.complaints(&field, value, names::subdomain(value));
            }
        }
        other => check.invalid(&field.child("key"), other, "not a valid field selector key"),
    }
}

fn values_fit_operator(requirement: &Value, field: &Field, check: &mut Check) {
    let field = field.child("values");
    let none = items(&requirement["values"]).is_empty();
    match text(&requirement["operator"]) {
        "In" | "NotIn" if none => {
            check.required(
                &field,
                "must be specified when `operator` is 'In' or 'NotIn'",
            );
        }
        "Exists" | "DoesNotExist" if !none => check.forbidden(
            &field,
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        _ => {}
    }
}

fn key_and_values(requirement: &Value, field: &Field, check: &mut Check) {
    let key = text(&requirement["key"]);
    check.complaints(&field.child("key"), key, names::qualified(key));
    for (index, value) in texts(&requirement["values"]).enumerate() {
        let field = field.child("values").index(index);
        check.complaints(&field, value, names::label_value(value));
    }
}

/// The topologies that a storage class allows.
pub(super) fn topologies(terms: &Value, field: &Field, check: &mut Check) {
    let mut known: Vec<BTreeMap<&str, BTreeSet<&str>>> = Vec::new();
    for (index, term) in items(terms).iter().enumerate() {
        let field = field.index(index).child("matchLabelExpressions");
        let mut values_by_key = BTreeMap::new();
        for (index, requirement) in items(&term["matchLabelExpressions"]).iter().enumerate() {
            let field = field.index(index);
            let (key, mut values) = (text(&requirement["key"]), BTreeSet::new());
            if items(&requirement["values"]).is_empty() {
                check.required(&field.child("values"), "");
            }
            for (index, value) in texts(&requirement["values"]).enumerate() {
                if !values.insert(value) {
                    check.duplicate(&field.child("values").index(index), value, "");
                }
            }
            check.complaints(&field.child("key"), key, names::qualified(key));
            if values_by_key.insert(key, values).is_some() {
                check.duplicate(&field.child("key"), key, "");
            }
        }
        if known.contains(&values_by_key) {
            check.duplicate(&field, "", "");
        }
        known.push(values_by_key);
    }
}
