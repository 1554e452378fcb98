//! Core events and events.k8s.io events: two views of one object, kept in the core form.

use serde_json::{Map, Value};

/// The fields that have another name in events.k8s.io: core first.
const NAMES: [(&str, &str); 8] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("v1", "events.k8s.io/v1"),
];

/// An event of events.k8s.io as a core event.
pub(crate) fn to_core(event: Value) -> Value {
    renamed(event, |name| {
        NAMES
            .iter()
            .find(|(_, new)| *new == name)
            .map(|(core, _)| *core)
    })
}

/// A core event as events.k8s.io shows it.
pub(crate) fn to_events_api(event: Value) -> Value {
    let mut event = renamed(event, |name| {
        NAMES
            .iter()
            .find(|(core, _)| *core == name)
            .map(|(_, new)| *new)
    });
    if let Value::Object(fields) = &mut event {
        // The core form prints these even when they are empty.
        for name in ["reportingController", "reportingInstance"] {
            if fields.get(name).is_some_and(|value| value == "") {
                fields.remove(name);
            }
        }
    }
    event
}

fn renamed(event: Value, other_name: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(fields) = event else {
        return event;
    };
    let rename = |(name, value): (String, Value)| match other_name(&name) {
        Some(other) => (other.to_owned(), value),
        None => (name, value),
    };
    let mut fields: Map<_, _> = fields.into_iter().map(rename).collect();
    if let Some(version) = fields.get_mut("apiVersion")
        && let Some(other) = version.as_str().and_then(other_name)
    {
        *version = other.into();
    }
    fields.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_two_views_hold_the_same() {
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"},
            "involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "reason": "R",
            "reportingComponent": "c", "reportingInstance": "i", "count": 2,
            "source": {"component": "s"}, "firstTimestamp": "1", "lastTimestamp": "2",
            "series": {"count": 3, "lastObservedTime": "4"},
        });
        let new = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
            "regarding": {"kind": "Pod", "name": "p"}, "note": "m", "reason": "R",
            "reportingController": "c", "reportingInstance": "i", "deprecatedCount": 2,
            "deprecatedSource": {"component": "s"},
            "deprecatedFirstTimestamp": "1", "deprecatedLastTimestamp": "2",
            "series": {"count": 3, "lastObservedTime": "4"},
        });
        assert_eq!(to_events_api(core.clone()), new);
        assert_eq!(to_core(new), core);
    }
}
