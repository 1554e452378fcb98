//! Writes: a change of one object, valid only for the version that was decided on.

use std::time::Duration;

use bitts_api::machine::{Destruction, NOW, Outcome, Part, Target, Write};
use bitts_api::{Object, ObjectKey, Uid};
use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::api::{self, Answer, Call, Failure, JSON, MERGE_PATCH};
use crate::caller::Caller;

/// What was learned of an object on the way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fact {
    /// It is like this.
    Seen(Object),
    /// It is no more.
    Deleted(ObjectKey, Uid),
}

/// How an effect ended, and what to tell the machine before it hears of that.
#[derive(Debug, PartialEq)]
pub(crate) struct Ended {
    pub(crate) facts: Vec<Fact>,
    pub(crate) outcome: Outcome,
    /// For how long the server wants to hear no more of this.
    pub(crate) rest: Option<Duration>,
}

impl Ended {
    pub(crate) fn new(facts: Vec<Fact>, outcome: Outcome) -> Self {
        Self {
            facts,
            outcome,
            rest: None,
        }
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self {
            rest: failure.after,
            ..Self::new(Vec::new(), Outcome::Failed(failure.message))
        }
    }
}

/// What is done to an object.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action<'a> {
    Patch(Part, &'a Value),
    Delete,
}

impl<'a> From<&'a Destruction> for Action<'a> {
    fn from(destruction: &'a Destruction) -> Self {
        match destruction {
            Destruction::Patch(part, patch) => Self::Patch(*part, patch),
            Destruction::Delete => Self::Delete,
        }
    }
}

/// Executes a write, if the object still is the one that was decided on.
pub(crate) async fn write(caller: &Caller, write: &Write) -> Ended {
    let (target, action) = (&write.target, Action::Patch(write.part, &write.patch));
    let call = match call(caller.role(), target, action) {
        Ok(call) => call,
        Err(reason) => return Ended::new(Vec::new(), Outcome::Refused(reason)),
    };
    let mut tries = caller.tries();
    loop {
        let answer = caller.call(&call).await;
        if !matches!(answer, Answer::Conflict) {
            return settle(caller, target, action, answer).await;
        }
        match live(caller, &target.key).await {
            Ok(found) => {
                if let Some(changed) = compare(target, found.as_ref()) {
                    return changed;
                }
            }
            Err(failure) => return failure.into(),
        }
        // Not because of what was decided on: that still holds.
        let failure = unexplained_conflict(target);
        if !caller.rest(&call.path, &failure, &mut tries).await {
            return failure.into();
        }
    }
}

/// The API says that the target changed, and it did not.
pub(crate) fn unexplained_conflict(target: &Target) -> Failure {
    let message = format!("the API reports a conflict on {target}, which did not change");
    Failure::new("conflict", message)
}

/// How an effect ended that was answered with this.
pub(crate) async fn settle(
    caller: &Caller,
    target: &Target,
    action: Action<'_>,
    answer: Answer,
) -> Ended {
    match answer {
        Answer::Ok(body) => match (action, target.key.kind.read(&body)) {
            // The answer holds the object as it last was: whether it is gone, or waits for its
            // finalizers, only the API knows.
            (Action::Delete, _) => taken(caller, target).await,
            // Without its last finalizer an object that is being deleted is gone.
            (_, Ok(object)) if is_last_sight(&object) => taken(caller, target).await,
            (_, Ok(object)) => Ended::new(vec![Fact::Seen(object)], Outcome::Done),
            // It took effect; the watch will tell the rest.
            (_, Err(error)) => {
                tracing::error!(%target, %error, "the API's answer to a write cannot be read");
                Ended::new(Vec::new(), Outcome::Done)
            }
        },
        Answer::Missing => {
            let gone = Fact::Deleted(target.key.clone(), target.uid.clone());
            Ended::new(vec![gone], Outcome::Gone)
        }
        Answer::Refused(code, message) => {
            let reason = format!("{} ({code})", message.trim_end());
            Ended::new(Vec::new(), Outcome::Refused(reason))
        }
        Answer::Failed(failure) => failure.into(),
        Answer::NoSuchPath(message) => Failure::new("path", message).into(),
        Answer::Conflict => Ended::new(Vec::new(), Outcome::Conflict),
    }
}

