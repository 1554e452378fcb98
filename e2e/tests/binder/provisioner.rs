//! An external provisioner as a test has it (P12): it acts on claims that are handed to it and makes
//! volumes whose data nobody needs.

use std::time::Duration;

use bitts_e2e::cluster::Scope;
use bitts_e2e::raw::text;
use serde_json::{Value, json};

use crate::scene::create;

pub(crate) const HAND_OVER: [&str; 2] = [
    "/metadata/annotations/volume.kubernetes.io~1storage-provisioner",
    "/metadata/annotations/volume.beta.kubernetes.io~1storage-provisioner",
];
pub(crate) const SELECTED: &str = "/metadata/annotations/volume.kubernetes.io~1selected-node";

/// Serves the claims of one namespace.
pub(crate) struct Provisioner {
    api: Scope,
    /// What classes call it.
    name: String,
    /// The class waits for a pod's node.
    delayed: bool,
}

impl Provisioner {
    pub(crate) fn new(api: &Scope, name: &str, delayed: bool) -> Self {
        Self {
            api: api.clone(),
            name: name.to_owned(),
            delayed,
        }
    }

    /// Makes a volume for each claim that is handed over, for ever. On the node that `refuses` names it
    /// has no room: it gives the claim back to the scheduler, as provisioners do.
    pub(crate) async fn serve(&self, refuses: Option<&str>) -> anyhow::Result<()> {
        loop {
            for claim in self.handed_over().await? {
                let node = text(&claim, SELECTED);
                if self.delayed && refuses == Some(node) {
                    self.give_back(&claim).await?;
                } else {
                    self.provision(&claim, node).await?;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn handed_over(&self) -> anyhow::Result<Vec<Value>> {
        let all = self.api.get(&self.api.claims("")).await?.expect(200)?;
        let all = all["items"].as_array().into_iter().flatten();
        Ok(all
            .filter(|claim| {
                text(claim, HAND_OVER[0]) == self.name
                    && text(claim, "/spec/volumeName").is_empty()
                    && (!self.delayed || !text(claim, SELECTED).is_empty())
            })
            .cloned()
            .collect())
    }

    async fn give_back(&self, claim: &Value) -> anyhow::Result<()> {
        let name = text(claim, "/metadata/name");
        let body = json!({"metadata": {
            "resourceVersion": claim["metadata"]["resourceVersion"],
            "annotations": {"volume.kubernetes.io/selected-node": null}}});
        // A conflict is met again with the next look.
        let path = self.api.claims(&format!("/{name}"));
        self.api.merge(&path, body).await.map(drop)
    }

    async fn provision(&self, claim: &Value, node: &str) -> anyhow::Result<()> {
        let name = format!("pvc-{}", text(claim, "/metadata/uid"));
        let path = format!("/api/v1/persistentvolumes/{name}");
        if self.api.get(&path).await?.status == 200 {
            return Ok(());
        }
        let mut body = json!({"apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": name,
                "annotations": {"pv.kubernetes.io/provisioned-by": self.name}},
            "spec": {"capacity": claim["spec"]["resources"]["requests"],
                "accessModes": claim["spec"]["accessModes"],
                "storageClassName": claim["spec"]["storageClassName"],
                "persistentVolumeReclaimPolicy": "Retain",
                "nfs": {"server": "nfs.example", "path": "/"},
                "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "namespace": claim["metadata"]["namespace"],
                    "name": claim["metadata"]["name"], "uid": claim["metadata"]["uid"]}}});
        if !node.is_empty() {
            body["spec"]["nodeAffinity"] = on_node(node);
        }
        create(&self.api, "/api/v1/persistentvolumes", body)
            .await
            .map(drop)
    }
}

/// The affinity of a volume that is on one node.
pub(crate) fn on_node(node: &str) -> Value {
    json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}})
}
