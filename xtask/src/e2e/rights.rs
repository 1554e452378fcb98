//! That no role may do what it never does: what it was granted on the cluster, less what the API server
//! let it do while the tests ran, by the audit log.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use xshell::Shell;

use super::install::Role;
use super::provider::Provider;

/// What is logged of each request: no body. A watch is known from its beginning.
pub(crate) const POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy",
    "omitStages": ["RequestReceived"], "rules": [{"level": "Metadata",
        "userGroups": ["system:serviceaccounts"]}, {"level": "None"}]}"#;

/// What is granted and not seen in the log, and why that is right.
const UNSEEN: &[(&str, &str, &str)] = &[
    // Looked at by an admission plugin when a claim is made that blocks the deletion of its pod.
    ("binder", "update", "pods/finalizers"),
    // Only where bitts is told to drop hostPath volumes as kube-controller-manager does (D5).
    ("binder", "delete", "persistentvolumes"),
    // Only of a node whose object is gone, where a class says so.
    ("lost-nodes", "delete", "persistentvolumes"),
    // The same event again for the same object, later than any test waits.
    ("agent", "patch", "events"),
    ("provisioner", "patch", "events"),
    ("nfs-provisioner", "patch", "events"),
];

/// A verb on a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    role: &'static str,
    verb: String,
    group: String,
    resource: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            role,
            verb,
            group,
            resource,
        } = self;
        let group = if group.is_empty() { "core" } else { group };
        write!(f, "{role}: {verb} {resource} ({group})")
    }
}

/// Fails where one of these roles has a right that it did not use.
pub(crate) fn check(sh: &Shell, provider: &dyn Provider, roles: &[Role], log: &Path) -> Result<()> {
    let get = ["get", "clusterroles,roles", "-A", "-o", "json"];
    let label = ["-l", "app.kubernetes.io/name=bitts"];
    let objects = provider.kubectl().run(sh, &[&get[..], &label].concat())?;
    let granted = granted(&serde_json::from_str(&objects)?, roles);
    let log = fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    let used = used(&log, roles)?;
    let unused: Vec<String> = granted.difference(&used).map(Right::to_string).collect();
    if !unused.is_empty() {
        bail!(
            "granted, but not used while the tests ran: take it out of grants.rs, or test what needs it\n{}",
            unused.join("\n")
        );
    }
    Ok(())
}

fn granted(objects: &Value, roles: &[Role]) -> BTreeSet<Right> {
    let mut granted = BTreeSet::new();
    for object in list(&objects["items"]) {
        let component = object["metadata"]["labels"]["app.kubernetes.io/component"].as_str();
        let role = roles.iter().map(|role| role.name());
        let Some(role) = role.into_iter().find(|name| Some(*name) == component) else {
            continue;
        };
        for rule in list(&object["rules"]) {
            for (verb, group, resource) in each(rule) {
                let unseen = (role, verb, resource);
                if !UNSEEN.contains(&unseen) {
                    granted.insert(Right {
                        role,
                        verb: verb.to_owned(),
                        group: group.to_owned(),
                        resource: resource.to_owned(),
                    });
                }
            }
        }
    }
    granted
}

fn each(rule: &Value) -> impl Iterator<Item = (&str, &str, &str)> {
    let texts = |member: &str| list(&rule[member]).filter_map(Value::as_str);
    let verbs: Vec<&str> = texts("verbs").collect();
    let groups: Vec<&str> = texts("apiGroups").collect();
    let resources: Vec<&str> = texts("resources").collect();
    let mut all = Vec::new();
    for verb in verbs {
        for group in &groups {
            all.extend(resources.iter().map(|resource| (verb, *group, *resource)));
        }
    }
    all.into_iter()
}

fn used(log: &str, roles: &[Role]) -> Result<BTreeSet<Right>> {
    let mut used = BTreeSet::new();
    // The last line may be half written.
    for line in log
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
    {
        let entry: Value = serde_json::from_str(line).context("the audit log is not JSON")?;
        let user = entry["user"]["username"].as_str().unwrap_or_default();
        if entry["annotations"]["authorization.k8s.io/decision"] != "allow" {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &entry["objectRef"];
        let resource = match object["subresource"].as_str() {
            Some(part) => format!("{}/{part}", text(&object["resource"])),
            None => text(&object["resource"]),
        };
        // Roles of one account cannot be told apart.
        for role in roles.iter().filter(|role| role.account() == user) {
            used.insert(Right {
                role: role.name(),
                verb: text(&entry["verb"]),
                group: text(&object["apiGroup"]),
                resource: resource.clone(),
            });
        }
    }
    Ok(used)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_granted_and_never_done_is_left() {
        let objects = json!({"items": [{
            "metadata": {"labels": {"app.kubernetes.io/component": "provisioner"}},
            "rules": [{"apiGroups": [""], "verbs": ["get", "patch"],
                "resources": ["persistentvolumes", "persistentvolumes/status"]}]}]});
        let entry = |verb: &str, part: Option<&str>, user: &str, decision: &str| {
            let entry = json!({"verb": verb, "user": {"username": user},
                "objectRef": {"resource": "persistentvolumes", "subresource": part},
                "annotations": {"authorization.k8s.io/decision": decision}});
            format!("{entry}\n")
        };
        let ours = "system:serviceaccount:bitts-nodes:bitts-provisioner";
        let log = [
            entry("get", None, ours, "allow"),
            entry("patch", Some("status"), ours, "allow"),
            entry("patch", None, ours, "forbid"),
            entry("get", Some("status"), "somebody", "allow"),
            "{\"half".to_owned(),
        ]
        .concat();
        let roles = [Role::Provisioner];
        let granted = granted(&objects, &roles);
        let used = used(&log, &roles).unwrap();
        let unused: Vec<String> = granted.difference(&used).map(Right::to_string).collect();
        assert_eq!(
            unused,
            [
                "provisioner: get persistentvolumes/status (core)",
                "provisioner: patch persistentvolumes (core)",
            ]
        );
        assert!(super::granted(&objects, &[Role::Binder]).is_empty());
    }
}
