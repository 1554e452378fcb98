//! Collecting what is wrong with an object, in the API's own words.

use std::fmt::{self, Display};

use serde_json::Value;

use crate::status::Cause;

/// The path of a field: `spec.capacity[storage]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field(String);

impl Field {
    pub(super) fn of(path: &str) -> Self {
        Self(path.to_owned())
    }

    pub(super) fn child(&self, name: &str) -> Self {
        if self.0.is_empty() {
            Self::of(name)
        } else {
            Self(format!("{}.{name}", self.0))
        }
    }

    pub(super) fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    pub(super) fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that was found wrong so far.
#[derive(Debug, Default)]
pub(super) struct Check(Vec<Cause>);

impl Check {
    pub(super) fn into_causes(self) -> Vec<Cause> {
        self.0
    }

    fn add(&mut self, reason: &'static str, field: &Field, what: String, detail: &str) {
        let message = if detail.is_empty() {
            what
        } else {
            format!("{what}: {detail}")
        };
        self.0.push(Cause::new(reason, field.to_string(), message));
    }

    pub(super) fn required(&mut self, field: &Field, detail: &str) {
        self.add("FieldValueRequired", field, "Required value".into(), detail);
    }

    /// Requires a text that is not empty.
    pub(super) fn text(&mut self, value: &Value, field: &Field) {
        if is_empty(value) {
            self.required(field, "");
        }
    }

    pub(super) fn invalid(&mut self, field: &Field, value: impl Into<Value>, detail: &str) {
        let what = format!("Invalid value: {}", value.into());
        self.add("FieldValueInvalid", field, what, detail);
    }

    /// A value that is not valid, where the API's way to print it is its own.
    pub(super) fn as_printed(&mut self, field: &Field, message: String) {
        self.add("FieldValueInvalid", field, message, "");
    }

    /// A value that is there twice, printed likewise.
    pub(super) fn duplicate_as_printed(&mut self, field: &Field, message: String) {
        self.add("FieldValueDuplicate", field, message, "");
    }

    /// Adds what was found elsewhere.
    pub(super) fn take(&mut self, causes: Vec<Cause>) {
        self.0.extend(causes);
    }

    /// One cause for each complaint about the same text.
    pub(super) fn complaints(&mut self, field: &Field, text: &str, complaints: Vec<String>) {
        for complaint in complaints {
            self.invalid(field, text, &complaint);
        }
    }

    pub(super) fn forbidden(&mut self, field: &Field, detail: &str) {
        self.add("FieldValueForbidden", field, "Forbidden".into(), detail);
    }

    pub(super) fn duplicate(&mut self, field: &Field, value: impl Into<Value>, detail: &str) {
        let what = format!("Duplicate value: {}", value.into());
        self.add("FieldValueDuplicate", field, what, detail);
    }

    pub(super) fn not_found(&mut self, field: &Field, value: impl Into<Value>) {
        let what = format!("Not found: {}", value.into());
        self.add("FieldValueNotFound", field, what, "");
    }

    pub(super) fn too_long(&mut self, field: &Field, most: usize) {
        let detail = format!("may not be more than {most} bytes");
        self.add("FieldValueTooLong", field, "Too long".into(), &detail);
    }

    pub(super) fn unsupported(&mut self, field: &Field, value: &Value, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|word| format!("\"{word}\"")).collect();
        let detail = format!("supported values: {}", supported.join(", "));
        let what = format!("Unsupported value: {value}");
        self.add("FieldValueNotSupported", field, what, &detail);
    }

    /// Requires one of the words, or nothing at all.
    pub(super) fn one_of(&mut self, value: &Value, field: &Field, supported: &[&str]) {
        if !value.is_null() && !value.as_str().is_some_and(|word| supported.contains(&word)) {
            self.unsupported(field, value, supported);
        }
    }

    /// Requires that a field is as it was.
    pub(super) fn unchanged(&mut self, old: &Value, new: &Value, field: &Field) {
        if !same(old, new) {
            self.invalid(field, new.clone(), "field is immutable");
        }
    }
}

/// The text, or an empty one.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The items of a list, none for anything else.
pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The texts of a list.
pub(super) fn texts(value: &Value) -> impl Iterator<Item = &str> {
    items(value).iter().map(text)
}

/// The entries of a map, none for anything else.
pub(super) fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value))
}

/// Whether the typed API could not tell this from a field that is not there.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
    }
}

/// Equality as the API sees it: what is absent equals what is empty.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.iter()
                .all(|(key, value)| same(value, b.get(key).unwrap_or(&Value::Null)))
                && b.iter()
                    .all(|(key, value)| a.contains_key(key) || is_empty(value))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        _ => a == b || (is_empty(a) && is_empty(b)),
    }
}

/// Sets a field that is absent.
pub(super) fn default_to(object: &mut Value, field: &str, value: impl Into<Value>) {
    if object[field].is_null() {
        object[field] = value.into();
    }
}

/// What differs between two versions, one line each.
pub(super) fn difference(old: &Value, new: &Value) -> String {
    let mut lines = String::new();
    collect_difference(old, new, "", &mut lines);
    lines
}

fn collect_difference(old: &Value, new: &Value, path: &str, lines: &mut String) {
    if same(old, new) {
        return;
    }
    if let (Value::Object(olds), Value::Object(news)) = (old, new) {
        let keys = olds
            .keys()
            .chain(news.keys().filter(|key| !olds.contains_key(*key)));
        for key in keys {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            collect_difference(&old[key.as_str()], &new[key.as_str()], &path, lines);
        }
        return;
    }
    lines.push_str(&format!("- {path}: {old}\n+ {path}: {new}\n"));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_and_empty_are_the_same() {
        assert!(same(
            &json!({"a": {"b": false, "c": []}}),
            &json!({"d": ""})
        ));
        assert!(same(
            &json!({"a": [{"b": 1}]}),
            &json!({"a": [{"b": 1, "c": null}]})
        ));
        assert!(!same(&json!({"a": 1}), &json!({})));
        assert!(!same(&json!([1]), &json!([1, 2])));
    }

    #[test]
    fn a_difference_names_the_fields() {
        let old = json!({"nfs": {"path": "/p", "server": "s"}});
        let new = json!({"nfs": {"path": "/q", "server": "s"}});
        assert_eq!(
            difference(&old, &new),
            "- nfs.path: \"/p\"\n+ nfs.path: \"/q\"\n"
        );
    }
}
