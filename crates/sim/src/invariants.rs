//! What must hold, whatever happens: of every write as it lands, and of the whole at rest.

use std::collections::BTreeSet;

use bitts_api::{
    Claim, ClaimPhase, Object, ObjectKey, ReclaimPolicy, StorageClass, Uid, Volume, VolumePhase,
    names,
};
use bitts_binder::misfit;

use crate::actors::{claims, delaying, is_delayed, is_made, volumes};
use crate::store::Store;

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub invariant: Invariant,
    /// What was found.
    pub found: String,
}

/// What is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Invariant {
    /// No volume goes from one claim to another without having been given back.
    OneClaimEach,
    /// No claim ends up with two volumes.
    OneVolumeEach,
    /// No volume is released, failed or deleted while its claim is there and wants it.
    DataWanted,
    /// No volume that is to be retained is deleted.
    Retained,
    /// What was reserved by hand and never bound is given back, not released.
    NeverBound,
    /// What came from elsewhere is held.
    Restored,
    /// What was provisioned goes with its claim.
    NothingLeaked,
    /// Nothing is let go while it is in use.
    Protected,
    /// No volume is chosen for a claim that waits for its first consumer.
    Delayed,
    /// A volume is given back only when its claim is gone, goes, or has another (B26).
    GivenBack,
    /// No claim is called lost while its volume is there.
    NotLost,
    /// At most one effect is in flight for an object.
    OneInFlight,
    /// The same is not told twice in a row.
    ToldOnce,
    /// All that can be satisfied is, at rest.
    Satisfied,
    /// Nothing is done at rest, and rest is reached.
    Quiet,
    /// The same inputs give the same effects.
    Deterministic,
    /// A process that dies is no reason to end elsewhere.
    SameEnd,
}

impl Invariant {
    pub(crate) fn broken(self, found: impl Into<String>) -> Broken {
        Broken {
            invariant: self,
            found: found.into(),
        }
    }
}

/// What is remembered of the past, since no object tells it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past {
    /// Every claim that there ever was.
    pub(crate) claims: BTreeSet<Uid>,
    /// Those whose binding was completed.
    pub(crate) bound: BTreeSet<Uid>,
    /// The process died: its successor cannot tell a volume that was made for a claim it never saw
    /// from one that was restored, and holds it, which it says.
    pub(crate) died: bool,
    /// Things happened (a restored API, a finalizer that nobody set) after which data may be where
    /// nobody remembers it.
    pub(crate) disturbed: bool,
    /// Ends as under kube-controller-manager.
    pub(crate) strict: bool,
}

/// Checks one write of a machine: `store` is from before it, `after` what became of the object.
pub(crate) fn landed(
    store: &Store,
    step: &str,
    key: &ObjectKey,
    after: Option<&Object>,
    past: &Past,
) -> Result<(), Broken> {
    match (store.get(key).map(|s| &s.object), after) {
        (Some(Object::Volume(before)), after) => {
            let after = match after {
                Some(Object::Volume(after)) => Some(&**after),
                _ => None,
            };
            volume_landed(store, step, before, after, past)
        }
        (Some(Object::Claim(before)), after) => claim_landed(store, before, after),
        _ => Ok(()),
    }
}

fn volume_landed(
    store: &Store,
    step: &str,
    before: &Volume,
    after: Option<&Volume>,
    past: &Past,
) -> Result<(), Broken> {
    let name = &before.meta.name;
    let uid = |v: &Volume| v.claim_ref.as_ref().and_then(|r| r.uid.clone());
    let owner = uid(before);
    let claim = owner
        .as_ref()
        .and_then(|uid| claims(store).find(|c| c.meta.uid == *uid));
    let wants = |c: &Claim| c.volume_name.is_none() || c.volume_name.as_ref() == Some(name);
    let wanted = claim.is_some_and(wants);
    let deleted = step == "delete-volume";
    let phase = after.map_or(before.phase, |v| v.phase);
    let became = |wanted: VolumePhase| phase == wanted && before.phase != wanted;
    let takes = became(VolumePhase::Released) || became(VolumePhase::Failed) || deleted;
    if takes && wanted {
        return Err(Invariant::DataWanted.broken(format!("{step} {name}: {claim:?}")));
    }
    if deleted && before.reclaim_policy == ReclaimPolicy::Retain {
        return Err(Invariant::Retained.broken(format!("{step} {name}")));
    }
    if takes && !past.strict && !past.disturbed && !is_made(before) {
        let was_here = owner.as_ref().is_some_and(|uid| past.claims.contains(uid));
        let was_bound = owner.as_ref().is_some_and(|uid| past.bound.contains(uid));
        if !was_here {
            return Err(Invariant::Restored.broken(format!("{step} {name}")));
        }
        if !was_bound {
            return Err(Invariant::NeverBound.broken(format!("{step} {name} of {owner:?}")));
        }
    }
    if step == "unprotect-volume" && before.phase == VolumePhase::Bound {
        return Err(Invariant::Protected.broken(format!("{step} {name}")));
    }
    let Some(after) = after else { return Ok(()) };
    match (owner, uid(after)) {
        (Some(old), Some(new)) if old != new => {
            return Err(Invariant::OneClaimEach.broken(format!("{step} {name}: {old} to {new}")));
        }
        (None, Some(new)) if before.claim_ref.is_none() => {
            let claim = claims(store).find(|c| c.meta.uid == new);
            let chosen = claim.filter(|c| c.volume_name.is_none());
            let class = chosen.and_then(|c| Some((c, delaying(store, c)?)));
            // A class that came after both of them came too late.
            let number = |object: Object| store.number(&object.key());
            let late = |c: &Claim, class: &StorageClass| {
                let pair = number(c.clone().into()).max(number(before.clone().into()));
                number(class.clone().into()) > pair
            };
            if class.is_some_and(|(c, class)| !late(c, class)) {
                return Err(Invariant::Delayed.broken(format!("{step} {name} for {new}")));
            }
        }
        (Some(old), None) => {
            let goes = |c: &Claim| c.meta.is_deleting() && !c.bind_completed();
            if wanted && (past.strict || !claim.is_some_and(goes)) {
                return Err(Invariant::GivenBack.broken(format!("{step} {name} of {old}")));
            }
        }
        _ => {}
    }
    Ok(())
}

