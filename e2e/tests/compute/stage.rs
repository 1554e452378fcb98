//! What every story here needs: an API, a cloud, nodes that agents run, disks and pods; and agents, faked:
//! they say what they use before they look at what is attached, mount what is listed, and let go when
//! their pods end (A35, M14, M15).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bitts_e2e::cluster::{Cluster, Kind, Scope};
use bitts_e2e::compute::{Compute, PROJECT, ZONE};
use bitts_e2e::control_plane::Component;
use bitts_e2e::raw::text;
use serde_json::{Value, json};

/// A disk on a node, by their names in the API.
type Place = (String, String);

/// What agents have mounted, which only the checks know.
#[derive(Clone, Default)]
pub(crate) struct Mounted(Arc<Mutex<BTreeSet<Place>>>);

impl Mounted {
    pub(crate) fn all(&self) -> MutexGuard<'_, BTreeSet<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Stage {
    pub(crate) api: Scope,
    pub(crate) compute: Compute,
    pub(crate) mounted: Mounted,
    broken: Mutex<Vec<String>>,
    kubeconfig: String,
}

impl Stage {
    pub(crate) async fn new(kind: Kind) -> anyhow::Result<Self> {
        let cluster = Arc::new(Cluster::start(kind).await?);
        let kubeconfig = cluster.kubeconfig().context("others reach it")?.to_owned();
        let stage = Self {
            api: Scope::new(cluster).await?,
            compute: Compute::start().await?,
            mounted: Mounted::default(),
            broken: Mutex::default(),
            kubeconfig,
        };
        // What a node that is well has mounted is not taken from it: all nodes here are.
        let mounted = stage.mounted.clone();
        stage.compute.on_begin(move |step| {
            let place = (step.disk.clone(), step.instance.clone());
            ensure!(
                step.attaches || !mounted.all().contains(&place),
                "{} is taken from {}, which uses it",
                step.disk,
                step.instance
            );
            Ok(())
        });
        Ok(stage)
    }

