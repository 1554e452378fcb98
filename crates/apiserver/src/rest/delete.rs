//! Delete: at once, after a grace, or when the last finalizer is gone.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Page;
use super::params::{about, unsupported};
use super::{Call, Core, Reply, decode, namespace};
use crate::entropy::seconds;
use crate::kind::Kind;
use crate::status::{About, Cause, Status};
use crate::store::{Key, State, TableId};

/// The finalizer by which an owner waits for its dependents.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer by which an owner first lets its dependents go.
pub(crate) const ORPHAN: &str = "orphan";

/// What the API calls the options of a delete.
const OPTIONS: &str = "DeleteOptions";

/// The body of a delete.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DeleteOptions {
    grace_period_seconds: Option<i64>,
    preconditions: Preconditions,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    dry_run: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

impl DeleteOptions {
    /// Only this very object, its dependents later.
    pub(crate) fn of_uid(uid: &str) -> Self {
        let mut options = Self::default();
        options.preconditions.uid = Some(uid.to_owned());
        options
    }

    fn read(call: &Call, body: &Bytes) -> Result<Self, Status> {
        let mut options = if body.is_empty() {
            Self::default()
        } else {
            let body = decode::any(call, body)?;
            serde_json::from_value(body)
                .map_err(|error| Status::bad_request(format!("DeleteOptions: {error}")))?
        };
        let params = &call.params;
        options.grace_period_seconds = options.grace_period_seconds.or(params.grace);
        options.orphan_dependents = options.orphan_dependents.or(params.orphan_dependents);
        if options.propagation_policy.is_none() {
            options.propagation_policy.clone_from(&params.propagation);
        }
        if params.dry_run {
            options.dry_run = vec!["All".to_owned()];
        }
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<(), Status> {
        let cause = match (self.propagation_policy.as_deref(), self.orphan_dependents) {
            (Some(policy), Some(_)) => Cause::new(
                "FieldValueInvalid",
                "propagationPolicy",
                format!(
                    "Invalid value: \"{policy}\": orphanDependents and deletionPropagation cannot be both set"
                ),
            ),
            (None | Some("Foreground" | "Background" | "Orphan"), _) => return Ok(()),
            (Some(other), _) => {
                let known = ["Foreground", "Background", "Orphan", "nil"];
                let given = format!("\"{other}\"");
                return Err(unsupported(OPTIONS, "propagationPolicy", given, &known));
            }
        };
        Err(Status::invalid(about(OPTIONS), &[cause]))
    }

    fn policy(&self) -> Option<&str> {
        match self.orphan_dependents {
            Some(true) => Some("Orphan"),
            Some(false) => Some("Background"),
            None => self.propagation_policy.as_deref(),
        }
    }

    fn hold(&self, about: About<'_>, object: &Value) -> Result<(), Status> {
        for (what, wanted, is, fate) in [
            (
                "UID",
                &self.preconditions.uid,
                &object["metadata"]["uid"],
                "deleted and then recreated",
            ),
            (
                "ResourceVersion",
                &self.preconditions.resource_version,
                &object["metadata"]["resourceVersion"],
                "modified",
            ),
        ] {
            let is = is.as_str().unwrap_or_default();
            if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != is) {
                let why = format!(
                    "the {what} in the precondition ({wanted}) does not match the {what} in record ({is}). The object might have been {fate}"
                );
                return Err(Status::conflict(about, why));
            }
        }
        Ok(())
    }
}

/// What a delete has led to.
#[derive(Debug)]
pub(crate) enum Deleted {
    /// The object is gone; this was its last state.
    Gone(Arc<Value>),
    /// The object waits for its finalizers or its grace.
    Marked(Arc<Value>),
}

impl Core {
    pub(super) fn delete(&self, call: &Call, body: &Bytes) -> Result<Reply, Status> {
        let options = DeleteOptions::read(call, body)?;
        let deleted = self.delete_one(&mut self.store.write(), call.kind, &call.key(), &options)?;
        Ok(match deleted {
            Deleted::Gone(object) if call.kind.returns_deleted => {
                Reply::object(StatusCode::OK, object)
            }
            Deleted::Gone(object) => Reply::Success(StatusCode::OK, success(call, &object)),
            Deleted::Marked(object) if options.orphan_dependents == Some(false) => {
                Reply::object(StatusCode::ACCEPTED, object)
            }
            Deleted::Marked(object) => Reply::object(StatusCode::OK, object),
        })
    }

    pub(super) fn delete_collection(&self, call: &Call, body: &Bytes) -> Result<Reply, Status> {
        let options = DeleteOptions::read(call, body)?;
        let mut state = self.store.write();
        let keys: Vec<Key> = state
            .scan(call.table(), call.namespace_filter(), None)
            .filter(|(_, object)| call.params.selection.matches(object))
            .map(|(key, _)| key.clone())
            .collect();
        let mut page = Page::default();
        for key in keys {
            let (Deleted::Gone(object) | Deleted::Marked(object)) =
                self.delete_one(&mut state, call.kind, &key, &options)?;
            page.items.push(object);
        }
        page.revision = state.revision();
        Ok(Reply::List(page))
    }

