//! The agent and the binder on an API of their own, with volumes on NFS servers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bitts_agent::{AgentConfig, Mode, Plugin, Report};
use bitts_e2e::cluster::{Cluster, Kind, Scope};
use bitts_e2e::uml::server::Server;
use bitts_mount::table::MountTable;
use bitts_runtime::Host;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

pub(crate) const KUBELET: &str = "/mnt/kubelet";
/// Where the node's devices are, of those that are found by a name.
pub(crate) const DEVICES: &str = "/tmp/dev";
pub(crate) const NODE: &str = "node-1";
/// Nothing here takes as long; a test that waits for more fails.
const LONG: Duration = Duration::from_secs(60);
/// How long the agent waits for a server.
pub(crate) const PATIENCE: Duration = Duration::from_secs(6);

/// A node with an agent, its API, and a binder.
pub(crate) struct World {
    pub(crate) api: Scope,
    pub(crate) host: Host,
    reports: UnboundedReceiver<Report>,
}

/// Runs a test of the agent to its end.
pub(crate) fn with_agent(
    test: impl AsyncFnOnce(&mut World) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    with_agent_that_asks(None, test)
}

/// The same with an agent that asks servers at this interval how their mounts are.
pub(crate) fn with_agent_that_asks(
    probe_interval: Option<Duration>,
    test: impl AsyncFnOnce(&mut World) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    with_agent_and(probe_interval, async |_| Ok(()), test)
}

/// The same beside another role.
pub(crate) fn with_agent_and(
    probe_interval: Option<Duration>,
    other: impl AsyncFnOnce(&Host) -> anyhow::Result<()>,
    test: impl AsyncFnOnce(&mut World) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    with_agent_as(Mode::Owner, probe_interval, other, test)
}

/// The same with an agent that owns the volumes, or leaves them to a kubelet.
pub(crate) fn with_agent_as(
    mode: Mode,
    probe_interval: Option<Duration>,
    other: impl AsyncFnOnce(&Host) -> anyhow::Result<()>,
    test: impl AsyncFnOnce(&mut World) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        fs::create_dir_all(KUBELET)?;
        let cluster = Arc::new(Cluster::start(Kind::Embedded).await?);
        let api = Scope::new(cluster).await?;
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}});
        api.post("/api/v1/nodes", node).await?.expect(201)?;
        let host = Host::new(api.client());
        let (observer, reports) = tokio::sync::mpsc::unbounded_channel();
        let config = AgentConfig {
            kubelet_dir: KUBELET.into(),
            devices: DEVICES.into(),
            patience: PATIENCE,
            probe_interval,
            mode,
            observer: Some(observer),
            ..AgentConfig::new(NODE.into())
        };
        let mut world = World {
            api,
            host: host.clone(),
            reports,
        };
        let story = async {
            let ended = test(&mut world).await;
            host.shutdown().cancel();
            ended
        };
        let (binder, agent, other, ended) = tokio::join!(
            bitts_binder::run(&host, bitts_binder::Options::default(), None),
            bitts_agent::run(&host, config),
            other(&host),
            story,
        );
        binder?;
        agent?;
        other?;
        ended
    })
}

impl World {
    /// Makes a volume on a server, and its claim of the same name.
    pub(crate) async fn add_volume(
        &self,
        name: &str,
        server: &Server,
        export: &str,
        options: &[&str],
    ) -> anyhow::Result<()> {
        let path = server.path(export, &options.join(","));
        self.add_volume_at(name, &server.address(), &path, options)
            .await
    }

    /// The same by the name of a server and what it calls the directory.
    pub(crate) async fn add_volume_at(
        &self,
        name: &str,
        server: &str,
        path: &str,
        options: &[&str],
    ) -> anyhow::Result<()> {
        let source = json!({"nfs": {"server": server, "path": path}});
        self.add_source(name, source, options).await
    }

