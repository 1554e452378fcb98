//! One request to the API and what may come of it.
//!
//! Requests are made by hand and not through typed `Api<K>`: bitts reads answers into its own small
//! structs, and never sends back an object as a whole (a field it does not know would be lost).

use std::sync::Arc;
use std::time::Duration;

use bitts_api::{Kind, Namespace, ObjectKey};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use serde::Serialize;
use tokio::time::{Instant, timeout};

use crate::backoff::Backoff;
use crate::connect::whole;
use crate::gate::Gate;
use crate::metrics::{Metrics, OfReason};
use crate::users::PodLists;
use crate::{Host, Timing};

pub(crate) const JSON: &str = "application/json";
pub(crate) const MERGE_PATCH: &str = "application/merge-patch+json";

/// A server may ask for more time than anyone waits for: then the effect is reported as failed.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// 2xx, with the body.
    Ok(Bytes),
    /// 404: no such object, or no such kind.
    Missing,
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
}

impl Failure {
    pub(crate) fn new(reason: &'static str, message: String) -> Self {
        Self {
            reason,
            message,
            after: None,
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
    let request = request
        .build()
        .map_err(|error| Answer::Refused(StatusCode::BAD_REQUEST, error.to_string()))?;
    let response = client.send(request).await.map_err(|error| broken(&error))?;
    let (head, body) = response.into_parts();
    if head.status.is_success() {
        return Ok(body);
    }
    let body = body.collect().await.map_err(|error| broken(&error))?;
    Err(judge(head.status, &head.headers, &body.to_bytes()))
}

fn broken(error: &kube::Error) -> Answer {
    Answer::Failed(Failure::new("network", whole(error)))
}

/// What an answer means that is no success.
fn judge(status: StatusCode, headers: &header::HeaderMap, body: &[u8]) -> Answer {
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
        .and_then(|s| s.details)
        .map(|d| u64::from(d.retry_after_seconds))
        .filter(|s| *s > 0);
    let after = in_header.or(in_body).map(Duration::from_secs);
    let failed = |reason| {
        Answer::Failed(Failure {
            reason,
            message: message.clone(),
            after,
        })
    };
    match status {
        StatusCode::NOT_FOUND => Answer::Missing,
        StatusCode::CONFLICT => Answer::Conflict,
        StatusCode::TOO_MANY_REQUESTS => failed("throttled"),
        // Credentials are renewed while the process runs.
        StatusCode::UNAUTHORIZED => failed("unauthorized"),
        StatusCode::REQUEST_TIMEOUT => failed("timeout"),
        s if s.is_server_error() => failed("server"),
        s => Answer::Refused(s, message),
    }
}

/// A request that can be sent more than once.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    method: Method,
    path: String,
    content: &'static str,
    body: Vec<u8>,
}

impl Call {
    pub(crate) fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            content: JSON,
            body: Vec::new(),
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
            content,
            body: serde_json::to_vec(body)?,
        })
    }

    fn build(&self) -> http::Result<Request<Body>> {
        Request::builder()
            .method(self.method.clone())
            .uri(&self.path)
            .header(header::ACCEPT, JSON)
            .header(header::CONTENT_TYPE, self.content)
            // Since 1.37 compressed watches are a gzip member an event, which clients misread.
            .header(header::ACCEPT_ENCODING, "identity")
            .body(Body::from(self.body.clone()))
    }
}

/// Sends requests, and again where that may help.
#[derive(Clone)]
pub(crate) struct Caller {
    host: Host,
    role: &'static str,
    gate: Gate,
    pods: Arc<PodLists>,
}

impl Caller {
    pub(crate) fn new(host: Host, role: &'static str, gate: Gate) -> Self {
        Self {
            host,
            role,
            gate,
            pods: Arc::default(),
        }
    }

    pub(crate) fn pod_lists(&self) -> &PodLists {
        &self.pods
    }

    pub(crate) fn role(&self) -> &'static str {
        self.role
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        self.host.metrics()
    }

    pub(crate) fn timing(&self) -> &Timing {
        self.host.timing()
    }

    /// How long to wait after each try of a request.
    pub(crate) fn waits(&self) -> impl Iterator<Item = Duration> + use<> {
        let timing = self.timing();
        let mut backoff = Backoff::new(FIRST_RETRY, timing.write_retry);
        (0..timing.tries.max(1)).map(move |_| backoff.next())
    }

    /// Sends a request until the answer is final or the tries are used up. Nothing is sent once
    /// the lease is no longer held.
    pub(crate) async fn call(&self, call: &Call) -> Answer {
        let mut waits = self.waits().peekable();
        loop {
            let Some(patience) = self.gate.open_for(Instant::now()) else {
                return Answer::Failed(Failure::new("lease", "the lease is not held".to_owned()));
            };
            let patience = patience.min(self.timing().request);
            let failure = match send(self.host.client(), call, patience).await {
                Answer::Failed(failure) => failure,
                answer => return answer,
            };
            let wait = waits
                .next()
                .unwrap_or_default()
                .max(failure.after.unwrap_or_default());
            if waits.peek().is_none() || wait > LONGEST_RETRY_AFTER {
                return Answer::Failed(failure);
            }
            tracing::debug!(
                role = self.role,
                path = call.path,
                reason = failure.reason,
                message = failure.message,
                ?wait,
                "sending a request again"
            );
            let reason = OfReason {
                role: self.role,
                reason: failure.reason,
            };
            self.metrics().retries.get_or_create(&reason).inc();
            tokio::time::sleep(wait).await;
        }
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
        let answer = judge(StatusCode::UNPROCESSABLE_ENTITY, &none, body);
        assert!(matches!(answer, Answer::Refused(_, m) if m == "spec is immutable"));
        let answer = judge(StatusCode::BAD_GATEWAY, &none, b"<html>");
        assert!(matches!(answer, Answer::Failed(f) if f.message.contains("<html>")));
    }

    #[test]
    fn retry_after_is_read_from_the_header_or_the_status() {
        let mut headers = header::HeaderMap::new();
        headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("7"));
        let answer = judge(StatusCode::TOO_MANY_REQUESTS, &headers, b"");
        assert!(matches!(answer, Answer::Failed(f) if f.after == Some(Duration::from_secs(7))));
        let body = br#"{"kind":"Status","details":{"retryAfterSeconds":3}}"#;
        let none = header::HeaderMap::new();
        let answer = judge(StatusCode::TOO_MANY_REQUESTS, &none, body);
        assert!(matches!(answer, Answer::Failed(f) if f.after == Some(Duration::from_secs(3))));
    }

    /// A client whose every request is an error of the test.
    fn nobody_there() -> Client {
        #[derive(Clone)]
        struct Nobody;
        impl tower_service::Service<Request<Body>> for Nobody {
            type Response = http::Response<Body>;
            type Error = kube::Error;
            type Future = std::future::Ready<Result<Self::Response, Self::Error>>;
            fn poll_ready(
                &mut self,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Result<(), Self::Error>> {
                std::task::Poll::Ready(Ok(()))
            }
            fn call(&mut self, request: Request<Body>) -> Self::Future {
                panic!("{} was sent", request.uri());
            }
        }
        Client::new(Nobody, "default")
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_once_the_lease_is_not_held() {
        let gate = Gate::until(Instant::now());
        let caller = Caller::new(Host::new(nobody_there()), "tester", gate);
        let answer = caller.call(&Call::get("/api".to_owned())).await;
        assert!(matches!(answer, Answer::Failed(f) if f.reason == "lease"));
    }
}
