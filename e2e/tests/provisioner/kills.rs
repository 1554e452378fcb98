//! The provisioner as a process killed with SIGKILL at random moments while claims come and go, beside
//! an API that fails now and then, or a real one: afterwards each claim has one directory, there is no
//! other, and `bitts orphans` finds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bitts_apiserver::{ApiServer, Faults, Options, Serve};
use bitts_e2e::cluster::{Cluster, Kind, Scope};
use bitts_e2e::control_plane::{Component, VOLUME_CONTROLLERS, bitts};
use bitts_e2e::raw::{Answer, text};
use bitts_e2e::records::of_volumes;
use serde_json::{Value, json};

use super::{PROVISIONER, SELECTED, names};

/// How often it is killed unless BITTS_E2E_KILLS says otherwise.
const KILLS: usize = 10;
/// How many claims are made for each kill; all but one in five are deleted again.
const CLAIMS_A_KILL: usize = 4;
/// How long until all has come to rest.
const PATIENCE: Duration = Duration::from_secs(180);

/// What goes wrong with the API: requests that fail before or after they took effect, and watches that
/// break. No watch event is lost for good: that would be told by the next list only.
const FAULTS: &str = "
rules:
- {verb: create, resource: persistentvolumes, chance: 0.04, fault: {error: after}}
- {verb: create, resource: persistentvolumes, chance: 0.04, fault: {disconnect: after}}
- {verb: create, resource: persistentvolumes, chance: 0.04, fault: {error: before}}
- {verb: patch, resource: persistentvolumes, chance: 0.03, fault: conflict}
- {verb: patch, resource: persistentvolumes, chance: 0.03, fault: {timeout: after}}
- {verb: delete, resource: persistentvolumes, chance: 0.05, fault: {disconnect: after}}
- {verb: delete, resource: persistentvolumes, chance: 0.05, fault: {error: before}}
- {verb: get, resource: persistentvolumeclaims, chance: 0.03, fault: {error: before}}
- {verb: list, resource: pods, chance: 0.05, fault: {too-many-requests: 1}}
- {verb: list, resource: persistentvolumes, chance: 0.03, fault: {disconnect: before}}
- {verb: watch, resource: persistentvolumes, chance: 0.004, fault: cut}
- {verb: watch, resource: persistentvolumeclaims, chance: 0.004, fault: end}
- {verb: watch, resource: persistentvolumeclaims, chance: 0.002, fault: expire-watch}
- {verb: watch, resource: persistentvolumes, chance: 0.02, fault: duplicate-event}
";

/// A node whose disk is a directory here, and what works on it.
struct Stage {
    api: Scope,
    served: Option<ApiServer>,
    provisioner: Component,
    other: Component,
    node: String,
    disk: tempfile::TempDir,
    chance: Chance,
}

/// Numbers that are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % limit
    }
}

/// P12, D10.
pub(crate) async fn leaks(kind: Kind) -> anyhow::Result<()> {
    let kills = match std::env::var("BITTS_E2E_KILLS") {
        Ok(text) => text.parse().context("BITTS_E2E_KILLS")?,
        Err(_) => KILLS,
    };
    let mut stage = Stage::start(kind, kills).await?;
    let ended = stage.play(kills).await;
    ended.map_err(|why| {
        let why = stage.provisioner.explain(why);
        stage.other.explain(why)
    })
}

