//! Namespaces hold others: what may be put into them, and how they go.

use serde_json::Value;

use super::create::forget_fields;
use super::{Call, namespaces};
use crate::kind::Kind;
use crate::status::{About, Status};
use crate::store::{Key, State};

/// New objects need a namespace that exists and stays.
pub(super) fn accepts(state: &State, call: &Call, about: About<'_>) -> Result<(), Status> {
    if !call.kind.namespaced {
        return Ok(());
    }
    let Some(namespace) = state.get(namespaces(), &Key::new("", &call.namespace)) else {
        return Err(Status::not_found(About {
            group: "",
            what: "namespaces",
            name: &call.namespace,
        }));
    };
    if namespace["metadata"]["deletionTimestamp"].is_string() {
        return Err(Status::namespace_terminating(about, &call.namespace));
    }
    Ok(())
}

/// Some namespaces stay.
pub(super) fn may_go(kind: &Kind, about: About<'_>) -> Result<(), Status> {
    let stays = matches!(about.name, "default" | "kube-system" | "kube-public");
    if kind.plural == "namespaces" && stays {
        return Err(Status::forbidden(
            about,
            "this namespace may not be deleted",
        ));
    }
    Ok(())
}

/// Marks a namespace that is to go. It has no grace: it goes when it is empty.
pub(super) fn close(namespace: &mut Value) {
    namespace["status"]["phase"] = "Terminating".into();
    forget_fields(namespace, &["deletionGracePeriodSeconds"]);
}
