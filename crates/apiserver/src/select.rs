//! Label and field selectors, as they stand in a query string.

use serde_json::Value;

use crate::kind::Kind;

/// Which objects a list or a watch is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    labels: Vec<Requirement>,
    fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Above(i64),
    Below(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    path: &'static str,
    value: String,
    equal: bool,
}

impl Selection {
    /// Reads both selectors; the error is a sentence for the client.
    pub(crate) fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, String> {
        Ok(Self {
            labels: parse_labels(labels)?,
            fields: parse_fields(kind, fields)?,
        })
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether a stored object is selected.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels
            .iter()
            .all(|requirement| requirement.holds(labels[&requirement.key].as_str()))
            && self
                .fields
                .iter()
                .all(|field| (field_of(object, field.path) == field.value) == field.equal)
    }
}

impl Requirement {
    fn holds(&self, label: Option<&str>) -> bool {
        let number = || label.and_then(|label| label.parse::<i64>().ok());
        match &self.test {
            Test::In(values) => label.is_some_and(|label| values.iter().any(|v| v == label)),
            Test::NotIn(values) => !label.is_some_and(|label| values.iter().any(|v| v == label)),
            Test::Exists => label.is_some(),
            Test::Absent => label.is_none(),
            Test::Above(bound) => number().is_some_and(|number| number > *bound),
            Test::Below(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

// --- labels ---

fn parse_labels(text: &str) -> Result<Vec<Requirement>, String> {
    let parse = |part: &str| {
        parse_requirement(part).ok_or_else(|| {
            format!("unable to parse requirement: found '{part}', expected: in, notin, =, ==, !=, gt, lt")
        })
    };
    split_outside_parentheses(text)
        .into_iter()
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(parse)
        .collect()
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut depth = 0i32;
    text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn parse_requirement(part: &str) -> Option<Requirement> {
    let requirement = |key: &str, test| {
        let key = key.trim();
        is_label_key(key).then(|| Requirement {
            key: key.to_owned(),
            test,
        })
    };
    let value = |text: &str| is_label_value(text.trim()).then(|| text.trim().to_owned());
    if let Some(key) = part.strip_prefix('!') {
        return requirement(key, Test::Absent);
    }
    if let Some((key, v)) = part.split_once("!=") {
        return requirement(key, Test::NotIn(vec![value(v)?]));
    }
    if let Some((key, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return requirement(key, Test::In(vec![value(v)?]));
    }
    if let Some((key, v)) = part.split_once('>') {
        return requirement(key, Test::Above(v.trim().parse().ok()?));
    }
    if let Some((key, v)) = part.split_once('<') {
        return requirement(key, Test::Below(v.trim().parse().ok()?));
    }
    if let Some((head, set)) = part.split_once('(') {
        let values: Option<Vec<String>> = set
            .trim_end()
            .strip_suffix(')')?
            .split(',')
            .map(value)
            .collect();
        let (key, operator) = head.trim_end().rsplit_once(char::is_whitespace)?;
        return match operator {
            "in" => requirement(key, Test::In(values?)),
            "notin" => requirement(key, Test::NotIn(values?)),
            _ => None,
        };
    }
    requirement(part, Test::Exists)
}

/// Characters of names: letters, digits and `-_.`, with a letter or digit at both ends.
fn is_qualified(text: &str) -> bool {
    let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && alphanumeric(text.chars().next())
        && alphanumeric(text.chars().next_back())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => {
            !prefix.is_empty()
                && prefix.len() <= 253
                && prefix.split('.').all(is_qualified)
                && is_qualified(name)
        }
        None => is_qualified(text),
    }
}

fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_qualified(text)
}

// --- fields ---

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

fn parse_fields(kind: &Kind, text: &str) -> Result<Vec<Field>, String> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kind(plural: &str) -> &'static Kind {
        crate::kind::ALL
            .iter()
            .find(|kind| kind.plural == plural)
            .unwrap()
    }

    fn labelled(labels: &[(&str, &str)]) -> Value {
        let labels: std::collections::BTreeMap<_, _> = labels.iter().copied().collect();
        json!({"metadata": {"name": "x", "labels": labels}})
    }

    fn by_label(selector: &str, labels: &[(&str, &str)]) -> bool {
        Selection::parse(kind("pods"), selector, "")
            .unwrap()
            .matches(&labelled(labels))
    }

    #[test]
    fn labels_select_by_every_operator() {
        let labels = [("app", "web"), ("tier", "7"), ("example.com/a.b_c", "")];
        for selector in [
            "app=web",
            "app == web",
            "app!=db",
            "other!=db",
            "app in (db, web)",
            "app notin (db),tier",
            "other notin (x)",
            "!other",
            "example.com/a.b_c",
            "example.com/a.b_c=",
            "tier>6,tier<8",
            "",
        ] {
            assert!(by_label(selector, &labels), "{selector}");
        }
        for selector in [
            "app=db",
            "app!=web",
            "app in (db)",
            "app notin (web)",
            "!app",
            "other",
            "tier>7",
            "app>1",
        ] {
            assert!(!by_label(selector, &labels), "{selector}");
        }
    }

    #[test]
    fn a_selector_that_cannot_be_read_is_refused() {
        for selector in [
            "a b",
            "app in db",
            "app is (x)",
            "=x",
            "a=b=c",
            "a in (b",
            "-a",
            "tier>x",
            "a/b/c",
        ] {
            assert!(
                Selection::parse(kind("pods"), selector, "").is_err(),
                "{selector}"
            );
        }
    }

    #[test]
    fn fields_select_what_the_kind_offers() {
        let select = |plural, fields: &str| Selection::parse(kind(plural), "", fields);
        let pod = json!({
            "metadata": {"name": "p", "namespace": "a,b"},
            "spec": {"nodeName": "n1"}, "status": {"phase": "Running"},
        });
        assert!(
            select("pods", "spec.nodeName=n1,status.phase!=Failed")
                .unwrap()
                .matches(&pod)
        );
        assert!(!select("pods", "spec.nodeName==n2").unwrap().matches(&pod));
        assert!(
            select("pods", "spec.hostNetwork=false")
                .unwrap()
                .matches(&pod)
        );
        assert!(
            select("pods", r"metadata.namespace=a\,b")
                .unwrap()
                .matches(&pod)
        );
        assert!(!select("pods", "metadata.name=q").unwrap().matches(&pod));
        assert!(
            select("pods", "spec.volumes=x")
                .unwrap_err()
                .contains("field label not supported: spec.volumes")
        );
        assert!(
            select("persistentvolumes", "spec.nodeName=x")
                .unwrap_err()
                .contains("not a known field selector")
        );
        assert!(
            !select("persistentvolumes", "metadata.namespace=x")
                .unwrap()
                .matches(&json!({}))
        );
        assert!(select("pods", "nonsense").is_err());
    }

    #[test]
    fn both_forms_of_events_select_the_stored_one() {
        let event = json!({
            "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod"}, "source": {"component": "bitts"},
        });
        let core = Kind::find("", "v1", "events").unwrap();
        let api = Kind::find("events.k8s.io", "v1", "events").unwrap();
        let matches = |kind, fields| Selection::parse(kind, "", fields).unwrap().matches(&event);
        assert!(matches(core, "involvedObject.kind=Pod,source=bitts"));
        assert!(matches(api, "regarding.kind=Pod"));
        assert!(!matches(api, "regarding.kind=Node"));
    }
}
