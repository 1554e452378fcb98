//! The limit: a client that does nothing but the four writes of each claim, without deciding
//! anything. Claim `c-N` gets volume `v-N`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use bitts_e2e::raw::Request;
use bitts_e2e::real::client_for;
use futures::{TryStreamExt as _, stream};
use kube::Client;
use serde_json::Value;

use crate::setup::{ALL_CLAIMS, VOLUMES, list};
use crate::writes::{Form, Step};

/// As few as keep the API server busy, see `cargo xtask bench writes`.
const AT_ONCE: usize = 32;

/// The client.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    kubeconfig: PathBuf,
    #[arg(long, default_value = "put-lax")]
    form: Form,
    #[arg(long, default_value_t = AT_ONCE)]
    at_once: usize,
}

/// Binds claims as they come, until it is killed.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let client = client_for(&std::fs::read_to_string(&args.kubeconfig)?).await?;
    let volumes: BTreeMap<String, Value> = list(&client, VOLUMES)
        .await?
        .into_iter()
        .map(|volume| (name(&volume), volume))
        .collect();
    let path = format!("{ALL_CLAIMS}?watch=1");
    let watch = Request::new("GET", &path, Value::Null)
        .watch(&client)
        .await?;
    let claims = stream::try_unfold(watch, async |mut watch| {
        anyhow::Ok(watch.next_line().await?.map(|line| (line, watch)))
    });
    let pairs = claims.try_filter_map(async |line: Vec<u8>| {
        // Its own changes come back, too.
        if !line.starts_with(br#"{"type":"ADDED""#) {
            return Ok(None);
        }
        let mut event: Value = serde_json::from_slice(&line)?;
        let claim = event["object"].take();
        let volume = volumes.get(&name(&claim).replacen('c', "v", 1));
        let volume = volume.context("a claim without a volume")?.clone();
        Ok(Some((volume, claim)))
    });
    pairs
        .try_for_each_concurrent(args.at_once, |(volume, claim)| {
            bind(&client, args.form, volume, claim)
        })
        .await?;
    anyhow::bail!("the watch ended");
}

fn name(object: &Value) -> String {
    object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// The four writes of one claim.
async fn bind(client: &Client, form: Form, mut volume: Value, mut claim: Value) -> Result<()> {
    for step in Step::ALL {
        form.write(client, step, &mut volume, &mut claim).await?;
    }
    Ok(())
}
