//! A client that sees the wire: codes, headers, JSON.

use std::time::Duration;

use bitts_apiserver::{ApiServer, Body, Clock, Faults, Options};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower_service::Service;

pub(crate) struct Client(pub(crate) ApiServer);

pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    pub(crate) fn version(&self) -> &str {
        self.body["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default()
    }

    /// The names of a list's items.
    pub(crate) fn names(&self) -> Vec<&str> {
        let items = self.body["items"].as_array().expect("a list");
        items
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap())
            .collect()
    }

    pub(crate) fn expect(self, code: u16) -> Self {
        assert_eq!(self.code, code, "{}", self.body);
        self
    }
}

impl Client {
    pub(crate) fn new() -> Self {
        Self::with(Faults::default(), 1_000)
    }

    pub(crate) fn with(faults: Faults, history: usize) -> Self {
        Self(ApiServer::new(Options {
            faults,
            history,
            clock: Clock::Simulated("2026-01-02T03:04:05Z".parse().unwrap()),
            seed: Some(1),
            trace: 1_000,
        }))
    }

    async fn call(&self, request: Request<Full<Bytes>>) -> http::Response<Body> {
        let Ok(response) = self.0.service().call(request).await;
        response
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self
            .call(request.body(Full::from(body.to_owned())).unwrap())
            .await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a whole answer").to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    }

    /// Whether the connection broke instead of an answer.
    pub(crate) async fn breaks(&self, method: &str, path: &str, body: &Value) -> bool {
        let request = Request::builder().method(method).uri(path);
        let response = self
            .call(request.body(Full::from(body.to_string())).unwrap())
            .await;
        response.into_body().collect().await.is_err()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(
            "POST",
            path,
            &[("content-type", "application/json")],
            &body.to_string(),
        )
        .await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(
            "PUT",
            path,
            &[("content-type", "application/json")],
            &body.to_string(),
        )
        .await
    }

    pub(crate) async fn merge(&self, path: &str, body: &Value) -> Answer {
        self.patch("application/merge-patch+json", path, body).await
    }

    pub(crate) async fn patch(&self, format: &str, path: &str, body: &Value) -> Answer {
        self.send(
            "PATCH",
            path,
            &[("content-type", format)],
            &body.to_string(),
        )
        .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], "").await
    }

    pub(crate) async fn watch(&self, path: &str) -> Watch {
        let response = self
            .call(Request::get(path).body(Full::default()).unwrap())
            .await;
        assert_eq!(response.status(), 200);
        Watch {
            body: response.into_body(),
            buffer: Vec::new(),
        }
    }

    /// Creates config maps, the simplest of objects.
    pub(crate) async fn config_maps(&self, names: &[&str]) {
        for name in names {
            self.post(CONFIG_MAPS, &config_map(name)).await.expect(201);
        }
    }
}

pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const VOLUMES: &str = "/api/v1/persistentvolumes";
pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";

pub(crate) fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

pub(crate) fn volume(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "100Mi"}, "accessModes": ["ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "local-storage",
            "hostPath": {"path": "/data/pv"},
        },
    })
}

pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "x"}], "nodeName": "n1"},
    })
}

/// A watch that is under way.
pub(crate) struct Watch {
    body: Body,
    buffer: Vec<u8>,
}

/// What a watch does next.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    Event(String, Value),
    /// A clean end.
    End,
    /// A broken connection; these bytes were sent of the line before.
    Broken(usize),
    /// Nothing for a while.
    Silence,
}

impl Watch {
    pub(crate) async fn next(&mut self) -> Next {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let mut event: Value = serde_json::from_slice(&line).unwrap();
                return Next::Event(
                    event["type"].as_str().unwrap().to_owned(),
                    event["object"].take(),
                );
            }
            match tokio::time::timeout(Duration::from_millis(50), self.body.frame()).await {
                Err(_) => return Next::Silence,
                Ok(None) => return Next::End,
                Ok(Some(Err(_))) => return Next::Broken(self.buffer.len()),
                Ok(Some(Ok(frame))) => self.buffer.extend(frame.into_data().unwrap()),
            }
        }
    }

    /// The next event as `TYPE name`.
    pub(crate) async fn line(&mut self) -> String {
        match self.next().await {
            Next::Event(event, object) => {
                format!(
                    "{event} {}",
                    object["metadata"]["name"].as_str().unwrap_or_default()
                )
            }
            other => format!("{other:?}"),
        }
    }

    pub(crate) async fn lines(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..count {
            lines.push(self.line().await);
        }
        lines
    }
}
