//! What is to be done for a volume (B24 to B28).

use bitts_api::machine::{Evidence, Place};
use bitts_api::{ClaimRef, ObjectKey, ReclaimPolicy, Uid, Volume, VolumePhase, names};

use crate::known::Known;
use crate::reclaim::{Failure, Reclaim, reclaim};

/// What a volume needs now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// Nothing, or nothing that is for the volume to start.
    Rest,
    /// It is nobody's: offer it (B24.1).
    Offer,
    /// Its claim names it: it is bound (B24.6).
    Bind,
    /// It is reserved for a claim that it cannot serve (B24.5).
    Mismatch,
    /// It came from elsewhere with the uid of a claim that does not exist here.
    Hold,
    /// Its claim is gone (B25) or has another volume, and it was made for that claim (B26).
    Release(Evidence),
    /// Give it back (B26).
    Unbind(Evidence),
    /// It is Released and cannot be reclaimed.
    Fail(Evidence, Failure),
}

/// Decides for a volume from what is known. That a claim is gone is only suspected here: the
/// evidence is read live before anything is done about it.
pub(crate) fn decide(volume: &Volume, known: &Known, hold_restored: bool) -> Decision {
    let Some((claim_ref, uid)) = owner(volume) else {
        return if volume.phase == VolumePhase::Available {
            Decision::Rest
        } else {
            Decision::Offer
        };
    };
    let place: Place = (Some(claim_ref.namespace.clone()), claim_ref.name.clone());
    let key = ObjectKey::claim(claim_ref.namespace.clone(), claim_ref.name.clone());
    let Some(claim) = known.claim(&place).filter(|claim| claim.meta.uid == *uid) else {
        let gone = Evidence::ClaimGone(key, uid.clone());
        return match volume.phase {
            VolumePhase::Pending if hold_restored && !known.was_asked_for(uid) => Decision::Hold,
            VolumePhase::Available if !is_provisioned(volume) => Decision::Unbind(gone),
            _ => released(volume, gone),
        };
    };
    match &claim.volume_name {
        None if claim.volume_mode != volume.volume_mode => Decision::Mismatch,
        None => Decision::Rest,
        Some(name) if *name == volume.meta.name => {
            if volume.phase == VolumePhase::Bound {
                Decision::Rest
            } else {
                Decision::Bind
            }
        }
        Some(_) => {
            let elsewhere = Evidence::ClaimElsewhere(key, uid.clone(), volume.meta.name.clone());
            if is_provisioned(volume) && volume.reclaim_policy == ReclaimPolicy::Delete {
                released(volume, elsewhere)
            } else {
                Decision::Unbind(elsewhere)
            }
        }
    }
}

/// The claim that the volume belongs to; one that is only reserved belongs to nobody yet.
fn owner(volume: &Volume) -> Option<(&ClaimRef, &Uid)> {
    let claim_ref = volume.claim_ref.as_ref()?;
    Some((claim_ref, claim_ref.uid.as_ref()?))
}

/// Made for a claim, not by hand: then it is deleted with the claim even if it was never bound.
fn is_provisioned(volume: &Volume) -> bool {
    let annotations = &volume.meta.annotations;
    annotations.has(names::PROVISIONED_BY) || annotations.has(names::MIGRATED_TO)
}

/// First Released, then what the policy says; a failure stays visible (B25, D7).
fn released(volume: &Volume, evidence: Evidence) -> Decision {
    match volume.phase {
        VolumePhase::Failed => Decision::Rest,
        VolumePhase::Released => match reclaim(volume) {
            Reclaim::Leave => Decision::Rest,
            Reclaim::Fail(failure) => Decision::Fail(evidence, failure),
        },
        VolumePhase::Pending | VolumePhase::Available | VolumePhase::Bound => {
            Decision::Release(evidence)
        }
    }
}
