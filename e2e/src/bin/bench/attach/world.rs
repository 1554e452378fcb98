//! The nodes, volumes and claims that are there before, the pods that come, and what nodes list.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bitts_e2e::raw::{Request, Watch, text};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::Client;
use serde_json::{Value, json};

use crate::contender::Started;
use crate::setup::{CLAIMS, CREATING, Fresh, VOLUMES, post};

pub(super) const DRIVER: &str = "bench.bitts.dev";
pub(super) const PODS: &str = "/api/v1/namespaces/default/pods";
const NODES: &str = "/api/v1/nodes";
/// How long nothing may happen: the stock pair takes 6 s for ten volumes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Claim `c-N` is bound to volume `v-N`, and pod `p-N` uses it. One more of each is for warming up.
pub(super) struct World {
    client: Client,
    volumes: u32,
    nodes: u32,
}

impl World {
    pub(super) async fn new(fresh: &Fresh, volumes: u32, nodes: u32) -> Result<Self> {
        let world = Self {
            client: fresh.client.clone(),
            volumes,
            nodes,
        };
        let driver = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
            "metadata": {"name": DRIVER}, "spec": {"attachRequired": true}});
        let drivers = "/apis/storage.k8s.io/v1/csidrivers";
        post(&world.client, drivers, driver).await?;
        let all = stream::iter(0..nodes).map(|n| world.node(n));
        let () = all.buffer_unordered(CREATING).try_collect().await?;
        let all = stream::iter(0..=volumes).map(|n| world.volume(n));
        let () = all.buffer_unordered(CREATING).try_collect().await?;
        Ok(world)
    }

    async fn node(&self, n: u32) -> Result<()> {
        let name = format!("node-{n}");
        let annotations = json!({"volumes.kubernetes.io/controller-managed-attach-detach": "true"});
        let node = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "annotations": annotations}});
        post(&self.client, NODES, node).await?;
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True",
            "reason": "KubeletReady", "message": "as a fake is"}]}});
        patch(&self.client, &format!("{NODES}/{name}/status"), ready).await?;
        let csi_node = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
            "metadata": {"name": name},
            "spec": {"drivers": [{"name": DRIVER, "nodeID": format!("id-{name}")}]}});
        post(&self.client, "/apis/storage.k8s.io/v1/csinodes", csi_node).await
    }

    /// A volume and its claim, bound.
    async fn volume(&self, n: u32) -> Result<()> {
        let (volume, claim) = (format!("v-{n}"), format!("c-{n}"));
        let modes = json!(["ReadWriteOnce"]);
        let body = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": "default"},
            "spec": {"accessModes": modes, "storageClassName": "bench", "volumeName": volume,
                "resources": {"requests": {"storage": "1Gi"}}}});
        let made = Request::new("POST", CLAIMS, body)
            .send(&self.client)
            .await?;
        let made = made.expect(201)?;
        let bound = json!({"status": {"phase": "Bound", "accessModes": modes,
            "capacity": {"storage": "1Gi"}}});
        patch(&self.client, &format!("{CLAIMS}/{claim}/status"), bound).await?;
        let body = json!({"apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {"accessModes": modes, "storageClassName": "bench",
                "capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": "Retain",
                "csi": {"driver": DRIVER, "volumeHandle": volume},
                "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "namespace": "default", "name": claim, "uid": made["metadata"]["uid"]}}});
        post(&self.client, VOLUMES, body).await
    }

    async fn pod(&self, n: u32) -> Result<()> {
        let node = format!("node-{}", n % self.nodes);
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("p-{n}"), "namespace": "default"},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "none"}],
                "volumes": [{"name": "d",
                    "persistentVolumeClaim": {"claimName": format!("c-{n}")}}]}});
        post(&self.client, PODS, pod).await
    }

    /// All pods but the one for warming up.
    pub(super) async fn create_pods(&self) -> Result<()> {
        let all = stream::iter(0..self.volumes).map(|n| self.pod(n));
        all.buffer_unordered(CREATING).try_collect().await
    }

    /// One volume that is attached shows that the contender is up.
    pub(super) async fn warm_up(&self, watcher: &Client, programs: &mut [Started]) -> Result<()> {
        let watch = self.watch_nodes(watcher).await?;
        self.pod(self.volumes).await?;
        self.listed(watcher, watch, self.volumes..self.volumes + 1, programs)
            .await
            .map(drop)
    }

    /// When each volume was seen to be listed by its node.
    pub(super) async fn all_listed(
        &self,
        watcher: &Client,
        watch: Watch,
        programs: &mut [Started],
    ) -> Result<BTreeMap<String, Instant>> {
        self.listed(watcher, watch, 0..self.volumes, programs).await
    }

    /// What changes of the nodes from now on.
    pub(super) async fn watch_nodes(&self, watcher: &Client) -> Result<Watch> {
        let path = format!("{NODES}?limit=1");
        let list = Request::new("GET", &path, Value::Null)
            .send(watcher)
            .await?;
        let list = list.expect(200)?;
        watch_after(watcher, text(&list, "/metadata/resourceVersion")).await
    }

    async fn listed(
        &self,
        watcher: &Client,
        mut watch: Watch,
        numbers: std::ops::Range<u32>,
        programs: &mut [Started],
    ) -> Result<BTreeMap<String, Instant>> {
        let count = numbers.len();
        let mut seen = BTreeMap::new();
        let mut version = String::new();
        let (mut told, mut last) = (Instant::now(), Instant::now());
        while seen.len() < count {
            let next = tokio::time::timeout(Duration::from_secs(5), watch.next_line()).await;
            programs.iter_mut().try_for_each(Started::check)?;
            if last.elapsed() > PATIENCE {
                let seen = seen.len();
                anyhow::bail!("{seen} of {count} volumes are listed, no news for {PATIENCE:?}");
            }
            let Ok(line) = next else {
                continue;
            };
            let Some(line) = line? else {
                // A full API server hangs up on whom it takes for too slow.
                watch = watch_after(watcher, &version).await?;
                continue;
            };
            let now = Instant::now();
            let event: Value = serde_json::from_slice(&line)?;
            version = text(&event, "/object/metadata/resourceVersion").to_owned();
            let listed = event["object"]["status"]["volumesAttached"].as_array();
            for name in listed.into_iter().flatten().map(|v| text(v, "/name")) {
                let (_, volume) = name.split_once('^').context("a name has a handle")?;
                let number: u32 = volume.trim_start_matches("v-").parse()?;
                if numbers.contains(&number) && !seen.contains_key(volume) {
                    seen.insert(volume.to_owned(), now);
                    last = now;
                }
            }
            if told.elapsed() > Duration::from_secs(10) {
                told = now;
                eprintln!("{} of {count} volumes are listed", seen.len());
            }
        }
        Ok(seen)
    }
}

async fn watch_after(client: &Client, version: &str) -> Result<Watch> {
    let path = format!("{NODES}?watch=1&resourceVersion={version}");
    Request::new("GET", &path, Value::Null).watch(client).await
}

/// A merge patch.
pub(super) async fn patch(client: &Client, path: &str, body: Value) -> Result<()> {
    let mut request = Request::new("PATCH", path, body);
    request.content_type = Some("application/merge-patch+json".to_owned());
    request.send(client).await?.expect(200).map(drop)
}
