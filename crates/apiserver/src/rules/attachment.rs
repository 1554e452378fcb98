//! VolumeAttachment: which volume is at which node, and by whose hand.

use serde_json::{Value, json};

use super::check::{Check, Field, default_to, entries, same, text};
use super::{Rules, names, volume};
use crate::status::Part;

const METADATA_BYTES: usize = 256 * 1024;
const MESSAGE_BYTES: usize = 1024;
const ATTACHER: &str = "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'Example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

pub(super) struct Attachment;

impl Rules for Attachment {
    fn prepare_create(&self, attachment: &mut Value, _: &str) {
        attachment["status"] = json!({"attached": false});
    }

    /// The attacher reports through the status and cannot touch the metadata there.
    fn prepare_update(&self, old: &Value, new: &mut Value, part: Part, _: &str) {
        if part == Part::Status {
            new["metadata"] = old["metadata"].clone();
            default_to(&mut new["status"], "attached", false);
        }
    }

    fn check(&self, attachment: &Value, check: &mut Check) {
        let (spec, field) = (&attachment["spec"], Field::of("spec"));
        let (volume, inline) = (
            &spec["source"]["persistentVolumeName"],
            &spec["source"]["inlineVolumeSpec"],
        );
        let (source_field, one) = (
            field.child("source"),
            "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        );
        match (volume.as_str(), inline.is_null()) {
            (None, true) => check.required(&source_field, one),
            (Some(_), false) => check.forbidden(&source_field, one),
            (Some(""), true) => check.required(
                &source_field.child("persistentVolumeName"),
                "must specify non empty persistentVolumeName",
            ),
            (Some(_), true) => {}
            (None, false) => {
                volume::check_spec(inline, &source_field.child("inlineVolumeSpec"), true, check);
            }
        }
        let node = text(&spec["nodeName"]);
        check.complaints(&field.child("nodeName"), node, names::subdomain(node));
        check_status(&attachment["status"], check);
        if let Some(name) = volume.as_str() {
            let field = source_field.child("persistentVolumeName");
            check.complaints(&field, name, names::subdomain(name));
        }
        attacher(&spec["attacher"], &field.child("attacher"), check);
    }

    fn check_update(&self, old: &Value, new: &Value, check: &mut Check) {
        if !same(&old["spec"], &new["spec"]) {
            check.invalid(&Field::of("spec"), Value::Null, "field is immutable");
        }
    }

    fn check_status(&self, _: &Value, new: &Value, check: &mut Check) {
        check_status(&new["status"], check);
    }
}

/// A driver's name, in the words of the API's newer checks.
fn attacher(name: &Value, field: &Field, check: &mut Check) {
    let name = text(name);
    if name.is_empty() {
        check.required(field, "");
    } else if name.len() > 63 {
        check.too_long(field, 63);
    } else if !names::subdomain(&name.to_lowercase()).is_empty() {
        check.invalid(field, name, ATTACHER);
    }
}

fn check_status(status: &Value, check: &mut Check) {
    let field = Field::of("status");
    let size: usize = entries(&status["attachmentMetadata"])
        .map(|(key, value)| key.len() + text(value).len())
        .sum();
    if size > METADATA_BYTES {
        check.too_long(&field.child("attachmentMetadata"), METADATA_BYTES);
    }
    for name in ["attachError", "detachError"] {
        if text(&status[name]["message"]).len() > MESSAGE_BYTES {
            check.too_long(&field.child(name).child("message"), MESSAGE_BYTES);
        }
        if let Some(code) = status[name]["errorCode"].as_i64().filter(|code| *code < 0) {
            let detail = "must be between 0 and 2147483647, inclusive";
            check.invalid(&field.child(name).child("errorCode"), code, detail);
        }
    }
}