fn claim_landed(store: &Store, before: &Claim, after: Option<&Object>) -> Result<(), Broken> {
    let name = &before.meta.name;
    let held = |o: &Object| {
        let finalizers = &o.meta().finalizers;
        finalizers.iter().any(|f| **f == *names::CLAIM_PROTECTION)
    };
    let was_held = held(&Object::from(before.clone()));
    if was_held && !after.is_some_and(held) {
        let user = store
            .list(bitts_api::Kind::Pod)
            .into_iter()
            .find(|o| matches!(o, Object::Pod(pod) if pod.holds(name)));
        if let Some(pod) = user {
            return Err(Invariant::Protected.broken(format!("{name} used by {}", pod.key())));
        }
    }
    let Some(Object::Claim(after)) = after else {
        return Ok(());
    };
    if after.phase == ClaimPhase::Lost && before.phase != ClaimPhase::Lost {
        let own = |v: &&Volume| {
            let owner = v.claim_ref.as_ref();
            before.volume_name.as_ref() == Some(&v.meta.name)
                && owner.is_none_or(|r| r.uid.as_ref() == Some(&before.meta.uid))
        };
        if let Some(own) = volumes(store).find(own) {
            return Err(Invariant::NotLost.broken(format!("{name} has {}", own.meta.name)));
        }
    }
    Ok(())
}

/// What must hold when everything was said and done.
pub(crate) fn at_rest(store: &Store, past: &Past) -> Result<(), Broken> {
    for claim in claims(store) {
        let name = &claim.meta.name;
        let has = |v: &&Volume| {
            let uid = v.claim_ref.as_ref().and_then(|r| r.uid.as_ref());
            uid == Some(&claim.meta.uid)
        };
        let own: Vec<_> = volumes(store).filter(has).map(|v| &v.meta.name).collect();
        if own.len() > 1 {
            return Err(Invariant::OneVolumeEach.broken(format!("{name} is on {own:?}")));
        }
        if claim.bind_completed() {
            let bound = claim.phase == ClaimPhase::Bound;
            if bound != (own.len() == 1) {
                return Err(Invariant::Satisfied.broken(format!("{claim:#?} has {own:?}")));
            }
        } else if claim.volume_name.is_none() && !claim.meta.is_deleting() {
            let delayed = is_delayed(store, claim);
            let fits = |v: &&Volume| misfit(v, claim, delayed).is_none();
            if let Some(volume) = volumes(store).find(fits) {
                let found = format!("{name} could have {}", volume.meta.name);
                return Err(Invariant::Satisfied.broken(found));
            }
        }
        if claim.meta.is_deleting() {
            let pods = store.list(bitts_api::Kind::Pod);
            let held = pods
                .iter()
                .any(|o| matches!(o, Object::Pod(p) if p.holds(name)));
            if !held {
                return Err(Invariant::Satisfied.broken(format!("{name} does not go")));
            }
        }
    }
    for volume in volumes(store) {
        let name = &volume.meta.name;
        if volume.claim_ref.is_none() && volume.phase != VolumePhase::Available {
            return Err(Invariant::Satisfied.broken(format!("{name} is not offered")));
        }
        let uid = volume.claim_ref.as_ref().and_then(|r| r.uid.as_ref());
        let owned = claims(store).any(|c| Some(&c.meta.uid) == uid);
        let reclaimed = volume.reclaim_policy == ReclaimPolicy::Delete;
        let phase = volume.phase;
        let held = past.died && phase == VolumePhase::Pending && !volume.message.is_empty();
        if is_made(volume) && uid.is_some() && !owned && reclaimed && !past.disturbed && !held {
            return Err(Invariant::NothingLeaked.broken(format!("{name}: {phase:?}")));
        }
    }
    Ok(())
}
