//! What every story of attaching needs: an API, a driver with its disks, nodes, volumes, pods, and what
//! must never be or be left over.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bitts_csi::testing::{DiskCall, Disks, FakeController};
use bitts_csi::v1::controller_service_capability::rpc::Type as Rpc;
use bitts_e2e::cluster::{Cluster, Kind, Scope};
use bitts_e2e::control_plane::Component;
use bitts_e2e::raw::text;
use serde_json::{Value, json};

pub(crate) const ATTACHMENTS: &str = "/apis/storage.k8s.io/v1/volumeattachments";
/// A call of the driver may take so long, so that one that hangs holds nothing up for long.
const TIMEOUT: &str = "--csi-timeout=2s";

/// A volume on a node, by their names in the API.
pub(crate) type Place = (String, String);

/// What only the checks know.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// What kubelets have mounted.
    pub(crate) mounted: BTreeSet<Place>,
    /// What must never be.
    pub(crate) broken: Vec<String>,
}

/// One API with one driver.
pub(crate) struct Stage {
    pub(crate) api: Scope,
    kubeconfig: String,
    pub(crate) disks: Disks,
    controller: RefCell<Option<FakeController>>,
    socket: PathBuf,
    seen: Arc<Mutex<Seen>>,
    // Last: the socket is in it.
    _folder: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn new(kind: Kind) -> anyhow::Result<Self> {
        let cluster = Arc::new(Cluster::start(kind).await?);
        let kubeconfig = cluster.kubeconfig().context("others reach it")?.to_owned();
        let api = Scope::new(cluster).await?;
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("csi.sock");
        let disks = Disks::new(
            &driver(&api),
            &[
                Rpc::PublishUnpublishVolume,
                Rpc::ListVolumes,
                Rpc::ListVolumesPublishedNodes,
            ],
        );
        let stage = Self {
            kubeconfig,
            controller: RefCell::new(Some(FakeController::start(&socket, &disks)?)),
            disks,
            socket,
            seen: Arc::default(),
            _folder: folder,
            api,
        };
        stage.watch();
        let csi_driver = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
            "metadata": {"name": stage.driver()}, "spec": {"attachRequired": true}});
        stage
            .create("/apis/storage.k8s.io/v1/csidrivers", csi_driver)
            .await?;
        Ok(stage)
    }

    pub(crate) fn driver(&self) -> String {
        driver(&self.api)
    }

    /// What a node's status calls a volume.
    pub(crate) fn unique(&self, volume: &str) -> String {
        format!("kubernetes.io/csi/{}^{volume}", self.driver())
    }

    pub(crate) fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at each call of the driver just before it takes effect.
    fn watch(&self) {
        let seen = self.seen.clone();
        self.disks.watch(move |call: &DiskCall, attached| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let node = call.node.trim_start_matches("id-").to_owned();
            if call.attaches {
                let other = attached
                    .iter()
                    .find(|(v, n)| *v == call.volume && *n != call.node);
                if let Some((_, other)) = other {
                    let broken = format!("{} is on {other}, and now on {}", call.volume, call.node);
                    seen.broken.push(broken);
                }
            } else if seen.mounted.contains(&(call.volume.clone(), node)) {
                // All nodes here are ready.
                let broken = format!("{} is taken from {}, which uses it", call.volume, call.node);
                seen.broken.push(broken);
            }
        });
    }

    /// The driver's controller dies in the middle of whatever it does, and comes back.
    pub(crate) fn crash_driver(&self) -> anyhow::Result<()> {
        self.end_driver();
        self.start_driver(&self.disks)
    }

    /// The driver's controller dies in the middle of whatever it does.
    pub(crate) fn end_driver(&self) {
        drop(self.controller.take());
    }

    /// A driver's controller listens where this one's did.
    pub(crate) fn start_driver(&self, disks: &Disks) -> anyhow::Result<()> {
        let controller = FakeController::start(&self.socket, disks)?;
        drop(self.controller.replace(Some(controller)));
        Ok(())
    }

    /// Starts bitts with all that this takes.
    pub(crate) fn bitts(&self) -> anyhow::Result<Component> {
        self.roles("binder,attacher,csi-attacher")
    }

    /// Starts bitts with these roles.
    pub(crate) fn roles(&self, roles: &str) -> anyhow::Result<Component> {
        self.roles_with(roles, &[])
    }

    /// Starts bitts with these roles and more flags.
    pub(crate) fn roles_with(&self, roles: &str, more: &[&str]) -> anyhow::Result<Component> {
        let socket = format!("--csi-socket={}", self.socket.display());
        let flags = [&[&*socket, TIMEOUT], more].concat();
        Component::roles(&self.kubeconfig, roles, &flags)
    }

    /// Starts bitts as one of several, of which an elected one works; it keeps its leases in the namespace
    /// of the test.
    pub(crate) fn elected(&self) -> anyhow::Result<Component> {
        let socket = format!("--csi-socket={}", self.socket.display());
        let namespace = format!("--lease-namespace={}", self.api.namespace());
        let flags = [socket.as_str(), TIMEOUT, &namespace];
        Component::elected(&self.kubeconfig, "binder,attacher,csi-attacher", &flags)
    }

    /// Starts the stock sidecar beside the driver.
    pub(crate) fn stock_sidecar(&self) -> anyhow::Result<Component> {
        Component::external_attacher(&self.kubeconfig, &self.socket)
    }

    /// Starts the stock attach-detach controller.
    pub(crate) fn stock(&self) -> anyhow::Result<Component> {
        let controllers = ["persistentvolume-attach-detach-controller"];
        Component::controller_manager(&self.kubeconfig, &controllers, &[])
    }

    pub(crate) fn scheduler(&self) -> anyhow::Result<Component> {
        Component::scheduler(&self.kubeconfig, &[])
    }

    pub(crate) async fn create(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.api.post(path, body).await?.expect(201)
    }

    pub(crate) async fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let list = self.api.get(path).await?.expect(200)?;
        let items = list["items"].as_array().context("a list has items")?;
        Ok(items.clone())
    }

    /// A node that is ready, that the attach controller attaches to, and that the driver knows.
    pub(crate) async fn node(&self, base: &str) -> anyhow::Result<String> {
        let id = format!("id-{}", self.api.name(base));
        self.node_called(base, &id).await
    }

    /// The same, and the driver calls it so.
    pub(crate) async fn node_called(&self, base: &str, id: &str) -> anyhow::Result<String> {
        let name = self.api.name(base);
        let annotations = json!({"volumes.kubernetes.io/controller-managed-attach-detach": "true"});
        let body = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name,
            "annotations": annotations,
            "labels": {"kubernetes.io/hostname": name, "story": self.api.id()}}});
        self.create("/api/v1/nodes", body).await?;
        let path = format!("/api/v1/nodes/{name}");
        let room = json!({"cpu": "64", "memory": "64Gi", "pods": "500"});
        let status = json!({"status": {"capacity": room, "allocatable": room, "conditions":
            [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "as a fake is"}]}});
        let patched = self.api.merge(&format!("{path}/status"), status).await?;
        patched.expect(200)?;
        // Given to each new node; a controller would take it away.
        let ready = json!({"spec": {"taints": null}});
        self.api.merge(&path, ready).await?.expect(200)?;
        let csi_node = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
            "metadata": {"name": name}, "spec": {"drivers":
                [{"name": self.driver(), "nodeID": id}]}});
        self.create("/apis/storage.k8s.io/v1/csinodes", csi_node)
            .await?;
        Ok(name)
    }

    /// A volume for one node and the claim of the same base that it is for; returns the volume's name,
    /// which is its handle too.
    pub(crate) async fn volume(&self, base: &str) -> anyhow::Result<String> {
        self.volume_with(base, None).await
    }

    /// The same, and the driver is given this secret of the test's namespace when it attaches.
    pub(crate) async fn volume_with(
        &self,
        base: &str,
        secret: Option<&str>,
    ) -> anyhow::Result<String> {
        let name = self.api.name(base);
        let class = self.api.name("disk");
        let common = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": class});
        let mut spec = common.clone();
        spec["capacity"] = json!({"storage": "1Gi"});
        spec["persistentVolumeReclaimPolicy"] = json!("Retain");
        spec["csi"] = json!({"driver": self.driver(), "volumeHandle": name});
        if let Some(secret) = secret {
            spec["csi"]["controllerPublishSecretRef"] =
                json!({"namespace": self.api.namespace(), "name": secret});
        }
        spec["claimRef"] = json!({"namespace": self.api.namespace(), "name": base});
        let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": name}, "spec": spec});
        self.create("/api/v1/persistentvolumes", volume).await?;
        let mut spec = common;
        spec["resources"] = json!({"requests": {"storage": "1Gi"}});
        spec["volumeName"] = json!(name);
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": base}, "spec": spec});
        self.create(&self.api.claims(""), claim).await?;
        Ok(name)
    }

    pub(crate) fn pods(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/pods{rest}", self.api.namespace())
    }

    /// A pod that uses a claim; on a node, or wherever the scheduler puts it.
    pub(crate) async fn pod(
        &self,
        name: &str,
        claim: &str,
        node: Option<&str>,
    ) -> anyhow::Result<()> {
        let mut spec = json!({"nodeSelector": {"story": self.api.id()},
            "containers": [{"name": "c", "image": "none"}],
            "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": claim}}]});
        if let Some(node) = node {
            spec["nodeName"] = json!(node);
        }
        let pod =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        self.create(&self.pods(""), pod).await.map(drop)
    }

    /// Asks for a pod to be deleted; one that is gone already is no matter.
    pub(crate) async fn delete_pod(&self, name: &str) -> anyhow::Result<()> {
        let path = self.pods(&format!("/{name}"));
        let answer = self.api.delete(&path, Value::Null).await?;
        ensure!(matches!(answer.status, 200 | 202 | 404), "{answer}");
        Ok(())
    }

    /// What a pod's events of a reason say, if they say this.
    pub(crate) async fn was_told(&self, pod: &str, part: &str) -> anyhow::Result<Option<String>> {
        let path = format!("/api/v1/namespaces/{}/events", self.api.namespace());
        let all = self.list(&path).await?;
        let of_pod = all
            .iter()
            .filter(|event| text(event, "/involvedObject/name") == pod);
        let said: Vec<&str> = of_pod.map(|event| text(event, "/message")).collect();
        let found = said.iter().any(|message| message.contains(part));
        Ok((!found).then(|| format!("{pod} was not told of {part:?}: {said:?}")))
    }

    /// Why a pod does not run, if it does not.
    pub(crate) async fn runs(&self, pod: &str) -> anyhow::Result<Option<String>> {
        let found = self.api.get(&self.pods(&format!("/{pod}"))).await?;
        let runs = found.text("/status/phase") == "Running";
        Ok((!runs).then(|| format!("{pod} does not run")))
    }

    /// The attachment of a volume to a node, if there is one.
    pub(crate) async fn attachment(
        &self,
        volume: &str,
        node: &str,
    ) -> anyhow::Result<Option<Value>> {
        let all = self.list(ATTACHMENTS).await?;
        Ok(all.into_iter().find(|one| {
            let source = text(one, "/spec/source/persistentVolumeName");
            source == volume && text(one, "/spec/nodeName") == node
        }))
    }

    /// Waits until something is so.
    pub(crate) async fn until(
        &self,
        what: &str,
        patience: Duration,
        is_so: impl AsyncFn() -> anyhow::Result<Option<String>>,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        while let Some(why_not) = is_so().await? {
            if start.elapsed() > patience {
                bail!("{what} is not so after {patience:?}: {why_not}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Why pods do not all run, if they do not.
    pub(crate) async fn all_run(&self, expected: usize) -> anyhow::Result<Option<String>> {
        let pods = self.list(&self.pods("")).await?;
        let runs = |pod: &&Value| text(pod, "/status/phase") == "Running";
        let running = pods.iter().filter(runs).count();
        Ok((running < expected).then(|| format!("{running} of {expected} run")))
    }

    /// What is left over when all pods are gone, if anything is.
    pub(crate) async fn left(&self) -> anyhow::Result<Option<String>> {
        let mut left: Vec<String> = Vec::new();
        for attachment in self.list(ATTACHMENTS).await? {
            if text(&attachment, "/spec/attacher") == self.driver() {
                left.push(format!("attachment {}", attachment["status"]));
            }
        }
        for volume in self.list("/api/v1/persistentvolumes").await? {
            let held = volume["metadata"]["finalizers"].to_string();
            if held.contains("external-attacher/") {
                left.push(format!("volume {} {held}", text(&volume, "/metadata/name")));
            }
        }
        let nodes = format!("/api/v1/nodes?labelSelector=story%3D{}", self.api.id());
        for node in self.list(&nodes).await? {
            for list in ["volumesAttached", "volumesInUse"] {
                let list = &node["status"][list];
                if list.as_array().is_some_and(|list| !list.is_empty()) {
                    left.push(format!("{} lists {list}", text(&node, "/metadata/name")));
                }
            }
        }
        let attached = self.disks.attached();
        if !attached.is_empty() {
            left.push(format!("attached {attached:?}"));
        }
        let pods = self.list(&self.pods("")).await?.len();
        if pods > 0 {
            left.push(format!("{pods} pods"));
        }
        let shown = left.iter().take(5).cloned().collect::<Vec<_>>();
        let why = format!("{} left over: {}", left.len(), shown.join("; "));
        Ok((!left.is_empty()).then_some(why))
    }

    /// Whether all that must never be never was.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let mut broken = self.seen(|seen| seen.broken.clone());
        let crowded = self.disks.crowded();
        if !crowded.is_empty() {
            broken.push(format!("two calls at a time for {crowded:?}"));
        }
        ensure!(broken.is_empty(), "{broken:#?}");
        Ok(())
    }
}

fn driver(api: &Scope) -> String {
    format!("disk-{}.example.com", api.id())
}

/// Numbers that are the same in every run.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// One of them.
    pub(crate) fn one_of<'a, T>(&mut self, all: &'a [T]) -> anyhow::Result<&'a T> {
        let at = self.below(u64::try_from(all.len())?.max(1));
        all.get(usize::try_from(at)?).context("there is one")
    }
}
