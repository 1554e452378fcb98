//! Reading a body as the typed API would: wrong types are refused, unknown fields fall away.

use std::fmt::Display;

use bytes::Bytes;
use serde_ignored::Path;
use serde_json::Value;

use super::Call;
use super::params::FieldValidation;
use crate::kind::Kind;
use crate::status::Status;

/// A body and what there was to say about it.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) object: Value,
    pub(super) warnings: Vec<String>,
}

/// Reads the object of a create or update.
pub(super) fn object(call: &Call, body: &Bytes) -> Result<Decoded, Status> {
    let kind = call.kind;
    let mut object = any(call, body)?;
    if !object.is_object() {
        return Err(unrecognized(kind, &"the body is not an object"));
    }
    let api_version = kind.api_version();
    for (field, expected) in [("apiVersion", api_version.as_str()), ("kind", kind.kind)] {
        if object[field].as_str().unwrap_or_default().is_empty() {
            object[field] = expected.into();
        }
    }
    if object["kind"] != kind.kind || object["apiVersion"] != api_version {
        let name = object["kind"].as_str().unwrap_or_default();
        let version = object["apiVersion"].as_str().unwrap_or_default();
        return Err(Status::bad_request(format!(
            "{name} in version \"{version}\" cannot be handled as a {}: it belongs to another path than this",
            kind.kind
        )));
    }
    let warnings = match typed(kind, &mut object, call.params.field_validation) {
        Ok(warnings) => warnings,
        Err(problem) => return Err(cannot_be_handled(kind, &problem.to_string())),
    };
    Ok(Decoded { object, warnings })
}

/// Reads a body that is not an object of the path's kind: a patch, delete options, a binding.
pub(super) fn any(call: &Call, body: &Bytes) -> Result<Value, Status> {
    let content_type = call.content_type.as_str();
    let unreadable = |error: &dyn Display| unrecognized(call.kind, error);
    match content_type {
        "application/yaml" => serde_yaml_ng::from_slice(body).map_err(|error| unreadable(&error)),
        "" => serde_json::from_slice(body).map_err(|error| unreadable(&error)),
        json if json == "application/json" || json.ends_with("+json") => {
            serde_json::from_slice(body).map_err(|error| unreadable(&error))
        }
        _ => Err(Status::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml",
        )),
    }
}

fn unrecognized(kind: &Kind, why: &dyn Display) -> Status {
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {why}",
        kind.kind
    ))
}

fn cannot_be_handled(kind: &Kind, why: &str) -> Status {
    Status::bad_request(format!(
        "{name} in version \"{version}\" cannot be handled as a {name}: {why}",
        name = kind.kind,
        version = kind.version,
    ))
}

/// Why an object does not fit its kind.
#[derive(Debug, thiserror::Error)]
pub(super) enum Misfit {
    #[error("strict decoding error: {}", .0.join(", "))]
    UnknownFields(Vec<String>),
    #[error("{0}")]
    WrongType(#[from] serde_json::Error),
}

/// Makes the object what the typed API would have kept of it; returns the warnings.
pub(super) fn typed(
    kind: &Kind,
    object: &mut Value,
    validation: FieldValidation,
) -> Result<Vec<String>, Misfit> {
    drop_nulls(object);
    quantities_to_text(object);
    let mut unknown: Vec<Vec<Step>> = Vec::new();
    (kind.read)(object, &mut |path| {
        let mut steps = Vec::new();
        collect_steps(&path, &mut steps);
        unknown.push(steps);
    })?;
    let complaints: Vec<String> = unknown
        .iter()
        .map(|steps| format!("unknown field \"{}\"", field_name(steps)))
        .collect();
    if validation == FieldValidation::Strict && !complaints.is_empty() {
        return Err(Misfit::UnknownFields(complaints));
    }
    for steps in &unknown {
        remove(object, steps);
    }
    drop_empty_lists(object);
    Ok(match validation {
        FieldValidation::Warn => complaints,
        FieldValidation::Ignore | FieldValidation::Strict => Vec::new(),
    })
}

/// A null is a field that is not there.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Of the metadata, the API keeps no list or map that is empty.
fn drop_empty_lists(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|_, field| {
            !field.as_array().is_some_and(Vec::is_empty)
                && !field.as_object().is_some_and(serde_json::Map::is_empty)
        });
    }
}

