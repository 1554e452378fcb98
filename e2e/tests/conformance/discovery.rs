//! What a client learns of the API before its first request.

use anyhow::{Context as _, ensure};
use bitts_e2e::cluster::Scope;
use bitts_e2e::on_both;
use bitts_e2e::raw::{Request, text};
use bitts_e2e::suite::Suite;
use serde_json::Value;

pub(crate) fn add(suite: &mut Suite) {
    on_both!(
        suite,
        "discovery",
        the_groups_are_listed,
        every_kind_has_its_names_and_verbs,
        aggregated_discovery_lists_the_same_kinds,
        openapi_describes_what_is_served,
        version_and_health_are_told,
    );
}

/// Group version, resource, short names, kind, namespaced.
const KINDS: [(&str, &str, &[&str], &str, bool); 16] = [
    ("v1", "namespaces", &["ns"], "Namespace", false),
    (
        "v1",
        "persistentvolumes",
        &["pv"],
        "PersistentVolume",
        false,
    ),
    (
        "v1",
        "persistentvolumeclaims",
        &["pvc"],
        "PersistentVolumeClaim",
        true,
    ),
    ("v1", "pods", &["po"], "Pod", true),
    ("v1", "nodes", &["no"], "Node", false),
    ("v1", "events", &["ev"], "Event", true),
    ("v1", "secrets", &[], "Secret", true),
    ("v1", "configmaps", &["cm"], "ConfigMap", true),
    (
        "storage.k8s.io/v1",
        "storageclasses",
        &["sc"],
        "StorageClass",
        false,
    ),
    (
        "storage.k8s.io/v1",
        "volumeattachments",
        &[],
        "VolumeAttachment",
        false,
    ),
    ("storage.k8s.io/v1", "csidrivers", &[], "CSIDriver", false),
    ("storage.k8s.io/v1", "csinodes", &[], "CSINode", false),
    (
        "storage.k8s.io/v1",
        "csistoragecapacities",
        &[],
        "CSIStorageCapacity",
        true,
    ),
    (
        "storage.k8s.io/v1",
        "volumeattributesclasses",
        &["vac"],
        "VolumeAttributesClass",
        false,
    ),
    ("coordination.k8s.io/v1", "leases", &[], "Lease", true),
    ("events.k8s.io/v1", "events", &["ev"], "Event", true),
];

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

async fn the_groups_are_listed(api: Scope) -> anyhow::Result<()> {
    let core = api.get("/api").await?.expect(200)?;
    ensure!(
        text(&core, "/kind") == "APIVersions" && core["versions"][0] == "v1",
        "{core}"
    );
    let groups = api.get("/apis").await?.expect(200)?;
    ensure!(text(&groups, "/kind") == "APIGroupList", "{groups}");
    for name in ["storage.k8s.io", "coordination.k8s.io", "events.k8s.io"] {
        let group = named(&groups["groups"], name).with_context(|| format!("no group {name}"))?;
        ensure!(text(group, "/preferredVersion/version") == "v1", "{group}");
        let one = api.get(&format!("/apis/{name}")).await?.expect(200)?;
        ensure!(
            text(&one, "/kind") == "APIGroup" && text(&one, "/name") == name,
            "{one}"
        );
    }
    Ok(())
}

async fn every_kind_has_its_names_and_verbs(api: Scope) -> anyhow::Result<()> {
    for (version, resource, short, kind, namespaced) in KINDS {
        let root = if version == "v1" { "/api" } else { "/apis" };
        let list = api.get(&format!("{root}/{version}")).await?.expect(200)?;
        ensure!(text(&list, "/kind") == "APIResourceList", "{list}");
        ensure!(text(&list, "/groupVersion") == version, "{list}");
        let found = named(&list["resources"], resource)
            .with_context(|| format!("{version} has no {resource}"))?;
        ensure!(
            text(found, "/kind") == kind && found["namespaced"] == namespaced,
            "{found}"
        );
        ensure!(
            text(found, "/singularName") == kind.to_lowercase(),
            "{found}"
        );
        let given: Vec<_> = found["shortNames"]
            .as_array()
            .into_iter()
            .flatten()
            .collect();
        ensure!(given == short, "short names of {resource}: {given:?}");
        // Namespaces have no deletecollection.
        let verbs = found["verbs"].as_array().context("no verbs")?;
        for verb in VERBS {
            let wanted = verb != "deletecollection" || resource != "namespaces";
            ensure!(
                verbs.iter().any(|given| given == verb) == wanted,
                "{resource}: {verbs:?}"
            );
        }
    }
    Ok(())
}

async fn aggregated_discovery_lists_the_same_kinds(api: Scope) -> anyhow::Result<()> {
    for root in ["/api", "/apis"] {
        let mut request = Request::new("GET", root, Value::Null);
        let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        request.accept = Some(format!("{aggregated},application/json"));
        let list = request.send(&api.client()).await?.expect(200)?;
        if text(&list, "/kind") != "APIGroupDiscoveryList" {
            // Clients ask for both forms and fall back to the other.
            ensure!(api.kind() == bitts_e2e::cluster::Kind::Embedded, "{list}");
            continue;
        }
        let all = list.to_string();
        for (version, resource, ..) in KINDS {
            if (version == "v1") == (root == "/api") {
                ensure!(
                    all.contains(&format!("\"resource\":\"{resource}\"")),
                    "no {resource}"
                );
            }
        }
    }
    Ok(())
}

/// kubectl asks here whether the server itself tells unknown fields, and for what kinds.
async fn openapi_describes_what_is_served(api: Scope) -> anyhow::Result<()> {
    let index = api.get("/openapi/v3").await?.expect(200)?;
    for (version, _, _, kind, _) in KINDS {
        let root = if version == "v1" { "api" } else { "apis" };
        let url = index["paths"][format!("{root}/{version}")]["serverRelativeURL"].as_str();
        let url = url.with_context(|| format!("no OpenAPI for {version}"))?;
        let document = api.get(url).await?.expect(200)?;
        ensure!(text(&document, "/openapi").starts_with("3."), "{url}");
        let paths = document["paths"].as_object().context("no paths")?;
        let validated = paths.values().any(|path| {
            let patch = &path["patch"];
            let parameters = patch["parameters"].as_array().into_iter().flatten();
            text(patch, "/x-kubernetes-group-version-kind/kind") == kind
                && parameters
                    .into_iter()
                    .any(|one| text(one, "/name") == "fieldValidation")
        });
        ensure!(
            validated,
            "{url} has no patch of {kind} with fieldValidation"
        );
    }
    Ok(())
}

async fn version_and_health_are_told(api: Scope) -> anyhow::Result<()> {
    let version = api.get("/version").await?.expect(200)?;
    ensure!(text(&version, "/major") == "1", "{version}");
    ensure!(text(&version, "/minor") == "37", "{version}");
    for path in ["/healthz", "/livez", "/readyz"] {
        let health = api.get(path).await?.expect(200)?;
        ensure!(health == "ok", "{path}: {health}");
    }
    Ok(())
}

fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array()?
        .iter()
        .find(|element| text(element, "/name") == name)
}
