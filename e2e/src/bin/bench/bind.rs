//! Many claims at once: volumes are there before, claims are created while the contender runs.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bitts_e2e::raw::{Request, Watch};
use serde_json::{Value, json};

use crate::contender::{Contender, Started};
use crate::figures::{Figures, Output, Results, percentile, print};
use crate::setup::{ALL_CLAIMS, CREATING, Fresh};
use crate::usage::load;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many claims are bound to as many volumes.
    #[arg(long, default_value_t = 4000)]
    pairs: u32,
    /// How often; the contenders take turns, and the run in the middle counts.
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// Only these contenders, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Contender>,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let chosen = |one: &Contender| args.only.is_empty() || args.only.contains(one);
    let contenders: Vec<_> = Contender::ALL.into_iter().filter(chosen).collect();
    let load_before = load()?;
    let mut all: BTreeMap<&str, Result<Vec<Figures>, String>> = BTreeMap::new();
    for run in 1..=args.runs.max(1) {
        for &contender in &contenders {
            let name = contender.name();
            let Ok(runs) = all.entry(name).or_insert_with(|| Ok(Vec::new())) else {
                continue;
            };
            eprintln!("run {run} of {}: {name}", args.runs.max(1));
            match once(contender, args.pairs).await {
                Ok(figures) => {
                    eprintln!("{name}: {:.1} binds/s", figures.per_s);
                    runs.push(figures);
                }
                Err(why) => {
                    eprintln!("{name} could not run: {why:#}");
                    all.insert(name, Err(format!("{why:#}")));
                }
            }
        }
    }
    let results: Results = all
        .into_iter()
        .map(|(name, runs)| {
            let median = |runs| Figures::median(runs).ok_or_else(|| "no run".to_owned());
            (name, runs.and_then(median))
        })
        .collect();
    let setup = json!({
        "pairs": args.pairs,
        "runs": args.runs,
        "claims_created_at_once": CREATING,
        "api_cpu": "kube-apiserver and etcd, creation of the claims included",
        "cores": std::thread::available_parallelism()?.get(),
        "load_before": load_before,
    });
    print(args.output, setup, &results)?;
    let complete = results.values().all(Result::is_ok);
    Ok(ExitCode::from(if complete { 0 } else { 2 }))
}

/// One run of one contender, on an API server of its own.
async fn once(contender: Contender, pairs: u32) -> Result<Figures> {
    let fresh = Fresh::start().await?;
    fresh.create_volumes(0..pairs).await?;
    let mut started = contender.start(fresh.api.kubeconfig())?;
    let figures = measure(&fresh, contender, &mut started, pairs).await;
    let words = || started.last_words();
    figures.with_context(words)
}

async fn measure(
    fresh: &Fresh,
    contender: Contender,
    started: &mut Started,
    pairs: u32,
) -> Result<Figures> {
    let running = started.running().await?;
    if contender.marks_volumes() {
        fresh.volumes_are("Available", pairs as usize).await?;
    } else {
        // Its list and its watch.
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let watcher = fresh.api.client().await?;
    let watch = watch_claims(&watcher, None).await?;
    let (cpu, api_cpu) = (running.cpu_ms()?, fresh.cpu_ms()?);
    let began = Instant::now();
    let create = async {
        let created = fresh.create_claims(0..pairs).await?;
        anyhow::Ok((created, began.elapsed()))
    };
    let bound = all_bound(&watcher, watch, pairs as usize, || started.check());
    let ((created, creating), bound) = tokio::try_join!(create, bound)?;
    let took = bound
        .values()
        .max()
        .context("no claims")?
        .duration_since(began);
    let (cpu, api_cpu) = (running.cpu_ms()? - cpu, fresh.cpu_ms()? - api_cpu);
    let mut times = Vec::new();
    for (name, created) in &created {
        let bound = bound
            .get(name)
            .with_context(|| format!("{name} is not bound"))?;
        times.push(bound.saturating_duration_since(*created));
    }
    let pairs = f64::from(pairs);
    Ok(Figures {
        per_s: pairs / took.as_secs_f64(),
        p50_ms: percentile(&mut times, 0.5),
        p99_ms: percentile(&mut times, 0.99),
        cpu_ms_each: cpu / pairs,
        api_cpu_ms_each: api_cpu / pairs,
        rss_mb: running.peak_mb()?,
        created_per_s: pairs / creating.as_secs_f64(),
        controllers: contender.controllers(),
        per_s_of_runs: Vec::new(),
    })
}

/// The claims' changes after a version, or from now on.
pub(crate) async fn watch_claims(client: &kube::Client, after: Option<&str>) -> Result<Watch> {
    let after = after.map_or_else(String::new, |version| format!("&resourceVersion={version}"));
    let path = format!("{ALL_CLAIMS}?watch=1{after}");
    Request::new("GET", &path, Value::Null).watch(client).await
}

/// When each claim was seen to be Bound.
pub(crate) async fn all_bound(
    client: &kube::Client,
    mut watch: Watch,
    count: usize,
    mut check: impl FnMut() -> Result<()>,
) -> Result<BTreeMap<String, Instant>> {
    let mut bound = BTreeMap::new();
    let mut told = Instant::now();
    let mut last = Vec::new();
    while bound.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(60), watch.next_line()).await;
        check()?;
        let line = next.with_context(|| {
            format!(
                "{} of {count} claims are Bound, no news for 60 s",
                bound.len()
            )
        })??;
        let Some(line) = line else {
            // A full API server hangs up on whom it takes for too slow.
            let event: Value = serde_json::from_slice(&last).context("the watch ended at once")?;
            let version = event["object"]["metadata"]["resourceVersion"]
                .as_str()
                .context("the watch ended with an error")?;
            watch = watch_claims(client, Some(version)).await?;
            continue;
        };
        let now = Instant::now();
        last.clone_from(&line);
        // Cheap: most events are of other steps.
        if !contains(&line, br#""phase":"Bound""#) {
            continue;
        }
        let event: Value = serde_json::from_slice(&line)?;
        let name = event["object"]["metadata"]["name"]
            .as_str()
            .unwrap_or_default();
        bound.entry(name.to_owned()).or_insert(now);
        if told.elapsed() > Duration::from_secs(5) {
            told = now;
            eprintln!("{} of {count} claims are Bound", bound.len());
        }
    }
    Ok(bound)
}

fn contains(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|window| window == part)
}
