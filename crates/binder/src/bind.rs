//! The four writes that put a pair together (B20).
//!
//! The volume is the lock: once its claimRef carries the claim's uid, no other claim can take it
//! (B21). Each write is skipped when what it says is already so; hence whoever finds a pair half
//! bound, after a crash or a conflict, goes on where it stands (B22).

use bitts_api::machine::Write;
use bitts_api::{Claim, ClaimPhase, Quantity, Volume, VolumePhase, names};

use crate::writes::{self, BecomingBound};

/// What is missing for a pair to be bound.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// The volume has to be reserved: from then on the claim is committed to it.
    Reserve(Write),
    /// Another of the writes.
    Next(Write),
    /// Nothing: the pair is bound.
    Bound,
    /// The volume says no capacity that the claim could be told.
    NoCapacity,
}

/// The first of the four writes that is not yet true.
pub(crate) fn next_step(volume: &Volume, claim: &Claim) -> Step {
    let reserved = volume.is_for(claim)
        && volume
            .claim_ref
            .as_ref()
            .is_some_and(|r| r.uid.as_ref() == Some(&claim.meta.uid));
    let becoming = claim.phase != ClaimPhase::Bound;
    let capacity = claimed_capacity(volume);
    if becoming && capacity.is_none() {
        return Step::NoCapacity;
    }
    if !reserved {
        Step::Reserve(writes::reserve(volume, claim))
    } else if volume.phase != VolumePhase::Bound {
        Step::Next(writes::mark_volume_bound(volume))
    } else if claim.volume_name.as_ref() != Some(&volume.meta.name) || !claim.bind_completed() {
        Step::Next(writes::bind_claim(claim, volume))
    } else if becoming || claim.status_access_modes.known() != volume.access_modes.known() {
        let becoming = capacity.filter(|_| becoming).map(|capacity| BecomingBound {
            capacity,
            attributes_class: volume
                .attributes_class
                .as_ref()
                .filter(|_| claim.phase == ClaimPhase::Pending),
        });
        Step::Next(writes::mark_claim_bound(claim, volume, becoming))
    } else {
        Step::Bound
    }
}

/// The capacity that the claim is told: while the volume is being resized, the one from before.
fn claimed_capacity(volume: &Volume) -> Option<Quantity> {
    let before = volume.meta.annotations.get(names::PRE_RESIZE_CAPACITY);
    before
        .and_then(|text| text.parse().ok())
        .or(volume.capacity)
}
