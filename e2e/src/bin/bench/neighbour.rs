//! What another client of the API server feels while claims are bound.
//!
//! Everyone is a user of its own without a place among the API server's masters, whom it never makes
//! wait: the contender is the user that the manifests name, the neighbour one that they do not.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bitts_e2e::raw::Request;
use bitts_e2e::real::client_for;
use kube::Client;
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use crate::contender::Contender;
use crate::figures::{Output, percentile};
use crate::setup::{CLAIMS, Fresh, post};
use crate::usage::load;

const NEIGHBOUR: &str = "neighbour";
/// Between two requests of the neighbour.
const PAUSE: Duration = Duration::from_millis(20);

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many claims are bound to as many volumes.
    #[arg(long, default_value_t = 4000)]
    pairs: u32,
    /// The manifest with the FlowSchema and what belongs to it; without it that run is left out.
    #[arg(long, value_name = "FILE")]
    flow_schema: Option<PathBuf>,
    /// The user that the FlowSchema is for.
    #[arg(
        long,
        default_value = "system:serviceaccount:bitts-system:bitts-controllers"
    )]
    user: String,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let load_before = load()?;
    let manifests = match &args.flow_schema {
        Some(file) => objects(&std::fs::read_to_string(file)?)?,
        None => Vec::new(),
    };
    let mut cases = vec![
        ("idle", None, &[][..]),
        ("bitts", Some(Contender::Bitts), &[]),
        (
            "kube-controller-manager",
            Some(Contender::KubeControllerManager),
            &[],
        ),
    ];
    if !manifests.is_empty() {
        cases.push(("bitts-with-flow-schema", Some(Contender::Bitts), &manifests));
    }
    let (mut all, mut reasons) = (Map::new(), Map::new());
    for (name, contender, manifests) in cases {
        eprintln!("{name}");
        match once(contender, manifests, &args).await {
            Ok(figures) => {
                all.insert(name.to_owned(), figures);
            }
            Err(why) => {
                all.insert(name.to_owned(), Value::Null);
                reasons.insert(name.to_owned(), format!("{why:#}").into());
            }
        }
    }
    let complete = reasons.is_empty();
    if !complete {
        all.insert("reasons".to_owned(), reasons.into());
    }
    let setup = json!({"pairs": args.pairs, "load_before": load_before});
    all.insert("setup".to_owned(), setup);
    match args.output {
        Output::Json => println!("{:#}", Value::from(all)),
        Output::Text => all
            .iter()
            .for_each(|(name, value)| println!("{name:<24} {value}")),
    }
    Ok(ExitCode::from(if complete { 0 } else { 2 }))
}

/// The objects of a manifest.
fn objects(text: &str) -> Result<Vec<Value>> {
    let all = serde_yaml_ng::Deserializer::from_str(text)
        .map(|one| Value::deserialize(one).context("the manifest is no YAML"));
    let is_flow = |one: &Value| {
        one["apiVersion"]
            .as_str()
            .is_some_and(|v| v.starts_with("flowcontrol.apiserver.k8s.io/"))
    };
    all.filter(|one| one.as_ref().map_or(true, is_flow))
        .collect()
}

async fn once(contender: Option<Contender>, manifests: &[Value], args: &Args) -> Result<Value> {
    let fresh = Fresh::start().await?;
    for object in manifests {
        let plural = match object["kind"].as_str().unwrap_or_default() {
            "FlowSchema" => "flowschemas",
            _ => "prioritylevelconfigurations",
        };
        let version = object["apiVersion"].as_str().unwrap_or_default();
        post(
            &fresh.client,
            &format!("/apis/{version}/{plural}"),
            object.clone(),
        )
        .await?;
    }
    for user in [NEIGHBOUR, &args.user] {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "cluster-admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        });
        let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
        post(&fresh.client, path, binding).await?;
    }
    let neighbour = client_for(&as_user(fresh.api.kubeconfig(), NEIGHBOUR)?).await?;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"},
        "data": {"a": "b"}});
    post(&neighbour, "/api/v1/namespaces/default/configmaps", map).await?;
    let Some(contender) = contender else {
        let time = tokio::time::sleep(Duration::from_secs(10));
        return felt(&neighbour, async {
            time.await;
            Ok(())
        })
        .await;
    };
    fresh.create_volumes(0..args.pairs).await?;
    // All at once: this is about the binder, not about who creates claims.
    fresh.create_claims(0..args.pairs).await?;
    let kubeconfig = as_user(fresh.api.kubeconfig(), &args.user)?;
    let mut started = contender.start(&kubeconfig)?;
    let result = felt(&neighbour, fresh.volumes_are("Bound", args.pairs as usize)).await;
    started.check()?;
    result
}

/// A kubeconfig that acts as someone else.
fn as_user(kubeconfig: &str, user: &str) -> Result<String> {
    let mut kubeconfig: Value = serde_json::from_str(kubeconfig)?;
    kubeconfig["users"][0]["user"]["as"] = user.into();
    Ok(kubeconfig.to_string())
}

/// How long the neighbour's requests take until `end`.
async fn felt(client: &Client, end: impl Future<Output = Result<()>>) -> Result<Value> {
    let began = Instant::now();
    let (mut gets, mut lists) = (Vec::new(), Vec::new());
    let forever = async {
        loop {
            let path = "/api/v1/namespaces/default/configmaps/a";
            gets.push(timed(client, path).await?);
            lists.push(timed(client, &format!("{CLAIMS}?limit=100")).await?);
            tokio::time::sleep(PAUSE).await;
        }
        #[expect(unreachable_code, reason = "it names the type of the error")]
        anyhow::Ok(())
    };
    tokio::select! {
        ended = end => ended?,
        failed = forever => failed?,
    }
    Ok(json!({
        "seconds": began.elapsed().as_secs_f64(),
        "requests": gets.len() + lists.len(),
        "get_p50_ms": percentile(&mut gets, 0.5),
        "get_p99_ms": percentile(&mut gets, 0.99),
        "list_p50_ms": percentile(&mut lists, 0.5),
        "list_p99_ms": percentile(&mut lists, 0.99),
    }))
}

async fn timed(client: &Client, path: &str) -> Result<Duration> {
    let began = Instant::now();
    let request = Request::new("GET", path, Value::Null);
    request.send(client).await?.expect(200)?;
    Ok(began.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_flow_control_of_a_manifest_is_used() -> Result<()> {
        let text = "apiVersion: v1\nkind: Namespace\n---\n\
            apiVersion: flowcontrol.apiserver.k8s.io/v1\nkind: FlowSchema\n";
        let all = objects(text)?;
        anyhow::ensure!(all.len() == 1 && all[0]["kind"] == "FlowSchema", "{all:?}");
        Ok(())
    }
}
