//! One request to the API and what may come of it.
//!
//! Requests are made by hand and not through typed `Api<K>`: bitts reads answers into its own small
//! structs, and never sends back an object as a whole (a field it does not know would be lost).

use std::time::Duration;

use bitts_api::{Kind, Namespace, ObjectKey};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use serde::Serialize;
use tokio::time::timeout;

use crate::connect::whole;

pub(crate) const JSON: &str = "application/json";
const METADATA: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
pub(crate) const MERGE_PATCH: &str = "application/merge-patch+json";

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// 2xx, with the body.
    Ok(Bytes),
    /// 404, and the API itself says that it is this object that does not exist.
    Missing,
    /// Another 404: no such kind, or no Kubernetes API that answers. Proves nothing of any object.
    NoSuchPath(String),
    /// 409: the object is not what the request says it is.
    Conflict,
    /// Another 4xx: the same request will not succeed later.
    Refused(StatusCode, String),
    /// It may be sent again, and may have taken effect.
    Failed(Failure),
}

/// A request that may be sent again.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// For metrics.
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) message: String,
    /// What the server asked to wait.
    pub(crate) after: Option<Duration>,
    /// Not by this process.
    pub(crate) is_last: bool,
}

impl Failure {
    pub(crate) fn new(reason: &'static str, message: String) -> Self {
        Self {
            reason,
            message,
            after: None,
            is_last: false,
        }
    }

    pub(crate) fn last(reason: &'static str, message: String) -> Self {
        Self {
            is_last: true,
            ..Self::new(reason, message)
        }
    }

    fn late(patience: Duration) -> Self {
        Self::new("timeout", format!("no answer within {patience:?}"))
    }
}

/// Sends a request once, and gives up on it after `patience`.
pub(crate) async fn send(client: &Client, request: &Call, patience: Duration) -> Answer {
    let exchange = async {
        match begin(client, request).await {
            Ok(body) => match body.collect().await {
                Ok(body) => Answer::Ok(body.to_bytes()),
                Err(error) => broken(&error),
            },
            Err(answer) => answer,
        }
    };
    timeout(patience, exchange)
        .await
        .unwrap_or_else(|_| Answer::Failed(Failure::late(patience)))
}

/// Sends a request whose answer has no end, a watch; gives up when it does not begin within
/// `patience`.
pub(crate) async fn open(
    client: &Client,
    request: &Call,
    patience: Duration,
) -> Result<Body, Answer> {
    timeout(patience, begin(client, request))
        .await
        .unwrap_or_else(|_| Err(Answer::Failed(Failure::late(patience))))
}

/// The body of an answer that is a success.
async fn begin(client: &Client, request: &Call) -> Result<Body, Answer> {
    let path = &request.path;
    let request = request
        .build()
        .map_err(|error| Answer::Refused(StatusCode::BAD_REQUEST, error.to_string()))?;
    let response = client.send(request).await.map_err(|error| broken(&error))?;
    let (head, body) = response.into_parts();
    if head.status.is_success() {
        return Ok(body);
    }
    let body = body.collect().await.map_err(|error| broken(&error))?;
    Err(judge(path, head.status, &head.headers, &body.to_bytes()))
}

fn broken(error: &kube::Error) -> Answer {
    Answer::Failed(Failure::new("network", whole(error)))
}

/// What an answer means that is no success.
fn judge(path: &str, status: StatusCode, headers: &header::HeaderMap, body: &[u8]) -> Answer {
    let parsed: Option<Status> = serde_json::from_slice(body).ok();
    let message = parsed
        .as_ref()
        .map(|s| s.message.clone())
        .filter(|m| !m.is_empty())
        .unwrap_or_else(|| format!("{status}: {}", String::from_utf8_lossy(body).trim()));
    let in_header = headers
        .get(header::RETRY_AFTER)
        .and_then(|v| v.to_str().ok()?.parse().ok());
    let in_body = parsed
        .as_ref()
        .and_then(|s| s.details.as_ref())
        .map(|d| u64::from(d.retry_after_seconds))
        .filter(|s| *s > 0);
    let after = in_header.or(in_body).map(Duration::from_secs);
    let missing = parsed.as_ref().and_then(|status| missing(status, path));
    let failed = |reason| {
        Answer::Failed(Failure {
            after,
            ..Failure::new(reason, message.clone())
        })
    };
    match status {
        StatusCode::NOT_FOUND => match missing {
            Some(Missing::Object) => Answer::Missing,
            Some(Missing::Namespace) => Answer::Refused(status, message),
            None => Answer::NoSuchPath(message),
        },
        StatusCode::CONFLICT => Answer::Conflict,
        StatusCode::TOO_MANY_REQUESTS => failed("throttled"),
        // Credentials are renewed while the process runs.
        StatusCode::UNAUTHORIZED => failed("unauthorized"),
        StatusCode::REQUEST_TIMEOUT => failed("timeout"),
        s if s.is_server_error() => failed("server"),
        s => Answer::Refused(s, message),
    }
}

/// What the API says does not exist.
enum Missing {
    /// The object of the path.
    Object,
    /// The namespace in which an object was to be made.
    Namespace,
}

/// A kind that the API lacks is `NotFound` as well, but without a name, and what stands before an
/// API answers 404 in other words.
fn missing(status: &Status, path: &str) -> Option<Missing> {
    let details = status
        .details
        .as_ref()
        .filter(|_| status.reason == "NotFound")?;
    let path = path.split('?').next().unwrap_or_default();
    let path = path.strip_suffix("/status").unwrap_or(path);
    let named = format!("/{}/{}", details.kind, details.name);
    if path.ends_with(&named) {
        Some(Missing::Object)
    } else if details.kind == "namespaces" && path.contains(&format!("{named}/")) {
        Some(Missing::Namespace)
    } else {
        None
    }
}

