//! What every object's metadata must look like.

use serde_json::{Value, json};

use super::check::{Check, Field, entries, is_empty, items, text, texts};
use super::names::{self, NameRule};

/// The most that all annotations of one object may take.
const ANNOTATIONS_BYTES: usize = 256 * 1024;

/// Finalizers that need no domain.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// Checks the metadata of a new object.
pub(super) fn check(meta: &Value, namespaced: bool, name: NameRule, check: &mut Check) {
    let field = Field::of("metadata");
    if let Some(prefix) = meta["generateName"]
        .as_str()
        .filter(|prefix| !prefix.is_empty())
    {
        // Random characters follow, so a dash may be the last.
        let likely = prefix.strip_suffix('-').map(|start| format!("{start}a"));
        let complaints = name(likely.as_deref().unwrap_or(prefix));
        check.complaints(&field.child("generateName"), prefix, complaints);
    }
    match text(&meta["name"]) {
        "" => check.required(&field.child("name"), "name or generateName is required"),
        given => check.complaints(&field.child("name"), given, name(given)),
    }
    match (namespaced, text(&meta["namespace"])) {
        (true, "") => check.required(&field.child("namespace"), ""),
        (true, given) => check.complaints(&field.child("namespace"), given, names::label(given)),
        (false, "") => {}
        (false, _) => check.forbidden(&field.child("namespace"), "not allowed on this type"),
    }
    check_parts(meta, &field, check);
    let finalizers = field.child("finalizers");
    for finalizer in texts(&meta["finalizers"]) {
        check.complaints(&finalizers, finalizer, names::qualified(finalizer));
    }
    for (index, finalizer) in texts(&meta["finalizers"]).enumerate() {
        check_finalizer_domain(finalizer, &finalizers.index(index), check);
    }
}

/// Checks the metadata of an object that takes the place of an older one.
pub(super) fn check_update(old: &Value, new: &Value, check: &mut Check) {
    let field = Field::of("metadata");
    if old["deletionTimestamp"].is_string() {
        let added: Vec<&str> = texts(&new["finalizers"])
            .filter(|finalizer| !texts(&old["finalizers"]).any(|known| known == *finalizer))
            .collect();
        if !added.is_empty() {
            let list: Vec<String> = added
                .iter()
                .map(|finalizer| format!("{finalizer:?}"))
                .collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                list.join(", ")
            );
            check.forbidden(&field.child("finalizers"), &detail);
        }
    }
    for name in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        check.unchanged(&old[name], &new[name], &field.child(name));
    }
    check_parts(new, &field, check);
    let finalizers = field.child("finalizers");
    for (index, finalizer) in texts(&new["finalizers"]).enumerate() {
        check.complaints(&finalizers, finalizer, names::qualified(finalizer));
        check_finalizer_domain(finalizer, &finalizers.index(index), check);
    }
}

/// A finalizer is the API's own, or says whose it is.
pub(super) fn check_finalizer_domain(finalizer: &str, field: &Field, check: &mut Check) {
    if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
        check.invalid(
            field,
            finalizer,
            "name is neither a standard finalizer name nor is it fully qualified",
        );
    }
}

fn check_parts(meta: &Value, field: &Field, check: &mut Check) {
    labels(&meta["labels"], &field.child("labels"), check);
    annotations(&meta["annotations"], &field.child("annotations"), check);
    owners(
        &meta["ownerReferences"],
        &field.child("ownerReferences"),
        check,
    );
}

/// Labels, wherever they are.
pub(super) fn labels(labels: &Value, field: &Field, check: &mut Check) {
    for (key, value) in entries(labels) {
        check.complaints(field, key, names::qualified(key));
        check.complaints(field, text(value), names::label_value(text(value)));
    }
}

fn annotations(annotations: &Value, field: &Field, check: &mut Check) {
    let mut size = 0;
    for (key, value) in entries(annotations) {
        check.complaints(field, key, names::qualified(&key.to_lowercase()));
        size += key.len() + text(value).len();
    }
    if size > ANNOTATIONS_BYTES {
        check.too_long(field, ANNOTATIONS_BYTES);
    }
}

fn owners(references: &Value, field: &Field, check: &mut Check) {
    let mut controller: Option<String> = None;
    for (index, owner) in items(references).iter().enumerate() {
        let field_of_owner = field.index(index);
        let event = text(&owner["apiVersion"]) == "v1" && text(&owner["kind"]) == "Event";
        for name in ["apiVersion", "kind", "name", "uid"] {
            if is_empty(&owner[name]) {
                check.required(&field_of_owner.child(name), "must not be empty");
            }
        }
        if event {
            let printed = format!(
                "Invalid value: {}: /v1, Kind=Event is disallowed from being an owner",
                in_order(owner)
            );
            check.as_printed(&field_of_owner, printed);
        }
        if owner["controller"] == json!(true) {
            let this = format!("{}/{}", text(&owner["kind"]), text(&owner["name"]));
            match &controller {
                None => controller = Some(this),
                Some(first) => {
                    let all: Vec<String> = items(references).iter().map(in_order).collect();
                    let printed = format!(
                        "Invalid value: [{}]: Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}",
                        all.join(",")
                    );
                    check.as_printed(field, printed);
                }
            }
        }
    }
}

/// An owner reference as the API prints it, whose fields have an order.
fn in_order(owner: &Value) -> String {
    let fields = [
        "apiVersion",
        "kind",
        "name",
        "uid",
        "controller",
        "blockOwnerDeletion",
    ];
    let fields: Vec<String> = fields
        .iter()
        .filter(|name| !owner[**name].is_null())
        .map(|name| format!("{name:?}:{}", owner[*name]))
        .collect();
    format!("{{{}}}", fields.join(","))
}