fn is_last_sight(object: &Object) -> bool {
    let meta = object.meta();
    meta.is_deleting() && meta.finalizers.is_empty()
}

/// What is left of the target after it was deleted.
async fn taken(caller: &Caller, target: &Target) -> Ended {
    match live(caller, &target.key).await {
        Ok(found) => {
            let gone = Fact::Deleted(target.key.clone(), target.uid.clone());
            let facts = match found {
                None => vec![gone],
                Some(object) if *object.uid() != target.uid => vec![gone, Fact::Seen(object)],
                Some(object) => vec![Fact::Seen(object)],
            };
            Ended::new(facts, Outcome::Done)
        }
        // It took effect; the watch will tell the rest.
        Err(_) => Ended::new(Vec::new(), Outcome::Done),
    }
}

/// How an effect on `target` ends where this is what was found in its place; `None` where it can
/// go on.
pub(crate) fn compare(target: &Target, found: Option<&Object>) -> Option<Ended> {
    let gone = || Fact::Deleted(target.key.clone(), target.uid.clone());
    match found {
        None => Some(Ended::new(vec![gone()], Outcome::Gone)),
        Some(object) if *object.uid() != target.uid => Some(Ended::new(
            vec![gone(), Fact::Seen(object.clone())],
            Outcome::Gone,
        )),
        Some(object) if object.resource_version() != target.version => Some(Ended::new(
            vec![Fact::Seen(object.clone())],
            Outcome::Conflict,
        )),
        Some(_) => None,
    }
}

/// An object as it is in the API, not in a cache (no resourceVersion is given); `None` when there
/// is none.
pub(crate) async fn live(caller: &Caller, key: &ObjectKey) -> Result<Option<Object>, Failure> {
    found(key, caller.call(&get(key)).await)
}

/// A live read.
pub(crate) fn get(key: &ObjectKey) -> Call {
    Call::get(api::object(key))
}

/// What a live read found.
pub(crate) fn found(key: &ObjectKey, answer: Answer) -> Result<Option<Object>, Failure> {
    match answer {
        Answer::Ok(body) => read(key, &body).map(Some),
        Answer::Missing => Ok(None),
        answer => Err(unexpected("reading", key, answer)),
    }
}

fn read(key: &ObjectKey, body: &Bytes) -> Result<Object, Failure> {
    key.kind.read(body).map_err(|error| {
        Failure::new(
            "unreadable",
            format!("{} {key} cannot be read: {error}", key.kind.name()),
        )
    })
}

/// An answer that a read does not get when all is well.
pub(crate) fn unexpected(doing: &str, what: &ObjectKey, answer: Answer) -> Failure {
    match answer {
        Answer::Failed(failure) => failure,
        Answer::Refused(_, message) => Failure::new(
            "refused",
            format!("{doing} {} {what}: {message}", what.kind.name()),
        ),
        other => Failure::new(
            "server",
            format!("{doing} {} {what}: {other:?}", what.kind.name()),
        ),
    }
}

pub(crate) fn call(role: &str, target: &Target, action: Action<'_>) -> Result<Call, String> {
    let path = api::object(&target.key);
    let built = match action {
        Action::Patch(part, patch) => {
            let status = if part == Part::Status { "/status" } else { "" };
            let path = format!("{path}{status}?fieldManager=bitts-{role}");
            let patch = conditional(patch, target)?;
            Call::with_body(Method::PATCH, path, MERGE_PATCH, &patch)
        }
        Action::Delete => {
            let options = json!({
                "kind": "DeleteOptions",
                "apiVersion": "v1",
                "gracePeriodSeconds": 0,
                "preconditions": {
                    "uid": target.uid,
                    "resourceVersion": target.version.to_string(),
                },
            });
            Call::with_body(Method::DELETE, path, JSON, &options)
        }
    };
    built.map_err(|error| error.to_string())
}

