//! A pod that has to leave its node finds its data where it comes next.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::class::{Class, Ground, claim};
use crate::kubectl::{Cluster, Namespace, undo};

/// A deployment's one pod writes on a node that is then closed; the next one reads it elsewhere.
pub(crate) fn with_its_data(cluster: &Cluster) -> Result<()> {
    let class = Class::new(cluster, "moved", Ground::Share)?;
    let namespace = Namespace::new(cluster, "moved")?;
    let namespace = namespace.name.as_str();
    cluster.apply(namespace, &claim("data", &class.name))?;
    let mut template =
        cluster.pod("", "hostname >>/data/seen; sleep 3600", &["data"])["spec"].clone();
    template["restartPolicy"] = json!("Always");
    let labels = json!({"app": "mover"});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "mover"}, "spec": {"replicas": 1, "selector": {"matchLabels": labels},
            "strategy": {"type": "Recreate"},
            "template": {"metadata": {"labels": labels}, "spec": template}}});
    cluster.apply(namespace, &deployment)?;
    let (first, first_node) = the_pod(cluster, namespace)?;
    cluster.until_sh(namespace, &first, "test -s /data/seen")?;

    cluster.kubectl(&["cordon", &first_node])?;
    let moved = (|| {
        cluster.delete(namespace, "pod", &first)?;
        let (second, second_node) = the_pod(cluster, namespace)?;
        ensure!(
            second_node != first_node,
            "{second} came to {second_node}, which takes no pods"
        );
        let seen = format!("test \"$(cat /data/seen)\" = \"$(printf '{first}\\n{second}')\"");
        cluster.until_sh(namespace, &second, &seen)
    })();
    undo(cluster, &["uncordon", &first_node]);
    moved
}

/// The name and the node of the pod that runs.
fn the_pod(cluster: &Cluster, namespace: &str) -> Result<(String, String)> {
    let ready = |deployment: &Value| deployment["status"]["readyReplicas"] == 1;
    cluster.until(namespace, "deployment", "mover", "ready", ready)?;
    let pods = cluster.read(&["-n", namespace, "get", "pods", "-l", "app=mover"])?;
    let pods = pods["items"].as_array().context("a list")?;
    let runs = pods
        .iter()
        .find(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let pod = runs.context("one pod runs")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok((
        text(&pod["metadata"]["name"]),
        text(&pod["spec"]["nodeName"]),
    ))
}
