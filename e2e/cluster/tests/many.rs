//! Many claims of a class of the NFS provisioner at once.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::class::{Class, Ground, claim, made_for, nothing_left, volume_of};
use crate::kubectl::{Cluster, Namespace};

const CLAIMS: usize = 20;

/// Each has a directory of its own; what a pod writes to all of them on one node, another pod reads
/// on another node; and all of it goes with the claims.
pub(crate) fn at_once(cluster: &Cluster) -> Result<()> {
    let class = Class::new(cluster, "many", Ground::Share)?;
    let namespace = Namespace::new(cluster, "many")?;
    let namespace = namespace.name.as_str();
    let names: Vec<String> = (0..CLAIMS).map(|n| format!("data-{n}")).collect();
    let claims: Vec<Value> = names.iter().map(|name| claim(name, &class.name)).collect();
    cluster.apply(
        namespace,
        &json!({"apiVersion": "v1", "kind": "List", "items": claims}),
    )?;
    for name in &names {
        volume_of(cluster, namespace, name)?;
    }
    let volumes = made_for(cluster, namespace)?;
    let paths: BTreeSet<String> = volumes
        .iter()
        .map(|volume| volume["spec"]["nfs"]["path"].to_string())
        .collect();
    ensure!(
        volumes.len() == CLAIMS && paths.len() == CLAIMS,
        "{CLAIMS} claims have as many volumes and directories: {} and {paths:?}",
        volumes.len()
    );

    let each = |command: &str| -> String {
        let lines = names.iter().map(|name| command.replace("NAME", name));
        lines.collect::<Vec<_>>().join("; ")
    };
    let steps = [
        ("writer", each("echo NAME >/NAME/log")),
        ("reader", each("test \"$(cat /NAME/log)\" = NAME")),
    ];
    let claims: Vec<&str> = names.iter().map(String::as_str).collect();
    for (node, (pod, script)) in cluster.workers()?.iter().zip(steps) {
        let mut object = cluster.pod(pod, &script, &claims);
        object["spec"]["nodeName"] = json!(node);
        cluster.apply(namespace, &object)?;
        cluster.until_phase(namespace, "pod", pod, "Succeeded")?;
        cluster.delete(namespace, "pod", pod)?;
    }

    cluster.kubectl(&["-n", namespace, "delete", "pvc", "--all", "--wait=false"])?;
    for volume in &volumes {
        let name = volume["metadata"]["name"].as_str().unwrap_or_default();
        cluster.until_gone("", "pv", name)?;
    }
    nothing_left(cluster, Ground::Share, namespace)
}