/// The patch, valid for this object and version only.
fn conditional(patch: &Value, target: &Target) -> Result<Value, String> {
    let not_a_map = || format!("a patch of {target} is not a JSON object: this is a bug in bitts");
    let mut patch = patch.as_object().cloned().ok_or_else(not_a_map)?;
    let metadata = patch
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()))
        .as_object_mut()
        .ok_or_else(not_a_map)?;
    metadata.insert("uid".to_owned(), json!(target.uid));
    metadata.insert(
        "resourceVersion".to_owned(),
        json!(target.version.to_string()),
    );
    let mut patch = Value::Object(patch);
    stamp(&mut patch);
    Ok(patch)
}

/// Says what time it is where a condition or an error is to tell when it was written.
fn stamp(patch: &mut Value) {
    for error in ["attachError", "detachError"] {
        if let Some(time) = patch.pointer_mut(&format!("/status/{error}/time"))
            && *time == NOW
        {
            *time = json!(format!("{:.0}", Timestamp::now()));
        }
    }
    let conditions = patch.pointer_mut("/status/conditions");
    for condition in conditions
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if condition["lastTransitionTime"] == NOW {
            condition["lastTransitionTime"] = json!(format!("{:.0}", Timestamp::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use bitts_api::{Kind, ResourceVersion};

    use super::*;

    fn target() -> Target {
        Target {
            key: ObjectKey::volume("v"),
            uid: Uid::from("u-1"),
            version: ResourceVersion(7),
        }
    }

    fn volume(uid: &str, version: &str) -> Object {
        let json =
            json!({"metadata": {"name": "v", "uid": uid, "resourceVersion": version}, "spec": {}});
        Kind::Volume.read(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_patch_carries_the_uid_and_version_it_was_decided_on() {
        let patch = json!({"metadata": {"finalizers": ["x"]}, "spec": {"claimRef": null}});
        assert_eq!(
            conditional(&patch, &target()).unwrap(),
            json!({"metadata": {"finalizers": ["x"], "uid": "u-1", "resourceVersion": "7"},
                   "spec": {"claimRef": null}})
        );
        assert!(conditional(&json!([1]), &target()).is_err());
    }

    #[test]
    fn a_condition_tells_when_it_was_written() {
        let conditions = json!([
            {"type": "A", "message": NOW, "lastTransitionTime": NOW},
            {"type": "B", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ]);
        let patch = json!({"status": {"conditions": conditions}});
        let before = Timestamp::now();
        let stamped = conditional(&patch, &target()).unwrap();
        let [a, b] = &stamped["status"]["conditions"].as_array().unwrap()[..] else {
            panic!("{stamped}");
        };
        let said: Timestamp = a["lastTransitionTime"].as_str().unwrap().parse().unwrap();
        assert!(said.as_second() >= before.as_second(), "{said}");
        assert_eq!(a["message"], NOW);
        assert_eq!(*b, conditions[1]);
    }

    #[test]
    fn a26_an_error_tells_when_it_was_written() {
        let patch =
            json!({"status": {"attachError": {"message": NOW, "time": NOW}, "detachError": null}});
        let stamped = conditional(&patch, &target()).unwrap();
        let error = &stamped["status"]["attachError"];
        assert!(error["time"].as_str().unwrap().parse::<Timestamp>().is_ok());
        assert_eq!(error["message"], NOW);
        assert!(stamped["status"]["detachError"].is_null());
    }

    #[test]
    fn an_effect_goes_on_only_for_the_same_object_in_the_same_version() {
        let outcome = |found: Option<Object>| compare(&target(), found.as_ref()).map(|e| e.outcome);
        assert_eq!(outcome(Some(volume("u-1", "7"))), None);
        assert_eq!(outcome(Some(volume("u-1", "8"))), Some(Outcome::Conflict));
        assert_eq!(outcome(Some(volume("u-2", "7"))), Some(Outcome::Gone));
        assert_eq!(outcome(None), Some(Outcome::Gone));
    }

    #[test]
    fn another_object_of_the_name_is_fed_after_the_one_that_is_gone() {
        let ended = compare(&target(), Some(&volume("u-2", "9"))).unwrap();
        let gone = Fact::Deleted(ObjectKey::volume("v"), Uid::from("u-1"));
        assert_eq!(ended.facts, [gone, Fact::Seen(volume("u-2", "9"))]);
    }
}
