//! The `Status` object: how the API says no, and why.

use std::fmt;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

/// Which half of an object a request writes. The other half is taken from what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status.
    Main,
    /// The status alone (the `/status` subresource).
    Status,
}

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// A machine's word for it, for example `FieldValueInvalid`.
    pub reason: &'static str,
    /// A person's words for it, without the field.
    pub message: String,
    /// The field, for example `spec.capacity[storage]`.
    pub field: String,
}

impl Cause {
    /// A cause of any reason.
    pub fn new(reason: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            field: field.into(),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.field, self.message)
        }
    }
}

/// The object or resource that a failure is about.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// API group, empty for core.
    pub group: &'a str,
    /// The resource's plural, or the kind where the API names the kind.
    pub what: &'a str,
    /// The object's name; may be empty.
    pub name: &'a str,
}

impl About<'_> {
    /// `storageclasses.storage.k8s.io "fast"`, as error messages name objects.
    fn quoted(&self) -> String {
        if self.group.is_empty() {
            format!("{} \"{}\"", self.what, self.name)
        } else {
            format!("{}.{} \"{}\"", self.what, self.group, self.name)
        }
    }
}

/// A refusal on its way to the client.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The HTTP code.
    pub code: StatusCode,
    /// The API's reason, for example `AlreadyExists`; empty when it has none.
    pub reason: &'static str,
    /// What a person reads.
    pub message: String,
    /// `details`, absent when null.
    pub details: Value,
    /// With an expired page: the token that goes on from there with the current state.
    pub continue_token: Option<String>,
}

impl Status {
    /// A status without details.
    pub fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: Value::Null,
            continue_token: None,
        }
    }

    fn about(mut self, about: About<'_>) -> Self {
        let mut details = json!({});
        for (key, text) in [
            ("name", about.name),
            ("group", about.group),
            ("kind", about.what),
        ] {
            if !text.is_empty() {
                details[key] = text.into();
            }
        }
        self.details = details;
        self
    }

    fn with_causes(mut self, causes: &[Cause]) -> Self {
        self.details["causes"] = causes
            .iter()
            .map(|cause| json!({"reason": cause.reason, "message": cause.message, "field": cause.field}))
            .collect();
        self
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 404: no such object.
    pub fn not_found(about: About<'_>) -> Self {
        let message = format!("{} not found", about.quoted());
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(about)
    }

    /// 404: no such path.
    pub fn no_such_path() -> Self {
        let mut status = Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "the server could not find the requested resource",
        );
        status.details = json!({});
        status
    }

    /// 405: the path exists, the verb does not.
    pub fn method_not_allowed() -> Self {
        let mut status = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        status.details = json!({});
        status
    }

    /// 409: create of a name that is taken.
    pub fn already_exists(about: About<'_>) -> Self {
        let message = format!("{} already exists", about.quoted());
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(about)
    }

    /// 409: a precondition does not hold.
    pub fn conflict(about: About<'_>, why: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {}: {why}", about.quoted());
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(about)
    }

    /// 409: the writer read an older version than the stored one.
    pub fn modified(about: About<'_>) -> Self {
        Self::conflict(
            about,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 422: validation says no. `about.what` is the kind.
    pub fn invalid(about: About<'_>, causes: &[Cause]) -> Self {
        let list: Vec<String> = causes.iter().map(Cause::to_string).collect();
        let why = match list.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} is invalid: {why}", about.quoted());
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
            .about(about)
            .with_causes(causes)
    }

    /// 403: admission says no.
    pub fn forbidden(about: About<'_>, why: impl fmt::Display) -> Self {
        let message = format!("{} is forbidden: {why}", about.quoted());
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(about)
    }

    /// 403: content for a namespace on its way out.
    pub fn namespace_terminating(about: About<'_>, namespace: &str) -> Self {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        Self::forbidden(about, why).with_causes(&[Cause::new(
            "NamespaceTerminating",
            "metadata.namespace",
            format!("namespace {namespace} is being terminated"),
        )])
    }

    /// 410: the version is older than what is kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// 415: a body in a form that is not served.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            message,
        )
    }

    /// 406: the client accepts only forms that are not served.
    pub fn not_acceptable() -> Self {
        let mut status = Self::new(
            StatusCode::NOT_ACCEPTABLE,
            "NotAcceptable",
            "406: Not Acceptable\n\nAvailable representations: application/json",
        );
        status.details = json!({});
        status
    }

    /// 500 in the words of whatever broke, without a reason.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
    }

    /// 429: come back later.
    pub fn too_many_requests(seconds: u32) -> Self {
        let mut status = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "TooManyRequests",
            "the server has received too many requests and has asked us to try again later",
        );
        status.details = json!({"retryAfterSeconds": seconds});
        status
    }

    /// 500: something broke inside.
    pub fn internal(why: impl fmt::Display) -> Self {
        let mut status = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            format!("Internal error occurred: {why}"),
        );
        status.details = json!({"causes": [{"message": why.to_string()}]});
        status
    }

    /// 504: the server gave up waiting; the write may or may not have happened.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
    }

    /// 504: a version from the future.
    pub fn version_too_large(wanted: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {wanted}, current: {current}");
        let mut status = Self::timeout(message);
        status.details = json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        });
        status
    }

    /// The number of seconds a client is asked to wait, if any.
    pub fn retry_after(&self) -> Option<u64> {
        self.details.get("retryAfterSeconds")?.as_u64()
    }

    /// The object as it goes over the wire.
    pub fn to_json(&self) -> Value {
        let mut object = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code.as_u16(),
        });
        if !self.reason.is_empty() {
            object["reason"] = self.reason.into();
        }
        if !self.details.is_null() {
            object["details"] = self.details.clone();
        }
        if let Some(token) = &self.continue_token {
            object["metadata"]["continue"] = token.as_str().into();
        }
        object
    }
}
