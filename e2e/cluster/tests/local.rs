//! A class of the provisioner: a directory on the disk of the node that the scheduler chose.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::class::{claim, volume_of};
use crate::kubectl::{Cluster, Namespace};

/// The class that comes with the manifests of deploy/.
const CLASS: &str = "bitts-local";

/// The claim waits for a pod; on each node, pod and volume come together there, and the next pod of
/// the claim comes to the same node with the data.
pub(crate) fn delayed(cluster: &Cluster) -> Result<()> {
    let namespace = Namespace::new(cluster, "local")?;
    let namespace = namespace.name.as_str();
    for node in cluster.workers()? {
        cluster.apply(namespace, &claim("data", CLASS))?;
        cluster.until(namespace, "pvc", "data", "told that it waits", |claim| {
            claim["status"]["phase"] == "Pending"
        })?;
        let mut first = cluster.pod("first", "date >/data/log; sleep 3600", &["data"]);
        first["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        cluster.apply(namespace, &first)?;
        cluster.until_phase(namespace, "pod", "first", "Running")?;
        cluster.sh(
            namespace,
            "first",
            "until test -s /data/log; do sleep .1; done",
        )?;
        let volume = volume_of(cluster, namespace, "data")?;
        let object = cluster.get("", "pv", &volume)?;
        let affinity = object["spec"]["nodeAffinity"].to_string();
        ensure!(
            affinity.contains(&node),
            "{volume} is not bound to {node}: {affinity}"
        );
        let path = object["spec"]["local"]["path"].as_str();
        let path = path.context("it has a path")?.to_owned();
        cluster.on_node(&node, &format!("test -s '/node{path}/log'"))?;
        cluster.delete(namespace, "pod", "first")?;

        // No selector now: the volume alone decides.
        cluster.apply(
            namespace,
            &cluster.pod("second", "test -s /data/log", &["data"]),
        )?;
        let second = cluster.until_phase(namespace, "pod", "second", "Succeeded")?;
        ensure!(
            second["spec"]["nodeName"] == node.as_str(),
            "the pod left its data"
        );
        cluster.delete(namespace, "pod", "second")?;

        cluster.delete(namespace, "pvc", "data")?;
        cluster.until_gone("", "pv", &volume)?;
        cluster.on_node(&node, &format!("test ! -e '/node{path}'"))?;
    }
    Ok(())
}
