//! Many claims whose volumes are yet to be made: directories on the disk of a node, on which the claims
//! were placed before, or on an NFS share. The bitts binder binds them for every contender.

mod guest;
mod making;
mod place;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bitts_e2e::go::external_provisioner;
use bitts_e2e::raw::{Request, Watch};
use bitts_e2e::real::client_for;
use clap::ValueEnum;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::Client;
use serde::Serialize;
use serde_json::{Value, json};

use crate::bind::{all_bound, watch_claims};
use crate::contender::{Contender, Started};
use crate::figures::{Output, json, percentile};
use crate::setup::{ALL_CLAIMS, CLAIMS, CREATING, Fresh, VOLUMES, post};
use crate::usage::load;
pub(crate) use guest::{CASE, serve};
use making::Making;
use place::Place;

const NODE: &str = "bench-node";
const CLASS: &str = "provision";
/// How many claims come at once in the burst.
const BURST: u32 = 100;
/// The limit's writes at a time: as few as keep the API server busy.
const AT_ONCE: usize = 32;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many claims get volumes, after a burst of 100.
    #[arg(long, default_value_t = 1000)]
    claims: u32,
    /// How often; the contenders take turns, and the run in the middle counts.
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// Only these contenders, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Maker>,
    /// Volumes on an NFS share instead of a disk; its server and the contender are in user-mode Linux. As root.
    #[arg(long)]
    share: bool,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Who makes volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Maker {
    /// `bitts run --roles provisioner`, as built for release.
    Bitts,
    /// A client that makes the directory and the volume's object, and does nothing else.
    Limit,
    /// A program on the library of Kubernetes' external provisioners, at its default of 4 at a time.
    ExternalProvisioner,
    /// The same with 100 at a time.
    ExternalProvisioner100,
}

impl Maker {
    const ALL: [Self; 4] = [
        Self::ExternalProvisioner,
        Self::ExternalProvisioner100,
        Self::Bitts,
        Self::Limit,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Bitts => "bitts",
            Self::Limit => "limit",
            Self::ExternalProvisioner => "external-provisioner",
            Self::ExternalProvisioner100 => "external-provisioner-100",
        }
    }

    fn is_built_with_go(self) -> bool {
        matches!(
            self,
            Self::ExternalProvisioner | Self::ExternalProvisioner100
        )
    }

    /// Its program, built first where that is for Go to do.
    fn program(self) -> Result<PathBuf> {
        let own = std::env::current_exe()?;
        match self {
            Self::Bitts => Ok(own.with_file_name("bitts")),
            Self::Limit => Ok(own),
            Self::ExternalProvisioner | Self::ExternalProvisioner100 => external_provisioner(),
        }
    }

    fn start(self, program: &Path, kubeconfig: &str, place: &Place) -> Result<Started> {
        let root = format!("--root={}", place.root().display());
        let stock = |threads: u32| {
            let node = format!("--node-name={NODE}");
            vec![root.clone(), node, format!("--threads={threads}")]
        };
        let arguments = match self {
            Self::Bitts => place.roles(),
            Self::Limit => vec!["limit-provision".to_owned(), root],
            Self::ExternalProvisioner => stock(4),
            Self::ExternalProvisioner100 => stock(100),
        };
        Started::program(program, arguments, kubeconfig)
    }
}

/// What a contender needed in one run.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    /// Claims Bound in a second, from the first one created to the last one Bound.
    per_s: f64,
    /// From a claim created to that claim Bound, for half of those of the burst.
    p50_ms: f64,
    /// The same for 99 of 100.
    p99_ms: f64,
    /// CPU time of the contender for each claim.
    cpu_ms_each: f64,
    /// CPU time of kube-apiserver and etcd for each claim, its creation included.
    api_cpu_ms_each: f64,
    /// The most memory that the contender ever had, with the processes that work for it.
    rss_mb: f64,
    /// How fast the claims came.
    created_per_s: f64,
    /// `per_s` of all runs; the figures are those of the one in the middle.
    per_s_of_runs: Vec<f64>,
    /// `p99_ms` of all runs.
    p99_ms_of_runs: Vec<f64>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let chosen = |one: &Maker| args.only.is_empty() || args.only.contains(one);
    let makers: Vec<_> = Maker::ALL.into_iter().filter(chosen).collect();
    if makers.iter().any(|maker| maker.is_built_with_go()) {
        eprintln!("building e2e/external-provisioner with Go, if it is not ...");
        // Why it could not be is told where it is started.
        external_provisioner().ok();
    }
    let load_before = load()?;
    let mut all: BTreeMap<&str, Result<Vec<Figures>, String>> = BTreeMap::new();
    for run in 1..=args.runs.max(1) {
        for &maker in &makers {
            let name = maker.name();
            let Ok(runs) = all.entry(name).or_insert_with(|| Ok(Vec::new())) else {
                continue;
            };
            eprintln!("run {run} of {}: {name}", args.runs.max(1));
            match once(maker, args.claims, args.share).await {
                Ok(figures) => {
                    let (per_s, p99) = (figures.per_s, figures.p99_ms);
                    eprintln!("{name}: {per_s:.1} claims/s, p99 of the burst {p99:.0} ms");
                    runs.push(figures);
                }
                Err(why) => {
                    eprintln!("{name} could not run: {why:#}");
                    all.insert(name, Err(format!("{why:#}")));
                }
            }
        }
    }
    let middle = |runs| median(runs).ok_or_else(|| "no run".to_owned());
    let results: BTreeMap<_, _> = all
        .into_iter()
        .map(|(name, runs)| (name, runs.and_then(middle)))
        .collect();
    let setup = json!({
        "volumes": if args.share { "on a share" } else { "on a disk" },
        "claims": args.claims,
        "burst": BURST,
        "runs": args.runs,
        "binder": "bitts run --roles binder, for every contender",
        "claims_created_at_once": CREATING,
        "api_cpu": "kube-apiserver and etcd, creation and binding of the claims included",
        "cores": std::thread::available_parallelism()?.get(),
        "load_before": load_before,
    });
    print(args.output, setup, &results)?;
    let complete = results.values().all(Result::is_ok);
    Ok(ExitCode::from(if complete { 0 } else { 2 }))
}

