//! Requests and answers as they go over the wire: no typed client stands between a test and what
//! the API really said.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use http::header::{ACCEPT, CONTENT_TYPE};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::Value;

/// How long a watch waits for the events that a test expects.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request of a test.
#[derive(Debug, Clone)]
pub struct Request {
    /// GET, POST, PUT, PATCH or DELETE.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The body, sent as JSON; none if null.
    pub body: Value,
    /// The Content-Type; JSON unless a patch says otherwise.
    pub content_type: Option<String>,
    /// The Accept header; JSON unless a table is wanted.
    pub accept: Option<String>,
}

impl Request {
    /// A request that sends and wants plain JSON.
    pub fn new(method: &str, path: &str, body: Value) -> Self {
        let (method, path) = (method.to_owned(), path.to_owned());
        Self {
            method,
            path,
            body,
            content_type: None,
            accept: None,
        }
    }

    fn build(&self) -> anyhow::Result<http::Request<Body>> {
        let json = "application/json";
        let bytes = if self.body.is_null() {
            Vec::new()
        } else {
            serde_json::to_vec(&self.body)?
        };
        http::Request::builder()
            .method(self.method.as_str())
            .uri(&self.path)
            .header(ACCEPT, self.accept.as_deref().unwrap_or(json))
            .header(CONTENT_TYPE, self.content_type.as_deref().unwrap_or(json))
            .body(Body::from(bytes))
            .with_context(|| format!("{} {} is no request", self.method, self.path))
    }

    /// Sends it and reads the whole answer, whatever its status.
    pub async fn send(&self, client: &kube::Client) -> anyhow::Result<Answer> {
        let response = client.send(self.build()?).await?;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await?.to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(Answer { status, body })
    }

    /// Sends it as a watch.
    pub async fn watch(&self, client: &kube::Client) -> anyhow::Result<Watch> {
        let response = client.send(self.build()?).await?;
        let status = response.status().as_u16();
        Ok(Watch {
            status,
            body: response.into_body(),
            pending: Vec::new(),
        })
    }
}

/// What the API answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; a string when it is not JSON.
    pub body: Value,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.body)
    }
}

impl Answer {
    /// The body, or an error if the status is another.
    pub fn expect(self, status: u16) -> anyhow::Result<Value> {
        anyhow::ensure!(self.status == status, "expected {status}, got {self}");
        Ok(self.body)
    }

    /// The text at a JSON pointer, empty if there is none.
    pub fn text(&self, pointer: &str) -> &str {
        text(&self.body, pointer)
    }
}

/// The text at a JSON pointer, empty if there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// An open watch.
pub struct Watch {
    /// The HTTP status; events follow only if it is 200.
    pub status: u16,
    body: Body,
    pending: Vec<u8>,
}

impl Watch {
    /// The next event as it came; none if the stream ended. May be dropped at any time.
    pub async fn next_line(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.pending.drain(..=end).collect()));
            }
            match self.body.frame().await {
                Some(frame) => match frame?.into_data() {
                    Ok(data) => self.pending.extend_from_slice(&data),
                    Err(_trailers) => continue,
                },
                // Without a line end: the Status of a watch that was refused.
                None if !self.pending.is_empty() => {
                    return Ok(Some(std::mem::take(&mut self.pending)));
                }
                None => return Ok(None),
            }
        }
    }

    /// The next event, or none if the stream ended or none came for `patience`.
    pub async fn next_within(&mut self, patience: Duration) -> anyhow::Result<Option<Value>> {
        match tokio::time::timeout(patience, self.next_line()).await {
            Ok(line) => Ok(match line? {
                Some(line) => Some(serde_json::from_slice(&line)?),
                None => None,
            }),
            Err(_) => Ok(None),
        }
    }

    /// The next event, which must come.
    pub async fn next(&mut self) -> anyhow::Result<Value> {
        self.next_within(PATIENCE)
            .await?
            .context("the watch has no more events")
    }

    /// The next `count` events, or fewer if no more come.
    pub async fn take(&mut self, count: usize) -> anyhow::Result<Vec<Value>> {
        let mut events = Vec::new();
        while events.len() < count {
            let Some(event) = self.next_within(PATIENCE).await? else {
                break;
            };
            events.push(event);
        }
        Ok(events)
    }
}

/// `TYPE name` of each event, for short comparisons.
pub fn summary(events: &[Value]) -> Vec<String> {
    let line = |event: &Value| {
        format!(
            "{} {}",
            text(event, "/type"),
            text(event, "/object/metadata/name")
        )
    };
    events.iter().map(line).collect()
}
