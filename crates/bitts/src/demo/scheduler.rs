//! A stand-in for the scheduler: the demo's one node gets every pod whose claims are bound.
//!
//! It keeps a user's own pods from waiting for a scheduler that is not there. Claims that wait for
//! their first consumer need the real one (S10), and stay Pending here.

use anyhow::Result;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::manifests::NODE;

/// Binds pods to the node until the API ends.
pub(crate) async fn run(client: Client) -> Result<()> {
    let pods: Api<Pod> = Api::all(client.clone());
    let claims: Api<PersistentVolumeClaim> = Api::all(client.clone());
    // A pod may wait for its claim: both are reasons to look again.
    let by_pod = watcher(
        pods.clone(),
        watcher::Config::default().fields("spec.nodeName="),
    );
    let by_claim = watcher(claims, watcher::Config::default());
    let mut reasons = std::pin::pin!(futures::stream::select(
        by_pod.applied_objects().map(|_| ()),
        by_claim.applied_objects().map(|_| ()),
    ));
    while reasons.next().await.is_some() {
        let unassigned = kube::api::ListParams::default().fields("spec.nodeName=");
        for pod in pods.list(&unassigned).await? {
            if claims_are_bound(&client, &pod).await? {
                assign(&client, &pod).await?;
            }
        }
    }
    Ok(())
}

async fn claims_are_bound(client: &Client, pod: &Pod) -> Result<bool> {
    let namespace = pod.namespace().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    for name in volumes.filter_map(|v| Some(&v.persistent_volume_claim.as_ref()?.claim_name)) {
        let claim = claims.get_opt(name).await?;
        let phase = claim.and_then(|c| c.status).and_then(|s| s.phase);
        if phase.as_deref() != Some("Bound") {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn assign(client: &Client, pod: &Pod) -> Result<()> {
    let name = pod.name_any();
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": name, "uid": pod.uid()},
        "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
    });
    let namespace = pod.namespace().unwrap_or_default();
    let request = http::Request::post(format!(
        "/api/v1/namespaces/{namespace}/pods/{name}/binding"
    ))
    .header(http::header::CONTENT_TYPE, "application/json")
    .body(serde_json::to_vec(&binding)?)?;
    match client.request::<serde_json::Value>(request).await {
        // Gone or assigned meanwhile.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        result => result.map(drop).map_err(Into::into),
    }
}
