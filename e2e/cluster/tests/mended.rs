//! The agent beside a kubelet: a mount that somebody took away is there again, and stays when the agent
//! goes.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::class::{Class, Ground, claim, volume_of};
use crate::kubectl::{Cluster, Namespace};

const AGENTS: (&str, &str) = ("bitts-nodes", "app.kubernetes.io/component=agent");
const NOTICES: Duration = Duration::from_secs(5);

pub(crate) fn behind_the_kubelet(cluster: &Cluster) -> Result<()> {
    let class = Class::new(cluster, "mended", Ground::Share)?;
    let namespace = Namespace::new(cluster, "mended")?;
    let namespace = namespace.name.as_str();
    cluster.apply(namespace, &claim("data", &class.name))?;
    let user = cluster.pod("user", "date >/data/log; sleep 36000", &["data"]);
    cluster.apply(namespace, &user)?;
    let user = cluster.until_phase(namespace, "pod", "user", "Running")?;
    cluster.until_sh(namespace, "user", "test -s /data/log")?;
    let node = user["spec"]["nodeName"].as_str().context("it runs")?;
    let uid = user["metadata"]["uid"].as_str().context("a uid")?;
    let volume = volume_of(cluster, namespace, "data")?;
    let place = format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~nfs/{volume}");

    let agent = agent_on(cluster, node)?;
    // Nothing tells when the agent has seen what the kubelet mounted: the kernel tells it at once.
    sleep(NOTICES);
    cluster.in_node(node, &format!("umount '{place}'"))?;
    told(cluster, namespace, "BittsMountLost")?;
    told(cluster, namespace, "BittsMountHealed")?;
    let reads = format!("mountpoint -q '{place}' && timeout 20 cat '{place}/log'");
    cluster.in_node(node, &reads)?;

    // The mount is the node's and not the agent's.
    let delete = ["-n", AGENTS.0, "delete", "pod", &agent, "--grace-period=1"];
    cluster.kubectl(&delete)?;
    let fresh = format!("timeout 20 sh -c \"date >'{place}/more'\" && {reads}");
    cluster.in_node(node, &fresh)?;
    cluster.sh(namespace, "user", "test -s /data/more")?;
    // The kubelet takes it down as if it had made it.
    cluster.delete(namespace, "pod", "user")?;
    cluster.in_node(node, &format!("! mountpoint -q '{place}'"))?;
    cluster.delete(namespace, "pvc", "data")?;
    cluster.until_gone("", "pv", &volume)
}

/// The agent's pod on a node.
fn agent_on(cluster: &Cluster, node: &str) -> Result<String> {
    let (namespace, label) = AGENTS;
    let pods = cluster.read(&["-n", namespace, "get", "pods", "-l", label])?;
    let mut pods = pods["items"].as_array().context("a list")?.iter();
    let there = pods.find(|pod| pod["spec"]["nodeName"] == node);
    let name = there.and_then(|pod| pod["metadata"]["name"].as_str());
    Ok(name
        .with_context(|| format!("no agent on {node}"))?
        .to_owned())
}

fn told(cluster: &Cluster, namespace: &str, reason: &str) -> Result<()> {
    let of = format!("reason={reason}");
    let is = |_: &Value| {
        let events = cluster.read(&["-n", namespace, "get", "events", "--field-selector", &of]);
        events.is_ok_and(|events| {
            events["items"]
                .as_array()
                .is_some_and(|all| !all.is_empty())
        })
    };
    cluster.until(namespace, "pod", "user", &format!("told {reason}"), is)?;
    Ok(())
}