    pub(crate) fn delete_one(
        &self,
        state: &mut State,
        kind: &'static Kind,
        key: &Key,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        let table = TableId::of(kind);
        let about = About {
            group: kind.group,
            what: kind.plural,
            name: &key.name,
        };
        let object = state
            .get(table, key)
            .ok_or_else(|| Status::not_found(about))?;
        options.hold(
            About {
                what: kind.kind,
                ..about
            },
            object,
        )?;
        namespace::may_go(kind, about)?;
        let mut marked = Value::clone(object);
        set_finalizers(&mut marked, options.policy());
        let grace = grace(kind, object, options.grace_period_seconds);
        mark(&mut marked, grace, self.clock.now());
        if kind.plural == "namespaces" {
            namespace::close(&mut marked);
        }
        let unchanged = marked == **object;
        let dry_run = !options.dry_run.is_empty();
        if is_done(&marked) {
            let gone = if dry_run {
                Some(Arc::clone(object))
            } else {
                // Watchers of what could have had time see the mark before the end.
                if kind.graceful && !unchanged {
                    state.put(table, marked);
                }
                state.remove(table, key)
            };
            return gone
                .map(Deleted::Gone)
                .ok_or_else(|| Status::not_found(about));
        }
        Ok(Deleted::Marked(if dry_run || unchanged {
            Arc::new(marked)
        } else {
            state.put(table, marked)
        }))
    }
}

/// Whether nothing keeps an object that is to be deleted.
pub(crate) fn is_done(object: &Value) -> bool {
    let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    object["metadata"]["deletionTimestamp"].is_string()
        && object["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or_default()
            == 0
        && empty(&object["metadata"]["finalizers"])
        && (object["kind"] != "Namespace" || empty(&object["spec"]["finalizers"]))
}

/// How long the object may stay, in seconds: pods that run get time, all else goes at once.
fn grace(kind: &Kind, object: &Value, asked: Option<i64>) -> i64 {
    let on_a_node = object["spec"]["nodeName"]
        .as_str()
        .is_some_and(|node| !node.is_empty());
    let ended = matches!(
        object["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    if (kind.group, kind.plural) != ("", "pods") || !on_a_node || ended {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_i64();
    match asked.or(own).unwrap_or(30) {
        negative if negative < 0 => 1,
        grace => grace,
    }
}

fn set_finalizers(object: &mut Value, policy: Option<&str>) {
    let Some(policy) = policy else {
        return;
    };
    let list = object["metadata"]["finalizers"].as_array();
    let mut finalizers: Vec<Value> = list.into_iter().flatten().cloned().collect();
    finalizers.retain(|finalizer| finalizer != FOREGROUND && finalizer != ORPHAN);
    match policy {
        "Foreground" => finalizers.push(FOREGROUND.into()),
        "Orphan" => finalizers.push(ORPHAN.into()),
        _ => {}
    }
    match object["metadata"].as_object_mut() {
        Some(metadata) if finalizers.is_empty() => drop(metadata.remove("finalizers")),
        Some(metadata) => drop(metadata.insert("finalizers".to_owned(), finalizers.into())),
        None => {}
    }
}

/// Sets when the object has to be gone. A second delete can only shorten the grace.
fn mark(object: &mut Value, grace: i64, now: Timestamp) {
    let metadata = &mut object["metadata"];
    let due = |grace| {
        let due = now
            .saturating_add(SignedDuration::from_secs(grace))
            .unwrap_or(now);
        Value::from(seconds(due))
    };
    let before = metadata
        .get("deletionGracePeriodSeconds")
        .and_then(Value::as_i64);
    if metadata.get("deletionTimestamp").is_none() {
        metadata["deletionTimestamp"] = due(grace);
        metadata["deletionGracePeriodSeconds"] = grace.into();
        let generation = metadata.get("generation").and_then(Value::as_i64);
        if let Some(generation) = generation.filter(|generation| *generation > 0) {
            metadata["generation"] = (generation + 1).into();
        }
    } else if before.is_some_and(|before| grace < before) {
        metadata["deletionTimestamp"] = due(grace);
        metadata["deletionGracePeriodSeconds"] = grace.into();
    }
}

fn success(call: &Call, object: &Value) -> Value {
    let mut details = json!({
        "name": call.name, "kind": call.kind.plural, "uid": object["metadata"]["uid"],
    });
    if !call.kind.group.is_empty() {
        details["group"] = call.kind.group.into();
    }
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
    })
}