/// The run in the middle.
fn median(mut runs: Vec<Figures>) -> Option<Figures> {
    runs.sort_by(|a, b| a.per_s.total_cmp(&b.per_s));
    let per_s = runs.iter().map(|run| run.per_s).collect();
    let p99 = runs.iter().map(|run| run.p99_ms).collect();
    let middle = runs.len().checked_sub(1)? / 2;
    let median = runs.swap_remove(middle);
    Some(Figures {
        per_s_of_runs: per_s,
        p99_ms_of_runs: p99,
        ..median
    })
}

fn print(
    output: Output,
    setup: Value,
    results: &BTreeMap<&'static str, Result<Figures, String>>,
) -> Result<()> {
    if output == Output::Json {
        println!("{:#}", json(setup, results)?);
        return Ok(());
    }
    println!(
        "{:<26} {:>9} {:>9} {:>9} {:>8} {:>12} {:>7}",
        "", "claims/s", "p50 ms", "p99 ms", "CPU ms", "API CPU ms", "MB"
    );
    for (name, result) in results {
        match result {
            Ok(f) => println!(
                "{name:<26} {:>9.1} {:>9.1} {:>9.1} {:>8.2} {:>12.2} {:>7.1}",
                f.per_s, f.p50_ms, f.p99_ms, f.cpu_ms_each, f.api_cpu_ms_each, f.rss_mb
            ),
            Err(reason) => println!("{name:<26} did not run: {reason}"),
        }
    }
    println!("{setup}");
    Ok(())
}

/// One run of one contender, on an API server and a disk or share of its own.
async fn once(maker: Maker, claims: u32, share: bool) -> Result<Figures> {
    // Guests come by an address of their own.
    let flags: &[&str] = if share {
        &["--bind-address=0.0.0.0"]
    } else {
        &[]
    };
    let fresh = Fresh::start_with(flags).await?;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE,
        "labels": {"kubernetes.io/hostname": NODE}}});
    post(&fresh.client, "/api/v1/nodes", node).await?;
    let mut binder = Contender::Bitts.start(fresh.api.kubeconfig())?;
    binder.running().await?;
    let mut making = Making::start(maker, fresh.api.kubeconfig(), share)?;
    let class = making.class(maker)?;
    post(
        &fresh.client,
        "/apis/storage.k8s.io/v1/storageclasses",
        class,
    )
    .await?;
    let figures = measure(&fresh, &mut making, claims).await;
    let figures = figures.with_context(|| making.last_words());
    figures.with_context(|| binder.last_words())
}

async fn measure(fresh: &Fresh, making: &mut Making, claims: u32) -> Result<Figures> {
    // Both have their lists and watches by then: one claim that is bound shows it.
    let (mut warm, _) = burst(fresh, making, "w", 0..1).await?;
    anyhow::ensure!(!warm.is_empty(), "no claim was bound");
    warm.clear();
    let (mut times, _) = burst(fresh, making, "b", 0..BURST).await?;
    let (before, api_cpu) = (making.usage().await?, fresh.cpu_ms()?);
    let watcher = fresh.api.client().await?;
    let watch = watch_from_now(&watcher).await?;
    let began = Instant::now();
    let create = async {
        let all = stream::iter(0..claims).map(|n| claim(&fresh.client, "c", n));
        let created: Vec<_> = all.buffer_unordered(CREATING).try_collect().await?;
        anyhow::ensure!(created.len() == claims as usize, "not all were created");
        Ok(began.elapsed())
    };
    let bound = all_bound(&watcher, watch, claims as usize, || making.check());
    let (creating, bound) = tokio::try_join!(create, bound)?;
    let last = bound.values().max().context("no claims")?;
    let took = last.duration_since(began);
    let after = making.usage().await?;
    let count = f64::from(claims);
    Ok(Figures {
        per_s: count / took.as_secs_f64(),
        p50_ms: percentile(&mut times, 0.5),
        p99_ms: percentile(&mut times, 0.99),
        cpu_ms_each: (after.cpu_ms - before.cpu_ms) / count,
        api_cpu_ms_each: (fresh.cpu_ms()? - api_cpu) / count,
        rss_mb: after.peak_mb,
        created_per_s: count / creating.as_secs_f64(),
        per_s_of_runs: Vec::new(),
        p99_ms_of_runs: Vec::new(),
    })
}

