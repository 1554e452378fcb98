//! An agent that is killed again and again while pods come and go: after each start the node is as the
//! API wants it, every volume is mounted once, and no file is lost.
//!
//! BITTS_E2E_KILLS says how often, and BITTS_E2E_SEED takes up the moments of an earlier run: the
//! same pods come and go, though the machine is never twice as fast.

mod node;
pub(crate) mod process;
mod volumes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bitts_e2e::cluster::{Cluster, Kind, Scope};
use bitts_e2e::uml::server::Server;
use bitts_mount::table::{MountId, MountTable};
use bitts_runtime::Host;
use bitts_sim::Random;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::process::Process;
use serde_json::{Value, json};

use crate::agent::{KUBELET, NODE};
use node::Settled;
use process::Agent;
use volumes::Volume;

/// How often the agent is killed unless BITTS_E2E_KILLS says otherwise.
const KILLS: u32 = 8;
/// The pods that come and go.
const PODS: u32 = 50;
/// The latest moment of a kill after pods came and went.
const LATEST: u32 = 1500;
/// How long an agent may take until the node is as it should be.
const LONG: Duration = Duration::from_secs(60);

/// A pod that runs.
struct Pod {
    uid: String,
    /// Its volumes by their place, and the mount that it sees once that is there.
    mounts: BTreeMap<usize, Option<MountId>>,
}

/// The API, and what is to be on its node.
struct Story {
    api: Scope,
    kubeconfig: PathBuf,
    volumes: Vec<Volume>,
    pods: BTreeMap<u32, Pod>,
    came: u32,
    /// What was mounted before any pod came.
    before: MountTable,
    chance: Random,
}

/// M3, M9, M29, M41: whenever the agent is killed, the next one ends where it should.
pub(crate) fn killed_at_any_moment() -> anyhow::Result<()> {
    let kills = number("BITTS_E2E_KILLS")?.unwrap_or(KILLS);
    let seed = match number("BITTS_E2E_SEED")? {
        Some(seed) => seed,
        None => std::time::UNIX_EPOCH.elapsed()?.subsec_nanos(),
    };
    println!("BITTS_E2E_SEED={seed} BITTS_E2E_KILLS={kills}");
    let calm = Server::start(1, volumes::EXPORTS)?;
    let mut shaky = Server::start(2, volumes::EXPORTS)?;
    let volumes = volumes::all(&calm, &shaky)?;
    with_story(volumes, Random::new(seed.into()), async |story| {
        let start = Instant::now();
        let mut agent = Agent::start(&story.kubeconfig)?;
        let (mut while_hung, mut again, mut longest) = (0, 0, Duration::ZERO);
        for round in 1..=kills {
            let hangs = story.chance.once_in(3);
            if hangs {
                shaky.drop_packets(true)?;
                while_hung += 1;
            }
            for _ in 0..=story.chance.below(7) {
                story.let_one_come_or_go().await?;
            }
            let moment = Duration::from_millis(story.chance.below(LATEST).into());
            tokio::time::sleep(moment).await;
            agent.kill()?;
            story.let_one_come_or_go().await?;
            if !hangs {
                story.let_some_write()?;
            }
            let is_back_first = story.chance.once_in(2);
            if hangs && is_back_first {
                shaky.drop_packets(false)?;
            }
            agent = Agent::start(&story.kubeconfig)?;
            if hangs && !is_back_first {
                let moment = Duration::from_millis(story.chance.below(LATEST).into());
                tokio::time::sleep(moment).await;
                shaky.drop_packets(false)?;
            }
            // Once more, while this agent finds out what the last one left.
            if story.chance.once_in(3) {
                let moment = Duration::from_millis(story.chance.below(LATEST).into());
                tokio::time::sleep(moment).await;
                agent.kill()?;
                agent = Agent::start(&story.kubeconfig)?;
                again += 1;
            }
            let settled = story.settle(&mut agent).await;
            longest = longest.max(settled.with_context(|| format!("after kill {round}"))?);
            story.let_some_write()?;
        }
        let (most, came) = (story.pods.len(), story.came);
        while let Some(name) = story.pods.keys().next().copied() {
            story.end(name).await?;
        }
        story.settle(&mut agent).await.context("in the end")?;
        agent.kill()?;
        for volume in &mut story.volumes {
            volume.ensure_whole_at_rest()?;
        }
        let stagings: u32 = story.volumes.iter().map(|volume| volume.stagings).sum();
        let files: usize = story.volumes.iter().map(Volume::file_count).sum();
        println!(
            "{kills} kills, {while_hung} of them beside a hung server, {again} more on the way back: \
             settled after each, at most {longest:.1?} later. {came} pods came, {most} were there in \
             the end; devices staged {stagings} times, formatted once each; {files} files kept. {:.0?}",
            start.elapsed()
        );
        Ok(())
    })
}

