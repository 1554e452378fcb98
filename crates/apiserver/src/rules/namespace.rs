//! Namespace: its own finalizer, kept in the spec, and the label with its name.

use serde_json::{Value, json};

use super::check::{Check, Field, default_to, text, texts};
use super::names::{self, NameRule};
use super::{Rules, meta};
use crate::status::Part;

pub(super) struct Namespace;

impl Rules for Namespace {
    fn name_rule(&self) -> NameRule {
        names::label
    }

    fn default(&self, namespace: &mut Value) -> Result<(), String> {
        let name = text(&namespace["metadata"]["name"]).to_owned();
        if !name.is_empty() {
            namespace["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
        }
        default_to(&mut namespace["status"], "phase", "Active");
        Ok(())
    }

    fn prepare_create(&self, namespace: &mut Value, _: &str) {
        namespace["status"] = json!({"phase": "Active"});
        super::add_to(&mut namespace["spec"]["finalizers"], "kubernetes");
    }

    fn prepare_update(&self, old: &Value, new: &mut Value, part: Part, _: &str) {
        // Only the finalize subresource takes finalizers away, never a plain update.
        if part == Part::Main && !deleting(old) {
            new["spec"] = old["spec"].clone();
        }
    }

    fn check(&self, namespace: &Value, check: &mut Check) {
        let field = Field::of("spec.finalizers");
        for finalizer in texts(&namespace["spec"]["finalizers"]) {
            check.complaints(&field, finalizer, names::qualified(finalizer));
            meta::check_finalizer_domain(finalizer, &field, check);
        }
    }

    fn check_status(&self, _: &Value, new: &Value, check: &mut Check) {
        let (phase, field) = (&new["status"]["phase"], Field::of("status.Phase"));
        let (fits, detail) = if deleting(new) {
            (
                phase == "Terminating",
                "may only be 'Terminating' if `deletionTimestamp` is not empty",
            )
        } else {
            (
                phase == "Active",
                "may only be 'Active' if `deletionTimestamp` is empty",
            )
        };
        if !fits {
            check.invalid(&field, phase.clone(), detail);
        }
    }
}

fn deleting(namespace: &Value) -> bool {
    namespace["metadata"]["deletionTimestamp"].is_string()
}
