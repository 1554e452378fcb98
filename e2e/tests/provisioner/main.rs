//! The provisioner as a process of its own: beside the stock controllers and scheduler on a real API,
//! and beside the bitts binder on bitts-apiserver.

mod kills;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bitts_e2e::cluster::{Cluster, Kind, Scope};
use bitts_e2e::control_plane::{Component, VOLUME_CONTROLLERS};
use bitts_e2e::raw::text;
use bitts_e2e::suite::Suite;
use serde_json::{Value, json};

const PROVISIONER: &str = "local.bitts.dev";
const SELECTED: &str = "volume.kubernetes.io/selected-node";

fn main() {
    let mut suite = Suite::default();
    let kinds = &[Kind::Served, Kind::Real];
    suite.add_own("provisioner::a_claim_and_its_directory", kinds, a_life);
    suite.add_own("provisioner::what_is_wrong_is_told", kinds, what_is_wrong);
    suite.add_own("provisioner::killed_again_and_again", kinds, killed);
    suite.add_own("provisioner::a_claim_that_asks_for_more", kinds, grown);
    suite.add_own("provisioner::a_node_that_is_full", kinds, full);
    suite.add_own("provisioner::nothing_leaks", kinds, kills::leaks);
    suite.run()
}

/// A cluster with one node whose disk is a directory here.
struct Stage {
    api: Scope,
    provisioner: Component,
    others: Vec<Component>,
    node: String,
    disk: tempfile::TempDir,
}

impl Stage {
    async fn start(kind: Kind) -> anyhow::Result<Self> {
        let cluster = std::sync::Arc::new(Cluster::start(kind).await?);
        let kubeconfig = cluster.kubeconfig().context("it is served")?.to_owned();
        let api = Scope::new(cluster).await?;
        let disk = tempfile::tempdir()?;
        let node = api.name("node");
        let disks = format!("--disks={}", disk.path().display());
        let others = match kind {
            Kind::Real => vec![
                Component::controller_manager(&kubeconfig, &VOLUME_CONTROLLERS, &[])?,
                Component::scheduler(&kubeconfig, &[])?,
            ],
            _ => vec![Component::binder(&kubeconfig, &["--leader-elect=false"])?],
        };
        let stage = Self {
            provisioner: Component::provisioner(&kubeconfig, &node, &[&disks])?,
            api,
            others,
            node,
            disk,
        };
        stage.node().await?;
        stage.class("class", json!({})).await?;
        Ok(stage)
    }

    /// A story on a stage; the logs come with what goes wrong.
    async fn play(
        kind: Kind,
        story: impl AsyncFnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut stage = Self::start(kind).await?;
        let ended = story(&mut stage).await;
        ended.map_err(|why| {
            let why = stage.provisioner.explain(why);
            let others = stage.others.iter_mut();
            others.fold(why, |why, other| other.explain(why))
        })
    }