/// A mount that a killed agent began is not added to what the next one mounts: the child that was
/// about it lags behind, as with a server that takes its time.
pub(crate) fn a_killed_agents_mount_is_not_doubled() -> anyhow::Result<()> {
    let mut server = Server::start(1, &["a"])?;
    let ways = ["vers=4.2", "vers=3,nolock", "vers=3"];
    for (n, options) in ways.into_iter().enumerate() {
        let volumes = vec![volumes::share("calm", &server, "a", options)];
        with_story(volumes, Random::new(1), async |story| {
            let mut agent = Agent::start(&story.kubeconfig)?;
            story.settle(&mut agent).await?;
            server.drop_packets(true)?;
            story.begin(0).await?;
            until("it begins to mount", || Ok(!agent.children()?.is_empty())).await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let lag = Frozen::new(agent.children()?)?;
            agent.kill()?;
            server.drop_packets(false)?;
            let mut agent = Agent::start(&story.kubeconfig)?;
            let target = story.volumes[0].target(&story.pods[&0].uid);
            until("the next agent mounts", || is_mounted(&target)).await?;
            drop(lag);
            story.settle(&mut agent).await?;
            story.end(0).await?;
            story.settle(&mut agent).await?;
            agent.kill()
        })
        .with_context(|| format!("{n}: {options}"))?;
    }
    Ok(())
}

/// M23: nor is a device taken away that the next agent needs: a child that lags behind with the unmount
/// leaves it.
pub(crate) fn a_killed_agents_unmount_is_left() -> anyhow::Result<()> {
    let volumes = vec![volumes::device(0)?];
    with_story(volumes, Random::new(1), async |story| {
        let mut agent = Agent::start(&story.kubeconfig)?;
        story.begin(0).await?;
        story.settle(&mut agent).await?;
        story.let_some_write()?;
        let target = story.volumes[0].target(&story.pods[&0].uid);
        let lag = Frozen::new(agent.children()?)?;
        story.end(0).await?;
        until("the last pod's mount goes", || Ok(!is_mounted(&target)?)).await?;
        // Then the device is to go, too.
        tokio::time::sleep(Duration::from_secs(1)).await;
        agent.kill()?;
        story.begin(0).await?;
        let mut agent = Agent::start(&story.kubeconfig)?;
        let target = story.volumes[0].target(&story.pods[&0].uid);
        until("the next agent mounts", || is_mounted(&target)).await?;
        drop(lag);
        story.settle(&mut agent).await?;
        story.end(0).await?;
        story.settle(&mut agent).await?;
        agent.kill()
    })
}

/// Processes that are stopped until this is dropped.
struct Frozen(Vec<Process>);

impl Frozen {
    fn new(processes: Vec<Process>) -> anyhow::Result<Self> {
        ensure!(!processes.is_empty(), "nothing to stop");
        // Those that stop are sent SIGHUP when no parent in their session is left; here this is.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        for process in &processes {
            kill(Pid::from_raw(process.pid), Signal::SIGSTOP)?;
        }
        Ok(Self(processes))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for process in &self.0 {
            // It may have ended.
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGCONT);
        }
    }
}

