//! Protection: a claim stays while a pod refers to it, a volume while it is bound (X1 to X7).

use bitts_api::machine::{Destroy, Destruction, Evidence, Part, Target, Write};
use bitts_api::{Claim, Kind, Meta, ObjectKey, Volume, VolumePhase, names};
use serde_json::{Value, json};

pub(crate) const PROTECT_CLAIM: &str = "protect-claim";
pub(crate) const PROTECT_VOLUME: &str = "protect-volume";

/// What protection asks of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Protection {
    /// The finalizer is missing and has to be added.
    Add(Write),
    /// Deletion was asked for and nothing uses the object any more.
    Lift(Destroy),
}

/// Protects a claim from its creation (X2) until no scheduled pod refers to it (X3); `used` is what
/// the pods seen so far say. That none does is read again, live, before the finalizer goes (X4).
pub(crate) fn of_claim(claim: &Claim, used: bool) -> Option<Protection> {
    let target = Target::of(Kind::Claim, &claim.meta);
    let held = holds(&claim.meta, names::CLAIM_PROTECTION);
    match (claim.meta.is_deleting(), held) {
        (false, false) => Some(Protection::Add(Write {
            step: PROTECT_CLAIM,
            target,
            part: Part::Main,
            patch: with(&claim.meta, names::CLAIM_PROTECTION),
        })),
        (true, true) if !used => {
            let key: ObjectKey = target.key.clone();
            Some(Protection::Lift(Destroy {
                step: "unprotect-claim",
                target,
                action: Destruction::Patch(
                    Part::Main,
                    without(&claim.meta, names::CLAIM_PROTECTION),
                ),
                evidence: vec![Evidence::ClaimUnused(key)],
            }))
        }
        _ => None,
    }
}

/// Protects a volume from its creation until it is not bound (X7). One whose claim names it counts
/// as bound even while its phase does not say so yet (section 13, weakness 27). One that is only
/// reserved goes: its claim finds another.
pub(crate) fn of_volume(volume: &Volume, claim_names_it: bool) -> Option<Protection> {
    let target = Target::of(Kind::Volume, &volume.meta);
    let held = holds(&volume.meta, names::VOLUME_PROTECTION);
    match (volume.meta.is_deleting(), held) {
        (false, false) => Some(Protection::Add(Write {
            step: PROTECT_VOLUME,
            target,
            part: Part::Main,
            patch: with(&volume.meta, names::VOLUME_PROTECTION),
        })),
        (true, true) if volume.phase != VolumePhase::Bound && !claim_names_it => {
            Some(Protection::Lift(Destroy {
                step: "unprotect-volume",
                target,
                action: Destruction::Patch(
                    Part::Main,
                    without(&volume.meta, names::VOLUME_PROTECTION),
                ),
                // The phase is the volume's own, and it is read live with its version.
                evidence: Vec::new(),
            }))
        }
        _ => None,
    }
}

pub(crate) fn holds(meta: &Meta, finalizer: &str) -> bool {
    meta.finalizers.iter().any(|f| **f == *finalizer)
}

pub(crate) fn with(meta: &Meta, finalizer: &str) -> Value {
    let mut all: Vec<&str> = meta.finalizers.iter().map(|f| &**f).collect();
    all.push(finalizer);
    json!({"metadata": {"finalizers": all}})
}

pub(crate) fn without(meta: &Meta, finalizer: &str) -> Value {
    let rest: Vec<&str> = meta
        .finalizers
        .iter()
        .map(|f| &**f)
        .filter(|f| *f != finalizer)
        .collect();
    json!({"metadata": {"finalizers": rest}})
}
