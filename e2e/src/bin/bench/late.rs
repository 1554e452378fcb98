//! The volume that comes after its claim: how soon the claim is bound on an API server that does
//! nothing else.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bitts_e2e::raw::{Request, Watch};
use serde_json::{Value, json};

use crate::contender::{Contender, Started};
use crate::figures::{Figures, Output, Results, percentile, print};
use crate::setup::{ALL_CLAIMS, Fresh, VOLUMES, claim, post, volume};
use crate::usage::load;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many claims get their volumes, one after the other.
    #[arg(long, default_value_t = 200)]
    pairs: u32,
    /// These contenders, separated by commas. The stock controllers need up to 15 s for each claim.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "bitts")]
    only: Vec<Contender>,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let load_before = load()?;
    let mut results = Results::new();
    for contender in args.only {
        eprintln!("{}", contender.name());
        let result = once(contender, args.pairs).await;
        results.insert(contender.name(), result.map_err(|why| format!("{why:#}")));
    }
    let setup = json!({
        "pairs": args.pairs,
        "latency": "from the answer to the creation of the volume to the claim seen Bound",
        "load_before": load_before,
    });
    print(args.output, setup, &results)?;
    let complete = results.values().all(Result::is_ok);
    Ok(ExitCode::from(if complete { 0 } else { 2 }))
}

async fn once(contender: Contender, pairs: u32) -> Result<Figures> {
    anyhow::ensure!(
        contender.marks_volumes(),
        "{} binds only what is there before it",
        contender.name()
    );
    let fresh = Fresh::start().await?;
    let mut started = contender.start(fresh.api.kubeconfig())?;
    let figures = measure(&fresh, contender, &mut started, pairs).await;
    figures.with_context(|| started.last_words())
}

async fn measure(
    fresh: &Fresh,
    contender: Contender,
    started: &mut Started,
    pairs: u32,
) -> Result<Figures> {
    let running = started.running().await?;
    let path = format!("{ALL_CLAIMS}?watch=1");
    let mut watch = Request::new("GET", &path, Value::Null)
        .watch(&fresh.client)
        .await?;
    let (cpu, api_cpu) = (running.cpu_ms()?, fresh.cpu_ms()?);
    let began = Instant::now();
    let mut times = Vec::new();
    for n in 0..pairs {
        post(&fresh.client, crate::setup::CLAIMS, claim(n)).await?;
        // The contender has heard of it once it says something about it; some say nothing.
        tokio::time::sleep(Duration::from_millis(50)).await;
        post(&fresh.client, VOLUMES, volume(n)).await?;
        let created = Instant::now();
        bound(&mut watch, &format!("c-{n}")).await?;
        times.push(created.elapsed());
        started.check()?;
    }
    let count = f64::from(pairs);
    Ok(Figures {
        per_s: count / began.elapsed().as_secs_f64(),
        p50_ms: percentile(&mut times, 0.5),
        p99_ms: percentile(&mut times, 0.99),
        cpu_ms_each: (running.cpu_ms()? - cpu) / count,
        api_cpu_ms_each: (fresh.cpu_ms()? - api_cpu) / count,
        rss_mb: running.peak_mb()?,
        created_per_s: count / began.elapsed().as_secs_f64(),
        controllers: contender.controllers(),
        per_s_of_runs: Vec::new(),
    })
}

async fn bound(watch: &mut Watch, name: &str) -> Result<()> {
    let until_bound = async {
        loop {
            let line = watch.next_line().await?.context("the watch ended")?;
            let event: Value = serde_json::from_slice(&line)?;
            let object = &event["object"];
            if object["metadata"]["name"] == name && object["status"]["phase"] == "Bound" {
                return anyhow::Ok(());
            }
        }
    };
    let patience = Duration::from_secs(60);
    let waited = tokio::time::timeout(patience, until_bound).await;
    waited.with_context(|| format!("{name} is not Bound after {patience:?}"))?
}
