//! The agent with many pods at once: bind mounts of directories, beside the same mounts with one child
//! each (what is compared with) and by bare system calls; then what the agent holds and does at rest.
//!
//! All mounts are in a namespace of the bench's own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bitts_e2e::cluster::{Cluster, Kind};
use bitts_e2e::raw::Request;
use bitts_mount::bind::{self, Options};
use bitts_mount::dir::Dir;
use bitts_mount::table::{MountTable, Watcher};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::Client;
use serde_json::{Map, Value, json};

use crate::contender::{Contender, Started};
use crate::figures::{Output, percentile};
use crate::setup::{ALL_CLAIMS, CLAIMS, CREATING, VOLUMES, post};
use crate::usage::load;
use crate::way::{Log, Names};

const NODE: &str = "bench-node";
const PODS: &str = "/api/v1/namespaces/default/pods";
/// Nothing here takes as long.
const LONG: Duration = Duration::from_secs(300);

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many pods come at once.
    #[arg(long, default_value_t = 100)]
    pods: usize,
    /// How many volumes each pod has.
    #[arg(long, default_value_t = 1)]
    volumes: usize,
    /// How many volumes there are that no pod here uses.
    #[arg(long, default_value_t = 0)]
    others: usize,
    /// Which API server: bitts' own, in this process, or kube-apiserver with etcd.
    #[arg(long, value_enum, default_value_t = Api::Bitts)]
    api: Api,
    /// How long the agent is looked at while nothing happens, in seconds.
    #[arg(long, default_value_t = 10)]
    rest: u64,
    /// The agent, where it is another build than the one beside this program, such as a static one.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// An API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Api {
    Bitts,
    Kube,
}