    /// The same with any source.
    pub(crate) async fn add_source(
        &self,
        name: &str,
        source: Value,
        options: &[&str],
    ) -> anyhow::Result<()> {
        let mut volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"],
                "persistentVolumeReclaimPolicy": "Retain", "mountOptions": options,
                "claimRef": {"namespace": self.api.namespace(), "name": name},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchFields": [
                    {"key": "metadata.name", "operator": "In", "values": [NODE]}]}]}},
            },
        });
        let members = source.as_object().context("no source")?.clone();
        volume["spec"]
            .as_object_mut()
            .context("no spec")?
            .extend(members);
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {
                "volumeMode": volume["spec"]["volumeMode"], "accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": name,
                "resources": {"requests": {"storage": "1Gi"}},
            },
        });
        self.api
            .post("/api/v1/persistentvolumes", volume)
            .await?
            .expect(201)?;
        self.api
            .post(&self.api.claims(""), claim)
            .await?
            .expect(201)?;
        Ok(())
    }

    /// Starts a pod that uses a claim; returns where its volume will be mounted.
    pub(crate) async fn add_pod(
        &self,
        name: &str,
        claim: &str,
        read_only: bool,
    ) -> anyhow::Result<PathBuf> {
        let source = json!({"claimName": claim, "readOnly": read_only});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "nodeName": NODE,
                "containers": [{"name": "main", "image": "none"}],
                "volumes": [{"name": "data", "persistentVolumeClaim": source}],
            },
        });
        let made: Value = self.api.post(&self.pods(""), pod).await?.expect(201)?;
        let uid = made["metadata"]["uid"].as_str().context("no uid")?;
        let volume = format!("/api/v1/persistentvolumes/{claim}");
        let volume: Value = self.api.get(&volume).await?.expect(200)?;
        let plugins = [
            ("nfs", Plugin::Nfs),
            ("local", Plugin::Local),
            ("gcePersistentDisk", Plugin::GcePersistentDisk),
            ("iscsi", Plugin::Iscsi),
        ];
        let mut fitting = plugins
            .iter()
            .filter(|(field, _)| !volume["spec"][field].is_null());
        let (_, plugin) = fitting.next().context("of no type")?;
        let in_pod = match volume["spec"]["volumeMode"].as_str() {
            Some("Block") => "volumeDevices",
            _ => "volumes",
        };
        let target = format!("pods/{uid}/{in_pod}/{}/{claim}", plugin.directory());
        Ok(Path::new(KUBELET).join(target))
    }

    /// What the node says it uses.
    pub(crate) async fn volumes_in_use(&self) -> anyhow::Result<Vec<String>> {
        let path = format!("/api/v1/nodes/{NODE}");
        let node: Value = self.api.get(&path).await?.expect(200)?;
        let list = node["status"]["volumesInUse"].as_array();
        let names = list.into_iter().flatten();
        Ok(names
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect())
    }

    /// The messages of all events about a pod.
    pub(crate) async fn events(&self, pod: &str) -> anyhow::Result<Vec<String>> {
        let path = format!("/api/v1/namespaces/{}/events", self.api.namespace());
        let list: Value = self.api.get(&path).await?.expect(200)?;
        let items = list["items"].as_array().context("no list")?;
        let about = items.iter().filter(|e| e["involvedObject"]["name"] == pod);
        let text = |e: &Value| e["message"].as_str().map(str::to_owned);
        Ok(about.filter_map(text).collect())
    }

    pub(crate) async fn end_pod(&self, name: &str) -> anyhow::Result<()> {
        let now = json!({"gracePeriodSeconds": 0});
        self.api
            .delete(&self.pods(&format!("/{name}")), now)
            .await?
            .expect(200)?;
        Ok(())
    }

    /// Waits for an event of this reason; returns what it says.
    pub(crate) async fn event(&self, reason: &str) -> anyhow::Result<String> {
        let path = format!("/api/v1/namespaces/{}/events", self.api.namespace());
        let start = Instant::now();
        loop {
            let list: Value = self.api.get(&path).await?.expect(200)?;
            let events = list["items"].as_array().context("no list")?;
            if let Some(event) = events.iter().find(|event| event["reason"] == reason) {
                return Ok(event["message"].as_str().unwrap_or_default().to_owned());
            }
            let reasons: Vec<_> = events.iter().map(|event| &event["reason"]).collect();
            ensure!(start.elapsed() < LONG, "no {reason}, but {reasons:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn pods(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/pods{rest}", self.api.namespace())
    }

    /// Waits for a report of the agent.
    pub(crate) async fn report<T>(
        &mut self,
        wanted: impl Fn(Report) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut seen = Vec::new();
        let found = async {
            while let Some(report) = self.reports.recv().await {
                seen.push(format!("{report:?}"));
                if let Some(found) = wanted(report) {
                    return Some(found);
                }
            }
            None
        };
        let found = tokio::time::timeout(LONG, found).await.ok().flatten();
        found.with_context(|| format!("the agent never said so, but:\n{}", seen.join("\n")))
    }

    pub(crate) async fn mounted(&mut self, target: &Path) -> anyhow::Result<()> {
        self.report(|report| match report {
            Report::Mounted { target: there, .. } if there == target => Some(()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn unmounted(&mut self, target: &Path) -> anyhow::Result<()> {
        self.report(|report| match report {
            Report::Unmounted { target: there, .. } if there == target => Some(()),
            _ => None,
        })
        .await?;
        ensure!(
            !is_mounted(target)?,
            "{} is still mounted",
            target.display()
        );
        ensure!(!target.exists(), "{} is still there", target.display());
        Ok(())
    }
}

pub(crate) fn is_mounted(target: &Path) -> anyhow::Result<bool> {
    let table = MountTable::read()?;
    Ok(table
        .at(target)
        .is_some_and(|mount| mount.fs_type.starts_with("nfs")))
}

/// M41: a pod's directory is an NFS mount, what is written there is on the server, and stays there.
pub(crate) fn the_life_of_a_pod() -> anyhow::Result<()> {
    let server = Server::start(1, &["a", "b", "c"])?;
    with_agent(async |world| {
        let given = [
            ("a", "nfsvers=3", "vers=3"),
            ("b", "nfsvers=4.1", "vers=4.1"),
            ("c", "vers=4.2,timeo=77", "timeo=77"),
        ];
        for (name, options, shown) in given {
            world.add_volume(name, &server, name, &[options]).await?;
            let target = world.add_pod(name, name, false).await?;
            world.mounted(&target).await?;
            ensure!(is_mounted(&target)?, "{} is no NFS mount", target.display());
            let mounts = fs::read_to_string("/proc/self/mounts")?;
            let path = target.display().to_string();
            let line = mounts.lines().find(|line| line.contains(&path));
            ensure!(line.is_some_and(|line| line.contains(shown)), "{line:?}");
            fs::write(target.join("file"), "from the pod")?;
            world.end_pod(name).await?;
            world.unmounted(&target).await?;
            let kept = fs::read_to_string(server.export(name).join("file"))?;
            ensure!(kept == "from the pod", "the server has {kept:?}");
        }
        let left: Vec<_> = fs::read_dir(Path::new(KUBELET).join("pods"))?.collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
}

/// One writes, the other may only read; and each mount ends with its own pod.
pub(crate) fn two_pods_on_one_volume() -> anyhow::Result<()> {
    let server = Server::start(1, &["a"])?;
    with_agent(async |world| {
        world.add_volume("a", &server, "a", &["vers=4.2"]).await?;
        let writer = world.add_pod("writer", "a", false).await?;
        world.mounted(&writer).await?;
        let reader = world.add_pod("reader", "a", true).await?;
        world.mounted(&reader).await?;
        fs::write(writer.join("file"), "shared")?;
        ensure!(fs::read_to_string(reader.join("file"))? == "shared");
        let refused = fs::write(reader.join("file"), "no").map_err(|error| error.kind());
        ensure!(
            refused == Err(std::io::ErrorKind::ReadOnlyFilesystem),
            "{refused:?}"
        );
        world.end_pod("writer").await?;
        world.unmounted(&writer).await?;
        ensure!(fs::read_to_string(reader.join("file"))? == "shared");
        world.end_pod("reader").await?;
        world.unmounted(&reader).await
    })
}

/// Healthy volumes are mounted as fast beside a server that hangs as without it, and the hung one's
/// pod is torn down in the end. The two are measured in turn, in one run, and the medians compared; a
/// machine that does other things beside the tests gets more rounds.
pub(crate) fn a_hung_server_blocks_no_other() -> anyhow::Result<()> {
    const VOLUMES: usize = 50;
    const ROUNDS: usize = 3;
    const MOST_ROUNDS: usize = 7;
    const MOST: f64 = 1.2;
    let healthy = Server::start(1, &["a"])?;
    let mut hung = Server::start(2, &["a", "b"])?;
    with_agent(async |world| {
        for (name, export) in [("stuck", "a"), ("late", "b")] {
            world.add_volume(name, &hung, export, &["vers=4.2"]).await?;
        }
        for i in 0..VOLUMES {
            world
                .add_volume(&format!("v{i}"), &healthy, "a", &["vers=4.2"])
                .await?;
        }
        // Once for nothing: the first mounts of a kernel are slower.
        round(world, VOLUMES).await?;
        let (mut without, mut beside) = (Vec::new(), Vec::new());
        loop {
            without.push(round(world, VOLUMES).await?);
            let stuck = world.add_pod("stuck", "stuck", false).await?;
            world.mounted(&stuck).await?;
            hung.drop_packets(true)?;
            // One that is mounted already and has to go, and one that cannot be mounted.
            world.end_pod("stuck").await?;
            world.add_pod("late", "late", false).await?;
            beside.push(round(world, VOLUMES).await?);
            let start = Instant::now();
            while stuck.exists() || is_mounted(&stuck)? {
                ensure!(start.elapsed() < LONG, "the hung pod's volume stays");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            hung.drop_packets(false)?;
            world.end_pod("late").await?;
            let ratio = median(&mut beside).as_secs_f64() / median(&mut without).as_secs_f64();
            if beside.len() < ROUNDS || (ratio > MOST && beside.len() < MOST_ROUNDS) {
                continue;
            }
            println!("{VOLUMES} mounts: {without:?} without, {beside:?} beside a hung server");
            println!("ratio {ratio:.2}");
            ensure!(
                ratio <= MOST,
                "{ratio:.2} times as long beside a hung server"
            );
            return Ok(());
        }
    })
}

pub(crate) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// How long it takes until the pods' volumes are mounted; they are taken down again.
pub(crate) async fn round(world: &mut World, count: usize) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut targets = BTreeSet::new();
    for i in 0..count {
        targets.insert(
            world
                .add_pod(&format!("p{i}"), &format!("v{i}"), false)
                .await?,
        );
    }
    let mut waiting = targets.clone();
    while !waiting.is_empty() {
        let done = world.report(|report| match report {
            Report::Mounted { target, .. } => Some(target),
            _ => None,
        });
        waiting.remove(&done.await?);
    }
    let took = start.elapsed();
    for i in 0..count {
        world.end_pod(&format!("p{i}")).await?;
    }
    while !targets.is_empty() {
        let done = world.report(|report| match report {
            Report::Unmounted { target, .. } => Some(target),
            _ => None,
        });
        targets.remove(&done.await?);
    }
    Ok(took)
}
