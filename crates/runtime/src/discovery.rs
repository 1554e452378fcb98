//! What kinds an API serves, in its own words.
//!
//! A 404 of a list says little: it may come from what stands before an API. A kind is absent only
//! where the API itself, asked for what it has, does not name it.

use std::time::Duration;

use bitts_api::Kind;
use kube::Client;
use serde::Deserialize;

use crate::api::{Answer, Call, send};

/// What an API says of a group's version.
#[derive(Deserialize)]
struct Resources {
    kind: String,
    resources: Vec<Named>,
}

/// What an API says of its groups.
#[derive(Deserialize)]
struct Groups {
    kind: String,
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    versions: Vec<Version>,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// Whether the API serves a kind of a group other than the core; an error is no answer.
pub(crate) async fn is_served(
    client: &Client,
    kind: Kind,
    patience: Duration,
) -> Result<bool, String> {
    let version = format!("/apis/{}/{}", kind.group(), kind.version());
    match send(client, &Call::get(version), patience).await {
        Answer::Ok(body) => names_resource(&body, kind),
        Answer::NoSuchPath(_) => match send(client, &Call::get("/apis".to_owned()), patience).await
        {
            Answer::Ok(body) => names_version(&body, kind),
            answer => Err(format!("{answer:?}")),
        },
        answer => Err(format!("{answer:?}")),
    }
}

fn names_resource(body: &[u8], kind: Kind) -> Result<bool, String> {
    let list: Resources = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if list.kind != "APIResourceList" {
        return Err(format!("{} instead of an APIResourceList", list.kind));
    }
    Ok(list.resources.iter().any(|r| r.name == kind.plural()))
}

/// A group that serves nothing of this version cannot serve the kind.
fn names_version(body: &[u8], kind: Kind) -> Result<bool, String> {
    let list: Groups = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if list.kind != "APIGroupList" {
        return Err(format!("{} instead of an APIGroupList", list.kind));
    }
    let group = list.groups.iter().find(|g| g.name == kind.group());
    Ok(group.is_some_and(|g| g.versions.iter().any(|v| v.version == kind.version())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_list_of_what_is_served_says_what_is_not() {
        let resources = |body: &str| names_resource(body.as_bytes(), Kind::StorageClass);
        let list = r#"{"kind":"APIResourceList","resources":[{"name":"storageclasses"}]}"#;
        assert_eq!(resources(list), Ok(true));
        assert_eq!(
            resources(r#"{"kind":"APIResourceList","resources":[]}"#),
            Ok(false)
        );
        assert!(resources("{}").is_err());
        assert!(resources(r#"{"kind":"Other","resources":[]}"#).is_err());
        let groups = |body: &str| names_version(body.as_bytes(), Kind::StorageClass);
        let with = |version: &str| {
            format!(
                r#"{{"kind":"APIGroupList","groups":[{{"name":"storage.k8s.io","versions":[{{"version":"{version}"}}]}}]}}"#
            )
        };
        assert_eq!(groups(&with("v1")), Ok(true));
        assert_eq!(groups(&with("v1beta1")), Ok(false));
        assert_eq!(groups(r#"{"kind":"APIGroupList","groups":[]}"#), Ok(false));
        assert!(groups(r#"{"groups":[]}"#).is_err());
    }
}
