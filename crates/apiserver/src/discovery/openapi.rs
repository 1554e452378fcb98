//! OpenAPI v3, as far as kubectl asks for it: which paths there are for which kind, and that writes
//! take `dryRun` and `fieldValidation`. With these, `kubectl apply` leaves validation to the server.
//!
//! There are no schemas in the documents, so `kubectl explain` has nothing to say; and no strategic
//! merge patch among the patches, so that kubectl computes such patches from the types built into it.

use serde_json::{Map, Value, json};

use super::resources;
use crate::kind::Kind;

/// `/openapi/v3`: where the documents are.
pub(super) fn index() -> Value {
    let paths: Map<String, Value> = resources::group_versions()
        .into_iter()
        .map(|(group, version)| {
            let prefix = resources::prefix(group, version);
            let url = format!("/openapi/v3/{prefix}");
            (prefix, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

/// `/openapi/v3/apis/storage.k8s.io/v1`
pub(super) fn document(group: &str, version: &str) -> Option<Value> {
    let prefix = resources::prefix(group, version);
    let mut paths = Map::new();
    for kind in resources::kinds(group, version)? {
        let collection = if kind.namespaced {
            format!("/{prefix}/namespaces/{{namespace}}/{}", kind.plural)
        } else {
            format!("/{prefix}/{}", kind.plural)
        };
        let object = format!("{collection}/{{name}}");
        if kind.namespaced {
            paths.insert(
                format!("/{prefix}/{}", kind.plural),
                operations(kind, &["list"], &[]),
            );
        }
        let place: &[&str] = if kind.namespaced { &["namespace"] } else { &[] };
        let named: &[&str] = if kind.namespaced {
            &["name", "namespace"]
        } else {
            &["name"]
        };
        if kind.has_status {
            let status = operations(kind, &["get", "put", "patch"], named);
            paths.insert(format!("{object}/status"), status);
        }
        paths.insert(
            collection,
            operations(kind, &["list", "post", "deletecollection"], place),
        );
        paths.insert(
            object,
            operations(kind, &["get", "put", "patch", "delete"], named),
        );
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths,
        "components": {"schemas": {}},
    }))
}

/// One path: its operations, and the parts of the path that are filled in.
fn operations(kind: &Kind, actions: &[&str], placeholders: &[&str]) -> Value {
    let mut path = json!({});
    if !placeholders.is_empty() {
        let parameters: Vec<Value> = placeholders
            .iter()
            .map(|name| parameter(name, "path", "string"))
            .collect();
        path["parameters"] = parameters.into();
    }
    for action in actions.iter().filter(|action| serves(kind, action)) {
        let method = match *action {
            "list" => "get",
            "deletecollection" => "delete",
            other => other,
        };
        path[method] = operation(kind, action);
    }
    path
}

fn serves(kind: &Kind, action: &str) -> bool {
    let verb = match action {
        "post" => "create",
        "put" => "update",
        other => other,
    };
    kind.verbs.contains(&verb)
}

fn operation(kind: &Kind, action: &str) -> Value {
    let query: &[&str] = match action {
        "list" => &[
            "labelSelector",
            "fieldSelector",
            "limit",
            "continue",
            "resourceVersion",
            "watch",
        ],
        "post" | "put" | "patch" => &["dryRun", "fieldManager", "fieldValidation"],
        "delete" => &["dryRun", "gracePeriodSeconds", "propagationPolicy"],
        "deletecollection" => &["dryRun", "labelSelector", "fieldSelector"],
        _ => &[],
    };
    let parameters: Vec<Value> = query
        .iter()
        .map(|name| {
            let kind = match *name {
                "limit" | "gracePeriodSeconds" => "integer",
                "watch" => "boolean",
                _ => "string",
            };
            parameter(name, "query", kind)
        })
        .collect();
    let any = json!({"schema": {"type": "object"}});
    let mut operation = json!({
        "parameters": parameters,
        "responses": {"200": {"description": "OK", "content": {"application/json": any}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {
            "group": kind.group, "version": kind.version, "kind": kind.kind,
        },
    });
    let bodies: &[&str] = match action {
        "post" | "put" => &["application/json", "application/yaml"],
        "patch" => &[
            "application/json-patch+json",
            "application/merge-patch+json",
        ],
        _ => &[],
    };
    if !bodies.is_empty() {
        let content: Map<String, Value> = bodies
            .iter()
            .map(|body| ((*body).to_owned(), any.clone()))
            .collect();
        operation["requestBody"] = json!({"content": content, "required": true});
    }
    operation
}

fn parameter(name: &str, place: &str, kind: &str) -> Value {
    let mut parameter = json!({"name": name, "in": place, "schema": {"type": kind}});
    if place == "path" {
        parameter["required"] = true.into();
    }
    parameter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// kubectl leaves validation to a server whose patches of the kind take this parameter.
    #[test]
    fn every_kind_takes_field_validation() {
        for kind in crate::kind::ALL {
            let document = document(kind.group, kind.version).unwrap();
            let found = document["paths"].as_object().unwrap().values().any(|path| {
                let patch = &path["patch"];
                patch["x-kubernetes-group-version-kind"]["kind"] == kind.kind
                    && patch["parameters"]
                        .as_array()
                        .is_some_and(|all| all.iter().any(|one| one["name"] == "fieldValidation"))
            });
            assert!(found, "{}", kind.kind);
        }
    }
}
