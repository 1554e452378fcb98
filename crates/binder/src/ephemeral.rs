//! The claims of generic ephemeral volumes: each is made for one pod, and goes with it (X9, X10).
//! That it goes is up to the garbage collector.

use bitts_api::machine::{Create, Place};
use bitts_api::{Claim, ClaimTemplate, Kind, ObjectKey, Pod, names};
use serde_json::{Map, json};

use crate::reason::Notice;

/// The step's name, also in the metrics of creations and their failures.
pub(crate) const CREATE: &str = "create-ephemeral-claim";

/// What the claim of one volume of a pod needs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// Nothing.
    Rest,
    /// It has to be made.
    Create(Create),
    /// A claim of its name is there that is not for this pod. The pod waits until it is gone.
    Clash(Notice),
}

/// Decides for one volume of a pod; `claim` is what is known at the place of its claim.
pub(crate) fn decide(pod: &Pod, template: &ClaimTemplate, claim: Option<&Claim>) -> Decision {
    match claim {
        // A pod that goes needs no claim any more.
        _ if pod.meta.is_deleting() => Decision::Rest,
        Some(claim) if claim.meta.controller.as_ref() == Some(&pod.meta.uid) => Decision::Rest,
        Some(_) => Decision::Clash(clash(pod, template)),
        None => Decision::Create(create(pod, template)),
    }
}

/// Where the claim of a volume is.
pub(crate) fn place(pod: &Pod, template: &ClaimTemplate) -> Place {
    (pod.meta.namespace.clone(), template.claim.clone())
}

fn create(pod: &Pod, template: &ClaimTemplate) -> Create {
    let (namespace, name) = place(pod, template);
    let wanted = &template.template;
    let mut metadata = Map::new();
    for part in ["labels", "annotations"] {
        if let Some(value) = wanted["metadata"].get(part) {
            metadata.insert(part.to_owned(), value.clone());
        }
    }
    metadata.insert(
        "ownerReferences".to_owned(),
        json!([{
            "apiVersion": Kind::Pod.version(),
            "kind": Kind::Pod.name(),
            "name": pod.meta.name,
            "uid": pod.meta.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }]),
    );
    Create {
        step: CREATE,
        key: ObjectKey {
            kind: Kind::Claim,
            namespace,
            name,
        },
        body: json!({"metadata": metadata, "spec": wanted["spec"]}),
    }
}

fn clash(pod: &Pod, template: &ClaimTemplate) -> Notice {
    let ClaimTemplate { volume, claim, .. } = template;
    let namespace = pod.meta.namespace.as_ref().map_or("", |n| n.as_str());
    let name = &pod.meta.name;
    failed(format!(
        "ephemeral volume {volume}: PVC {namespace}/{claim} was not created for pod \
         {namespace}/{name} (pod is not owner)"
    ))
}

/// The API does not let the claim be made. The original keeps that to its own log.
pub(crate) fn refused(template: &ClaimTemplate, text: &str) -> Notice {
    let ClaimTemplate { volume, claim, .. } = template;
    failed(format!(
        "ephemeral volume {volume}: create PVC {claim}: {text}"
    ))
}

fn failed(message: String) -> Notice {
    Notice {
        source: Some(names::source::EPHEMERAL),
        ..Notice::warning(names::reason::FAILED_BINDING, message)
    }
}
