//! What each role asks of access control, gathered from the crates that need it, and the RBAC
//! objects made of that.

use std::collections::BTreeSet;

use bitts_api::StockController;
use bitts_api::grant::{Grant, Place};
use serde_json::{Value, json};

use crate::cli::Role;
use crate::preflight;

/// The name of the binder's lease.
pub(crate) const BINDER_LEASE: &str = "bitts-binder";

/// What these roles need, events, lease and start-up check included.
pub(crate) fn grants(roles: &[Role]) -> Vec<Grant> {
    let mut grants = Vec::new();
    for role in roles {
        match role {
            Role::Binder => {
                grants.extend(bitts_binder::grants());
                grants.extend(bitts_runtime::lease_grants(BINDER_LEASE));
                grants.extend(preflight::grants());
            }
            #[cfg(feature = "agent")]
            Role::Agent => grants.extend(bitts_agent::grants()),
            #[cfg(feature = "provisioner")]
            Role::Provisioner => grants.extend(bitts_provisioner::grants()),
        }
    }
    grants.extend(bitts_runtime::event_grants());
    grants
}

/// The stock controllers whose work these roles do.
pub(crate) fn stands_in_for(roles: &[Role]) -> Vec<StockController> {
    let mut stock = BTreeSet::new();
    for role in roles {
        match role {
            Role::Binder => stock.extend(bitts_binder::stands_in_for()),
            #[cfg(feature = "agent")]
            Role::Agent => {}
            #[cfg(feature = "provisioner")]
            Role::Provisioner => {}
        }
    }
    stock.into_iter().collect()
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
mod tests {
    use super::*;

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
