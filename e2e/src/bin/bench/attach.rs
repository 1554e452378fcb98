//! Many pods with volumes on many nodes at once: from when the pods are there to when the last of their
//! volumes is listed in its node's status. The driver is in this process.
//!
//! A contender is up and has attached one volume before. It is stopped while the pods are made, so that it
//! finds all of them at a moment.

mod limit;
mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bitts_csi::testing::{Disks, FakeController, Turn};
use bitts_csi::v1::controller_service_capability::rpc::Type as Rpc;
use bitts_e2e::control_plane::{programs, stock_arguments};
use bitts_e2e::go::external_attacher;
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};

use crate::contender::Started;
use crate::figures::{Output, json, percentile};
use crate::idle::{Requests, requests};
use crate::setup::Fresh;
use crate::usage::{Running, load};

pub(crate) use limit::{Args as LimitArgs, run as limit};
use world::{DRIVER, World};

/// The stock controllers that the attacher stands in for.
const STOCK: [&str; 1] = ["persistentvolume-attach-detach-controller"];

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many pods, each with a volume of its own.
    #[arg(long, default_value_t = 1000)]
    volumes: u32,
    /// To how many nodes they are attached.
    #[arg(long, default_value_t = 50)]
    nodes: u32,
    /// How long the driver takes for each.
    #[arg(long, default_value_t = 10)]
    driver_ms: u64,
    /// How often; the contenders take turns, and the run in the middle counts.
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// Only these contenders, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Pair>,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Who decides what is attached, and who has the driver do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Pair {
    /// `bitts run --roles attacher,csi-attacher`, as built for release.
    Bitts,
    /// A client that does nothing but the same writes and calls.
    Limit,
    /// kube-controller-manager and external-attacher as they are: with the limits that their flags have by
    /// default.
    Stock,
    /// The same with limits that do not bind: requests to the API, and 100 workers.
    StockUnlimited,
}

impl Pair {
    const ALL: [Self; 4] = [Self::StockUnlimited, Self::Bitts, Self::Limit, Self::Stock];

    fn name(self) -> &'static str {
        match self {
            Self::Bitts => "bitts",
            Self::Limit => "limit",
            Self::Stock => "stock",
            Self::StockUnlimited => "stock-unlimited",
        }
    }

    /// Starts its programs.
    fn start(self, kubeconfig: &str, socket: &Path) -> Result<Vec<Started>> {
        let own = std::env::current_exe()?;
        let socket = socket.display();
        match self {
            Self::Bitts => {
                let arguments = vec![
                    "run".to_owned(),
                    "--roles=attacher,csi-attacher".to_owned(),
                    "--leader-elect=false".to_owned(),
                    format!("--csi-socket={socket}"),
                ];
                let bitts = own.with_file_name("bitts");
                Ok(vec![Started::program(&bitts, arguments, kubeconfig)?])
            }
            Self::Limit => {
                let arguments = vec!["limit-attach".to_owned(), format!("--socket={socket}")];
                Ok(vec![Started::program(&own, arguments, kubeconfig)?])
            }
            Self::Stock | Self::StockUnlimited => {
                let limited = self == Self::Stock;
                let mut controllers = stock_arguments(&STOCK);
                controllers.push("--leader-elect=false".to_owned());
                let mut sidecar = vec![format!("--csi-address={socket}")];
                if limited {
                    controllers.retain(|flag| !flag.starts_with("--kube-api-"));
                } else {
                    sidecar.extend(
                        [
                            "--kube-api-qps=5000",
                            "--kube-api-burst=5000",
                            "--worker-threads=100",
                        ]
                        .map(str::to_owned),
                    );
                }
                let manager = programs()?.controller_manager().to_owned();
                Ok(vec![
                    Started::program(&manager, controllers, kubeconfig)?,
                    Started::program(&external_attacher()?, sidecar, kubeconfig)?,
                ])
            }
        }
    }
}

