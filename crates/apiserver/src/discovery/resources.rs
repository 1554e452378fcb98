//! The lists of groups and resources, in the old form (a request for each) and the aggregated one.

use serde_json::{Value, json};

use crate::kind::{self, Kind};

const STATUS_VERBS: [&str; 3] = ["get", "patch", "update"];

/// A path below an object that is served too.
struct Subresource {
    name: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
}

fn subresources(kind: &Kind) -> Vec<Subresource> {
    let mut all = Vec::new();
    let (binding, finalize) = (("", "pods"), ("", "namespaces"));
    if (kind.group, kind.plural) == binding {
        all.push(Subresource {
            name: "binding",
            kind: "Binding",
            verbs: &["create"],
        });
    }
    if (kind.group, kind.plural) == finalize {
        all.push(Subresource {
            name: "finalize",
            kind: kind.kind,
            verbs: &["update"],
        });
    }
    if kind.has_status {
        all.push(Subresource {
            name: "status",
            kind: kind.kind,
            verbs: &STATUS_VERBS,
        });
    }
    all
}

/// All groups and versions, in the order of the registry.
pub(super) fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut all: Vec<_> = kind::ALL
        .iter()
        .map(|kind| (kind.group, kind.version))
        .collect();
    all.dedup();
    all
}

/// All groups but the core.
pub(super) fn groups() -> Vec<&'static str> {
    let mut groups: Vec<_> = group_versions()
        .into_iter()
        .map(|(group, _)| group)
        .collect();
    groups.retain(|group| !group.is_empty());
    groups.dedup();
    groups
}

/// Where a version's resources are: `api/v1`, `apis/storage.k8s.io/v1`.
pub(super) fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// The kinds of a version; `None` when the version is not served.
pub(super) fn kinds(group: &str, version: &str) -> Option<Vec<&'static Kind>> {
    let kinds: Vec<_> = kind::ALL
        .iter()
        .filter(|kind| (kind.group, kind.version) == (group, version))
        .collect();
    (!kinds.is_empty()).then_some(kinds)
}

/// `/api`
pub(super) fn versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// `/apis`
pub(super) fn group_list() -> Value {
    let groups: Vec<Value> = groups().into_iter().filter_map(describe_group).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/storage.k8s.io`
pub(super) fn group(group: &str) -> Option<Value> {
    let mut description = describe_group(group)?;
    description["kind"] = "APIGroup".into();
    description["apiVersion"] = "v1".into();
    Some(description)
}

fn describe_group(group: &str) -> Option<Value> {
    let versions: Vec<Value> = group_versions()
        .into_iter()
        .filter(|(of, _)| *of == group && !group.is_empty())
        .map(|(_, version)| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first()?.clone();
    Some(json!({"name": group, "versions": versions, "preferredVersion": preferred}))
}

/// `/api/v1`, `/apis/storage.k8s.io/v1`
pub(super) fn list(group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in kinds(group, version)? {
        let mut resource = json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": kind.verbs,
        });
        name_shortly(&mut resource, kind);
        resources.push(resource);
        resources.extend(subresources(kind).into_iter().map(|sub| {
            json!({
                "name": format!("{}/{}", kind.plural, sub.name),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": sub.kind,
                "verbs": sub.verbs,
            })
        }));
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": group_version, "resources": resources,
    }))
}

fn name_shortly(resource: &mut Value, kind: &Kind) {
    for (field, names) in [
        ("shortNames", kind.short_names),
        ("categories", kind.categories),
    ] {
        if !names.is_empty() {
            resource[field] = names.into();
        }
    }
}

/// The resources of several groups, as an `APIGroupDiscoveryList`.
pub(super) fn all_of(groups: &[&str]) -> Value {
    let items: Vec<Value> = groups
        .iter()
        .map(|group| {
            let versions: Vec<Value> = group_versions()
                .into_iter()
                .filter(|(of, _)| of == group)
                .map(|(group, version)| describe_version(group, version))
                .collect();
            let metadata = if group.is_empty() {
                json!({})
            } else {
                json!({"name": group})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {}, "items": items,
    })
}

fn describe_version(group: &str, version: &str) -> Value {
    let kinds = kinds(group, version).unwrap_or_default();
    let resources: Vec<Value> = kinds.into_iter().map(describe_kind).collect();
    json!({"version": version, "resources": resources, "freshness": "Current"})
}

fn describe_kind(kind: &Kind) -> Value {
    let response = |name: &str| json!({"group": kind.group, "version": kind.version, "kind": name});
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": response(kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    name_shortly(&mut resource, kind);
    let subresources: Vec<Value> = subresources(kind)
        .into_iter()
        .map(|sub| {
            json!({"subresource": sub.name, "responseKind": response(sub.kind), "verbs": sub.verbs})
        })
        .collect();
    if !subresources.is_empty() {
        resource["subresources"] = subresources.into();
    }
    resource
}