/// Quantities may be written as numbers (`storage: 5`); the API keeps them as text.
fn quantities_to_text(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                match key.as_str() {
                    "capacity" | "requests" | "limits" | "sizeLimit" | "maximumVolumeSize"
                    | "divisor" => number_to_text(field),
                    _ => quantities_to_text(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(quantities_to_text),
        _ => {}
    }
}

fn number_to_text(value: &mut Value) {
    match value {
        Value::Number(number) => *value = number.to_string().into(),
        Value::Object(fields) => fields.values_mut().for_each(number_to_text),
        _ => {}
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(usize),
}

fn collect_steps(path: &Path<'_>, steps: &mut Vec<Step>) {
    match path {
        Path::Root => {}
        Path::Seq { parent, index } => {
            collect_steps(parent, steps);
            steps.push(Step::Index(*index));
        }
        Path::Map { parent, key } => {
            collect_steps(parent, steps);
            steps.push(Step::Field(key.clone()));
        }
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => collect_steps(parent, steps),
    }
}

/// `spec.containers[0].foo`
fn field_name(steps: &[Step]) -> String {
    let mut name = String::new();
    for step in steps {
        match step {
            Step::Field(field) if name.is_empty() => name.push_str(field),
            Step::Field(field) => name.extend([".", field]),
            Step::Index(index) => name.push_str(&format!("[{index}]")),
        }
    }
    name
}

fn remove(object: &mut Value, steps: &[Step]) {
    let Some((last, way)) = steps.split_last() else {
        return;
    };
    let parent = way.iter().try_fold(object, |value, step| match step {
        Step::Field(field) => value.get_mut(field),
        Step::Index(index) => value.get_mut(*index),
    });
    if let (Some(Value::Object(fields)), Step::Field(field)) = (parent, last) {
        fields.remove(field);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "creationTimestamp": null},
            "spec": {"containers": [{"name": "c", "imagee": "x"}], "nodeNam": "n"},
        })
    }

    fn kind(plural: &str) -> &'static Kind {
        Kind::find("", "v1", plural).unwrap()
    }

    #[test]
    fn unknown_fields_are_refused_warned_of_or_ignored() {
        let strict = typed(kind("pods"), &mut pod(), FieldValidation::Strict).unwrap_err();
        assert_eq!(
            strict.to_string(),
            "strict decoding error: unknown field \"spec.containers[0].imagee\", unknown field \"spec.nodeNam\""
        );
        let mut warned = pod();
        assert_eq!(
            typed(kind("pods"), &mut warned, FieldValidation::Warn)
                .unwrap()
                .len(),
            2
        );
        assert_eq!(warned["spec"], json!({"containers": [{"name": "c"}]}));
        assert_eq!(warned["metadata"], json!({"name": "p"}));
        assert!(
            typed(kind("pods"), &mut pod(), FieldValidation::Ignore)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn wrong_types_are_refused() {
        let mut wrong = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": 7}});
        let misfit = typed(kind("pods"), &mut wrong, FieldValidation::Ignore).unwrap_err();
        assert!(matches!(misfit, Misfit::WrongType(_)), "{misfit}");
    }

    #[test]
    fn a_quantity_may_be_a_number() {
        let mut volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": "v"}, "spec": {"capacity": {"storage": 5}},
        });
        typed(
            kind("persistentvolumes"),
            &mut volume,
            FieldValidation::Strict,
        )
        .unwrap();
        assert_eq!(volume["spec"]["capacity"]["storage"], "5");
    }
}
