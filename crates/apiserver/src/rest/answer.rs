//! Putting an answer into the form that the client accepts.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WARNING};
use http::{HeaderMap, Response, StatusCode};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{Call, view};
use crate::body::Body;
use crate::kind::Kind;
use crate::status::Status;
use crate::table;

const JSON: &str = "application/json";

/// The shape in which a client wants objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Object,
    Table,
    Metadata,
}

impl Form {
    /// The first form of an Accept header that is served.
    pub(super) fn accepted(accept: &str) -> Result<Self, Status> {
        if accept.trim().is_empty() {
            return Ok(Self::Object);
        }
        accept
            .split(',')
            .find_map(Self::of_range)
            .ok_or_else(Status::not_acceptable)
    }

    fn of_range(range: &str) -> Option<Self> {
        let mut parts = range.split(';').map(str::trim);
        if !matches!(parts.next()?, "application/json" | "application/*" | "*/*") {
            return None;
        }
        let (mut form, mut current) = (Self::Object, true);
        for parameter in parts {
            match parameter.split_once('=') {
                Some(("as", "Table")) => form = Self::Table,
                Some(("as", "PartialObjectMetadata" | "PartialObjectMetadataList")) => {
                    form = Self::Metadata;
                }
                Some(("as", _)) => return None,
                Some(("v", version)) => current = version == "v1",
                _ => {}
            }
        }
        // `v` names the version of the form; plain objects have none.
        (current || form == Self::Object).then_some(form)
    }
}

/// What a request leads to.
#[derive(Debug)]
pub(crate) enum Reply {
    Object {
        code: StatusCode,
        object: Arc<Value>,
        warnings: Vec<String>,
    },
    /// A Status that says yes.
    Success(StatusCode, Value),
    List(Page),
    Watch(Body),
}

impl Reply {
    pub(super) fn object(code: StatusCode, object: Arc<Value>) -> Self {
        Self::Object {
            code,
            object,
            warnings: Vec::new(),
        }
    }
}

/// Some objects of one revision.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(super) items: Vec<Arc<Value>>,
    pub(super) revision: u64,
    pub(super) continue_token: String,
    pub(super) remaining: Option<usize>,
}

pub(super) fn response(reply: Reply, call: &Call, now: &str) -> Response<Body> {
    match reply {
        Reply::Object {
            code,
            object,
            warnings,
        } => {
            let shaped = shape(call, &view(call.kind, &object), now);
            let mut response = encode(code, &*shaped, call.params.pretty);
            for warning in warnings {
                let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
                if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
                    response.headers_mut().append(WARNING, value);
                }
            }
            response
        }
        Reply::Success(code, status) => encode(code, &status, call.params.pretty),
        Reply::List(page) => list(page, call, now),
        Reply::Watch(body) => {
            let mut response = Response::new(body);
            set(&mut response, CONTENT_TYPE, JSON);
            response
        }
    }
}

/// One object in the form that the call asks for.
pub(super) fn shape(call: &Call, object: &Arc<Value>, now: &str) -> Arc<Value> {
    match call.form {
        Form::Object => Arc::clone(object),
        Form::Table => {
            let mut table = table::render(
                call.kind.kind,
                std::slice::from_ref(object),
                table::IncludeObject::parse(&call.params.include_object),
                now,
            );
            table["metadata"] = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            Arc::new(table)
        }
        Form::Metadata => Arc::new(metadata(object)),
    }
}

fn metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

fn list(page: Page, call: &Call, now: &str) -> Response<Body> {
    let mut meta = json!({"resourceVersion": page.revision.to_string()});
    if !page.continue_token.is_empty() {
        meta["continue"] = page.continue_token.into();
    }
    if let Some(remaining) = page.remaining {
        meta["remainingItemCount"] = remaining.into();
    }
    let items: Vec<_> = page
        .items
        .iter()
        .map(|object| view(call.kind, object))
        .collect();
    let pretty = call.params.pretty;
    match call.form {
        Form::Object => encode(
            StatusCode::OK,
            &ObjectList(call.kind, &meta, &items),
            pretty,
        ),
        Form::Table => {
            let include = table::IncludeObject::parse(&call.params.include_object);
            let mut table = table::render(call.kind.kind, &items, include, now);
            table["metadata"] = meta;
            encode(StatusCode::OK, &table, pretty)
        }
        Form::Metadata => {
            let items: Vec<_> = items.iter().map(|object| metadata(object)).collect();
            let list = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": meta, "items": items,
            });
            encode(StatusCode::OK, &list, pretty)
        }
    }
}

/// A list whose items go without apiVersion and kind, as the API sends them, and without a copy.
struct ObjectList<'a>(&'a Kind, &'a Value, &'a [Arc<Value>]);
struct Items<'a>(&'a [Arc<Value>]);
struct Item<'a>(&'a Value);

impl Serialize for ObjectList<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("kind", &format!("{}List", self.0.kind))?;
        map.serialize_entry("apiVersion", &self.0.api_version())?;
        map.serialize_entry("metadata", self.1)?;
        map.serialize_entry("items", &Items(self.2))?;
        map.end()
    }
}

impl Serialize for Items<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut items = serializer.serialize_seq(Some(self.0.len()))?;
        for object in self.0 {
            items.serialize_element(&Item(object))?;
        }
        items.end()
    }
}

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self.0.as_object().into_iter().flatten();
        serializer
            .collect_map(fields.filter(|(key, _)| !matches!(key.as_str(), "kind" | "apiVersion")))
    }
}

pub(crate) fn refusal(status: &Status) -> Response<Body> {
    let mut response = json(status.code, &status.to_json());
    if let Some(seconds) = status.retry_after() {
        set(&mut response, RETRY_AFTER, &seconds.to_string());
    }
    response
}

pub(super) fn json(code: StatusCode, value: &impl Serialize) -> Response<Body> {
    encode(code, value, false)
}

fn encode(code: StatusCode, value: &impl Serialize, pretty: bool) -> Response<Body> {
    let encoded = if pretty {
        serde_json::to_vec_pretty(value)
    } else {
        serde_json::to_vec(value)
    };
    match encoded {
        Ok(body) => bytes(code, JSON, body),
        Err(error) => bytes(
            StatusCode::INTERNAL_SERVER_ERROR,
            "text/plain",
            error.to_string(),
        ),
    }
}

pub(super) fn bytes(
    code: StatusCode,
    content_type: &str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Body::whole(body));
    *response.status_mut() = code;
    set(&mut response, CONTENT_TYPE, content_type);
    response
}

fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// A header as text; empty when it is absent or not text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers_choose_the_form() {
        let form = |accept| Form::accepted(accept).ok();
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(form(kubectl), Some(Form::Table));
        assert_eq!(
            form("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"),
            Some(Form::Object)
        );
        assert_eq!(
            form("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
            Some(Form::Metadata)
        );
        assert_eq!(
            form("application/vnd.kubernetes.protobuf, */*"),
            Some(Form::Object)
        );
        assert_eq!(form(""), Some(Form::Object));
        assert_eq!(form("application/vnd.kubernetes.protobuf"), None);
    }
}
