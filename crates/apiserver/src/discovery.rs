//! What the API serves, told to clients: the lists of groups and resources, and OpenAPI documents.

mod openapi;
mod resources;

use bytes::Bytes;
use serde_json::{Value, json};

/// How a client asks for all groups and resources at once.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Answers a path that is about the API itself with a content type and a body.
pub(crate) fn respond(path: &str, accept: &str) -> Option<(String, Bytes)> {
    let steps: Vec<&str> = path.split('/').filter(|step| !step.is_empty()).collect();
    let all_at_once = accept.split(',').any(asks_for_all);
    let document = match steps.as_slice() {
        [] => root(),
        ["api"] if all_at_once => return Some(encode(AGGREGATED, &resources::all_of(&[""]))),
        ["apis"] if all_at_once => {
            return Some(encode(AGGREGATED, &resources::all_of(&resources::groups())));
        }
        ["api"] => resources::versions(),
        ["apis"] => resources::group_list(),
        ["apis", group] => resources::group(group)?,
        ["api", version] => resources::list("", version)?,
        ["apis", group, version] => resources::list(group, version)?,
        ["openapi", "v3"] => openapi::index(),
        ["openapi", "v3", "api", version] => openapi::document("", version)?,
        ["openapi", "v3", "apis", group, version] => openapi::document(group, version)?,
        _ => return None,
    };
    Some(encode("application/json", &document))
}

fn asks_for_all(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let has = |wanted: &str| range.split(';').any(|part| part.trim() == wanted);
    parts.next() == Some("application/json")
        && has("as=APIGroupDiscoveryList")
        && has("g=apidiscovery.k8s.io")
        && has("v=v2")
}

fn encode(content_type: &str, document: &Value) -> (String, Bytes) {
    (content_type.to_owned(), document.to_string().into())
}

fn root() -> Value {
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    for (group, version) in resources::group_versions() {
        paths.push(format!("/{}", resources::prefix(group, version)));
    }
    for path in ["/healthz", "/livez", "/openapi/v3", "/readyz", "/version"] {
        paths.push(path.to_owned());
    }
    paths.sort();
    json!({"paths": paths})
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECTL: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

    fn get(path: &str, accept: &str) -> Option<(String, Value)> {
        let (content_type, body) = respond(path, accept)?;
        Some((content_type, serde_json::from_slice(&body).unwrap()))
    }

    /// What a kube-apiserver 1.37.2 says of the resources served here.
    fn recorded() -> Vec<Value> {
        serde_json::from_str(include_str!("discovery/recorded.json")).unwrap()
    }

    #[test]
    fn resources_are_described_as_a_real_api_describes_them() {
        for list in recorded() {
            let version = list["groupVersion"].as_str().unwrap();
            let prefix = if version == "v1" { "/api" } else { "/apis" };
            let (_, ours) = get(&format!("{prefix}/{version}"), "").unwrap();
            assert_eq!(ours["kind"], "APIResourceList");
            for resource in ours["resources"].as_array().unwrap() {
                let name = &resource["name"];
                let theirs = list["resources"].as_array().unwrap();
                let theirs = theirs.iter().find(|theirs| theirs["name"] == *name);
                assert_eq!(Some(resource), theirs, "{version} {name}");
            }
        }
    }

    #[test]
    fn everything_can_be_asked_for_at_once() {
        let (content_type, core) = get("/api", KUBECTL).unwrap();
        assert_eq!(content_type, AGGREGATED);
        let resources = core["items"][0]["versions"][0]["resources"]
            .as_array()
            .unwrap();
        let pods = resources
            .iter()
            .find(|resource| resource["resource"] == "pods")
            .unwrap();
        assert_eq!(pods["scope"], "Namespaced");
        assert_eq!(
            pods["responseKind"],
            json!({"group": "", "version": "v1", "kind": "Pod"})
        );
        let subresources: Vec<&Value> = pods["subresources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|sub| &sub["subresource"])
            .collect();
        assert_eq!(subresources, ["binding", "status"]);
        let (_, groups) = get("/apis", KUBECTL).unwrap();
        assert_eq!(
            groups["items"].as_array().unwrap().len(),
            resources::groups().len()
        );
        assert_eq!(
            get("/api", "application/json").unwrap().1["kind"],
            "APIVersions"
        );
        assert_eq!(get("/apis", "").unwrap().1["kind"], "APIGroupList");
    }

    #[test]
    fn what_is_not_served_is_not_described() {
        for path in [
            "/apis/apps",
            "/apis/apps/v1",
            "/api/v2",
            "/openapi/v2",
            "/openapi/v3/api/v2",
            "/x",
        ] {
            assert_eq!(get(path, KUBECTL), None, "{path}");
        }
    }

    #[test]
    fn every_document_of_the_index_exists() {
        let (_, index) = get("/openapi/v3", "").unwrap();
        let paths = index["paths"].as_object().unwrap();
        assert_eq!(paths.len(), resources::group_versions().len());
        for entry in paths.values() {
            let url = entry["serverRelativeURL"].as_str().unwrap();
            assert_eq!(get(url, "").unwrap().1["openapi"], "3.0.0", "{url}");
        }
        assert!(get("/", "").unwrap().1["paths"].as_array().unwrap().len() > 5);
    }
}