    /// Starts bitts: the binder, and what this is about.
    pub(crate) fn bitts(&self) -> anyhow::Result<Component> {
        let flags = [
            format!("--compute-endpoint={}", self.compute.endpoint()),
            format!("--compute-metadata-host={}", self.compute.metadata_host()),
            "--compute-timeout=3s".to_owned(),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        Component::roles(&self.kubeconfig, "binder,cloud-attacher", &flags)
    }

    /// A machine, and the node that it is, which an agent runs.
    pub(crate) async fn node(&self, base: &str) -> anyhow::Result<String> {
        let name = self.api.name(base);
        self.compute.add_instance(&name);
        let body = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name,
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true",
                            "bitts.dev/mounted-by": "bitts-agent"},
            "labels": {"story": self.api.id()}},
            "spec": {"providerID": format!("gce://{PROJECT}/{ZONE}/{name}")}});
        self.api.post("/api/v1/nodes", body).await?.expect(201)?;
        let status = json!({"status": {"conditions":
            [{"type": "Ready", "status": "True", "reason": "Fake", "message": "as a fake is"}]}});
        let path = format!("/api/v1/nodes/{name}/status");
        self.api.merge(&path, status).await?.expect(200)?;
        Ok(name)
    }

    /// A disk, its volume and its claim.
    pub(crate) async fn volume(&self, base: &str) -> anyhow::Result<()> {
        let name = self.api.name(base);
        self.compute.add_disk(&name);
        let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": "Retain",
            "gcePersistentDisk": {"pdName": name, "fsType": "ext4"},
            "claimRef": {"namespace": self.api.namespace(), "name": base}});
        let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": name}, "spec": spec});
        self.api
            .post("/api/v1/persistentvolumes", volume)
            .await?
            .expect(201)?;
        let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "volumeName": name, "resources": {"requests": {"storage": "1Gi"}}});
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": base}, "spec": spec});
        self.api
            .post(&self.api.claims(""), claim)
            .await?
            .expect(201)?;
        Ok(())
    }

    fn pods(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/pods{rest}", self.api.namespace())
    }

    pub(crate) async fn pod(&self, name: &str, claim: &str, node: &str) -> anyhow::Result<()> {
        let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "none"}],
            "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": claim}}]});
        let pod =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        self.api.post(&self.pods(""), pod).await?.expect(201)?;
        Ok(())
    }

    pub(crate) async fn delete_pod(&self, name: &str) -> anyhow::Result<()> {
        let now = json!({"gracePeriodSeconds": 0});
        let answer = self
            .api
            .delete(&self.pods(&format!("/{name}")), now)
            .await?;
        ensure!(matches!(answer.status, 200 | 404), "{answer}");
        Ok(())
    }

    async fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let list = self.api.get(path).await?.expect(200)?;
        Ok(list["items"]
            .as_array()
            .context("a list has items")?
            .clone())
    }

    /// Waits until nothing speaks against it any more.
    pub(crate) async fn until(
        &self,
        what: &str,
        patience: Duration,
        why_not: impl AsyncFn() -> anyhow::Result<Option<String>>,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        while let Some(why) = why_not().await? {
            if start.elapsed() > patience {
                bail!("{what} is not so after {patience:?}: {why}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// What is left over when all pods are gone, if anything is.
    pub(crate) async fn left(&self, disks: &[String]) -> anyhow::Result<Option<String>> {
        let mut left: Vec<String> = Vec::new();
        for node in self.nodes().await? {
            for list in ["volumesAttached", "volumesInUse"] {
                let listed = node["status"][list].as_array();
                if listed.is_some_and(|list| !list.is_empty()) {
                    left.push(format!("{} has {list}", text(&node, "/metadata/name")));
                }
            }
        }
        for disk in disks {
            let users = self.compute.users(&self.api.name(disk));
            if !users.is_empty() {
                left.push(format!("{disk} is on {users:?}"));
            }
        }
        let attachments = self
            .list("/apis/storage.k8s.io/v1/volumeattachments")
            .await?;
        left.extend(
            attachments
                .iter()
                .map(|a| a["metadata"]["name"].to_string()),
        );
        Ok((!left.is_empty()).then(|| left.join("; ")))
    }

    /// What must never be, and was.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let mut broken = self.compute.broken();
        let own = self.broken.lock();
        broken.extend(own.unwrap_or_else(PoisonError::into_inner).iter().cloned());
        ensure!(broken.is_empty(), "{broken:#?}");
        Ok(())
    }

    async fn nodes(&self) -> anyhow::Result<Vec<Value>> {
        let nodes = format!("/api/v1/nodes?labelSelector=story%3D{}", self.api.id());
        self.list(&nodes).await
    }

    /// Runs the agents of all nodes until the story beside them ends.
    pub(crate) async fn beside(
        &self,
        story: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let agents = async {
            loop {
                let pods = self.list(&self.pods("")).await?;
                for node in self.nodes().await? {
                    self.agent(&node, &pods).await?;
                }
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        };
        tokio::select! {
            ended = story => ended,
            failed = agents => failed,
        }
    }

    async fn agent(&self, node: &Value, pods: &[Value]) -> anyhow::Result<()> {
        let name = text(node, "/metadata/name");
        let here = pods
            .iter()
            .filter(|pod| text(pod, "/spec/nodeName") == name);
        let claim = |pod: &Value| {
            let claim = text(pod, "/spec/volumes/0/persistentVolumeClaim/claimName");
            self.api.name(claim)
        };
        let wanted: BTreeSet<String> = here.map(claim).collect();
        let mounted: BTreeSet<String> = {
            let mut all = self.mounted.all();
            all.retain(|(disk, n)| n != name || wanted.contains(disk));
            let here = all.iter().filter(|(_, n)| n == name);
            here.map(|(disk, _)| disk.clone()).collect()
        };
        let unique = |disk: &String| format!("kubernetes.io/gce-pd/{disk}");
        let uses: BTreeSet<String> = wanted.union(&mounted).map(unique).collect();
        let said = node["status"]["volumesInUse"].as_array();
        let said = said.into_iter().flatten().filter_map(Value::as_str);
        let said: BTreeSet<String> = said.map(str::to_owned).collect();
        if uses != said {
            let status = json!({"status": {"volumesInUse": uses}});
            let path = format!("/api/v1/nodes/{name}/status");
            self.api.merge(&path, status).await?.expect(200)?;
            return Ok(());
        }
        let entries = node["status"]["volumesAttached"].as_array();
        for entry in entries.into_iter().flatten() {
            let listed = text(entry, "/name").trim_start_matches("kubernetes.io/gce-pd/");
            if !wanted.contains(listed) || mounted.contains(listed) {
                continue;
            }
            let path = format!("/dev/disk/by-id/google-{listed}");
            let there = self.compute.users(listed) == [name] && text(entry, "/devicePath") == path;
            if !there {
                let broken = format!("{name} mounts {listed}, which is not attached");
                self.broken
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(broken);
            }
            self.mounted
                .all()
                .insert((listed.to_owned(), name.to_owned()));
        }
        Ok(())
    }
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
}
