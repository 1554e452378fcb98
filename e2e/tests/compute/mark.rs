//! An agent says of its node that it mounts there.

use std::time::{Duration, Instant};

use anyhow::ensure;
use bitts_agent::{AgentConfig, Mounter};
use bitts_e2e::cluster::{Kind, Scope};
use bitts_e2e::suite::{Manner, Suite};
use bitts_runtime::Host;
use serde_json::json;

pub(crate) fn add(suite: &mut Suite) {
    suite.add(
        "compute::an_agent_marks_its_node",
        Kind::BOTH,
        Manner::Together,
        an_agent_marks_its_node,
    );
}

/// With the right to write the status of nodes alone; the rest of the node stays as it is.
async fn an_agent_marks_its_node(api: Scope) -> anyhow::Result<()> {
    let name = api.name("n");
    let annotations = json!({"volumes.kubernetes.io/controller-managed-attach-detach": "true"});
    let node = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"providerID": "gce://shop/us-east1-b/n"}});
    api.post("/api/v1/nodes", node).await?.expect(201)?;
    let host = Host::new(api.client());
    let config = AgentConfig {
        mounter: Mounter::DryRun,
        ..AgentConfig::new(name.as_str().into())
    };
    let story = async {
        let start = Instant::now();
        let path = format!("/api/v1/nodes/{name}");
        loop {
            let node = api.get(&path).await?.expect(200)?;
            let marks = &node["metadata"]["annotations"];
            if marks["bitts.dev/mounted-by"] == "bitts-agent" {
                let managed = "volumes.kubernetes.io/controller-managed-attach-detach";
                ensure!(marks[managed] == "true", "{marks}");
                ensure!(node["spec"]["providerID"] == "gce://shop/us-east1-b/n");
                return anyhow::Ok(());
            }
            ensure!(start.elapsed() < Duration::from_secs(60), "never: {marks}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let ended = async {
        let ended = story.await;
        host.shutdown().cancel();
        ended
    };
    let (agent, ended) = tokio::join!(bitts_agent::run(&host, config), ended);
    agent?;
    ended
}
