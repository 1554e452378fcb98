//! Whether two worlds ended in the same way.
//!
//! What has to be equal is all that objects say but their versions. Which of several volumes a claim
//! gets, or which of several claims a volume, depends on who comes first (the contract leaves that
//! open), and a new process looks at everything in another order. Hence excused, and counted, are
//! claims that have another volume, or none, and volumes that have another owner, or are gone or
//! there because of that; what holds of those is said by the invariants at rest. So are claims that
//! were given the default class, which was another one by the time the new process began, their
//! pods, and volumes that are held.

use std::collections::BTreeMap;

use bitts_api::{Kind, Object, ObjectKey, ReclaimPolicy, Source, Volume, VolumePhase, names};
use serde_json::Value;

use crate::actors::is_made;
use crate::invariants::{Broken, Invariant};
use crate::store::{Store, Stored};

/// Returns whether claims have the same volumes in both.
pub(crate) fn compare(whole: &Store, cut: &Store) -> Result<bool, Broken> {
    let [one, other] = [whole, cut].map(|store| store.iter().collect::<BTreeMap<_, _>>());
    let mut same = true;
    for key in one.keys().chain(other.keys()) {
        let (a, b) = (one.get(key).copied(), other.get(key).copied());
        if a.map(said) == b.map(said) {
            continue;
        }
        if !is_excused(key, a, b) && !is_user_of_excused(whole, cut, a.or(b)) {
            let [a, b] = [a, b].map(|stored| stored.map(said).unwrap_or_default());
            return Err(Invariant::SameEnd.broken(format!("{key}\nwhole {a}\ncut   {b}")));
        }
        same = false;
    }
    Ok(same)
}

/// What an object says.
fn said(stored: &Stored) -> Value {
    let mut json = Value::clone(&stored.json);
    let cleared = json["spec"].get("claimRef").is_none();
    let annotations = json.pointer_mut("/metadata/annotations");
    if let Some(annotations) = annotations
        .and_then(Value::as_object_mut)
        .filter(|_| cleared)
    {
        // Who clears the claimRef by hand leaves it; the next bind that is given up takes it along.
        annotations.remove(names::BOUND_BY_CONTROLLER);
    }
    if let Some(meta) = json["metadata"].as_object_mut() {
        meta.remove("resourceVersion");
        // A claim made for a pod that was gone already is made again for the next one.
        meta.remove("uid");
        // What was there and was taken away leaves an empty map.
        meta.retain(|_, value| value.as_object().is_none_or(|all| !all.is_empty()));
    }
    if let Some(owner) = json["spec"].get_mut("claimRef") {
        // Given back, it keeps what the binder wrote beside the uid.
        let uid = owner.get("uid").and_then(Value::as_str);
        *owner = uid.map(|uid| place_of(uid).into()).unwrap_or_default();
    }
    json
}

/// Where the object of a uid is or was.
fn place_of(uid: &str) -> &str {
    uid.rsplit_once('.').map_or(uid, |(place, _)| place)
}

fn is_excused(key: &ObjectKey, whole: Option<&Stored>, cut: Option<&Stored>) -> bool {
    let pair = [whole, cut].map(|stored| stored.and_then(pair_of));
    match key.kind {
        Kind::Claim => {
            let class =
                [whole, cut].map(|stored| stored.map(|s| &s.json["spec"]["storageClassName"]));
            whole.is_some() && cut.is_some() && (pair[0] != pair[1] || class[0] != class[1])
        }
        Kind::Volume => {
            let drops = |v: &Volume| {
                matches!(v.source, Source::HostPath { .. })
                    && v.reclaim_policy == ReclaimPolicy::Delete
            };
            let made = |stored: &Stored| matches!(&stored.object, Object::Volume(v) if is_made(v) || drops(v));
            let absent = whole.is_none() || cut.is_none();
            if absent {
                whole.or(cut).is_some_and(made)
            } else {
                pair[0] != pair[1] || cut.is_some_and(is_held)
            }
        }
        _ => false,
    }
}

/// A pod gets its node once its claims have volumes.
fn is_user_of_excused(whole: &Store, cut: &Store, user: Option<&Stored>) -> bool {
    let Some(Object::Pod(pod)) = user.map(|stored| &stored.object) else {
        return false;
    };
    let namespace = pod
        .meta
        .namespace
        .clone()
        .unwrap_or_else(|| "default".into());
    pod.claims().any(|name| {
        let key = ObjectKey::claim(namespace.clone(), name.clone());
        is_excused(&key, whole.get(&key), cut.get(&key))
    })
}

/// Which other object this one has.
fn pair_of(stored: &Stored) -> Option<String> {
    match &stored.object {
        Object::Claim(claim) => {
            let volume = claim
                .volume_name
                .as_ref()
                .filter(|_| claim.bind_completed());
            Some(volume?.to_string())
        }
        Object::Volume(volume) => Some(volume.claim_ref.as_ref()?.uid.as_ref()?.to_string()),
        _ => None,
    }
}

/// Its claim came and went before the next process began, so that one cannot tell whether it was
/// made here: it says so, and waits.
fn is_held(stored: &Stored) -> bool {
    matches!(&stored.object, Object::Volume(volume)
        if volume.phase == VolumePhase::Pending && !volume.message.is_empty())
}
