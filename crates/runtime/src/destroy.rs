//! Destructions: their reasons are read again from the API, not a cache, directly before.

use bitts_api::machine::{Destroy, Evidence, Outcome};
use bitts_api::{Claim, Object, ObjectKey, Pod, Uid, Volume};

use crate::api::{Caller, Failure};
use crate::execute::{Ended, Fact, act, compare, live};
use crate::users;

/// Executes a destruction if everything that speaks for it still holds.
pub(crate) async fn destroy(caller: &Caller, destroy: &Destroy) -> Ended {
    let target = &destroy.target;
    for evidence in &destroy.evidence {
        match check(caller, evidence).await {
            Ok(None) => {}
            Ok(Some(found)) => {
                tracing::info!(
                    role = caller.role(), step = destroy.step, %target, ?evidence,
                    "spared: the reason no longer holds"
                );
                return Ended::new(found, Outcome::Spared);
            }
            Err(failure) => return failure.into(),
        }
    }
    // Last, so that as little as possible happens between this look and the act. The act carries
    // the same precondition.
    match live(caller, &target.key).await {
        Ok(found) => match compare(target, found.as_ref()) {
            Some(other) => other,
            None => act(caller, target, (&destroy.action).into()).await,
        },
        Err(failure) => failure.into(),
    }
}

/// `None` when the evidence holds; otherwise what was found in its place.
async fn check(caller: &Caller, evidence: &Evidence) -> Result<Option<Vec<Fact>>, Failure> {
    Ok(match evidence {
        Evidence::ClaimGone(key, uid) => {
            let found = live(caller, key).await?;
            found
                .filter(|o| o.uid() == uid)
                .map(|o| vec![Fact::Seen(o)])
        }
        Evidence::ClaimAbandoned(key, uid) => match live(caller, key).await? {
            None => Some(vec![Fact::Deleted(key.clone(), uid.clone())]),
            Some(Object::Claim(claim)) if is_abandoned(&claim, uid) => None,
            Some(other) => Some(replaced(key, uid, other)),
        },
        Evidence::ClaimElsewhere(key, uid, volume) => match live(caller, key).await? {
            None => Some(vec![Fact::Deleted(key.clone(), uid.clone())]),
            Some(Object::Claim(claim)) if is_elsewhere(&claim, uid, volume) => None,
            Some(other) => Some(replaced(key, uid, other)),
        },
        Evidence::PodEnded(key, uid) => match live(caller, key).await? {
            Some(Object::Pod(pod)) if pod.meta.uid == *uid && !has_ended(&pod) => {
                Some(vec![Fact::Seen(Object::Pod(pod))])
            }
            _ => None,
        },
        Evidence::VolumeLost(name, claim) => {
            let found = live(caller, &ObjectKey::volume(name.clone())).await?;
            found
                .filter(|o| !matches!(o, Object::Volume(v) if belongs_to_another(v, claim)))
                .map(|o| vec![Fact::Seen(o)])
        }
        Evidence::ClaimUnused(claim) => {
            let users = users::of_claim(caller, claim).await?;
            (!users.is_empty()).then(|| users.into_iter().map(Fact::Seen).collect())
        }
        Evidence::AttributesClassUnused(class) => users::of_attributes_class(caller, class)
            .await?
            .map(|user| vec![Fact::Seen(user)]),
    })
}

fn is_abandoned(claim: &Claim, uid: &Uid) -> bool {
    claim.meta.uid == *uid && claim.meta.is_deleting() && !claim.bind_completed()
}

fn is_elsewhere(claim: &Claim, uid: &Uid, volume: &bitts_api::Name) -> bool {
    claim.meta.uid == *uid
        && claim
            .volume_name
            .as_ref()
            .is_some_and(|name| name != volume)
}

fn belongs_to_another(volume: &Volume, claim: &Uid) -> bool {
    let owner = volume.claim_ref.as_ref();
    owner.is_some_and(|r| r.uid.as_ref() != Some(claim))
}

fn has_ended(pod: &Pod) -> bool {
    pod.meta.is_deleting() && !pod.has_running_container
}

/// The object of this uid, or that it is gone and another one is there.
fn replaced(key: &ObjectKey, uid: &Uid, found: Object) -> Vec<Fact> {
    if found.uid() == uid {
        vec![Fact::Seen(found)]
    } else {
        vec![Fact::Deleted(key.clone(), uid.clone()), Fact::Seen(found)]
    }
}
