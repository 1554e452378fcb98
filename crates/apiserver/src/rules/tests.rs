//! Every case in `recorded.json` is a request and what a kube-apiserver 1.37.2 made of it: the
//! object it stored, or the causes it refused it for.

use serde_json::{Value, json};

use super::check::same;
use super::*;
use crate::events;

/// Cases in which this API is knowingly another, and why.
const DIFFERENT: [(&str, &str); 4] = [
    (
        "pv: azureDisk default",
        "addresses of Azure disks are not looked at",
    ),
    (
        "pod: defaults of volumes",
        "service accounts of projected tokens are not looked at",
    ),
    (
        "node: plain",
        "nodes get no not-ready taint: nothing here would take it away",
    ),
    (
        "node: status kept",
        "nodes get no not-ready taint: nothing here would take it away",
    ),
];

/// The time of the recording stands for now.
const NOW: &str = "2026-11-23T03:40:39Z";

/// A cluster without any objects, as when the cases were recorded.
struct Empty;

impl Cluster for Empty {
    fn list(&self, _: &str) -> Vec<Arc<Value>> {
        Vec::new()
    }

    fn get(&self, _: &str, _: &str, _: &str) -> Option<Arc<Value>> {
        None
    }
}

fn recorded() -> Vec<Value> {
    serde_json::from_str(include_str!("recorded.json")).unwrap()
}

fn is_events_api(object: &Value) -> bool {
    object["apiVersion"] == "events.k8s.io/v1"
}

/// The form in which the object is kept.
fn stored(object: &Value) -> Value {
    let object = object.clone();
    if is_events_api(&object) {
        events::to_core(object)
    } else {
        object
    }
}

/// What these rules make of a recorded request.
fn outcome(case: &Value) -> Result<Value, Vec<Cause>> {
    let refused = |status: Status| vec![Cause::new("Status", "", status.message)];
    let part = if case["part"] == "status" {
        Part::Status
    } else {
        Part::Main
    };
    let (object, causes) = match case.get("create") {
        Some(request) => {
            let kind = request["kind"].as_str().unwrap();
            let mut object = stored(request);
            if !of(kind).namespaced() {
                object["metadata"]
                    .as_object_mut()
                    .unwrap()
                    .remove("namespace");
            }
            default(kind, &mut object).map_err(refused)?;
            admit_create(kind, &mut object, &Empty).map_err(refused)?;
            prepare_create(kind, &mut object, NOW);
            let causes = if is_events_api(request) {
                validate_new_event(&object)
            } else {
                validate_create(kind, &object)
            };
            (object, causes)
        }
        None => {
            let (old, request) = (stored(&case["old"]), &case["new"]);
            let kind = request["kind"].as_str().unwrap();
            let mut new = stored(request);
            default(kind, &mut new).map_err(refused)?;
            match part {
                Part::Main if has_status(kind) => new["status"] = old["status"].clone(),
                Part::Main => {}
                Part::Status => new["spec"] = old["spec"].clone(),
            }
            prepare_update(kind, &old, &mut new, part, NOW);
            let causes = if is_events_api(request) {
                validate_changed_event(&old, &new)
            } else {
                validate_update(kind, &old, &new, part)
            };
            if causes.is_empty() {
                admit_update(kind, &old, &new, part, &Empty).map_err(refused)?;
            }
            (new, causes)
        }
    };
    if causes.is_empty() {
        Ok(object)
    } else {
        Err(causes)
    }
}

fn has_status(kind: &str) -> bool {
    crate::kind::ALL
        .iter()
        .any(|entry| entry.kind == kind && entry.has_status)
}

/// The causes as text, sorted where the order is that of a Go map. What follows a line break is a
/// difference, which each API prints in its own way.
fn words(causes: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let mut words: Vec<String> = causes
        .map(|(field, message)| {
            let message = message.split('\n').next().unwrap_or_default().to_owned();
            format!("{field}: {message}")
        })
        .collect();
    words.sort();
    words.dedup();
    words
}

