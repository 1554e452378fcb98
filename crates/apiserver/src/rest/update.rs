//! Update and patch: both end in one new state of an object that was read under the same lock.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::create::{forget_fields, place};
use super::delete::is_done;
use super::read::stored;
use super::{Call, Core, Reply, Subresource, decode, stored_kind};
use crate::patch::{self, PatchError};
use crate::status::{About, Cause, Part, Status};
use crate::store::{Key, State};
use crate::{events, rules};

impl Core {
    pub(super) fn update(&self, call: &Call, body: &Bytes) -> Result<Reply, Status> {
        let decode::Decoded {
            mut object,
            mut warnings,
        } = decode::object(call, body)?;
        place(call, &mut object)?;
        match object["metadata"]["name"].as_str().unwrap_or_default() {
            "" => {
                return Err(Status::bad_request(format!(
                    "the name of the object ({} based on URL) was undeterminable: name must be provided",
                    call.name
                )));
            }
            name if name == call.name => {}
            name => {
                return Err(Status::bad_request(format!(
                    "the name of the object ({name}) does not match the name on the URL ({})",
                    call.name
                )));
            }
        }
        let mut state = self.store.write();
        let old = match stored(&state, call) {
            Ok(old) => Arc::clone(old),
            Err(_) if call.kind.create_on_update => {
                drop(state);
                return self.create_decoded(call, decode::Decoded { object, warnings });
            }
            Err(missing) => return Err(missing),
        };
        uid_holds(call, &old, &object)?;
        if object["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default()
            .is_empty()
            && !call.kind.unconditional_update
        {
            let cause = Cause::new(
                "FieldValueInvalid",
                "metadata.resourceVersion",
                "Invalid value: 0: must be specified for an update",
            );
            return Err(Status::invalid(call.about(), &[cause]));
        }
        let object = self.replace(&mut state, call, old, object)?;
        warnings.extend(rules::warnings(stored_kind(call.kind).kind, &object));
        Ok(Reply::Object {
            code: StatusCode::OK,
            object,
            warnings,
        })
    }

    pub(super) fn patch(&self, call: &Call, body: &Bytes) -> Result<Reply, Status> {
        let format = patch::Format::of(&call.content_type).map_err(refuse_patch)?;
        let mut state = self.store.write();
        let old = Arc::clone(stored(&state, call)?);
        let mut object = Value::clone(&super::view(call.kind, &old));
        patch::apply(format, call.kind.kind, &mut object, body).map_err(refuse_patch)?;
        let mut warnings = decode::typed(call.kind, &mut object, call.params.field_validation)
            .map_err(|misfit| {
                let text = Value::from(object.to_string());
                let why = format!("Invalid value: {text}: {misfit}");
                Status::invalid(NOTHING, &[Cause::new("FieldValueInvalid", "patch", why)])
            })?;
        if object["metadata"]["name"] != call.name.as_str() {
            return Err(Status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                object["metadata"]["name"].as_str().unwrap_or_default(),
                call.name
            )));
        }
        place(call, &mut object)?;
        let object = self.replace(&mut state, call, old, object)?;
        warnings.extend(rules::warnings(stored_kind(call.kind).kind, &object));
        Ok(Reply::Object {
            code: StatusCode::OK,
            object,
            warnings,
        })
    }

    /// Puts a new state in an object's place, if all rules allow it.
    fn replace(
        &self,
        state: &mut State,
        call: &Call,
        old: Arc<Value>,
        object: Value,
    ) -> Result<Arc<Value>, Status> {
        let mut new = if call.kind.is_stored_view() {
            object
        } else {
            events::to_core(object)
        };
        let version = new["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default();
        if !matches!(version, "" | "0") && old["metadata"]["resourceVersion"] != version {
            if version.parse::<u64>().is_err() {
                let why = format!("strconv.ParseUint: parsing \"{version}\": invalid syntax");
                return Err(Status::unknown(why));
            }
            return Err(Status::modified(call.about()));
        }
        let kind = stored_kind(call.kind);
        rules::default(kind.kind, &mut new)?;
        keep_metadata(&old, &mut new);
        let finalizers = new["spec"]["finalizers"].clone();
        let part = keep_other_part(call, &old, &mut new);
        rules::prepare_update(kind.kind, &old, &mut new, part, &self.clock.stamp());
        if call.kind.first_generation.is_some() && new["spec"] != old["spec"] {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or_default();
            new["metadata"]["generation"] = (generation + 1).into();
        }
        let causes = if call.kind.is_stored_view() {
            rules::validate_update(kind.kind, &old, &new, part)
        } else {
            rules::validate_changed_event(&old, &new)
        };
        if !causes.is_empty() {
            return Err(Status::invalid(about_kind(call), &causes));
        }
        if call.subresource == Subresource::Finalize {
            new["spec"]["finalizers"] = finalizers;
        }
        rules::admit_update(kind.kind, &old, &new, part, state)?;
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        // A write that changes nothing is none: no revision, no event.
        if call.params.dry_run || new == *old {
            return Ok(Arc::new(new));
        }
        if is_done(&new) {
            // The last finalizer is gone: what watchers see end is the state before this write.
            let last = state.remove(call.table(), &Key::of(&old));
            let version = last.map(|last| last["metadata"]["resourceVersion"].clone());
            new["metadata"]["resourceVersion"] = version.unwrap_or_default();
            return Ok(Arc::new(new));
        }
        Ok(state.put(call.table(), new))
    }
}

