//! What the stories of the binder share: the binder beside them, objects, and waiting.

use std::time::Duration;

use anyhow::bail;
use bitts_binder::Options;
use bitts_e2e::cluster::Scope;
use bitts_e2e::raw::text;
use bitts_e2e::tripwire::{Timing, Tripwire};
use bitts_runtime::Host;
use serde_json::{Value, json};

/// Runs the binder beside a story, and counts what it asked for.
pub(crate) async fn beside_the_binder(
    api: &Scope,
    story: impl AsyncFnOnce(&Tripwire) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let wire = Tripwire::new(api.client(), Timing::Before, |_| false, async || ());
    let host = Host::new(wire.client());
    let binder = bitts_binder::run(&host, Options::default(), None);
    let story = async {
        let ended = story(&wire).await;
        host.shutdown().cancel();
        ended
    };
    let (ran, ended) = tokio::join!(binder, story);
    ended?;
    Ok(ran?)
}

/// Waits until what is at a path is so; nothing there is null.
pub(crate) async fn until(
    api: &Scope,
    path: &str,
    what: &str,
    is_so: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    until_within(Duration::from_secs(30), api, path, what, is_so).await
}

/// The same within another time.
pub(crate) async fn until_within(
    time: Duration,
    api: &Scope,
    path: &str,
    what: &str,
    is_so: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    let deadline = tokio::time::Instant::now() + time;
    loop {
        let answer = api.get(path).await?;
        let found = match answer.status {
            404 => Value::Null,
            _ => answer.expect(200)?,
        };
        if is_so(&found) {
            return Ok(found);
        }
        if tokio::time::Instant::now() > deadline {
            bail!("{path} after {time:?}: {what} is not so: {found}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn is_bound(claim: &Value) -> bool {
    text(claim, "/status/phase") == "Bound"
}

/// Creates a claim.
pub(crate) async fn claim(api: &Scope, name: &str, spec: Value) -> anyhow::Result<Value> {
    let body = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name}, "spec": spec});
    api.post(&api.claims(""), body).await?.expect(201)
}

/// The path of the pods of the test's namespace, or of one of them.
pub(crate) fn pods(api: &Scope, rest: &str) -> String {
    format!("/api/v1/namespaces/{}/pods{rest}", api.namespace())
}

/// Creates an object outside of namespaces or with a namespace of its own.
pub(crate) async fn create(api: &Scope, path: &str, body: Value) -> anyhow::Result<Value> {
    api.post(path, body).await?.expect(201)
}

/// Creates a class of the test's own; more fields are in `rest`.
pub(crate) async fn class(api: &Scope, base: &str, rest: Value) -> anyhow::Result<Value> {
    let mut body = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": api.name(base)}});
    for (field, value) in rest.as_object().into_iter().flatten() {
        body[field] = value.clone();
    }
    create(api, CLASSES, body).await
}

/// The path of all classes.
pub(crate) const CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";

/// The spec of a claim of 1Gi in a class of the test's own.
pub(crate) fn of_class(api: &Scope, base: &str) -> Value {
    json!({"accessModes": ["ReadWriteOnce"], "storageClassName": api.name(base),
        "resources": {"requests": {"storage": "1Gi"}}})
}

/// The events about a claim, in the order in which they were written.
pub(crate) async fn events_about(api: &Scope, name: &str) -> anyhow::Result<Vec<Value>> {
    let path = format!("/api/v1/namespaces/{}/events", api.namespace());
    let all = api.get(&path).await?.expect(200)?;
    let all = all["items"].as_array().into_iter().flatten();
    let mut found: Vec<Value> = all
        .filter(|event| {
            text(event, "/involvedObject/name") == name
                && text(event, "/involvedObject/kind") == "PersistentVolumeClaim"
        })
        .cloned()
        .collect();
    found.sort_by_key(|event| text(event, "/metadata/resourceVersion").parse::<u64>().ok());
    Ok(found)
}

/// Waits until a claim was told something for this reason, and returns all that it was told.
pub(crate) async fn until_told(
    api: &Scope,
    name: &str,
    reason: &str,
) -> anyhow::Result<Vec<Value>> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let told = events_about(api, name).await?;
        if told.iter().any(|event| event["reason"] == reason) {
            return Ok(told);
        }
        if tokio::time::Instant::now() > deadline {
            bail!("{name} was not told {reason} in 30 s: {told:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
