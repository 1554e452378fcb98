//! What bitts asks of an API server on which nothing happens.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::Client;
use serde_json::json;

use crate::contender::Contender;
use crate::figures::Output;
use crate::setup::Fresh;
use crate::usage::load;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many claims are bound before.
    #[arg(long, default_value_t = 10_000)]
    pairs: u32,
    /// For how long nothing happens.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Requests by verb and resource.
pub(crate) type Requests = BTreeMap<String, u64>;

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let load_before = load()?;
    let time = Duration::from_secs(args.seconds);
    let fresh = Fresh::start().await?;
    // What kube-apiserver asks of itself.
    eprintln!("{} s without bitts", args.seconds);
    let alone = during(&fresh.client, time).await?;
    fresh.create_volumes(0..args.pairs).await?;
    let mut bitts = Contender::Bitts.start_elected(fresh.api.kubeconfig())?;
    let running = bitts.running().await?;
    fresh.create_claims(0..args.pairs).await?;
    fresh.volumes_are("Bound", args.pairs as usize).await?;
    // Its last two writes of each claim, and its events.
    tokio::time::sleep(Duration::from_secs(10)).await;
    eprintln!(
        "{} s with bitts and {} bound claims",
        args.seconds, args.pairs
    );
    let cpu = running.cpu_ms()?;
    let with = during(&fresh.client, time).await?;
    bitts.check()?;
    let cpu = (running.cpu_ms()? - cpu) / time.as_secs_f64() / 10.0;
    let requests: Requests = with
        .into_iter()
        .map(|(what, count)| {
            let own = alone.get(&what).copied().unwrap_or_default();
            (what, count.saturating_sub(own))
        })
        .filter(|(_, count)| *count > 0)
        .collect();
    let expected = |what: &str| what.starts_with("WATCH ") || what.ends_with(" leases");
    let other: u64 = requests
        .iter()
        .filter(|(what, _)| !expected(what))
        .map(|(_, count)| count)
        .sum();
    let result = json!({
        "bitts": {
            "requests": requests,
            "requests_but_watches_and_lease": other,
            "cpu_percent_of_a_core": cpu,
            "rss_mb": running.peak_mb()?,
        },
        "setup": {"pairs": args.pairs, "seconds": args.seconds, "load_before": load_before},
    });
    match args.output {
        Output::Json => println!("{result:#}"),
        Output::Text => println!(
            "{other} requests other than watches and the lease, {cpu:.2} % of a core: {requests:?}"
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// The requests that the API server got in this time, by its own metrics.
async fn during(client: &Client, time: Duration) -> Result<Requests> {
    let before = requests(client).await?;
    tokio::time::sleep(time).await;
    let mut after = requests(client).await?;
    for (what, count) in &mut after {
        *count -= before.get(what).copied().unwrap_or_default();
    }
    Ok(after)
}

/// The requests so far.
pub(crate) async fn requests(client: &Client) -> Result<Requests> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    read(&client.request_text(request).await?)
}

fn read(metrics: &str) -> Result<Requests> {
    let mut requests = Requests::new();
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix("apiserver_request_total{") else {
            continue;
        };
        let (labels, count) = rest.rsplit_once("} ").context("a metric has a value")?;
        let label = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value)
        };
        let what = format!(
            "{} {}",
            label("verb").unwrap_or_default(),
            label("resource").unwrap_or_default()
        );
        let count: f64 = count.parse()?;
        *requests.entry(what).or_default() += count as u64;
    }
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_summed_by_verb_and_resource() {
        let text = r#"# HELP apiserver_request_total ...
apiserver_request_total{code="200",dry_run="",resource="pods",subresource="",verb="LIST"} 3
apiserver_request_total{code="404",dry_run="",resource="pods",subresource="",verb="LIST"} 1e+00
apiserver_request_total{code="200",resource="leases",verb="PUT"} 7
other{verb="LIST"} 9
"#;
        let read = read(text).expect("it is readable");
        let pairs: Vec<_> = read.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        assert_eq!(pairs, [("LIST pods", 4), ("PUT leases", 7)]);
    }
}
