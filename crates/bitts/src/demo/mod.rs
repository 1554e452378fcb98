//! `bitts demo`: the whole life of a claim on an embedded API, with real mounts in a private root.

mod follow;
mod ground;
mod life;
mod manifests;
mod scheduler;
mod story;
mod table;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use bitts_agent::AgentConfig;
use bitts_apiserver::{ApiServer, Collector, Serve};
use bitts_runtime::Host;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cli::Demo;
use ground::{Ground, KubeconfigFile};
use story::Story;

/// Runs the demo. Must be called while the process has a single thread: it moves into namespaces
/// of its own.
pub(crate) fn run(args: &Demo) -> Result<ExitCode> {
    let kubeconfig = match args.once {
        true => None,
        false => Some(KubeconfigFile::prepare(args.write_kubeconfig.as_deref())?),
    };
    let ground = Ground::enter();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(tell(args, &ground, kubeconfig.as_ref()))?;
    Ok(ExitCode::SUCCESS)
}

async fn tell(args: &Demo, ground: &Ground, kubeconfig: Option<&KubeconfigFile>) -> Result<()> {
    let api = ApiServer::new(bitts_apiserver::Options::default());
    let _collector = Collector::start(&api);
    let client = Client::new(api.service(), "default");
    let story = Story::new(args.output);
    story.say(&ground.describe())?;

    let serving = match kubeconfig {
        Some(file) => {
            let options = Serve {
                listen: args.listen,
                insecure: false,
                write_kubeconfig: Some(file.path()),
            };
            Some(api.serve(options).await?)
        }
        None => None,
    };

    let nodes: Api<Node> = Api::all(client.clone());
    let node = serde_json::from_value(manifests::node())?;
    nodes
        .create(&Default::default(), &node)
        .await
        .context("creating the demo's node")?;

    let host = Host::new(client.clone());
    let (observer, reports) = mpsc::unbounded_channel();
    let mut parts = JoinSet::new();
    let names = follow::Names::default();
    parts.spawn(follow::objects(
        client.clone(),
        names.clone(),
        story.clone(),
    ));
    parts.spawn(follow::mounts(reports, names, story.clone()));
    parts.spawn(scheduler::run(client.clone()));
    parts.spawn({
        let host = host.clone();
        async move { Ok(bitts_binder::run(&host, bitts_binder::Options::default(), None).await?) }
    });
    parts.spawn({
        let host = host.clone();
        let config = AgentConfig {
            finish_pods: true,
            mounter: ground.mounter(),
            observer: Some(observer),
            ..AgentConfig::new(manifests::NODE.into())
        };
        async move { Ok(bitts_agent::run(&host, config).await?) }
    });

    let told = async {
        life::tell(&client, &story, ground).await?;
        if let (Some(file), Some(_)) = (kubeconfig, &serving) {
            story.say(&format!(
                "The API stays up. In another terminal:\n\n  export KUBECONFIG={}\n  kubectl get pv,pvc,pods,events\n\n\
                 Ctrl-C ends it.\n",
                file.shown(),
            ))?;
            std::future::pending().await
        }
        anyhow::Ok(())
    };
    tokio::select! {
        result = told => result?,
        () = bitts_runtime::ended_by_signal() => {}
        Some(part) = parts.join_next() => match part? {
            Ok(()) => bail!("a part of the demo ended before the story did"),
            Err(error) => return Err(error),
        },
    }
    host.shutdown().cancel();
    Ok(())
}