/// What a contender needed in one run; of the stock pair, both of its programs.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    /// Volumes listed as attached in a second, from when all pods are there to the last volume.
    per_s: f64,
    /// From when the pods are there to a volume listed, for half of the volumes.
    p50_ms: f64,
    /// The same for 99 of 100.
    p99_ms: f64,
    /// CPU time of the contender for each volume.
    cpu_ms_each: f64,
    /// CPU time of kube-apiserver and etcd for each volume.
    api_cpu_ms_each: f64,
    /// The most memory that the contender ever had.
    rss_mb: f64,
    /// What the API server was asked meanwhile.
    requests: Requests,
    /// How many calls the driver had under way at a time at most.
    calls_at_once: usize,
    /// `per_s` of all runs; the figures are those of the one in the middle.
    per_s_of_runs: Vec<f64>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let chosen = |one: &Pair| args.only.is_empty() || args.only.contains(one);
    let pairs: Vec<_> = Pair::ALL.into_iter().filter(chosen).collect();
    if pairs.contains(&Pair::Stock) || pairs.contains(&Pair::StockUnlimited) {
        eprintln!("building e2e/external-attacher with Go, if it is not ...");
        // Why it could not be is told where it is started.
        external_attacher().ok();
    }
    let load_before = load()?;
    let mut all: BTreeMap<&str, Result<Vec<Figures>, String>> = BTreeMap::new();
    for run in 1..=args.runs.max(1) {
        for &pair in &pairs {
            let name = pair.name();
            let Ok(runs) = all.entry(name).or_insert_with(|| Ok(Vec::new())) else {
                continue;
            };
            eprintln!("run {run} of {}: {name}", args.runs.max(1));
            match once(pair, &args).await {
                Ok(figures) => {
                    eprintln!("{name}: {:.1} volumes/s", figures.per_s);
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
        "volumes": args.volumes,
        "nodes": args.nodes,
        "driver_ms": args.driver_ms,
        "runs": args.runs,
        "stock": "both programs with their default flags: 20 requests a second of \
            kube-controller-manager, 5 a second and 10 workers of external-attacher",
        "stock_unlimited": "5000 requests a second each, 100 workers",
        "limit": "the same writes, events included, and the same calls",
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
    let per_s_of_runs = runs.iter().map(|run| run.per_s).collect();
    let middle = runs.len().checked_sub(1)? / 2;
    let median = runs.swap_remove(middle);
    Some(Figures {
        per_s_of_runs,
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
        "{:<16} {:>10} {:>9} {:>9} {:>8} {:>12} {:>7} {:>9}",
        "", "volumes/s", "p50 ms", "p99 ms", "CPU ms", "API CPU ms", "MB", "at once"
    );
    for (name, result) in results {
        match result {
            Ok(f) => println!(
                "{name:<16} {:>10.1} {:>9.0} {:>9.0} {:>8.2} {:>12.2} {:>7.1} {:>9}",
                f.per_s,
                f.p50_ms,
                f.p99_ms,
                f.cpu_ms_each,
                f.api_cpu_ms_each,
                f.rss_mb,
                f.calls_at_once
            ),
            Err(reason) => println!("{name:<16} did not run: {reason}"),
        }
    }
    println!("{setup}");
    Ok(())
}

/// One run of one contender, on an API server and beside a driver of its own.
async fn once(pair: Pair, args: &Args) -> Result<Figures> {
    let fresh = Fresh::start().await?;
    let folder = tempfile::Builder::new().prefix("bitts-bench-").tempdir()?;
    let socket = folder.path().join("csi.sock");
    let disks = Disks::new(DRIVER, &[Rpc::PublishUnpublishVolume]);
    let turn = Turn {
        after: Duration::from_millis(args.driver_ms),
        fate: None,
    };
    disks.decide(move |_| turn.clone());
    let _controller = FakeController::start(&socket, &disks)?;
    let world = World::new(&fresh, args.volumes, args.nodes).await?;
    let mut programs = pair.start(fresh.api.kubeconfig(), &socket)?;
    let figures = measure(&fresh, &world, &mut programs).await;
    let figures = figures.map_err(|why| {
        let words: Vec<_> = programs.iter().map(Started::last_words).collect();
        why.context(words.join("\n"))
    })?;
    Ok(Figures {
        calls_at_once: disks.most_at_once(),
        ..figures
    })
}

async fn measure(fresh: &Fresh, world: &World, programs: &mut [Started]) -> Result<Figures> {
    let mut running = Vec::new();
    for program in programs.iter_mut() {
        running.push(program.running().await?);
    }
    let watcher = fresh.api.client().await?;
    world.warm_up(&watcher, programs).await?;
    // Its events.
    tokio::time::sleep(Duration::from_secs(2)).await;
    running.iter().try_for_each(Running::stop)?;
    world.create_pods().await?;
    let watch = world.watch_nodes(&watcher).await?;
    let (cpu, api_cpu) = (cpu_ms(&running)?, fresh.cpu_ms()?);
    let before = requests(&watcher).await?;
    let began = Instant::now();
    running.iter().try_for_each(Running::go_on)?;
    let listed = world.all_listed(&watcher, watch, programs).await?;
    let last = listed.values().max().context("no volumes")?;
    let took = last.duration_since(began);
    let (cpu, api_cpu) = (cpu_ms(&running)? - cpu, fresh.cpu_ms()? - api_cpu);
    let mut requests = requests(&watcher).await?;
    for (what, count) in &mut requests {
        *count -= before.get(what).copied().unwrap_or_default();
    }
    requests.retain(|_, count| *count > 0);
    let mut times: Vec<_> = listed.values().map(|at| at.duration_since(began)).collect();
    let count = times.len() as f64;
    let rss_mb = running.iter().map(Running::peak_mb).sum::<Result<f64>>()?;
    Ok(Figures {
        per_s: count / took.as_secs_f64(),
        p50_ms: percentile(&mut times, 0.5),
        p99_ms: percentile(&mut times, 0.99),
        cpu_ms_each: cpu / count,
        api_cpu_ms_each: api_cpu / count,
        rss_mb,
        requests,
        calls_at_once: 0,
        per_s_of_runs: Vec::new(),
    })
}

fn cpu_ms(running: &[Running]) -> Result<f64> {
    running.iter().map(Running::cpu_ms).sum()
}