impl Stage {
    async fn start(kind: Kind, kills: usize) -> anyhow::Result<Self> {
        let (cluster, served) = match kind {
            Kind::Real => (Cluster::start(kind).await?, None),
            _ => {
                let api = ApiServer::new(Options {
                    seed: Some(kills as u64),
                    ..Options::default()
                });
                let options = Serve {
                    listen: ([127, 0, 0, 1], 0).into(),
                    insecure: false,
                    write_kubeconfig: None,
                };
                (Cluster::Served(api.serve(options).await?), Some(api))
            }
        };
        let kubeconfig = cluster.kubeconfig().context("it is served")?.to_owned();
        let api = Scope::new(Arc::new(cluster)).await?;
        let disk = tempfile::tempdir()?;
        let node = api.name("node");
        let body = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node,
            "labels": {"kubernetes.io/hostname": node}}});
        api.post("/api/v1/nodes", body).await?.expect(201)?;
        let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": api.name("class")}, "provisioner": PROVISIONER,
            "volumeBindingMode": "WaitForFirstConsumer"});
        let path = "/apis/storage.k8s.io/v1/storageclasses";
        api.post(path, class).await?.expect(201)?;
        let disks = format!("--disks={}", disk.path().display());
        let other = match kind {
            Kind::Real => Component::controller_manager(&kubeconfig, &VOLUME_CONTROLLERS, &[])?,
            _ => Component::binder(&kubeconfig, &["--leader-elect=false"])?,
        };
        let provisioner = Component::provisioner(&kubeconfig, &node, &[&disks])?;
        Ok(Self {
            api,
            served,
            provisioner,
            other,
            node,
            disk,
            chance: Chance(kills as u64 + 7),
        })
    }

    async fn play(&mut self, kills: usize) -> anyhow::Result<()> {
        if let Some(served) = &self.served {
            served.set_faults(Faults::parse(FAULTS)?);
        }
        let start = Instant::now();
        let mut living = BTreeSet::new();
        let mut made = 0;
        for kill in 0..kills {
            for _ in 0..CLAIMS_A_KILL {
                let name = format!("c{made}");
                made += 1;
                self.claim(&name).await?;
                living.insert(name);
            }
            // Those of this round too, whatever became of them.
            while living.len() > (kill + 1) * CLAIMS_A_KILL / 5 {
                let at = self.chance.below(living.len());
                let name = living.iter().nth(at).context("one of them")?.clone();
                if !name.ends_with('0') || self.chance.below(2) == 0 {
                    self.delete(&name).await?;
                    living.remove(&name);
                }
            }
            let pause = self.chance.below(250);
            tokio::time::sleep(Duration::from_millis(pause as u64)).await;
            self.provisioner.restart()?; // SIGKILL first
        }
        if let Some(served) = &self.served {
            served.set_faults(Faults::default());
        }
        let took = start.elapsed();
        self.settled(&living).await?;
        self.nothing_is_orphaned().await?;
        eprintln!(
            "{}: {kills} kills in {took:?}, {made} claims made, {} deleted: nothing leaked",
            self.api.kind().name(),
            made - living.len()
        );
        Ok(())
    }

    /// The API, asked again while it fails.
    async fn ask(
        &self,
        what: impl AsyncFn(&Scope) -> anyhow::Result<Answer>,
        fine: &[u16],
    ) -> anyhow::Result<Answer> {
        let start = Instant::now();
        loop {
            let answer = what(&self.api).await;
            match answer {
                Ok(answer) if fine.contains(&answer.status) => return Ok(answer),
                other if start.elapsed() > PATIENCE => return other,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// A claim that was placed on the node, as the scheduler does it.
    async fn claim(&self, name: &str) -> anyhow::Result<()> {
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "annotations": {SELECTED: self.node}},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": self.api.name("class"),
                "resources": {"requests": {"storage": "1Mi"}}}});
        // 409: it was made the first time.
        let post = async |api: &Scope| api.post(&api.claims(""), claim.clone()).await;
        self.ask(post, &[201, 409]).await.map(drop)
    }

    async fn delete(&self, name: &str) -> anyhow::Result<()> {
        let path = self.api.claims(&format!("/{name}"));
        let delete = async |api: &Scope| api.delete(&path, Value::Null).await;
        self.ask(delete, &[200, 404]).await.map(drop)
    }

    async fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let get = async |api: &Scope| api.get(path).await;
        match self.ask(get, &[200]).await?.expect(200)?["items"].take() {
            Value::Array(items) => Ok(items),
            _ => anyhow::bail!("{path} has no items"),
        }
    }

    /// Waits until exactly the living claims have each one volume, one directory and one record, and
    /// nothing is in the trash.
    async fn settled(&self, living: &BTreeSet<String>) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let found = self.is_settled(living).await?;
            let Err(why) = found else {
                return Ok(());
            };
            ensure!(start.elapsed() < PATIENCE, "after {PATIENCE:?}: {why}");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    async fn is_settled(&self, living: &BTreeSet<String>) -> anyhow::Result<Result<(), String>> {
        let claims = self.list(&self.api.claims("")).await?;
        let bound = |claim: &&Value| text(claim, "/status/phase") == "Bound";
        let bound: BTreeMap<&str, &str> = (claims.iter().filter(bound))
            .map(|c| (text(c, "/metadata/name"), text(c, "/spec/volumeName")))
            .collect();
        if bound.len() != living.len() || claims.len() != living.len() {
            let counts = (living.len(), claims.len(), bound.len());
            return Ok(Err(format!(
                "claims that live, are there, are Bound: {counts:?}"
            )));
        }
        let volumes = self.list("/api/v1/persistentvolumes").await?;
        if volumes.len() != living.len() {
            return Ok(Err(format!(
                "{} claims and {} volumes",
                living.len(),
                volumes.len()
            )));
        }
        let mut expected: Vec<_> = volumes
            .iter()
            .map(|v| {
                text(v, "/spec/local/path")
                    .rsplit('/')
                    .next()
                    .unwrap_or_default()
            })
            .collect();
        expected.sort_unstable();
        let own = |place: &str| names(&self.disk.path().join(".bitts").join(place));
        let mut there = names(self.disk.path())?;
        there.retain(|name| name != ".bitts");
        let records = of_volumes(self.disk.path())?;
        let counts = (records.len(), own("trash")?.len(), own("leaving")?.len());
        if there != expected || counts != (living.len(), 0, 0) {
            return Ok(Err(format!(
                "{} directories, expected {}; records, trash, leaving: {counts:?}",
                there.len(),
                expected.len()
            )));
        }
        Ok(Ok(()))
    }

    /// The program itself says so.
    async fn nothing_is_orphaned(&self) -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("kubeconfig");
        let kubeconfig = self.kubeconfig()?;
        std::fs::write(&file, kubeconfig)?;
        let output = tokio::process::Command::new(bitts()?)
            .args(["orphans", "--output=json", "--kubeconfig"])
            .arg(&file)
            .arg(format!("--disks={}", self.disk.path().display()))
            .arg(format!("--node-name={}", self.node))
            .output()
            .await?;
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "bitts orphans: {said}{errors}");
        let said: Value = serde_json::from_str(&said)?;
        ensure!(said == json!({"items": []}), "{said}");
        // It would say otherwise.
        std::fs::create_dir(self.disk.path().join("planted"))?;
        let status = tokio::process::Command::new(bitts()?)
            .args(["orphans", "--kubeconfig"])
            .arg(&file)
            .arg(format!("--disks={}", self.disk.path().display()))
            .arg(format!("--node-name={}", self.node))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .await?;
        ensure!(status.code() == Some(3), "a planted directory: {status}");
        Ok(())
    }

    fn kubeconfig(&self) -> anyhow::Result<String> {
        self.api.kubeconfig().context("it is served")
    }
}
