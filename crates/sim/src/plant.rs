//! Bugs to plant, each between a machine and its world: that an invariant can fail is shown by the
//! bug that it guards against.

use bitts_api::machine::{Effect, Evidence, Input};
use bitts_api::{BindingMode, ClaimPhase, Object, VolumePhase};

use crate::world::{BinderEffect, BinderInput};

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bug {
    /// Claims are taken for gone, or for elsewhere, on the word of a cache.
    BelieveCacheAboutClaims,
    /// Volumes are taken for lost on the word of a cache.
    BelieveCacheAboutVolumes,
    /// Claims are taken for unused on the word of a cache.
    BelieveCacheAboutPods,
    /// Classes are taken for absent on the word of a cache.
    BelieveCacheAboutClasses,
    /// Writes go out without their preconditions.
    NoPreconditions,
    /// Delayed classes are taken for immediate ones.
    NeverDelay,
    /// Volumes that came from elsewhere are taken for ones that were bound here.
    TrustRestored,
    /// Volumes of claims that went unbound are released.
    KeepReservations,
    /// Every effect is asked for twice.
    SayTwice,
    /// Events are repeated.
    RepeatEvents,
    /// Claims are not seen until they are listed.
    OverlookClaims,
    /// Releases are said to be done and are not.
    ForgetReleases,
    /// An unchanged claim is written again and again.
    Restless,
    /// The order of effects is left to chance.
    AnyOrder,
    /// The Retain policy is read as Delete.
    IgnoreRetain,
    /// Volumes of claims that have another are said to be let go and are not.
    KeepSurplus,
    /// The next process is of a version that keeps no condition `Unused`.
    NextIsOlder,
}

impl Bug {
    /// What the machine gets to see, if anything.
    pub(crate) fn input(self, input: BinderInput) -> Option<BinderInput> {
        let change = |object: Object| match (self, object) {
            // Nothing to believe wrongly without a hole in what is known.
            (Self::BelieveCacheAboutClaims, Object::Claim(c)) if c.bind_completed() => None,
            (Self::BelieveCacheAboutVolumes, Object::Volume(v))
                if v.phase == VolumePhase::Bound && v.meta.resource_version.0 % 2 == 0 =>
            {
                None
            }
            (Self::BelieveCacheAboutPods, Object::Pod(_)) => None,
            (Self::OverlookClaims, Object::Claim(c)) if c.phase == ClaimPhase::Pending => None,
            (Self::NeverDelay, Object::StorageClass(mut class)) => {
                std::sync::Arc::make_mut(&mut class).binding_mode = BindingMode::Immediate;
                Some(Object::StorageClass(class))
            }
            (Self::TrustRestored, Object::Volume(mut volume)) => {
                if volume.phase == VolumePhase::Pending && volume.claim_ref.is_some() {
                    std::sync::Arc::make_mut(&mut volume).phase = VolumePhase::Bound;
                }
                Some(Object::Volume(volume))
            }
            (Self::IgnoreRetain, Object::Volume(mut volume)) => {
                std::sync::Arc::make_mut(&mut volume).reclaim_policy =
                    bitts_api::ReclaimPolicy::Delete;
                Some(Object::Volume(volume))
            }
            (_, object) => Some(object),
        };
        Some(match input {
            Input::Seen(object) => Input::Seen(change(object)?),
            Input::Listed(kind, all) => {
                Input::Listed(kind, all.into_iter().filter_map(change).collect())
            }
            other => other,
        })
    }

    /// What becomes of the machine's effects; `chance` comes from outside of the machine.
    pub(crate) fn effects(self, mut effects: Vec<BinderEffect>, chance: u64) -> Vec<BinderEffect> {
        match self {
            Self::AnyOrder if chance.is_multiple_of(2) => effects.reverse(),
            Self::SayTwice => {
                effects = effects.into_iter().flat_map(|e| [e.clone(), e]).collect();
            }
            Self::RepeatEvents => {
                let twice = |e: BinderEffect| match e {
                    Effect::Event(_) => vec![e.clone(), e],
                    other => vec![other],
                };
                effects = effects.into_iter().flat_map(twice).collect();
            }
            _ => {}
        }
        effects
    }

    /// Whether a piece of evidence is not read again.
    pub(crate) fn believes(self, evidence: &Evidence) -> bool {
        matches!(
            (self, evidence),
            (
                Self::BelieveCacheAboutClaims,
                Evidence::ClaimGone(..)
                    | Evidence::ClaimElsewhere(..)
                    | Evidence::ClaimAbandoned(..)
            ) | (Self::BelieveCacheAboutVolumes, Evidence::VolumeLost(..))
                | (Self::BelieveCacheAboutPods, Evidence::ClaimUnused(..))
                | (Self::BelieveCacheAboutClasses, Evidence::ClassAbsent(..))
        )
    }
}