fn expected_words(refused: &Value) -> Vec<String> {
    match refused["causes"].as_array() {
        Some(causes) => words(causes.iter().map(|cause| {
            let text = |name: &str| cause[name].as_str().unwrap_or_default().to_owned();
            (text("field"), text("message"))
        })),
        None => words(std::iter::once((
            String::new(),
            refused["message"].as_str().unwrap().to_owned(),
        ))),
    }
}

#[test]
fn every_recorded_case_ends_as_on_a_real_api() {
    let mut wrong = Vec::new();
    for case in recorded() {
        let name = case["name"].as_str().unwrap();
        let before = wrong.len();
        match (outcome(&case), case.get("refused")) {
            (Err(causes), Some(refused)) => {
                let ours = words(
                    causes
                        .iter()
                        .map(|cause| (cause.field.clone(), cause.message.clone())),
                );
                let theirs = expected_words(refused);
                if ours != theirs {
                    wrong.push(format!(
                        "{name}:\n  ours:   {ours:#?}\n  theirs: {theirs:#?}"
                    ));
                }
            }
            (Ok(object), None) => {
                let theirs = stored(&case["object"]);
                let difference = difference(&theirs, &object);
                if !difference.is_empty() {
                    wrong.push(format!("{name}: stored differently\n{difference}"));
                }
            }
            (Ok(_), Some(refused)) => {
                wrong.push(format!("{name}: accepted, but {}", refused["message"]))
            }
            (Err(causes), None) => wrong.push(format!("{name}: refused {causes:?}")),
        }
        if DIFFERENT.iter().any(|(different, _)| *different == name) {
            assert_eq!(
                wrong.len(),
                before + 1,
                "{name} is no longer different: take it from the list"
            );
            wrong.pop();
        }
    }
    assert!(
        wrong.is_empty(),
        "{} cases differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The paths of all nulls: the API sends none but a few.
fn nulls(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Null => found.push(path.to_owned()),
        Value::Object(fields) => {
            for (name, value) in fields {
                nulls(value, &format!("{path}.{name}"), found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| nulls(item, path, found)),
        _ => {}
    }
}

#[test]
fn no_null_is_stored_that_the_api_does_not_send() {
    for case in recorded() {
        let (Ok(ours), Some(theirs)) = (outcome(&case), case.get("object")) else {
            continue;
        };
        let (mut in_ours, mut in_theirs) = (Vec::new(), Vec::new());
        nulls(&ours, "", &mut in_ours);
        nulls(&stored(theirs), "", &mut in_theirs);
        in_ours.retain(|path| !in_theirs.contains(path));
        assert!(in_ours.is_empty(), "{}: {in_ours:?}", case["name"]);
    }
}

/// What differs, apart from what other parts of the API write.
fn difference(theirs: &Value, ours: &Value) -> String {
    let strip = |object: &Value| {
        let mut object = object.clone();
        for field in ["uid", "resourceVersion", "creationTimestamp", "generation"] {
            object["metadata"].as_object_mut().unwrap().remove(field);
        }
        let status = &mut object["status"];
        if status["lastPhaseTransitionTime"]
            .as_str()
            .is_some_and(|time| time.starts_with("2026-11"))
        {
            status["lastPhaseTransitionTime"] = "now".into();
        }
        object
    };
    let (theirs, ours) = (strip(theirs), strip(ours));
    if same(&theirs, &ours) {
        String::new()
    } else {
        super::check::difference(&theirs, &ours)
    }
}

#[test]
fn warnings_are_the_recorded_ones() {
    for case in recorded() {
        let (Some(request), None) = (case.get("create"), case.get("refused")) else {
            continue;
        };
        let ours = warnings(request["kind"].as_str().unwrap(), request);
        let expected: Vec<String> = case["warnings"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|text| {
                text.as_str()
                    .unwrap()
                    .replace("299 - ", "")
                    .replace("\\\"", "'")
            })
            .map(|text| text.trim_matches('"').replace('\'', "\""))
            .collect();
        assert_eq!(ours, expected, "{}", case["name"]);
    }
}

#[test]
fn a_quantity_that_is_none_is_refused_with_the_kind() {
    let mut claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "spec": {"resources": {"requests": {"storage": "9Ei"}}},
    });
    let status = default("PersistentVolumeClaim", &mut claim).unwrap_err();
    assert_eq!(status.code, 400);
    let start =
        "PersistentVolumeClaim in version \"v1\" cannot be handled as a PersistentVolumeClaim: ";
    assert!(status.message.starts_with(start), "{}", status.message);
    assert!(
        status.message.contains("out of range"),
        "{}",
        status.message
    );
}

/// A cluster with storage classes.
struct Classes(Vec<Value>);

impl Cluster for Classes {
    fn list(&self, plural: &str) -> Vec<Arc<Value>> {
        assert_eq!(plural, "storageclasses");
        self.0.iter().cloned().map(Arc::new).collect()
    }

    fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        assert_eq!(namespace, "");
        self.list(plural)
            .into_iter()
            .find(|class| class["metadata"]["name"] == name)
    }
}

