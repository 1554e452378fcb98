//! A claim that is made to see who takes care of it.
//!
//! It names no class and selects a volume that cannot be: a binder says so at once, with an event.
//! One of bitts signs its events as `bitts-binder`; any other is the stock one. No volume is made,
//! so nothing can be bound by mistake and nothing but claims of one namespace has to be granted.

use std::time::Duration;

#[cfg(feature = "binder")]
use bitts_api::grant::{Grant, Place, Verb};
use kube::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::collect::{Refusal, get, send};
use super::facts::Asked;

const NAME: &str = "bitts-canary";
/// A binder that is not overloaded answers within a second.
const PATIENCE: Duration = Duration::from_secs(6);
const LOOK: Duration = Duration::from_millis(200);

/// What a canary takes, beyond what the binder may do anyway.
#[cfg(feature = "binder")]
pub(super) fn grants() -> [Grant; 2] {
    let why = "at the start a claim of this namespace shows whether a stock binder runs";
    [
        Grant::new("", "events", &[Verb::List], why).at(Place::Own),
        Grant::new("", "persistentvolumeclaims", &[Verb::Delete], why)
            .at(Place::Own)
            .named(NAME),
    ]
}

/// Whether a stock binder answers. The claim is deleted whatever happens, also when this is dropped
/// by a signal: then the next canary of this namespace takes it over.
pub(super) async fn fly(client: &Client, namespace: &str) -> Asked<bool> {
    let claims = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims");
    let path = format!("{claims}/{NAME}");
    let labels =
        json!({"app.kubernetes.io/name": "bitts", "app.kubernetes.io/component": "canary"});
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": NAME, "labels": labels},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "selector": {"matchLabels": {"bitts.dev/canary": "no-volume-has-this"}},
            "resources": {"requests": {"storage": "1"}}},
    });
    let made = send(client, "POST", &claims, "application/json", &claim).await;
    // Another replica's that starts at the same time, or what was left by one that was killed.
    let made = match made {
        Ok(made) => made,
        Err(refusal) => match get(client, &path).await {
            Ok(found) => found,
            Err(_) => return Err(refusal.into()),
        },
    };
    let uid = made["metadata"]["uid"].as_str().unwrap_or_default();
    let answered = watch(client, namespace, uid).await;
    match remove(client, &path, uid).await {
        Ok(()) | Err(Refusal::Missing) => {}
        Err(Refusal::Other(why)) => {
            tracing::warn!(
                claim = path,
                why,
                "the canary could not be removed: delete it by hand"
            );
        }
    }
    answered
}

async fn watch(client: &Client, namespace: &str, uid: &str) -> Asked<bool> {
    let events =
        format!("/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.uid%3D{uid}");
    let end = Instant::now() + PATIENCE;
    loop {
        let list = get(client, &events).await?;
        if list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .any(is_foreign)
        {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        sleep(LOOK).await;
    }
}

/// Whether an event is a binder's, and not of bitts.
fn is_foreign(event: &Value) -> bool {
    let entries = event["metadata"]["managedFields"].as_array();
    let by_bitts = entries.into_iter().flatten().any(|entry| {
        entry["manager"]
            .as_str()
            .is_some_and(|by| by.starts_with("bitts-"))
    });
    event["source"]["component"] == "persistentvolume-controller" && !by_bitts
}

async fn remove(client: &Client, path: &str, uid: &str) -> Result<(), Refusal> {
    let only = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}});
    send(client, "DELETE", path, "application/json", &only).await?;
    // Nobody may be there to take the finalizer off.
    let bare = json!({"metadata": {"uid": uid, "finalizers": null}});
    send(client, "PATCH", path, "application/merge-patch+json", &bare).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_bitts_is_no_answer() {
        let event = |component: &str, manager: &str| {
            json!({"source": {"component": component},
                "metadata": {"managedFields": [{"manager": manager}]}})
        };
        assert!(is_foreign(&event(
            "persistentvolume-controller",
            "kube-controller-manager"
        )));
        assert!(is_foreign(&event("persistentvolume-controller", "k3s")));
        assert!(!is_foreign(&event(
            "persistentvolume-controller",
            "bitts-binder"
        )));
        assert!(!is_foreign(&event("someone-else", "operator")));
    }
}
