//! Objects as rows: what `kubectl get` shows. The columns are the API's own; `table/recorded.json`
//! holds what a kube-apiserver 1.37.2 answered for objects of every kind.

mod age;
mod cluster;
mod pod;
mod storage;
mod text;

use std::sync::Arc;

use serde_json::{Value, json};

use age::Now;
pub use text::{print, print_wide};

/// Which part of each object travels with its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// Reads the query parameter `includeObject`.
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "None" => Self::None,
            "Object" => Self::Object,
            _ => Self::Metadata,
        }
    }
}

/// One column: its name, the type of its cells, and whether only wide output shows it.
#[derive(Debug, Clone, Copy)]
struct Column {
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    wide: bool,
}

impl Column {
    const fn new(name: &'static str) -> Self {
        Self::typed(name, "string")
    }

    const fn typed(name: &'static str, kind: &'static str) -> Self {
        Self {
            name,
            kind,
            format: "",
            wide: false,
        }
    }

    /// The column with the object's name.
    const fn naming(name: &'static str) -> Self {
        let mut column = Self::new(name);
        column.format = "name";
        column
    }

    const fn wide(mut self) -> Self {
        self.wide = true;
        self
    }

    fn to_json(self) -> Value {
        json!({
            "name": self.name, "type": self.kind, "format": self.format,
            "description": "", "priority": i32::from(self.wide),
        })
    }
}

/// How objects of a kind become rows.
#[derive(Debug, Clone, Copy)]
struct Printer {
    columns: &'static [Column],
    cells: fn(&Value, Now) -> Vec<Value>,
}

fn printer(kind: &str) -> Printer {
    match kind {
        "PersistentVolume" => storage::VOLUMES,
        "PersistentVolumeClaim" => storage::CLAIMS,
        "StorageClass" => storage::CLASSES,
        "VolumeAttributesClass" => storage::ATTRIBUTES_CLASSES,
        "VolumeAttachment" => storage::ATTACHMENTS,
        "CSIDriver" => storage::DRIVERS,
        "CSINode" => storage::CSI_NODES,
        "Pod" => pod::PODS,
        "Node" => cluster::NODES,
        "Namespace" => cluster::NAMESPACES,
        "ConfigMap" => cluster::CONFIG_MAPS,
        "Secret" => cluster::SECRETS,
        "ServiceAccount" => cluster::SERVICE_ACCOUNTS,
        "Lease" => cluster::LEASES,
        "Event" => cluster::EVENTS,
        _ => cluster::OTHERS,
    }
}

/// The objects as a `meta.k8s.io/v1` Table; `now` is a timestamp, against which ages are told.
pub(crate) fn render(
    kind: &str,
    objects: &[Arc<Value>],
    include: IncludeObject,
    now: &str,
) -> Value {
    let (printer, now) = (printer(kind), Now::parse(now));
    let row = |object: &Arc<Value>| {
        let mut row = json!({"cells": (printer.cells)(object, now)});
        if kind == "Pod"
            && let Some(condition) = pod::condition(object)
        {
            row["conditions"] = json!([condition]);
        }
        row["object"] = match include {
            IncludeObject::None => Value::Null,
            IncludeObject::Object => Value::clone(object),
            IncludeObject::Metadata => json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": object["metadata"],
            }),
        };
        row
    };
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": printer.columns.iter().map(|column| column.to_json()).collect::<Vec<_>>(),
        "rows": objects.iter().map(row).collect::<Vec<_>>(),
    })
}

/// The text, or what stands for none.
fn text_or<'a>(value: &'a Value, none: &'a str) -> &'a str {
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .unwrap_or(none)
}

fn name(object: &Value) -> Value {
    text_or(&object["metadata"]["name"], "").into()
}

fn created(object: &Value, now: Now) -> Value {
    now.since(&object["metadata"]["creationTimestamp"]).into()
}

/// The phase, unless the object is being deleted.
fn phase(object: &Value) -> &str {
    if object["metadata"]["deletionTimestamp"].is_string() {
        "Terminating"
    } else {
        text_or(&object["status"]["phase"], "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_those_of_a_real_api() {
        let recorded: Vec<Value> =
            serde_json::from_str(include_str!("table/recorded.json")).unwrap();
        for case in recorded {
            let kind = case["kind"].as_str().unwrap();
            let objects: Vec<Arc<Value>> = case["objects"]
                .as_array()
                .unwrap()
                .iter()
                .cloned()
                .map(Arc::new)
                .collect();
            let table = render(
                kind,
                &objects,
                IncludeObject::None,
                case["now"].as_str().unwrap(),
            );
            let mut columns = table["columnDefinitions"].clone();
            for column in columns.as_array_mut().unwrap() {
                column.as_object_mut().unwrap().remove("description");
            }
            assert_eq!(columns, case["columns"], "{kind}");
            let mut rows = table["rows"].clone();
            for row in rows.as_array_mut().unwrap() {
                row.as_object_mut().unwrap().remove("object");
            }
            let recorded = case["rows"].as_array().unwrap();
            assert_eq!(rows.as_array().unwrap(), recorded, "{kind}");
        }
    }

    #[test]
    fn rows_carry_what_is_asked_for() {
        let object =
            Arc::new(json!({"kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}}));
        let row = |include: &str| {
            let include = IncludeObject::parse(include);
            render("ConfigMap", std::slice::from_ref(&object), include, "")["rows"][0]["object"]
                .take()
        };
        assert_eq!(row("None"), Value::Null);
        assert_eq!(row("Object"), *object);
        assert_eq!(row("")["kind"], "PartialObjectMetadata");
        assert_eq!(row("Metadata")["metadata"]["name"], "m");
    }
}
