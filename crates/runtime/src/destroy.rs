//! Destructions: their reasons are read again from the API, not a cache, directly before.

use bitts_api::machine::{Destroy, Evidence, Outcome};
use bitts_api::{Claim, Node, NodeName, Object, ObjectKey, Pod, Uid, Volume};

use crate::api::{Answer, Call, Failure};
use crate::caller::{Caller, Slot};
use crate::execute::{
    Action, Ended, Fact, call, compare, found, get, settle, unexplained_conflict,
};
use crate::users;

/// Executes a destruction if everything that speaks for it still holds. The act is sent once for
/// each look at the evidence: when it fails, the evidence is old by the next try.
pub(crate) async fn destroy(caller: &Caller, destroy: &Destroy) -> Ended {
    let target = &destroy.target;
    let action = Action::from(&destroy.action);
    let act = match call(caller.role(), target, action) {
        Ok(act) => act,
        Err(reason) => return Ended::new(Vec::new(), Outcome::Refused(reason)),
    };
    let mut tries = caller.tries();
    loop {
        let attempt = match caller.slot().await {
            Ok(slot) => attempt(&slot, caller.role(), destroy, &act).await,
            Err(failure) => Err(failure),
        };
        let failure = match attempt {
            Ok(Attempt::Ended(ended)) => return ended,
            Ok(Attempt::Answered(Answer::Conflict)) => unexplained_conflict(target),
            Ok(Attempt::Answered(Answer::Failed(failure))) | Err(failure) => failure,
            Ok(Attempt::Answered(answer)) => return settle(caller, target, action, answer).await,
        };
        if !caller.rest(&act.path, &failure, &mut tries).await {
            return failure.into();
        }
    }
}

enum Attempt {
    /// There was nothing to be done.
    Ended(Ended),
    /// It was done, and this came of it.
    Answered(Answer),
}

/// Reads the evidence and then the target, and acts directly after that: no wait is in between.
async fn attempt(
    slot: &Slot<'_>,
    role: &'static str,
    destroy: &Destroy,
    act: &Call,
) -> Result<Attempt, Failure> {
    let target = &destroy.target;
    for evidence in &destroy.evidence {
        if let Some(found) = check(slot, evidence).await? {
            tracing::info!(
                role, step = destroy.step, %target, ?evidence,
                "spared: the reason no longer holds"
            );
            return Ok(Attempt::Ended(Ended::new(found, Outcome::Spared)));
        }
    }
    // Last, so that as little as possible happens between this look and the act. The act carries
    // the same precondition.
    let found = live(slot, &target.key).await?;
    Ok(match compare(target, found.as_ref()) {
        Some(other) => Attempt::Ended(other),
        None => Attempt::Answered(slot.send(act).await),
    })
}

async fn live(slot: &Slot<'_>, key: &ObjectKey) -> Result<Option<Object>, Failure> {
    found(key, slot.send(&get(key)).await)
}

/// `None` when the evidence holds; otherwise what was found in its place.
async fn check(slot: &Slot<'_>, evidence: &Evidence) -> Result<Option<Vec<Fact>>, Failure> {
    Ok(match evidence {
        Evidence::ClaimGone(key, uid) => {
            let found = live(slot, key).await?;
            found
                .filter(|o| o.uid() == uid)
                .map(|o| vec![Fact::Seen(o)])
        }
        Evidence::ClaimAbandoned(key, uid) => match live(slot, key).await? {
            None => Some(vec![Fact::Deleted(key.clone(), uid.clone())]),
            Some(Object::Claim(claim)) if is_abandoned(&claim, uid) => None,
            Some(other) => Some(replaced(key, uid, other)),
        },
        Evidence::ClaimElsewhere(key, uid, volume) => match live(slot, key).await? {
            None => Some(vec![Fact::Deleted(key.clone(), uid.clone())]),
            Some(Object::Claim(claim)) if is_elsewhere(&claim, uid, volume) => None,
            Some(other) => Some(replaced(key, uid, other)),
        },
        Evidence::PodEnded(key, uid) => match live(slot, key).await? {
            Some(Object::Pod(pod)) if pod.meta.uid == *uid && !has_ended(&pod) => {
                Some(vec![Fact::Seen(Object::Pod(pod))])
            }
            _ => None,
        },
        Evidence::VolumeLost(name, claim) => {
            let found = live(slot, &ObjectKey::volume(name.clone())).await?;
            found
                .filter(|o| !matches!(o, Object::Volume(v) if belongs_to_another(v, claim)))
                .map(|o| vec![Fact::Seen(o)])
        }
        Evidence::ClassAbsent(class) => {
            let found = live(slot, &ObjectKey::storage_class(class)).await?;
            found.map(|class| vec![Fact::Seen(class)])
        }
        Evidence::NodeReleased(name, uid, volume) => {
            node_of(slot, name, uid, |node| node.released(volume)).await?
        }
        Evidence::NodeOutOfService(name, uid, volume) => {
            let off = |node: &Node| node.is_out_of_service && !node.is_ready && !node.lists(volume);
            node_of(slot, name, uid, off).await?
        }
        Evidence::VolumeUnattached(volume) => users::of_volume(slot, volume)
            .await?
            .map(|attachment| vec![Fact::Seen(attachment)]),
        Evidence::NodeAbsent(name) => live(slot, &ObjectKey::node(name))
            .await?
            .map(|node| vec![Fact::Seen(node)]),
        Evidence::NodeDown(name, volume) => live(slot, &ObjectKey::node(name))
            .await?
            .filter(|found| matches!(found, Object::Node(n) if n.is_ready || n.lists(volume)))
            .map(|node| vec![Fact::Seen(node)]),
        Evidence::ClaimUnused(claim) => {
            let users = users::of_claim(slot, claim).await?;
            (!users.is_empty()).then(|| users.into_iter().map(Fact::Seen).collect())
        }
        Evidence::ClaimAtRest(claim) => {
            let users = users::that_may_run(slot, claim).await?;
            (!users.is_empty()).then(|| users.into_iter().map(Fact::Seen).collect())
        }
        Evidence::AttributesClassUnused(class) => users::of_attributes_class(slot, class)
            .await?
            .map(|user| vec![Fact::Seen(user)]),
    })
}

/// `None` when the node of this uid is as said; otherwise what was found in its place.
async fn node_of(
    slot: &Slot<'_>,
    name: &NodeName,
    uid: &Uid,
    holds: impl Fn(&Node) -> bool,
) -> Result<Option<Vec<Fact>>, Failure> {
    let key = ObjectKey::node(name);
    Ok(match live(slot, &key).await? {
        None => Some(vec![Fact::Deleted(key, uid.clone())]),
        Some(Object::Node(node)) if node.meta.uid == *uid && holds(&node) => None,
        Some(other) => Some(replaced(&key, uid, other)),
    })
}

fn is_abandoned(claim: &Claim, uid: &Uid) -> bool {
    claim.meta.uid == *uid && claim.meta.is_deleting() && claim.never_bound()
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
