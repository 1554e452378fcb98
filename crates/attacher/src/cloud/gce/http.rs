//! One request and its answer.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use serde_json::Value;

use crate::cloud::worker::CloudError;

const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take; one to a wait is held back for two minutes.
const PATIENCE: Duration = Duration::from_secs(150);
/// Nothing that is read here is longer.
const LONGEST: usize = 64 << 20;
const NAME: &str = concat!("bitts/", env!("CARGO_PKG_VERSION"));

/// Why the API cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// It is no address.
    #[error(
        "{0:?} is no address of a Compute Engine API: it begins with https:// and ends with a version, as https://compute.googleapis.com/compute/v1"
    )]
    Address(String),
    /// It cannot be spoken to in private.
    #[error("TLS cannot be set up: {0}")]
    Tls(rustls::Error),
}

/// A client of the API, and of whoever gives tokens.
#[derive(Debug)]
pub(super) struct Http {
    base: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// Why there is no answer, or not the one that was wanted.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Not a success.
    Status {
        status: u16,
        reason: String,
        message: String,
    },
    /// No answer.
    Broken(String),
    /// Nobody said who asks.
    Token { from: String, message: String },
}

impl Http {
    pub(super) fn new(base: &str) -> Result<Self, EndpointError> {
        let address = || EndpointError::Address(base.to_owned());
        let uri: Uri = base.parse().map_err(|_| address())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(address());
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        let provider = rustls::crypto::ring::default_provider();
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(provider)
            .map_err(EndpointError::Tls)?
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            client,
        })
    }

    /// Asks the API.
    pub(super) async fn send(
        &self,
        method: &Method,
        path: &str,
        token: &str,
        body: Option<&Value>,
    ) -> Result<Value, Refusal> {
        let uri = format!("{}/{path}", self.base);
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        self.exchange(request, body).await
    }

    /// Sends anything, and reads the answer.
    pub(super) async fn exchange(
        &self,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<Value, Refusal> {
        let broken = |error: &dyn std::fmt::Display| Refusal::Broken(error.to_string());
        let request = request
            .header(header::USER_AGENT, NAME)
            .body(Full::new(body));
        let request = request.map_err(|error| broken(&error))?;
        let exchange = async {
            let answer = self.client.request(request).await;
            let answer = answer.map_err(|error| Refusal::Broken(whole(&error)))?;
            let status = answer.status();
            let body = http_body_util::Limited::new(answer.into_body(), LONGEST);
            let body = body.collect().await.map_err(|error| broken(&error))?;
            let body = body.to_bytes();
            if !status.is_success() {
                return Err(refusal(status.as_u16(), &body));
            }
            serde_json::from_slice(&body).map_err(|error| broken(&error))
        };
        let late = |_| Refusal::Broken(format!("no answer within {} s", PATIENCE.as_secs()));
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .map_err(late)?
    }
}

/// An error with all that it comes from.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    error: WireError,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireError {
    message: String,
    errors: Vec<Item>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Item {
    reason: String,
}

fn refusal(status: u16, body: &[u8]) -> Refusal {
    let parsed: Body = serde_json::from_slice(body).unwrap_or_default();
    let message = match parsed.error.message {
        message if message.is_empty() => String::from_utf8_lossy(body).trim().to_owned(),
        message => message,
    };
    let reason = parsed.error.errors.into_iter().next();
    Refusal::Status {
        status,
        reason: reason.unwrap_or_default().reason,
        message,
    }
}

/// Whether that is the word for a disk that something has.
pub(super) fn says_in_use(word: &str) -> bool {
    let plain = word.replace('_', "");
    plain.eq_ignore_ascii_case("resourceInUseByAnotherResource")
}

impl Refusal {
    /// The disk is attached.
    pub(super) fn is_in_use(&self) -> bool {
        matches!(self, Self::Status { reason, .. } if says_in_use(reason))
    }

    fn is_throttled(&self) -> bool {
        let Self::Status { status, reason, .. } = self else {
            return false;
        };
        let limits = [
            "rateLimitExceeded",
            "userRateLimitExceeded",
            "quotaExceeded",
            "dailyLimitExceeded",
        ];
        *status == 429 || (*status == 403 && limits.contains(&&**reason))
    }

    /// Whether the same request may succeed soon.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Status { status, .. } => *status >= 500 || *status == 408 || self.is_throttled(),
            Self::Broken(_) => true,
            Self::Token { .. } => false,
        }
    }

    /// The error of a call that ended so.
    pub(super) fn of(self, call: String) -> CloudError {
        let is_throttled = self.is_throttled();
        let may_pass = self.may_pass();
        match self {
            Self::Token { from, message } => CloudError::Token { from, message },
            Self::Broken(message) => CloudError::Unavailable { call, message },
            Self::Status { message, .. } if is_throttled => CloudError::Throttled { call, message },
            Self::Status {
                status: 404,
                message,
                ..
            } => CloudError::NotFound { call, message },
            Self::Status {
                status, message, ..
            } if may_pass => CloudError::Unavailable {
                call,
                message: format!("{status}: {message}"),
            },
            Self::Status {
                status, message, ..
            } => CloudError::Refused {
                call,
                status,
                message,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, reason: &str) -> CloudError {
        let body = serde_json::json!({"error": {"code": status, "message": "no",
            "errors": [{"reason": reason, "message": "no"}]}});
        refusal(status, body.to_string().as_bytes()).of("GET x".to_owned())
    }

    #[test]
    fn what_an_answer_means() {
        assert!(matches!(of(404, "notFound"), CloudError::NotFound { .. }));
        assert!(matches!(of(429, ""), CloudError::Throttled { .. }));
        assert!(matches!(
            of(403, "rateLimitExceeded"),
            CloudError::Throttled { .. }
        ));
        assert!(matches!(
            of(403, "forbidden"),
            CloudError::Refused { status: 403, .. }
        ));
        assert!(matches!(
            of(503, "backendError"),
            CloudError::Unavailable { .. }
        ));
        assert!(matches!(
            of(400, "resourceNotReady"),
            CloudError::Refused { .. }
        ));
        for (status, word) in [
            (400, "resourceInUseByAnotherResource"),
            (409, "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE"),
        ] {
            let body = serde_json::json!({"error": {"errors": [{"reason": word}]}});
            assert!(refusal(status, body.to_string().as_bytes()).is_in_use());
        }
        let odd = refusal(502, b"<html>Bad Gateway</html>").of("GET x".to_owned());
        assert_eq!(odd.to_string(), "GET x: 502: <html>Bad Gateway</html>");
    }

    #[test]
    fn an_address_has_a_scheme_and_a_host() {
        for wrong in [
            "compute.googleapis.com",
            "ftp://x/compute/v1",
            "/compute/v1",
            "",
        ] {
            assert!(Http::new(wrong).is_err(), "{wrong}");
        }
        assert!(Http::new("http://127.0.0.1:1/compute/v1/").is_ok());
    }
}
