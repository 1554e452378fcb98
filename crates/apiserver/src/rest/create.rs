//! Create, and the binding of a pod to a node.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Call, Core, Reply, Subresource, decode, namespace, stored_kind};
use crate::events;
use crate::rules;
use crate::status::{About, Status};
use crate::store::{Key, State};

/// What is left of a `generateName` before its five random characters.
const LONGEST_PREFIX: usize = 58;

impl Core {
    pub(super) fn create(&self, call: &Call, body: &Bytes) -> Result<Reply, Status> {
        if call.subresource == Subresource::Binding {
            return self.bind(call, body);
        }
        self.create_decoded(call, decode::object(call, body)?)
    }

    /// Creates what a body has said, also for a PUT of a name that is free.
    pub(super) fn create_decoded(
        &self,
        call: &Call,
        decoded: decode::Decoded,
    ) -> Result<Reply, Status> {
        let decode::Decoded {
            object,
            mut warnings,
        } = decoded;
        let kind = stored_kind(call.kind);
        let mut object = if call.kind.is_stored_view() {
            object
        } else {
            events::to_core(object)
        };
        place(call, &mut object)?;
        rules::default(kind.kind, &mut object)?;
        self.stamp_new(call, &mut object)?;

        let mut state = self.store.write();
        let name = object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let about = About {
            name: &name,
            ..call.about()
        };
        namespace::accepts(&state, call, about)?;
        rules::admit_create(kind.kind, &mut object, &*state)?;
        rules::prepare_create(kind.kind, &mut object, &self.clock.stamp());
        self.choose_name(&state, call, &mut object);
        let causes = if call.kind.is_stored_view() {
            rules::validate_create(kind.kind, &object)
        } else {
            rules::validate_new_event(&object)
        };
        if !causes.is_empty() {
            return Err(Status::invalid(
                About {
                    group: kind.group,
                    what: call.kind.kind,
                    ..about
                },
                &causes,
            ));
        }
        warnings.extend(rules::warnings(kind.kind, &object));
        let key = Key::of(&object);
        if state.get(call.table(), &key).is_some() {
            return Err(Status::already_exists(About {
                name: &key.name,
                ..about
            }));
        }
        let object = if call.params.dry_run {
            Arc::new(object)
        } else {
            state.put(call.table(), object)
        };
        Ok(Reply::Object {
            code: StatusCode::CREATED,
            object,
            warnings,
        })
    }

    /// The metadata that is the API's to write.
    fn stamp_new(&self, call: &Call, object: &mut Value) -> Result<(), Status> {
        let version = object["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default();
        if !matches!(version, "" | "0") {
            return Err(Status::unknown(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        forget_fields(
            object,
            &[
                "resourceVersion",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
                "managedFields",
                "selfLink",
            ],
        );
        object["metadata"]["uid"] = self.entropy.uid().into();
        object["metadata"]["creationTimestamp"] = self.clock.stamp().into();
        match call.kind.first_generation {
            Some(0) => forget_fields(object, &["generation"]),
            Some(first) => object["metadata"]["generation"] = first.into(),
            None => {}
        }
        Ok(())
    }

    /// Makes a name from `generateName`, one that is free.
    fn choose_name(&self, state: &State, call: &Call, object: &mut Value) {
        let metadata = &object["metadata"];
        let prefix = metadata["generateName"].as_str().unwrap_or_default();
        if prefix.is_empty()
            || metadata["name"]
                .as_str()
                .is_some_and(|name| !name.is_empty())
        {
            return;
        }
        let prefix: String = prefix.chars().take(LONGEST_PREFIX).collect();
        loop {
            let name = format!("{prefix}{}", self.entropy.suffix());
            object["metadata"]["name"] = name.into();
            if state.get(call.table(), &Key::of(object)).is_none() {
                return;
            }
        }
    }

    /// `pods/binding`: puts a pod on a node, once.
    fn bind(&self, call: &Call, body: &Bytes) -> Result<Reply, Status> {
        let binding = decode::any(call, body)?;
        let node = binding["target"]["name"].as_str().unwrap_or_default();
        if node.is_empty() {
            return Err(Status::bad_request("a binding needs target.name, the node"));
        }
        let mut state = self.store.write();
        let mut pod = Value::clone(super::read::stored(&state, call)?);
        let uid = binding["metadata"]["uid"].as_str();
        if uid.is_some_and(|uid| pod["metadata"]["uid"].as_str() != Some(uid)) {
            return Err(Status::conflict(
                call.about(),
                "the pod has another uid than the binding",
            ));
        }
        if let Some(taken) = pod["spec"]["nodeName"]
            .as_str()
            .filter(|node| !node.is_empty())
        {
            let why = format!("pod {} is already assigned to node \"{taken}\"", call.name);
            return Err(Status::conflict(
                About {
                    what: "pods/binding",
                    ..call.about()
                },
                why,
            ));
        }
        if pod["metadata"]["deletionTimestamp"].is_string() {
            let why = format!(
                "pod {} is being deleted, cannot be assigned to a host",
                call.name
            );
            return Err(Status::conflict(
                About {
                    what: "pods/binding",
                    ..call.about()
                },
                why,
            ));
        }
        pod["spec"]["nodeName"] = node.into();
        let scheduled = json!({
            "type": "PodScheduled", "status": "True", "lastProbeTime": null,
            "lastTransitionTime": self.clock.stamp(),
        });
        match &mut pod["status"]["conditions"] {
            Value::Array(conditions) => {
                conditions.retain(|condition| condition["type"] != "PodScheduled");
                conditions.push(scheduled);
            }
            none => *none = json!([scheduled]),
        }
        if !call.params.dry_run {
            state.put(call.table(), pod);
        }
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "code": StatusCode::CREATED.as_u16(),
        });
        Ok(Reply::Success(StatusCode::CREATED, status))
    }
}

/// Removes fields of the metadata.
pub(super) fn forget_fields(object: &mut Value, fields: &[&str]) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in fields {
            metadata.remove(*field);
        }
    }
}

/// Brings the object's namespace in line with the path's.
pub(super) fn place(call: &Call, object: &mut Value) -> Result<(), Status> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    if !call.kind.namespaced {
        forget_fields(object, &["namespace"]);
        return Ok(());
    }
    match object["metadata"]["namespace"].as_str().unwrap_or_default() {
        "" => object["metadata"]["namespace"] = call.namespace.as_str().into(),
        namespace if namespace == call.namespace => {}
        _ => {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}
