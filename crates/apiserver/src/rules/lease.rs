//! Lease: who leads, and until when.

use serde_json::Value;

use super::Rules;
use super::check::{Check, Field, is_empty};

pub(super) struct Lease;

impl Rules for Lease {
    fn namespaced(&self) -> bool {
        true
    }

    fn check(&self, lease: &Value, check: &mut Check) {
        let (spec, field) = (&lease["spec"], Field::of("spec"));
        for (name, least, detail) in [
            ("leaseDurationSeconds", 1, "must be greater than 0"),
            ("leaseTransitions", 0, "must be greater than or equal to 0"),
        ] {
            if spec[name].as_i64().is_some_and(|value| value < least) {
                check.invalid(&field.child(name), spec[name].clone(), detail);
            }
        }
        if !is_empty(&spec["preferredHolder"]) && is_empty(&spec["strategy"]) {
            let detail = "may only be specified if `strategy` is defined";
            check.forbidden(&field.child("preferredHolder"), detail);
        }
    }
}
