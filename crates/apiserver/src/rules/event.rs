//! Event: core events that say little, and events of events.k8s.io that must say more. Both are
//! stored in the core form, which is what these functions see.

use serde_json::Value;

use super::check::{Check, Field, default_to, is_empty, same, text};
use super::{Rules, meta, names};
use crate::status::Cause;

const WORD: usize = 128;
const NOTE: usize = 1024;

pub(super) struct Event;

impl Rules for Event {
    fn namespaced(&self) -> bool {
        true
    }

    fn name_rule(&self) -> names::NameRule {
        names::path_segment
    }

    fn default(&self, event: &mut Value) -> Result<(), String> {
        for name in ["firstTimestamp", "lastTimestamp", "eventTime"] {
            default_to(event, name, Value::Null);
        }
        for name in ["reportingComponent", "reportingInstance"] {
            default_to(event, name, "");
        }
        for name in ["source", "involvedObject"] {
            default_to(event, name, serde_json::json!({}));
        }
        Ok(())
    }

    fn check(&self, event: &Value, check: &mut Check) {
        check_all(event, "reportingComponent", check);
    }
}

/// What is wrong with a new event that came through events.k8s.io.
pub(crate) fn validate_create(event: &Value) -> Vec<Cause> {
    let mut check = Check::default();
    check_all(event, "reportingController", &mut check);
    meta::check(&event["metadata"], true, names::subdomain, &mut check);
    check_series(event, &mut check);
    if is_empty(&event["eventTime"]) {
        check.required(&Field::of("eventTime"), "");
    }
    let kind = text(&event["type"]);
    if !matches!(kind, "Normal" | "Warning") {
        check.invalid(
            &Field::of("type"),
            "",
            &format!("has invalid value: {kind}"),
        );
    }
    for name in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        if !is_empty(&event[name]) {
            check.invalid(&Field::of(name), "", "needs to be unset");
        }
    }
    check.into_causes()
}

/// What is wrong with a change that came through events.k8s.io: only the series may go on.
pub(crate) fn validate_update(old: &Value, new: &Value) -> Vec<Cause> {
    let mut check = Check::default();
    check_all(new, "reportingController", &mut check);
    meta::check_update(&old["metadata"], &new["metadata"], &mut check);
    if !same(&old["series"], &new["series"]) {
        check_series(new, &mut check);
    }
    for (name, field) in [
        ("involvedObject", "involvedObject"),
        ("reason", "reason"),
        ("message", "message"),
        ("source", "source"),
        ("firstTimestamp", "firstTimestamp"),
        ("lastTimestamp", "lastTimestamp"),
        ("count", "count"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingComponent", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ] {
        check.unchanged(&old[name], &new[name], &Field::of(field));
    }
    check.into_causes()
}

fn check_series(event: &Value, check: &mut Check) {
    let series = &event["series"];
    if series.is_null() {
        return;
    }
    if series["count"].as_i64().unwrap_or_default() < 2 {
        check.invalid(&Field::of("series.count"), "", "should be at least 2");
    }
    if is_empty(&series["lastObservedTime"]) {
        check.required(&Field::of("series.lastObservedTime"), "");
    }
}

/// What both kinds of events must respect. An event with a time of its own is of the new kind.
fn check_all(event: &Value, reporter_name: &str, check: &mut Check) {
    let (involved, namespace) = (
        text(&event["involvedObject"]["namespace"]),
        text(&event["metadata"]["namespace"]),
    );
    let is_new = !is_empty(&event["eventTime"]);
    let agrees = match (is_new, involved) {
        (false, "") => matches!(namespace, "" | "default"),
        (true, "") => matches!(namespace, "default" | "kube-system"),
        (false, involved) => involved == namespace,
        (true, _) => true,
    };
    if !agrees {
        check.invalid(
            &Field::of("involvedObject.namespace"),
            involved,
            "does not match event.namespace",
        );
    }
    if !is_new {
        return;
    }
    let (reporter, field) = (text(&event["reportingComponent"]), Field::of(reporter_name));
    if reporter.is_empty() {
        check.required(&field, "");
    }
    check.complaints(&field, reporter, names::qualified(reporter));
    for (name, most) in [
        ("reportingInstance", WORD),
        ("action", WORD),
        ("reason", WORD),
    ] {
        check.text(&event[name], &Field::of(name));
        at_most(&event[name], most, name, check);
    }
    at_most(&event["message"], NOTE, "message", check);
}

fn at_most(value: &Value, most: usize, name: &str, check: &mut Check) {
    if text(value).len() > most {
        let detail = format!("can have at most {most} characters");
        check.invalid(&Field::of(name), "", &detail);
    }
}
