//! Field selectors: the few fields of each kind that the API offers for it.

use serde_json::Value;

use crate::kind::Kind;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    path: &'static str,
    value: String,
    equal: bool,
}

impl Field {
    /// The name that it wants an object to have.
    pub(super) fn name(&self) -> Option<&str> {
        let wanted = self.equal && self.path == "metadata.name";
        wanted.then_some(self.value.as_str())
    }

    /// Whether the field of a stored object is (or is not) as wanted.
    pub(super) fn holds(&self, object: &Value) -> bool {
        (field_of(object, self.path) == self.value) == self.equal
    }
}

/// The fields that each kind can be selected by, besides its name and namespace.
fn selectable(kind: &Kind) -> &'static [&'static str] {
    match (kind.group, kind.plural) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "namespaces") => &["status.phase"],
        ("", "secrets") => &["type"],
        ("", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io", "events") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        _ => &[],
    }
}

pub(super) fn parse(kind: &Kind, text: &str) -> Result<Vec<Field>, String> {
    let general = ["metadata.name", "metadata.namespace"];
    let parse = |term: &str| {
        let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
            (path, value, false)
        } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
            (path, value, true)
        } else {
            return Err(format!(
                "invalid selector: '{term}'; can't understand '{term}'"
            ));
        };
        let known = general
            .iter()
            .chain(selectable(kind))
            .find(|known| **known == path);
        let path = known.ok_or_else(|| unsupported(kind, path))?;
        Ok(Field {
            path,
            value: unescape(value),
            equal,
        })
    };
    split_unescaped(text)
        .into_iter()
        .filter(|term| !term.is_empty())
        .map(parse)
        .collect()
}

fn unsupported(kind: &Kind, path: &str) -> String {
    match (kind.group, kind.plural) {
        ("", "pods" | "nodes" | "namespaces" | "secrets" | "events") => {
            format!("field label not supported: {path}")
        }
        _ => format!(
            "\"{path}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        ),
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut escaped = false;
    text.split(|c| {
        let splits = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        splits
    })
    .collect()
}

fn unescape(value: &str) -> String {
    let mut escaped = false;
    value
        .chars()
        .filter(|c| {
            escaped = *c == '\\' && !escaped;
            !escaped
        })
        .collect()
}

/// The value of a selectable field of a stored object, as text.
fn field_of(object: &Value, path: &str) -> String {
    // Events are stored in their core form; their other form has other names for the same.
    let renamed = match path {
        "reportingController" => "reportingComponent".to_owned(),
        "spec.hostNetwork" | "spec.unschedulable" => {
            let (_, field) = path.split_at("spec.".len());
            return object["spec"][field]
                .as_bool()
                .unwrap_or_default()
                .to_string();
        }
        "source" => {
            let source = object["source"]["component"].as_str().unwrap_or_default();
            return if source.is_empty() {
                object["reportingComponent"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            } else {
                source.to_owned()
            };
        }
        other => other.replacen("regarding.", "involvedObject.", 1),
    };
    let found = renamed.split('.').fold(object, |value, step| &value[step]);
    found.as_str().unwrap_or_default().to_owned()
}
