//! The Lease object on the API.

use http::{Method, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Answer, Call, JSON, MERGE_PATCH, send};
use crate::{Host, LeaseOptions};

/// The Lease object, as far as an election needs it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Record {
    pub(super) metadata: RecordMeta,
    #[serde(default)]
    pub(super) spec: Spec,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RecordMeta {
    pub(super) resource_version: String,
    pub(super) uid: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    pub(super) holder_identity: Option<String>,
    pub(super) lease_duration_seconds: Option<u32>,
    pub(super) lease_transitions: Option<u64>,
}

impl Record {
    /// Who has the lease; nobody after it was given back.
    pub(super) fn holder(&self) -> Option<&str> {
        self.spec
            .holder_identity
            .as_deref()
            .filter(|holder| !holder.is_empty())
    }
}

/// Reads and changes it.
pub(super) struct Wire<'a> {
    pub(super) host: &'a Host,
    pub(super) options: &'a LeaseOptions,
}

impl Wire<'_> {
    pub(super) async fn get(&self) -> Result<Option<Record>, String> {
        match self
            .send(Call::get(format!(
                "{}/{}",
                self.collection(),
                self.options.name
            )))
            .await
        {
            Answer::Ok(body) => read(&body).map(Some),
            Answer::Missing => Ok(None),
            answer => Err(self.problem(answer)),
        }
    }

    /// `None` when somebody else was faster.
    pub(super) async fn create(&self) -> Result<Option<Record>, String> {
        let mut spec = self.term();
        spec["leaseTransitions"] = json!(0);
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.options.name, "namespace": self.options.namespace},
            "spec": spec,
        });
        self.change(Call::with_body(
            Method::POST,
            self.collection(),
            JSON,
            &lease,
        ))
        .await
    }

    /// Changes the spec of exactly this record; `None` when it is no longer this one.
    pub(super) async fn patch(
        &self,
        record: &Record,
        spec: &Value,
    ) -> Result<Option<Record>, String> {
        let patch = json!({
            "metadata": {
                "uid": record.metadata.uid,
                "resourceVersion": record.metadata.resource_version,
            },
            "spec": spec,
        });
        let path = format!("{}/{}", self.collection(), self.options.name);
        self.change(Call::with_body(Method::PATCH, path, MERGE_PATCH, &patch))
            .await
    }

    async fn change(
        &self,
        call: Result<Call, serde_json::Error>,
    ) -> Result<Option<Record>, String> {
        match self.send(call.map_err(|error| error.to_string())?).await {
            Answer::Ok(body) => read(&body).map(Some),
            Answer::Conflict => Ok(None),
            answer => Err(self.problem(answer)),
        }
    }

    async fn send(&self, call: Call) -> Answer {
        // Two tries fit before the holder has to give up.
        let patience = self
            .host
            .timing()
            .request
            .min(self.options.renew_deadline / 2);
        send(self.host.client(), &call, patience).await
    }

    fn collection(&self) -> String {
        format!(
            "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
            self.options.namespace
        )
    }

    /// A term of office that begins now.
    fn term(&self) -> Value {
        let now = now();
        json!({
            "holderIdentity": self.options.identity,
            "leaseDurationSeconds": self.options.duration.as_secs().max(1),
            "acquireTime": now,
            "renewTime": now,
        })
    }

    pub(super) fn taken(&self, from: &Record) -> Value {
        let mut spec = self.term();
        let changes = from.spec.lease_transitions.unwrap_or(0);
        spec["leaseTransitions"] = json!(changes + 1);
        spec
    }

    fn problem(&self, answer: Answer) -> String {
        match answer {
            Answer::Failed(failure) => failure.message,
            Answer::Refused(StatusCode::FORBIDDEN, message) => format!(
                "forbidden: {message}. Grant get, create and patch on leases in {}",
                self.options.namespace
            ),
            Answer::Refused(StatusCode::NOT_FOUND, _) => {
                format!("is there a namespace {}?", self.options.namespace)
            }
            Answer::Refused(code, message) => format!("{message} ({code})"),
            Answer::NoSuchPath(message) => message,
            other => format!("unexpected answer {other:?}"),
        }
    }
}

fn read(body: &[u8]) -> Result<Record, String> {
    serde_json::from_slice(body).map_err(|error| format!("the Lease cannot be read: {error}"))
}

/// The wall clock, for people who look at the object; nothing is decided by it.
pub(super) fn now() -> String {
    format!("{:.6}", Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_api_wants_them() {
        let now = now();
        let fraction = now.split_once('.').unwrap().1;
        assert_eq!(fraction.len(), "123456Z".len(), "{now}");
    }
}