/// What the API says a patch was about whose result does not fit any object.
const NOTHING: About<'_> = About {
    group: "",
    what: "",
    name: "",
};

/// The kind and name, for messages that name the kind. Rules speak of the stored view of it.
fn about_kind(call: &Call) -> About<'_> {
    About {
        group: stored_kind(call.kind).group,
        what: call.kind.kind,
        ..call.about()
    }
}

/// A PUT that carries a uid is about that object and no later one of its name.
fn uid_holds(call: &Call, old: &Value, new: &Value) -> Result<(), Status> {
    let stored = old["metadata"]["uid"].as_str().unwrap_or_default();
    match new["metadata"]["uid"].as_str().unwrap_or_default() {
        "" => Ok(()),
        uid if uid == stored => Ok(()),
        uid => Err(Status::conflict(
            call.about(),
            format!(
                "StorageError: invalid object, Code: 4, Key: /registry/{}/{}{}{}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {stored}",
                call.kind.plural,
                call.namespace,
                if call.kind.namespaced { "/" } else { "" },
                call.name,
            ),
        )),
    }
}

/// Metadata that no writer changes, and that may be left out.
fn keep_metadata(old: &Value, new: &mut Value) {
    forget_fields(new, &["managedFields", "selfLink", "generation"]);
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        if new["metadata"][field].is_null() && !old["metadata"][field].is_null() {
            new["metadata"][field] = old["metadata"][field].clone();
        }
    }
    if let Some(generation) = old["metadata"].get("generation") {
        new["metadata"]["generation"] = generation.clone();
    }
}

/// Takes what this request does not write from the stored object.
fn keep_other_part(call: &Call, old: &Value, new: &mut Value) -> Part {
    if call.subresource == Subresource::Status {
        let mut kept = old.clone();
        kept["metadata"] = new["metadata"].take();
        set_or_remove(&mut kept, "status", new["status"].take());
        *new = kept;
        return Part::Status;
    }
    if call.kind.has_status {
        set_or_remove(new, "status", old["status"].clone());
    }
    Part::Main
}

fn set_or_remove(object: &mut Value, field: &str, value: Value) {
    if value.is_null() {
        if let Some(fields) = object.as_object_mut() {
            fields.remove(field);
        }
    } else {
        object[field] = value;
    }
}

fn refuse_patch(error: PatchError) -> Status {
    match error {
        PatchError::Format(_) | PatchError::Apply => {
            Status::unsupported_media_type(error.to_string())
        }
        PatchError::Unreadable(_) => Status::bad_request(error.to_string()),
        PatchError::DoesNotFit(_) => {
            let mut status = Status::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "Invalid",
                "the server rejected our request due to an error in our request",
            );
            status.details = json!({
                "causes": [{"reason": "UnexpectedServerResponse", "message": error.to_string()}],
            });
            status
        }
    }
}