fn class(name: &str, created: &str, default: &str, expands: bool) -> Value {
    json!({
        "metadata": {
            "name": name, "creationTimestamp": created,
            "annotations": {"storageclass.kubernetes.io/is-default-class": default},
        },
        "allowVolumeExpansion": expands,
    })
}

fn claim(class: Value, size: &str, phase: &str) -> Value {
    let mut claim = json!({
        "metadata": {"name": "c", "namespace": "default"},
        "spec": {"resources": {"requests": {"storage": size}}},
        "status": {"phase": phase},
    });
    if !class.is_null() {
        claim["spec"]["storageClassName"] = class;
    }
    claim
}

#[test]
fn a_claim_without_class_gets_the_newest_default() {
    let classes = Classes(vec![
        class("old", "2026-01-01T00:00:00Z", "true", false),
        class("b", "2026-01-02T00:00:00Z", "true", false),
        class("a", "2026-01-02T00:00:00Z", "true", false),
        class("newest", "2026-01-03T00:00:00Z", "false", false),
    ]);
    for (asked, expected) in [
        (Value::Null, json!("a")),
        (json!(""), json!("")),
        (json!("old"), json!("old")),
    ] {
        let mut claim = claim(asked, "1Gi", "Pending");
        admit_create("PersistentVolumeClaim", &mut claim, &classes).unwrap();
        assert_eq!(claim["spec"]["storageClassName"], expected);
        assert_eq!(
            claim["metadata"]["finalizers"],
            json!(["kubernetes.io/pvc-protection"])
        );
    }
    let mut annotated = claim(Value::Null, "1Gi", "Pending");
    annotated["metadata"]["annotations"] = json!({"volume.beta.kubernetes.io/storage-class": "x"});
    admit_create("PersistentVolumeClaim", &mut annotated, &classes).unwrap();
    assert!(annotated["spec"]["storageClassName"].is_null());
    let mut without = claim(Value::Null, "1Gi", "Pending");
    admit_create("PersistentVolumeClaim", &mut without, &Empty).unwrap();
    assert!(without["spec"]["storageClassName"].is_null());
}

#[test]
fn a_claim_grows_when_it_is_bound_and_its_class_expands() {
    let classes = Classes(vec![
        class("grows", "2026-01-01T00:00:00Z", "false", true),
        class("stays", "2026-01-01T00:00:00Z", "false", false),
    ]);
    let refusal = |class: &str, phase: &str, from: &str, to: &str| {
        let (old, new) = (
            claim(class.into(), from, phase),
            claim(class.into(), to, phase),
        );
        admit_update("PersistentVolumeClaim", &old, &new, Part::Main, &classes)
            .err()
            .map(|status| status.message)
    };
    assert_eq!(refusal("grows", "Bound", "1Gi", "2Gi"), None);
    assert_eq!(refusal("stays", "Bound", "2Gi", "1Gi"), None);
    assert_eq!(refusal("stays", "Bound", "1Gi", "1024Mi"), None);
    insta::assert_snapshot!(
        refusal("grows", "Pending", "1Gi", "2Gi").unwrap(),
        @r#"persistentvolumeclaims "c" is forbidden: Only bound persistent volume claims can be expanded"#
    );
    for class in ["stays", "missing", ""] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(
                refusal(class, "Bound", "1Gi", "2Gi").unwrap(),
                @r#"persistentvolumeclaims "c" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"#
            );
        }
    }
}
