//! What each role asks of access control, gathered from the crates that need it. `bitts rbac` prints
//! it, and the Helm chart's `rbac/` is what it prints: tests see to that.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use bitts_api::StockController;
use bitts_api::grant::{Grant, Place};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::cli::Role;
use crate::preflight;

/// The name of the binder's lease.
#[cfg(feature = "binder")]
pub(crate) const BINDER_LEASE: &str = "bitts-binder";
/// The name of the attacher's lease.
#[cfg(feature = "attacher")]
pub(crate) const ATTACHER_LEASE: &str = "bitts-attacher";

/// The name of the lease of what calls the cloud.
#[cfg(feature = "attacher")]
pub(crate) const CLOUD_LEASE: &str = "bitts-cloud-attacher";

/// `bitts rbac`.
#[derive(Debug, Args)]
pub(crate) struct Rbac {
    /// The role.
    #[arg(value_parser = crate::cli::role)]
    role: Role,
}

pub(crate) fn run(args: &Rbac) -> Result<ExitCode> {
    std::io::stdout().write_all(text(args.role)?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// What these roles need, events, lease and start-up check included.
pub(crate) fn grants(roles: &[Role]) -> Vec<Grant> {
    let mut grants = Vec::new();
    for role in roles {
        match role {
            #[cfg(feature = "binder")]
            Role::Binder => {
                grants.extend(bitts_binder::grants());
                grants.extend(bitts_runtime::lease_grants(BINDER_LEASE));
                grants.extend(preflight::grants());
                grants.extend(preflight::canary_grants());
            }
            #[cfg(feature = "attacher")]
            Role::Attacher => {
                grants.extend(bitts_attacher::grants());
                grants.extend(bitts_runtime::lease_grants(ATTACHER_LEASE));
                grants.extend(preflight::grants());
            }
            #[cfg(feature = "attacher")]
            Role::CsiAttacher => grants.extend(bitts_attacher::csi_grants()),
            #[cfg(feature = "attacher")]
            Role::CloudAttacher => {
                grants.extend(bitts_attacher::cloud_grants());
                grants.extend(bitts_runtime::lease_grants(CLOUD_LEASE));
                grants.extend(preflight::grants());
            }
            // On a cluster's nodes the agent runs beside a kubelet, or it would not run in a pod.
            #[cfg(feature = "agent")]
            Role::Agent => grants.extend(bitts_agent::grants(bitts_agent::Mode::BesideKubelet)),
            #[cfg(feature = "provisioner")]
            Role::Provisioner => {
                let of_a_node = bitts_provisioner::Options::new("".into());
                grants.extend(bitts_provisioner::grants(&of_a_node));
            }
            #[cfg(feature = "provisioner")]
            Role::NfsProvisioner => {
                let of_shares = bitts_provisioner::Options::of_shares();
                grants.extend(bitts_provisioner::grants(&of_shares));
                grants.extend(bitts_runtime::lease_grants(crate::run::NFS_LEASE));
            }
            #[cfg(feature = "provisioner")]
            Role::LostNodes => {
                grants.extend(bitts_provisioner::lost_grants());
                grants.extend(bitts_runtime::lease_grants(crate::run::LOST_NODES_LEASE));
            }
        }
    }
    grants.extend(bitts_runtime::event_grants());
    grants
}

/// Which pods of the chart a role runs in.
fn runs_in(role: Role) -> &'static str {
    match role {
        // Those of the one Deployment.
        #[cfg(feature = "binder")]
        Role::Binder => "controllers",
        #[cfg(feature = "attacher")]
        Role::Attacher | Role::CloudAttacher => "controllers",
        #[cfg(feature = "provisioner")]
        Role::LostNodes => "controllers",
        // Beside a driver's controller, in its pod.
        #[cfg(feature = "attacher")]
        Role::CsiAttacher => "drivers",
        // One on each node.
        #[cfg(feature = "agent")]
        Role::Agent => "nodes",
        #[cfg(feature = "provisioner")]
        Role::Provisioner => "nodes",
        // One for all, but it mounts: the controllers may not.
        #[cfg(feature = "provisioner")]
        Role::NfsProvisioner => "nfs",
    }
}

/// The stock controllers whose work these roles do.
pub(crate) fn stands_in_for(roles: &[Role]) -> Vec<StockController> {
    let mut stock = BTreeSet::new();
    for role in roles {
        match role {
            #[cfg(feature = "binder")]
            Role::Binder => stock.extend(bitts_binder::stands_in_for().iter().copied()),
            #[cfg(feature = "attacher")]
            Role::Attacher | Role::CloudAttacher => stock.extend([StockController::AttachDetach]),
            // The stock sidecar is no part of kube-controller-manager.
            #[cfg(feature = "attacher")]
            Role::CsiAttacher => {}
            #[cfg(feature = "agent")]
            Role::Agent => {}
            #[cfg(feature = "provisioner")]
            Role::Provisioner | Role::NfsProvisioner | Role::LostNodes => {}
        }
    }
    stock.into_iter().collect()
}

/// What the chart's `rbac/ROLE.yaml` holds.
fn text(role: Role) -> Result<String> {
    let grants = grants(&[role]);
    let mut places = Map::new();
    for (name, place) in [
        ("cluster", Place::Cluster),
        ("own", Place::Own),
        ("system", Place::System),
    ] {
        let rules = rules(&grants, place);
        if !rules.is_empty() {
            let here = grants.iter().filter(|grant| grant.place == place);
            let why: Vec<_> = here.map(reason).collect();
            places.insert(name.to_owned(), json!({"rules": rules, "why": why}));
        }
    }
    let all = json!({"runsIn": runs_in(role), "places": places});
    let text = serde_yaml_ng::to_string(&all)?;
    Ok(format!(
        "# Printed by `bitts rbac`: change what the role grants itself in grants.rs, not this.\n{text}"
    ))
}

fn reason(grant: &Grant) -> String {
    let verbs: Vec<_> = grant.verbs.iter().map(|verb| verb.name()).collect();
    format!("{}: {}: {}", grant.resource, verbs.join(", "), grant.why)
}

/// The rules of a Role or ClusterRole: the grants of one place, those on the same resource as one.
pub(crate) fn rules(grants: &[Grant], place: Place) -> Vec<Value> {
    let mut merged: Vec<(Grant, BTreeSet<&str>)> = Vec::new();
    for grant in grants.iter().filter(|grant| grant.place == place) {
        let verbs = grant.verbs.iter().map(|verb| verb.name());
        let same = |(of, _): &&mut (Grant, BTreeSet<&str>)| {
            (of.group, of.resource, of.name) == (grant.group, grant.resource, grant.name)
        };
        match merged.iter_mut().find(same) {
            Some((_, known)) => known.extend(verbs),
            None => merged.push((*grant, verbs.collect())),
        }
    }
    let rule = |(grant, verbs): (Grant, BTreeSet<&str>)| {
        let mut rule = json!({
            "apiGroups": [grant.group],
            "resources": [grant.resource],
            "verbs": verbs,
        });
        if let Some(name) = grant.name {
            rule["resourceNames"] = json!([name]);
        }
        rule
    };
    merged.into_iter().map(rule).collect()
}

#[cfg(test)]
#[cfg(feature = "binder")]
mod tests {
    use super::*;

    const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/chart/bitts");

    fn read(path: &str) -> String {
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    #[test]
    fn the_chart_grants_what_the_code_asks() {
        for (name, role) in crate::cli::BUILT_IN {
            let path = format!("{CHART}/rbac/{name}.yaml");
            assert_eq!(
                read(&path),
                text(*role).unwrap(),
                "`cargo xtask chart` writes {path} anew"
            );
        }
    }

    /// What is applied without Helm was rendered from the chart; nothing may get lost on the way.
    #[test]
    fn the_manifests_grant_what_the_code_asks() {
        use serde::Deserialize as _;

        let text = read(&format!("{CHART}/../../replace-stock-attach.yaml"));
        let objects: Vec<Value> = serde_yaml_ng::Deserializer::from_str(&text)
            .map(|object| Value::deserialize(object).unwrap())
            .collect();
        let applied = |kind: &str, name: &str| {
            let wanted = |o: &&Value| o["kind"] == kind && o["metadata"]["name"] == name;
            let found = objects.iter().find(wanted);
            found.unwrap_or_else(|| panic!("no {kind} {name}"))["rules"].clone()
        };
        // The manifests are for any cloud, or none.
        let applies = |(name, _): &&(&str, Role)| *name != "cloud-attacher";
        for (name, role) in crate::cli::BUILT_IN.iter().filter(applies) {
            let grants = grants(&[*role]);
            for (place, kind, name) in [
                (Place::Cluster, "ClusterRole", format!("bitts-{name}")),
                (Place::Own, "Role", format!("bitts-{name}")),
                (Place::System, "Role", format!("bitts-{name}-start")),
            ] {
                let rules = rules(&grants, place);
                // A driver's account is in the driver's namespace, which the values name.
                let is_elsewhere = runs_in(*role) == "drivers" && place == Place::Own;
                if !rules.is_empty() && !is_elsewhere {
                    assert_eq!(applied(kind, &name), json!(rules), "{name}");
                }
            }
        }
        for object in objects.iter().filter(|o| o["kind"] == "ClusterRole") {
            let name = object["metadata"]["name"].as_str().unwrap();
            let role = name.strip_prefix("bitts-").unwrap();
            read(&format!("{CHART}/rbac/{role}.yaml"));
        }
    }

    #[test]
    fn a_resource_has_one_rule_and_no_rule_says_everything() {
        let grants = grants(&[Role::Binder]);
        let rules = rules(&grants, Place::Cluster);
        let mut seen = BTreeSet::new();
        for rule in &rules {
            assert!(!rule.to_string().contains('*'), "{rule}");
            assert!(seen.insert(rule["resources"].to_string()), "twice: {rule}");
        }
        let claims = rules
            .iter()
            .find(|r| r["resources"][0] == "persistentvolumeclaims");
        let verbs = json!(["create", "get", "list", "patch", "watch"]);
        assert_eq!(claims.map(|r| &r["verbs"]), Some(&verbs));
    }

    /// The lease is the only thing that is shared by name, and only in one namespace.
    #[test]
    fn the_lease_is_granted_by_name_except_to_make_it() {
        let rules = rules(&grants(&[Role::Binder]), Place::Own);
        let leases: Vec<_> = rules
            .iter()
            .filter(|r| r["resources"][0] == "leases")
            .collect();
        assert_eq!(leases.len(), 2, "{leases:?}");
        assert_eq!(leases[0]["verbs"], json!(["create"]));
        assert_eq!(leases[1]["resourceNames"], json!([BINDER_LEASE]));
    }

    #[cfg(feature = "attacher")]
    #[test]
    fn the_attacher_stands_in_for_one_and_what_calls_drivers_for_none() {
        let names =
            |role| -> Vec<&str> { stands_in_for(&[role]).iter().map(|c| c.name()).collect() };
        assert_eq!(
            names(Role::Attacher),
            ["persistentvolume-attach-detach-controller"]
        );
        assert!(names(Role::CsiAttacher).is_empty());
    }

    /// N1: exactly those that the binder replaces, no attach-detach and no expander.
    #[test]
    fn the_binder_stands_in_for_five() {
        let names: Vec<_> = stands_in_for(&[Role::Binder])
            .iter()
            .map(|c| c.name())
            .collect();
        assert_eq!(
            names,
            [
                "persistentvolume-binder-controller",
                "persistentvolumeclaim-protection-controller",
                "persistentvolume-protection-controller",
                "ephemeral-volume-controller",
                "volumeattributesclass-protection-controller",
            ]
        );
    }
}
