//! What is to be done for a volume (B24 to B28).

use bitts_api::machine::{Evidence, Place};
use bitts_api::{
    Claim, ClaimRef, NodeName, ObjectKey, ReclaimPolicy, Uid, Volume, VolumePhase, names,
};

use crate::known::Known;
use crate::operations::UNKNOWN;
use crate::options::{Difference, Options};
use crate::reason::Notice;
use crate::reclaim::{Failure, HOST_PATH, Reclaim, reclaim};
use crate::recycle::{self, Recycling};

/// What a volume needs now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// Nothing, or nothing that is for the volume to start.
    Rest,
    /// Nothing can be done now, and the user is told why.
    Tell(Notice),
    /// It is nobody's: offer it (B24.1).
    Offer,
    /// Its claim names it: it is bound (B24.6).
    Bind,
    /// It is reserved for a claim that it cannot serve (B24.5).
    Mismatch,
    /// It came from elsewhere with the uid of a claim that does not exist here: say so in its
    /// status, and leave it alone.
    Hold(Evidence),
    /// Its claim is gone (B25) or has another volume, and it was made for that claim (B26).
    Release(Evidence),
    /// Give it back (B26).
    Unbind(Evidence),
    /// It is Released and cannot be reclaimed.
    Fail(Evidence, Failure),
    /// Its object is deleted, its data is not.
    Drop(Evidence),
    /// Ask the agent of this node to wipe it.
    Wipe(Vec<Evidence>, NodeName),
    /// It was wiped: give it back.
    Recycled(Evidence),
}

/// Decides for a volume from what is known. That a claim is gone is only suspected here: the
/// evidence is read live before anything is done about it.
pub(crate) fn decide(volume: &Volume, known: &Known, options: &Options) -> Decision {
    let lacks = volume.claim_ref.as_ref().and_then(ClaimRef::lacks);
    let incomplete = lacks.map(|lacks| Notice::incomplete_claim_ref(&volume.meta.name, lacks));
    let Some((claim_ref, uid)) = owner(volume) else {
        return match incomplete {
            _ if volume.phase != VolumePhase::Available => Decision::Offer,
            Some(notice) => Decision::Tell(notice),
            None => Decision::Rest,
        };
    };
    if let Some(notice) = incomplete {
        return Decision::Tell(notice);
    }
    let place: Place = (Some(claim_ref.namespace.clone()), claim_ref.name.clone());
    let key = ObjectKey::claim(claim_ref.namespace.clone(), claim_ref.name.clone());
    let Some(claim) = known.claim(&place).filter(|claim| claim.meta.uid == *uid) else {
        let gone = Evidence::ClaimGone(key, uid.clone());
        let hand_made = !is_provisioned(volume);
        let give_back = options.differs(Difference::GiveBack) && hand_made;
        let held = options.differs(Difference::HoldRestored)
            && !volume.meta.annotations.has(names::RECLAIM);
        let was_here = known.went_unbound(uid);
        return match volume.phase {
            VolumePhase::Pending if was_here && give_back => Decision::Unbind(gone),
            VolumePhase::Pending if !was_here && held => Decision::Hold(gone),
            VolumePhase::Available if give_back => Decision::Unbind(gone),
            _ => released(volume, gone, known, options),
        };
    };
    if is_abandoned(claim, known, options) && !is_provisioned(volume) {
        return Decision::Unbind(Evidence::ClaimAbandoned(key, uid.clone()));
    }
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
            let provisioned = volume.meta.annotations.has(names::PROVISIONED_BY);
            if provisioned && volume.reclaim_policy == ReclaimPolicy::Delete {
                released(volume, elsewhere, known, options)
            } else {
                Decision::Unbind(elsewhere)
            }
        }
    }
}

/// The claim is being deleted, no pod holds it, and its binding was never completed: what is
/// reserved for it was never used, and goes back before the claim goes. The claim, which stays as
/// long as its finalizer does, is the record of that ([`Claim::never_bound`]).
pub(crate) fn is_abandoned(claim: &Claim, known: &Known, options: &Options) -> bool {
    options.differs(Difference::GiveBack)
        && claim.meta.is_deleting()
        && claim.never_bound()
        && !known.is_used(&claim.meta.place())
}

/// Whose work it is to delete the volume, where its claim is gone and it is to be deleted (D14).
pub(crate) fn deleter<'a>(volume: &Volume, known: &'a Known, options: &Options) -> Option<&'a str> {
    let (claim_ref, uid) = owner(volume)?;
    let place = (Some(claim_ref.namespace.clone()), claim_ref.name.clone());
    let has_claim = known.claim(&place).is_some_and(|c| c.meta.uid == *uid);
    let migrated = volume.meta.annotations.has(names::MIGRATED_TO);
    if volume.reclaim_policy != ReclaimPolicy::Delete
        || !matches!(volume.phase, VolumePhase::Released | VolumePhase::Failed)
        || has_claim
        || migrated
    {
        return None;
    }
    let class = volume.class.as_ref().and_then(|class| known.class(class));
    Some(match reclaim(volume, options) {
        Reclaim::DropObject => HOST_PATH,
        Reclaim::LeaveToMaker => class.map_or(UNKNOWN, |class| &class.provisioner),
        _ => UNKNOWN,
    })
}

/// Whether the volume has to go back before this claim, which is abandoned, may go.
pub(crate) fn goes_back(volume: &Volume, claim: &Claim) -> bool {
    !is_provisioned(volume)
        && volume
            .claim_ref
            .as_ref()
            .is_some_and(|r| r.uid.as_ref() == Some(&claim.meta.uid))
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
fn released(volume: &Volume, evidence: Evidence, known: &Known, options: &Options) -> Decision {
    if !matches!(volume.phase, VolumePhase::Released | VolumePhase::Failed) {
        return Decision::Release(evidence);
    }
    let failed = volume.phase == VolumePhase::Failed;
    let fresh = options.differs(Difference::FreshFailure);
    let fail = |evidence, failure: Failure| {
        // The original writes a message only with a phase (B27).
        if failed && !(fresh && *volume.message != *failure.notice().message) {
            Decision::Rest
        } else {
            Decision::Fail(evidence, failure)
        }
    };
    match reclaim(volume, options) {
        Reclaim::Keep if failed && fresh => Decision::Release(evidence),
        // Its maker deletes what is Released (D10), not what failed here. What the maker itself
        // says stays.
        Reclaim::LeaveToMaker if failed && fresh && Failure::was_told(&volume.message) => {
            Decision::Release(evidence)
        }
        Reclaim::Keep | Reclaim::LeaveToMaker => Decision::Rest,
        Reclaim::Fail(failure) => fail(evidence, failure),
        Reclaim::DropObject => Decision::Drop(evidence),
        Reclaim::Recycle => match recycle::decide(volume, known, options) {
            Recycling::Wait => Decision::Rest,
            Recycling::Refuse(notice) => Decision::Tell(notice),
            Recycling::Fail(failure) => fail(evidence, failure),
            Recycling::Ask(node, pods) => {
                Decision::Wipe([evidence].into_iter().chain(pods).collect(), node)
            }
            Recycling::Done => Decision::Recycled(evidence),
        },
    }
}