/// A request that can be sent more than once.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    method: Method,
    pub(crate) path: String,
    accept: &'static str,
    content: &'static str,
    body: Vec<u8>,
}

impl Call {
    pub(crate) fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            accept: JSON,
            content: JSON,
            body: Vec::new(),
        }
    }

    /// A list of which only the metadata matters; a server that cannot leave out the rest sends it.
    pub(crate) fn get_metadata(path: String) -> Self {
        Self {
            accept: METADATA,
            ..Self::get(path)
        }
    }

    pub(crate) fn with_body(
        method: Method,
        path: String,
        content: &'static str,
        body: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            method,
            path,
            accept: JSON,
            content,
            body: serde_json::to_vec(body)?,
        })
    }

    fn build(&self) -> http::Result<Request<Body>> {
        Request::builder()
            .method(self.method.clone())
            .uri(&self.path)
            .header(header::ACCEPT, self.accept)
            .header(header::CONTENT_TYPE, self.content)
            // Since 1.37 compressed watches are a gzip member an event, which clients misread.
            .header(header::ACCEPT_ENCODING, "identity")
            .body(Body::from(self.body.clone()))
    }
}

/// The path of all objects of a kind, in one namespace or all.
pub(crate) fn collection(kind: Kind, namespace: Option<&Namespace>) -> String {
    let mut path = match kind.group() {
        "" => format!("/api/{}", kind.version()),
        group => format!("/apis/{group}/{}", kind.version()),
    };
    if let Some(namespace) = namespace {
        path.push_str("/namespaces/");
        path.push_str(namespace.as_str());
    }
    path.push('/');
    path.push_str(kind.plural());
    path
}

/// The path of one object.
pub(crate) fn object(key: &ObjectKey) -> String {
    format!(
        "{}/{}",
        collection(key.kind, key.namespace.as_ref()),
        key.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_group_and_namespace() {
        assert_eq!(
            object(&ObjectKey::claim("shop", "data")),
            "/api/v1/namespaces/shop/persistentvolumeclaims/data"
        );
        assert_eq!(
            collection(Kind::StorageClass, None),
            "/apis/storage.k8s.io/v1/storageclasses"
        );
    }

    #[test]
    fn an_answer_is_judged_by_its_status_and_quotes_the_server() {
        let none = header::HeaderMap::new();
        let body = br#"{"kind":"Status","code":422,"message":"spec is immutable"}"#;
        let answer = judge("/api", StatusCode::UNPROCESSABLE_ENTITY, &none, body);
        assert!(matches!(answer, Answer::Refused(_, m) if m == "spec is immutable"));
        let answer = judge("/api", StatusCode::BAD_GATEWAY, &none, b"<html>");
        assert!(matches!(answer, Answer::Failed(f) if f.message.contains("<html>")));
    }

    /// As kube-apiserver 1.37 answers: an object that is missing is named, a kind is not.
    #[test]
    fn only_the_object_that_was_asked_for_is_missing() {
        let path = "/api/v1/namespaces/shop/persistentvolumeclaims/data";
        let judged = |path: &str, body: &str| {
            let none = header::HeaderMap::new();
            matches!(
                judge(path, StatusCode::NOT_FOUND, &none, body.as_bytes()),
                Answer::Missing
            )
        };
        let said = |reason: &str, details: &str| {
            format!(r#"{{"kind":"Status","reason":"{reason}","details":{details},"code":404}}"#)
        };
        let named = r#"{"name":"data","kind":"persistentvolumeclaims"}"#;
        assert!(judged(path, &said("NotFound", named)));
        let status = format!("{path}/status?fieldManager=bitts-binder");
        assert!(judged(&status, &said("NotFound", named)));
        let namespace = said("NotFound", r#"{"name":"shop","kind":"namespaces"}"#);
        assert!(!judged(path, &namespace));
        let none = header::HeaderMap::new();
        let made = "/api/v1/namespaces/shop/persistentvolumeclaims?fieldManager=x";
        let answer = judge(made, StatusCode::NOT_FOUND, &none, namespace.as_bytes());
        assert!(matches!(answer, Answer::Refused(..)), "{answer:?}");
        for other in [
            "404 page not found\n".to_owned(),
            "{}".to_owned(),
            said("NotFound", "{}"),
            said("NotFound", "null"),
            said("NotFound", r#"{"name":"shop","kind":"namespaces"}"#),
            said(
                "NotFound",
                r#"{"name":"other","kind":"persistentvolumeclaims"}"#,
            ),
            said("Forbidden", named),
        ] {
            assert!(!judged(path, &other), "{other}");
        }
    }

    #[test]
    fn retry_after_is_read_from_the_header_or_the_status() {
        let mut headers = header::HeaderMap::new();
        headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("7"));
        let answer = judge("/api", StatusCode::TOO_MANY_REQUESTS, &headers, b"");
        assert!(matches!(answer, Answer::Failed(f) if f.after == Some(Duration::from_secs(7))));
        let body = br#"{"kind":"Status","details":{"retryAfterSeconds":3}}"#;
        let none = header::HeaderMap::new();
        let answer = judge("/api", StatusCode::TOO_MANY_REQUESTS, &none, body);
        assert!(matches!(answer, Answer::Failed(f) if f.after == Some(Duration::from_secs(3))));
    }
}
