//! Patches: JSON (RFC 6902), merge (RFC 7386) and strategic merge.

pub(crate) mod strategic;

use serde_json::Value;

/// Why a patch was not applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PatchError {
    #[error(
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json (found {0:?})"
    )]
    Format(String),
    #[error(
        "this API does not do server-side apply: use client-side apply (`kubectl apply` without --server-side), or a merge or strategic merge patch"
    )]
    Apply,
    #[error("the patch cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("the patch does not fit the object: {0}")]
    DoesNotFit(String),
}

/// The kinds of patch, as the content type names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Merge,
    Strategic,
}

impl Format {
    pub(crate) fn of(content_type: &str) -> Result<Self, PatchError> {
        match content_type {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" | "application/apply-patch+cbor" => {
                Err(PatchError::Apply)
            }
            other => Err(PatchError::Format(other.to_owned())),
        }
    }
}

/// Applies a patch to an object, or leaves the object in a state that must not be stored.
pub(crate) fn apply(
    format: Format,
    kind: &str,
    object: &mut Value,
    body: &[u8],
) -> Result<(), PatchError> {
    match format {
        Format::Json => {
            let operations: Vec<Value> = serde_json::from_slice(body)?;
            let patch: json_patch::Patch = serde_json::from_value(operations.into())
                .map_err(|error| PatchError::DoesNotFit(error.to_string()))?;
            json_patch::patch(object, &patch)
                .map_err(|error| PatchError::DoesNotFit(error.to_string()))?;
        }
        Format::Merge => json_patch::merge(object, &read_object(body)?),
        Format::Strategic => strategic::apply(kind, object, &read_object(body)?)
            .map_err(|error| PatchError::DoesNotFit(error.to_string()))?,
    }
    if object.is_object() {
        Ok(())
    } else {
        Err(PatchError::DoesNotFit(
            "what is left is not an object".to_owned(),
        ))
    }
}

fn read_object(body: &[u8]) -> Result<Value, PatchError> {
    let fields: serde_json::Map<String, Value> = serde_json::from_slice(body)?;
    Ok(Value::Object(fields))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(format: Format, body: &Value) -> Result<Value, PatchError> {
        let mut object = json!({"metadata": {"name": "x", "labels": {"a": "1", "b": "2"}}});
        apply(
            format,
            "PersistentVolume",
            &mut object,
            body.to_string().as_bytes(),
        )?;
        Ok(object["metadata"]["labels"].take())
    }

    #[test]
    fn a_merge_patch_sets_and_removes() {
        let body = json!({"metadata": {"labels": {"a": null, "c": "3"}}});
        assert_eq!(
            patched(Format::Merge, &body).unwrap(),
            json!({"b": "2", "c": "3"})
        );
        assert!(matches!(
            patched(Format::Merge, &json!([1])),
            Err(PatchError::Unreadable(_))
        ));
    }

    #[test]
    fn a_json_patch_tests_before_it_writes() {
        let add = json!({"op": "add", "path": "/metadata/labels/c", "value": "3"});
        let test = |value| json!({"op": "test", "path": "/metadata/labels/a", "value": value});
        assert_eq!(
            patched(Format::Json, &json!([test("1"), add])).unwrap()["c"],
            "3"
        );
        let refused = patched(Format::Json, &json!([test("9"), add]));
        assert!(matches!(refused, Err(PatchError::DoesNotFit(_))));
        let nonsense = patched(Format::Json, &json!([{"op": "explode"}]));
        assert!(matches!(nonsense, Err(PatchError::DoesNotFit(_))));
        let no_list = patched(Format::Json, &json!({}));
        assert!(matches!(no_list, Err(PatchError::Unreadable(_))));
    }

    #[test]
    fn apply_is_refused_by_name() {
        let error = Format::of("application/apply-patch+yaml").unwrap_err();
        assert!(error.to_string().contains("server-side apply"));
        assert!(Format::of("text/plain").is_err());
    }
}