/// Claims that all come at once: from when each was there to when it was Bound.
async fn burst(
    fresh: &Fresh,
    making: &mut Making,
    prefix: &str,
    numbers: std::ops::Range<u32>,
) -> Result<(Vec<Duration>, Duration)> {
    let count = numbers.len();
    let watcher = fresh.api.client().await?;
    let watch = watch_from_now(&watcher).await?;
    let began = Instant::now();
    let create = async {
        let all = stream::iter(numbers).map(|n| claim(&fresh.client, prefix, n));
        let created: BTreeMap<String, Instant> = all.buffer_unordered(count).try_collect().await?;
        Ok(created)
    };
    let bound = all_bound(&watcher, watch, count, || making.check());
    let (created, bound) = tokio::try_join!(create, bound)?;
    let mut times = Vec::new();
    for (name, created) in &created {
        let bound = bound.get(name);
        let bound = bound.with_context(|| format!("{name} is not bound"))?;
        times.push(bound.saturating_duration_since(*created));
    }
    Ok((times, began.elapsed()))
}

/// The claims' changes from now on: those that are there are no news.
async fn watch_from_now(client: &Client) -> Result<Watch> {
    let path = format!("{ALL_CLAIMS}?limit=1");
    let list = Request::new("GET", &path, Value::Null).send(client).await?;
    let list = list.expect(200)?;
    let version = list["metadata"]["resourceVersion"].as_str();
    watch_claims(client, Some(version.context("a list without a version")?)).await
}

/// Creates a claim that the scheduler placed; returns its name, and when it was there.
async fn claim(client: &Client, prefix: &str, n: u32) -> Result<(String, Instant)> {
    let name = format!("{prefix}-{n}");
    let body = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default",
            "annotations": {"volume.kubernetes.io/selected-node": NODE}},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": CLASS,
            "resources": {"requests": {"storage": "1Mi"}}}});
    post(client, CLAIMS, body).await?;
    Ok((name, Instant::now()))
}

const LIMIT: &str = "limit.bitts.dev";

/// The limit.
#[derive(Debug, clap::Args)]
pub(crate) struct LimitArgs {
    #[arg(long)]
    kubeconfig: PathBuf,
    #[arg(long)]
    root: PathBuf,
}

/// Makes the directory and the object of each claim that is handed to it, until it is killed.
pub(crate) async fn limit(args: LimitArgs) -> Result<ExitCode> {
    let client = client_for(&std::fs::read_to_string(&args.kubeconfig)?).await?;
    // Its claims come back with every change of theirs.
    let mut seen = std::collections::BTreeSet::new();
    // A full API server hangs up on whom it takes for too slow: all claims come once more then.
    loop {
        let path = format!("{ALL_CLAIMS}?watch=1");
        let watch = Request::new("GET", &path, Value::Null)
            .watch(&client)
            .await?;
        let lines = stream::try_unfold(watch, async |mut watch| {
            anyhow::Ok(watch.next_line().await?.map(|line| (line, watch)))
        });
        let claims = lines.try_filter_map(|line: Vec<u8>| {
            let claim = handed(&line)
                .map(|claim| claim.filter(|c| seen.insert(c["metadata"]["uid"].to_string())));
            std::future::ready(claim)
        });
        claims
            .try_for_each_concurrent(AT_ONCE, |claim| make(&client, &args.root, claim))
            .await?;
    }
}

/// A claim that waits for a volume of the limit.
fn handed(line: &[u8]) -> Result<Option<Value>> {
    let mut event: Value = serde_json::from_slice(line)?;
    let claim = event["object"].take();
    let asked = &claim["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"];
    let waits = asked == LIMIT && claim["spec"]["volumeName"].is_null();
    Ok(waits.then_some(claim))
}

async fn make(client: &Client, root: &Path, claim: Value) -> Result<()> {
    let meta = &claim["metadata"];
    let uid = meta["uid"].as_str().context("no uid")?;
    let name = format!("pvc-{uid}");
    let path = root.join(&name);
    std::fs::create_dir(&path)?;
    let here = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]});
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": LIMIT}},
        "spec": {"capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": CLASS, "persistentVolumeReclaimPolicy": "Delete",
            "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": meta["namespace"], "name": meta["name"], "uid": uid}}});
    post(client, VOLUMES, volume).await
}
