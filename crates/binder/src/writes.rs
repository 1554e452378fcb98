//! The patches that bitts sends, each for one half of one object (V11).

use bitts_api::machine::{Part, Target, Write};
use bitts_api::{
    Claim, ClassName, Kind, NodeName, ObjectKey, Quantity, Volume, VolumePhase, names,
};
use serde_json::{Value, json};

use crate::orders::OF_A_WIPE;

pub(crate) fn claim_key(claim: &Claim) -> ObjectKey {
    Target::of(Kind::Claim, &claim.meta).key
}

fn of_volume(step: &'static str, volume: &Volume, part: Part, patch: Value) -> Write {
    Write {
        step,
        target: Target::of(Kind::Volume, &volume.meta),
        part,
        patch,
    }
}

fn of_claim(step: &'static str, claim: &Claim, part: Part, patch: Value) -> Write {
    Write {
        step,
        target: Target::of(Kind::Claim, &claim.meta),
        part,
        patch,
    }
}

/// The first of the four writes: the volume is this claim's, by uid (B20.1).
pub(crate) fn reserve(volume: &Volume, claim: &Claim) -> Write {
    let mut patch = json!({"spec": {"claimRef": {
        "apiVersion": "v1",
        "kind": Kind::Claim.name(),
        "namespace": claim.meta.namespace,
        "name": claim.meta.name,
        "uid": claim.meta.uid,
        "resourceVersion": claim.meta.resource_version.to_string(),
    }}});
    if !volume.is_for(claim) {
        patch["metadata"] = json!({"annotations": {names::BOUND_BY_CONTROLLER: "yes"}});
    }
    of_volume("reserve-volume", volume, Part::Main, patch)
}

/// The second (B20.2).
pub(crate) fn mark_volume_bound(volume: &Volume) -> Write {
    of_volume(
        "mark-volume-bound",
        volume,
        Part::Status,
        phase(VolumePhase::Bound, None),
    )
}

/// The third (B20.3).
pub(crate) fn bind_claim(claim: &Claim, volume: &Volume) -> Write {
    let mut patch = json!({"metadata": {"annotations": {names::BIND_COMPLETED: "yes"}}});
    if claim.volume_name.as_ref() != Some(&volume.meta.name) {
        patch["metadata"]["annotations"][names::BOUND_BY_CONTROLLER] = "yes".into();
        patch["spec"] = json!({"volumeName": volume.meta.name});
    }
    of_claim("bind-claim", claim, Part::Main, patch)
}

/// The fourth (B20.4). `becoming`: what is only written when the phase changes.
pub(crate) fn mark_claim_bound(
    claim: &Claim,
    volume: &Volume,
    becoming: Option<BecomingBound<'_>>,
) -> Write {
    let mut status = json!({"phase": "Bound", "accessModes": volume.access_modes});
    if let Some(BecomingBound {
        capacity,
        attributes_class,
    }) = becoming
    {
        status["capacity"] = json!({"storage": capacity});
        if let Some(class) = attributes_class {
            status["currentVolumeAttributesClassName"] = json!(class);
        }
    }
    of_claim(
        "mark-claim-bound",
        claim,
        Part::Status,
        json!({"status": status}),
    )
}

/// What a claim's status is told once, when it becomes Bound.
pub(crate) struct BecomingBound<'a> {
    pub(crate) capacity: Quantity,
    pub(crate) attributes_class: Option<&'a ClassName>,
}

/// A claim that has no volume: nothing is left in its status of one that it may have had (B11, B18).
pub(crate) fn mark_claim_without_volume(
    step: &'static str,
    claim: &Claim,
    phase: bitts_api::ClaimPhase,
) -> Write {
    of_claim(
        step,
        claim,
        Part::Status,
        json!({"status": {
            "phase": phase.as_str(),
            "accessModes": null,
            "capacity": null,
            "currentVolumeAttributesClassName": null,
        }}),
    )
}

/// A claim that said nothing about its class gets the default one (B10.1).
pub(crate) fn set_default_class(claim: &Claim, class: &ClassName) -> Write {
    of_claim(
        "set-default-class",
        claim,
        Part::Main,
        json!({"spec": {"storageClassName": class}}),
    )
}

/// Asks an external provisioner for a volume (P4).
pub(crate) fn ask_provisioner(claim: &Claim, provisioner: &str) -> Write {
    let mut annotations = json!({
        names::STORAGE_PROVISIONER: provisioner,
        names::BETA_STORAGE_PROVISIONER: provisioner,
    });
    if claim.meta.annotations.has(names::MIGRATED_TO) {
        annotations[names::MIGRATED_TO] = Value::Null; // B8.1: a driver itself was not taken over
    }
    let patch = json!({"metadata": {"annotations": annotations}});
    of_claim("ask-provisioner", claim, Part::Main, patch)
}

pub(crate) fn mark_available(volume: &Volume) -> Write {
    of_volume(
        "mark-volume-available",
        volume,
        Part::Status,
        phase(VolumePhase::Available, None),
    )
}

/// A volume's phase; the message goes with it, and an earlier one does not outlive it (B27).
pub(crate) fn phase(phase: VolumePhase, message: Option<&str>) -> Value {
    json!({"status": {"phase": phase.as_str(), "message": message}})
}

/// A volume that is left alone says why (amended §13.13).
pub(crate) fn held(message: &str) -> Value {
    json!({"status": {"message": message}})
}

/// Asks a node's agent to wipe the volume (D8).
pub(crate) fn wipe(node: &NodeName) -> Value {
    json!({"metadata": {"annotations": {
        names::RECYCLE_ON: node,
        names::RECYCLED: null,
        names::RECYCLE_FAILED: null,
    }}})
}

/// Gives a volume back that was wiped (D8).
pub(crate) fn recycled(volume: &Volume) -> Value {
    let mut patch = unbind(volume);
    for name in OF_A_WIPE {
        patch["metadata"]["annotations"][name] = Value::Null;
    }
    patch
}

/// Lets go of a volume whose data nothing here deletes any more.
pub(crate) fn without_finalizer(volume: &Volume, finalizer: &str) -> Value {
    let rest: Vec<&str> = volume.meta.finalizers.iter().map(|f| &**f).collect();
    let rest: Vec<&str> = rest.into_iter().filter(|f| *f != finalizer).collect();
    json!({"metadata": {"finalizers": rest}})
}

/// Gives a volume back (B26): what the binder reserved is nobody's again; where a user named the
/// claim, only the uid goes.
pub(crate) fn unbind(volume: &Volume) -> Value {
    if volume.meta.annotations.has(names::BOUND_BY_CONTROLLER) {
        json!({
            "metadata": {"annotations": {names::BOUND_BY_CONTROLLER: null}},
            "spec": {"claimRef": null},
        })
    } else {
        json!({"spec": {"claimRef": {"uid": null}}})
    }
}