/// Gives this process a mount namespace of its own; before it has threads.
pub(crate) fn separate() -> Result<()> {
    bitts_mount::sandbox::separate()?;
    Ok(())
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let load_before = load()?;
    let folder = tempfile::Builder::new().prefix("bitts-bench-").tempdir()?;
    let count = args.pods * args.volumes;
    let sources: Vec<PathBuf> = (0..count)
        .map(|n| folder.path().join(format!("disk/{n}")))
        .collect();
    for source in &sources {
        fs::create_dir_all(source)?;
    }
    let bare = one_by_one(&folder.path().join("bare"), &sources, |source, target| {
        let (source, target) = (Dir::open(source)?, Dir::open(target)?);
        Ok(bind::bind(&source, &target, Options::default())?)
    })?;
    let children = one_by_one(
        &folder.path().join("children"),
        &sources,
        |source, target| {
            let status = Command::new("mount")
                .arg("--bind")
                .args([source, target])
                .status()?;
            ensure!(status.success(), "mount: {status}");
            Ok(())
        },
    )?;
    let mut all = Map::new();
    all.insert(
        "bitts".to_owned(),
        agent(&args, folder.path(), &sources).await?,
    );
    all.insert("one-child-each".to_owned(), children);
    all.insert("system-calls".to_owned(), bare);
    for name in ["one-child-each", "system-calls"] {
        let times = all[name]["per_s"].as_f64().context("no rate")?
            / all["bitts"]["per_s"].as_f64().context("no rate")?;
        all["bitts"][format!("times_as_long_as_{name}").replace('-', "_")] = json!(times);
    }
    all.insert(
        "setup".to_owned(),
        json!({
            "api": format!("{:?}", args.api).to_lowercase(), "pods": args.pods, "volumes_each": args.volumes, "other_volumes": args.others,
            "latency": "p50_ms and p99_ms: from the pod's creation asked for to its volume seen in the mount table; \
                        way: from the agent's log, the pod heard of, its claim and volume read, the kernel called",
            "load_before": load_before,
        }),
    );
    match args.output {
        Output::Json => println!("{:#}", Value::from(all)),
        Output::Text => {
            for (name, figures) in &all {
                println!("{name:<16} {figures}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The mounts, one after the other, each at a directory that is made for it, and their end.
fn one_by_one(
    folder: &Path,
    sources: &[PathBuf],
    mount: impl Fn(&Path, &Path) -> Result<()>,
) -> Result<Value> {
    let began = Instant::now();
    let mut times = Vec::new();
    for (n, source) in sources.iter().enumerate() {
        let one = Instant::now();
        let target = folder.join(format!("{n}/volumes/kubernetes.io~local-volume/v"));
        fs::create_dir_all(&target)?;
        mount(source, &target)?;
        times.push(one.elapsed());
    }
    let took = began.elapsed();
    for mounted in MountTable::read()?
        .iter()
        .filter(|m| m.point.starts_with(folder))
    {
        rustix::mount::unmount(&mounted.point, rustix::mount::UnmountFlags::empty())?;
    }
    Ok(json!({
        "per_s": sources.len() as f64 / took.as_secs_f64(),
        "p50_ms": percentile(&mut times, 0.5),
        "p99_ms": percentile(&mut times, 0.99),
    }))
}

async fn agent(args: &Args, folder: &Path, sources: &[PathBuf]) -> Result<Value> {
    let cluster = Cluster::start(match args.api {
        Api::Bitts => Kind::Served,
        Api::Kube => Kind::Real,
    })
    .await?;
    let client = cluster.client().await?;
    let kubeconfig = cluster.kubeconfig().context("no kubeconfig")?;
    prepare(&client, kubeconfig, args, sources).await?;
    let kubelet = folder.join("kubelet");
    fs::create_dir_all(&kubelet)?;
    let mut started = Started::agent(args.agent.as_deref(), kubeconfig, NODE, &kubelet)?;
    let running = started.running().await?;
    // It is ready when a first pod has its volume; that one is not counted.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let cpu = running.cpu_ms()?;
    let seen = watch_mounts(kubelet.display().to_string());
    let began = Instant::now();
    let pods: Vec<(String, Instant)> = stream::iter(0..args.pods)
        .map(|n| create_pod(&client, n, args.volumes))
        .buffered(CREATING)
        .try_collect()
        .await?;
    let created = began.elapsed();
    let (mut asked, mut names) = (BTreeMap::new(), Vec::new());
    for (n, (uid, at)) in pods.iter().enumerate() {
        for v in 0..args.volumes {
            let name = volume_name(n * args.volumes + v);
            let target = format!("pods/{uid}/volumes/kubernetes.io~local-volume/{name}");
            asked.insert(kubelet.join(&target), *at);
            names.push(Names {
                pod: format!("default/p-{n}"),
                claim: format!("default/{name}"),
                volume: name,
                target,
            });
        }
    }
    let mut times = Vec::new();
    let mut last = began;
    let deadline = began + LONG;
    let mut waiting = asked.clone();
    while !waiting.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let (point, at) = next(&seen, left).with_context(|| started.last_words())?;
        if let Some(from) = waiting.remove(&point) {
            times.push(at.saturating_duration_since(from));
            last = at;
        }
    }
    let cpu = running.cpu_ms()? - cpu;
    let way = Log::read(&started.printed()).parts(&names)?;
    let (rest, woken) = (Duration::from_secs(args.rest), running.woken()?);
    tokio::time::sleep(rest).await;
    let woken = running.woken()?.saturating_sub(woken);
    let (held, of_files) = (running.held_mb()?, running.held_of_files_mb()?);
    let ending = Instant::now();
    stream::iter(0..args.pods)
        .map(|n| delete_pod(&client, n))
        .buffered(CREATING)
        .try_collect::<Vec<()>>()
        .await?;
    while MountTable::read()?
        .iter()
        .any(|m| m.point.starts_with(&kubelet))
    {
        ensure!(
            ending.elapsed() < LONG,
            "volumes stay: {}",
            started.last_words()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let count = sources.len() as f64;
    Ok(json!({
        "per_s": count / (last - began).as_secs_f64(),
        "p50_ms": percentile(&mut times, 0.5),
        "p99_ms": percentile(&mut times, 0.99),
        "cpu_ms_each": cpu / count,
        "rss_mb": running.peak_mb()?,
        "rss_mb_at_rest": held,
        "of_files_mb_at_rest": of_files,
        "way": way,
        "wakeups_per_s_at_rest": woken as f64 / rest.as_secs_f64(),
        "pods_created_per_s": args.pods as f64 / created.as_secs_f64(),
        "unmounted_per_s": count / ending.elapsed().as_secs_f64(),
    }))
}

fn next(seen: &Receiver<(PathBuf, Instant)>, at_most: Duration) -> Result<(PathBuf, Instant)> {
    seen.recv_timeout(at_most).context("volumes are missing")
}

/// Tells of each new mount below a directory, and when it was seen.
fn watch_mounts(below: String) -> Receiver<(PathBuf, Instant)> {
    let (tell, seen) = channel();
    thread::spawn(move || -> Result<()> {
        let watcher = Watcher::new()?;
        let mut known = std::collections::BTreeSet::new();
        loop {
            let at = Instant::now();
            // All of it for each mount: so nothing but what is needed, for the agent needs the CPU, too.
            let table = fs::read_to_string("/proc/self/mountinfo")?;
            let points = table.lines().filter_map(|line| line.split(' ').nth(4));
            for point in points.filter(|point| point.starts_with(&*below)) {
                if known.insert(point.to_owned()) && tell.send((point.into(), at)).is_err() {
                    return Ok(());
                }
            }
            watcher.wait(Duration::from_secs(1))?;
        }
    });
    seen
}

/// The node, the class, and all claims bound to their volumes.
async fn prepare(
    client: &Client,
    kubeconfig: &str,
    args: &Args,
    sources: &[PathBuf],
) -> Result<()> {
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}},
    });
    post(client, "/api/v1/nodes", node).await?;
    let others = (0..args.others).map(|n| (sources.len() + n, Path::new("/nowhere")));
    let own = sources.iter().map(PathBuf::as_path).enumerate();
    stream::iter(own.chain(others))
        .map(|(n, path)| post(client, VOLUMES, volume(n, path)))
        .buffer_unordered(CREATING)
        .try_collect::<Vec<_>>()
        .await?;
    stream::iter(0..sources.len())
        .map(|n| post(client, CLAIMS, claim(n)))
        .buffer_unordered(CREATING)
        .try_collect::<Vec<_>>()
        .await?;
    let binder = Contender::Bitts.start(kubeconfig)?;
    let began = Instant::now();
    loop {
        let list = Request::new("GET", ALL_CLAIMS, Value::Null)
            .send(client)
            .await?
            .expect(200)?;
        let items = list["items"].as_array().context("no items")?;
        if items
            .iter()
            .all(|claim| claim["status"]["phase"] == "Bound")
        {
            return Ok(());
        }
        ensure!(
            began.elapsed() < LONG,
            "not all Bound: {}",
            binder.last_words()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn volume_name(n: usize) -> String {
    format!("v-{n}")
}

fn volume(n: usize, path: &Path) -> Value {
    let name = volume_name(n);
    let on_node = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]});
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "bench",
            "local": {"path": path},
            "claimRef": {"namespace": "default", "name": name},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
        },
    })
}

fn claim(n: usize) -> Value {
    let name = volume_name(n);
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "bench", "volumeName": name,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    })
}

/// Creates a pod; its uid, and when it was asked for.
async fn create_pod(client: &Client, n: usize, volumes: usize) -> Result<(String, Instant)> {
    let volumes: Vec<Value> = (0..volumes)
        .map(|v| {
            let claim = volume_name(n * volumes + v);
            json!({"name": format!("d-{v}"), "persistentVolumeClaim": {"claimName": claim}})
        })
        .collect();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p-{n}")},
        "spec": {
            "nodeName": NODE,
            "containers": [{"name": "main", "image": "none"}],
            "volumes": volumes,
        },
    });
    let at = Instant::now();
    let made = Request::new("POST", PODS, pod)
        .send(client)
        .await?
        .expect(201)?;
    let uid = made["metadata"]["uid"].as_str().context("no uid")?;
    Ok((uid.to_owned(), at))
}

async fn delete_pod(client: &Client, n: usize) -> Result<()> {
    let now = json!({"gracePeriodSeconds": 0});
    let path = format!("{PODS}/p-{n}");
    Request::new("DELETE", &path, now)
        .send(client)
        .await?
        .expect(200)?;
    Ok(())
}