async fn until(what: &str, is_so: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let start = Instant::now();
    while !is_so()? {
        ensure!(start.elapsed() < LONG, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

fn is_mounted(target: &Path) -> anyhow::Result<bool> {
    Ok(MountTable::read()?.at(target).is_some())
}

fn number(name: &str) -> anyhow::Result<Option<u32>> {
    let text = std::env::var(name).ok();
    text.map(|text| text.parse().context(name.to_owned()))
        .transpose()
}

/// Tells a story of these volumes on an API of its own; when it ends badly, what the agents said is
/// told as well.
fn with_story(
    volumes: Vec<Volume>,
    chance: Random,
    tell: impl AsyncFnOnce(&mut Story) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let cluster = Arc::new(Cluster::start(Kind::Served).await?);
        let kubeconfig = PathBuf::from("/mnt/kubeconfig");
        std::fs::write(&kubeconfig, cluster.kubeconfig().context("no kubeconfig")?)?;
        std::fs::create_dir_all(KUBELET)?;
        let mut story = Story {
            api: Scope::new(cluster).await?,
            kubeconfig,
            volumes,
            pods: BTreeMap::new(),
            came: 0,
            before: MountTable::read()?,
            chance,
        };
        story.lay_out().await?;
        let host = Host::new(story.api.client());
        let told = async {
            let ended = tell(&mut story).await;
            host.shutdown().cancel();
            ended
        };
        let options = bitts_binder::Options::default();
        let (binder, told) = tokio::join!(bitts_binder::run(&host, options, None), told);
        binder?;
        if told.is_err() {
            println!("the agents said:\n{}", Agent::last_words());
        }
        told
    })
}

impl Story {
    /// Makes the node, the volumes and a claim of each.
    async fn lay_out(&self) -> anyhow::Result<()> {
        let labels = json!({"kubernetes.io/hostname": NODE});
        let node = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": NODE, "labels": labels}});
        self.api.post("/api/v1/nodes", node).await?.expect(201)?;
        for Volume { name, spec, .. } in &self.volumes {
            let mut volume = json!({
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
                "spec": {
                    "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "claimRef": {"namespace": self.api.namespace(), "name": name},
                },
            });
            for (key, value) in spec.as_object().into_iter().flatten() {
                volume["spec"][key] = value.clone();
            }
            let claim = json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
                "spec": {
                    "accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": name,
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            });
            let made = self.api.post("/api/v1/persistentvolumes", volume).await?;
            made.expect(201)?;
            let made = self.api.post(&self.api.claims(""), claim).await?;
            made.expect(201)?;
        }
        Ok(())
    }

    /// Any of the pods begins, or ends if it runs.
    async fn let_one_come_or_go(&mut self) -> anyhow::Result<()> {
        let name = self.chance.below(PODS);
        if self.pods.contains_key(&name) {
            self.end(name).await
        } else {
            self.begin(name).await
        }
    }

    /// Creates a pod with one to three volumes.
    async fn begin(&mut self, name: u32) -> anyhow::Result<()> {
        let mut mounts = BTreeMap::new();
        for _ in 0..=self.chance.below(3) {
            let count = u32::try_from(self.volumes.len())?;
            let place = usize::try_from(self.chance.below(count))?;
            // Mostly a device is for one pod: with the last one it goes, and comes with the next.
            let mut pods = self.pods.values();
            let is_taken = self.volumes[place].stage().is_some()
                && pods.any(|pod| pod.mounts.contains_key(&place));
            if !is_taken || self.chance.once_in(8) {
                mounts.insert(place, None);
            }
        }
        let claims = mounts.keys().map(|place: &usize| {
            let name = &self.volumes[*place].name;
            json!({"name": name, "persistentVolumeClaim": {"claimName": name}})
        });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("pod-{name}")},
            "spec": {
                "nodeName": NODE,
                "containers": [{"name": "main", "image": "none"}],
                "volumes": claims.collect::<Vec<_>>(),
            },
        });
        let made: Value = self.api.post(&self.path(""), pod).await?.expect(201)?;
        let uid = made["metadata"]["uid"]
            .as_str()
            .context("no uid")?
            .to_owned();
        self.pods.insert(name, Pod { uid, mounts });
        self.came += 1;
        Ok(())
    }

    async fn end(&mut self, name: u32) -> anyhow::Result<()> {
        let now = json!({"gracePeriodSeconds": 0});
        let path = self.path(&format!("/pod-{name}"));
        self.api.delete(&path, now).await?.expect(200)?;
        self.pods.remove(&name);
        Ok(())
    }

    fn path(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/pods{rest}", self.api.namespace())
    }

    /// A few of the pods that see their volumes write.
    fn let_some_write(&mut self) -> anyhow::Result<()> {
        for pod in self.pods.values() {
            for (place, _) in pod.mounts.iter().filter(|(_, seen)| seen.is_some()) {
                if self.chance.once_in(8) {
                    let volume = &mut self.volumes[*place];
                    let target = volume.target(&pod.uid);
                    volume.write_at(&target, &mut self.chance)?;
                }
            }
        }
        Ok(())
    }

    /// Waits until the node is as the API wants it, and how long that was.
    async fn settle(&mut self, agent: &mut Agent) -> anyhow::Result<Duration> {
        let start = Instant::now();
        loop {
            agent.check_running()?;
            let amiss = match node::look(self, agent)? {
                Settled::Yes => break,
                Settled::NotYet(amiss) => amiss,
            };
            if start.elapsed() > LONG {
                bail!("not settled after {LONG:?}: {amiss}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let took = start.elapsed();
        for volume in &mut self.volumes {
            volume.ensure_whole()?;
        }
        Ok(took)
    }
}