    async fn node(&self) -> anyhow::Result<()> {
        let path = format!("/api/v1/nodes/{}", self.node);
        let body = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.node,
            "labels": {"kubernetes.io/hostname": self.node}}});
        self.api.post("/api/v1/nodes", body).await?.expect(201)?;
        let room = json!({"cpu": "8", "memory": "8Gi", "pods": "200"});
        let status = json!({"status": {"capacity": room, "allocatable": room, "conditions":
            [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "as a fake is"}]}});
        let status_path = format!("{path}/status");
        self.api.merge(&status_path, status).await?.expect(200)?;
        // Given to each new node; a controller would take it away.
        let ready = json!({"spec": {"taints": null}});
        self.api.merge(&path, ready).await?.expect(200).map(drop)
    }

    async fn class(&self, base: &str, parameters: Value) -> anyhow::Result<()> {
        let body = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": self.api.name(base)}, "provisioner": PROVISIONER,
            "volumeBindingMode": "WaitForFirstConsumer", "parameters": parameters,
            "allowVolumeExpansion": true});
        let path = "/apis/storage.k8s.io/v1/storageclasses";
        self.api.post(path, body).await?.expect(201).map(drop)
    }

    /// A claim and a pod that uses it. Where there is no scheduler, the claim is placed by hand.
    async fn claim(&self, name: &str, base: &str) -> anyhow::Result<()> {
        self.claim_of(name, base, "1Mi").await
    }

    async fn claim_of(&self, name: &str, base: &str, size: &str) -> anyhow::Result<()> {
        let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
                "storageClassName": self.api.name(base),
                "resources": {"requests": {"storage": size}}}});
        if self.api.kind() != Kind::Real {
            claim["metadata"]["annotations"] = json!({SELECTED: self.node});
        }
        self.api
            .post(&self.api.claims(""), claim)
            .await?
            .expect(201)?;
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
            "containers": [{"name": "c", "image": "none"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": name}}]}});
        self.api
            .post(&self.pod(""), pod)
            .await?
            .expect(201)
            .map(drop)
    }

    fn pod(&self, name: &str) -> String {
        let namespace = self.api.namespace();
        format!("/api/v1/namespaces/{namespace}/pods{name}")
    }

    /// Deletes a claim and its pod, as both go where a kubelet runs.
    async fn delete(&self, name: &str) -> anyhow::Result<()> {
        let at_once = json!({"gracePeriodSeconds": 0});
        let pod = self.pod(&format!("/{name}"));
        self.api.delete(&pod, at_once).await?.expect(200)?;
        let claim = self.api.claims(&format!("/{name}"));
        self.api
            .delete(&claim, Value::Null)
            .await?
            .expect(200)
            .map(drop)
    }

    /// The volume of a claim, once both are Bound.
    async fn volume(&self, name: &str) -> anyhow::Result<Value> {
        let path = self.api.claims(&format!("/{name}"));
        let bound = |claim: &Value| text(claim, "/status/phase") == "Bound";
        let claim = self.until(&path, "it is Bound", bound).await?;
        let volume = text(&claim, "/spec/volumeName");
        let path = format!("/api/v1/persistentvolumes/{volume}");
        let bound = |volume: &Value| text(volume, "/status/phase") == "Bound";
        self.until(&path, "it is Bound", bound).await
    }

    async fn until(
        &self,
        path: &str,
        what: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let answer = self.api.get(path).await?;
            let found = match answer.status {
                404 => Value::Null,
                _ => answer.expect(200)?,
            };
            if is_so(&found) {
                return Ok(found);
            }
            if tokio::time::Instant::now() > deadline {
                bail!("{path} after 60 s: {what} is not so: {found}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn own(&self, rest: &str) -> PathBuf {
        self.disk.path().join(".bitts").join(rest)
    }

    /// Waits until the disk holds exactly these directories, as many records, and no trash.
    async fn holds(&self, expected: &[String]) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let mut found = names(self.disk.path())?;
            found.retain(|name| name != ".bitts");
            let mut records = names(&self.own("volumes"))?;
            records.extend(names(&self.own("begun"))?);
            let trash = names(&self.own("trash"))?;
            if found == expected && records.len() == expected.len() && trash.is_empty() {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                bail!("expected {expected:?}, there are {found:?}, {records:?}, {trash:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a claim was told so much, and says all of it.
    async fn told_at_least(&self, name: &str, count: usize) -> anyhow::Result<Vec<String>> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let told = self.told(name).await?;
            if told.len() >= count {
                return Ok(told);
            }
            ensure!(tokio::time::Instant::now() < deadline, "only {told:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn told(&self, name: &str) -> anyhow::Result<Vec<String>> {
        let path = format!("/api/v1/namespaces/{}/events", self.api.namespace());
        let all = self.api.get(&path).await?.expect(200)?;
        let all = all["items"].as_array().into_iter().flatten();
        let ours = all.filter(|event| {
            text(event, "/involvedObject/name") == name
                && text(event, "/source/component") == "bitts-provisioner"
        });
        Ok(ours
            .map(|e| format!("{}: {}", text(e, "/reason"), text(e, "/message")))
            .collect())
    }
}

/// What is in a directory, sorted; nothing where there is none.
fn names(path: &Path) -> anyhow::Result<Vec<String>> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// P12, D10: a claim gets a directory, and takes it along.
async fn a_life(kind: Kind) -> anyhow::Result<()> {
    Stage::play(kind, async |stage| {
        stage.class("kept", json!({"onDelete": "retain"})).await?;
        for n in 0..5 {
            stage.claim(&format!("c{n}"), "class").await?;
        }
        stage.claim("kept", "kept").await?;
        let mut expected = Vec::new();
        for name in ["c0", "c1", "c2", "c3", "c4", "kept"] {
            let volume = stage.volume(name).await?;
            let path = text(&volume, "/spec/local/path");
            let directory = Path::new(path);
            ensure!(directory.is_dir(), "{volume}");
            std::fs::create_dir(directory.join("sub"))?;
            std::fs::write(directory.join("sub/data"), name)?;
            expected.push(text(&volume, "/metadata/name").to_owned());
            let told = stage.told_at_least(name, 1).await?;
            let reasons: Vec<_> = told.iter().filter_map(|t| t.split(':').next()).collect();
            // That it is being made is told of what takes long.
            ensure!(reasons == ["ProvisioningSucceeded"], "{told:?}");
            stage.delete(name).await?;
        }
        for volume in expected {
            let path = format!("/api/v1/persistentvolumes/{volume}");
            stage.until(&path, "it is gone", Value::is_null).await?;
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let left = names(stage.disk.path())?;
            let swept = names(&stage.own("trash"))?.is_empty();
            if left.len() == 2 && left[1].contains("-kept-pvc-") && swept {
                let data = stage.disk.path().join(&left[1]).join("sub/data");
                ensure!(std::fs::read_to_string(data)? == "kept");
                return Ok(());
            }
            ensure!(tokio::time::Instant::now() < deadline, "{left:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// P12: a class that is wrong is told on the claim, with the name that was meant.
async fn what_is_wrong(kind: Kind) -> anyhow::Result<()> {
    Stage::play(kind, async |stage| {
        stage.class("wrong", json!({"onDelet": "trash"})).await?;
        stage.claim("c", "wrong").await?;
        let told = stage.told_at_least("c", 1).await?;
        ensure!(
            told.len() == 1 && told[0].contains("did you mean \"onDelete\"?"),
            "{told:?}"
        );
        stage.holds(&[]).await
    })
    .await
}

/// P12: killed at any moment of making and taking away, there is one directory for each claim that
/// lives, and none for any other.
async fn killed(kind: Kind) -> anyhow::Result<()> {
    Stage::play(kind, async |stage| {
        for round in 0..10_u32 {
            for n in 0..4 {
                stage.claim(&format!("c{round}-{n}"), "class").await?;
            }
            if round > 1 {
                for n in 0..2 {
                    stage.delete(&format!("c{}-{n}", round - 2)).await?;
                }
            }
            // Different moments of what is under way.
            tokio::time::sleep(Duration::from_millis(u64::from(round * 37 % 150))).await;
            stage.provisioner.restart()?;
        }
        let mut expected = Vec::new();
        for round in 0..10 {
            for n in 0..4 {
                if round < 8 && n < 2 {
                    continue;
                }
                let name = format!("c{round}-{n}");
                let volume = stage.volume(&name).await?;
                let path = text(&volume, "/spec/local/path");
                let directory = Path::new(path).file_name().context("it has a name")?;
                expected.push(directory.to_string_lossy().into_owned());
            }
        }
        expected.sort();
        stage.holds(&expected).await
    })
    .await
}

/// R5, R7: beside the stock controllers, which leave it to us, a claim gets the more that it asks for,
/// and what is not there is said in it.
async fn grown(kind: Kind) -> anyhow::Result<()> {
    Stage::play(kind, async |stage| {
        stage.class("soft", json!({"quota": "soft"})).await?;
        stage.claim("c", "soft").await?;
        stage.volume("c").await?;
        let path = stage.api.claims("/c");
        let ask = async |size: &str| {
            let more = json!({"spec": {"resources": {"requests": {"storage": size}}}});
            stage.api.merge(&path, more).await?.expect(200)
        };
        ask("2Mi").await?;
        let status = |claim: &Value, at: &str| text(claim, &format!("/status/{at}")).to_owned();
        let has = |size: &'static str| {
            move |claim: &Value| {
                let settled = claim
                    .pointer("/status/allocatedResourceStatuses/storage")
                    .is_none();
                settled && status(claim, "capacity/storage") == size
            }
        };
        let claim = stage.until(&path, "it has 2Mi", has("2Mi")).await?;
        let resizer = "/metadata/annotations/volume.kubernetes.io~1storage-resizer";
        ensure!(text(&claim, resizer) == PROVISIONER, "{claim}");
        ensure!(
            !claim["status"]["conditions"]
                .to_string()
                .contains("Resizing"),
            "{claim}"
        );
        let volume = stage.volume("c").await?;
        ensure!(text(&volume, "/spec/capacity/storage") == "2Mi", "{volume}");
        ask("4Ei").await?;
        let state = "allocatedResourceStatuses/storage";
        let refused = |claim: &Value| status(claim, state) == "ControllerResizeInfeasible";
        let claim = stage
            .until(&path, "it says that this is too much", refused)
            .await?;
        let conditions = claim["status"]["conditions"].to_string();
        ensure!(
            conditions.contains("bytes free for new volumes"),
            "{conditions}"
        );
        ask("3Mi").await?;
        stage.until(&path, "it has 3Mi", has("3Mi")).await?;
        let told = stage.told("c").await?;
        let reasons = ["VolumeResizeSuccessful: ", "VolumeResizeFailed: "];
        for reason in reasons {
            ensure!(told.iter().any(|t| t.starts_with(reason)), "{told:?}");
        }
        Ok(())
    })
    .await
}

/// S7: a node says what it has room for, and the scheduler keeps pods away whose claims ask for more,
/// where a CSIDriver says that it is to look.
async fn full(kind: Kind) -> anyhow::Result<()> {
    Stage::play(kind, async |stage| {
        let class = stage.api.name("class");
        let path = "/apis/storage.k8s.io/v1/namespaces/kube-system/csistoragecapacities";
        let of_class = |all: &Value| {
            let all = all["items"].as_array().into_iter().flatten();
            all.filter(|one| text(one, "/storageClassName") == class)
                .cloned()
                .collect::<Vec<_>>()
        };
        let is_told = |all: &Value| !of_class(all).is_empty();
        let told = stage.until(path, "the room is told", is_told).await?;
        let told = of_class(&told);
        ensure!(told.len() == 1, "{told:?}");
        let node = "/nodeTopology/matchLabels/kubernetes.io~1hostname";
        ensure!(text(&told[0], node) == stage.node, "{told:?}");
        ensure!(text(&told[0], "/metadata/ownerReferences/0/name") == stage.node);
        if kind == Kind::Real {
            let driver = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
                "metadata": {"name": PROVISIONER},
                "spec": {"attachRequired": false, "storageCapacity": true}});
            let path = "/apis/storage.k8s.io/v1/csidrivers";
            stage.api.post(path, driver).await?.expect(201)?;
            // The scheduler hears of it a moment later.
            tokio::time::sleep(Duration::from_secs(2)).await;
            stage.claim_of("large", "class", "4Ei").await?;
            let path = stage.pod("/large");
            let is_kept_away = |pod: &Value| {
                let said = pod["status"]["conditions"].to_string();
                said.contains("did not have enough free storage")
            };
            stage.until(&path, "it is kept away", is_kept_away).await?;
            ensure!(stage.told("large").await?.is_empty());
        }
        // What fits is placed and made.
        stage.claim("small", "class").await?;
        stage.volume("small").await?;
        let class_path = format!("/apis/storage.k8s.io/v1/storageclasses/{class}");
        let deleted = stage.api.delete(&class_path, Value::Null).await?;
        deleted.expect(200)?;
        let is_untold = |all: &Value| of_class(all).is_empty();
        stage
            .until(path, "it goes with its class", is_untold)
            .await?;
        Ok(())
    })
    .await
}
