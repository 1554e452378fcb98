//! A stateful set: each pod finds its own data again, however often the set shrinks and grows.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::class::{Class, Ground};
use crate::kubectl::{Cluster, Namespace};

const PODS: usize = 3;

pub(crate) fn on_nodes(cluster: &Cluster) -> Result<()> {
    scaled(cluster, Ground::Nodes, "stateful-nodes")
}

pub(crate) fn on_nfs(cluster: &Cluster) -> Result<()> {
    scaled(cluster, Ground::Share, "stateful-nfs")
}

fn scaled(cluster: &Cluster, ground: Ground, test: &str) -> Result<()> {
    let class = Class::new(cluster, test, ground)?;
    let namespace = Namespace::new(cluster, test)?;
    let namespace = namespace.name.as_str();
    // Whoever finds nothing says who it is; each start is a line.
    let script = "test -e /data/owner || hostname >/data/owner; date >>/data/starts; sleep 3600";
    let mut template = cluster.pod("", script, &[])["spec"].clone();
    template["restartPolicy"] = json!("Always");
    template["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    let labels = json!({"app": "db"});
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
        "spec": {"replicas": PODS, "serviceName": "db", "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": template},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "storageClassName": class.name, "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "10Mi"}}}}]}});
    cluster.apply(namespace, &set)?;
    until_ready(cluster, namespace, PODS)?;
    for pod in 0..PODS {
        belongs(cluster, namespace, pod, 1)?;
    }
    let before = claims(cluster, namespace)?;

    cluster.kubectl(&["-n", namespace, "scale", "statefulset/db", "--replicas=1"])?;
    for pod in 1..PODS {
        cluster.until_gone(namespace, "pod", &format!("db-{pod}"))?;
    }
    let scale = format!("--replicas={PODS}");
    cluster.kubectl(&["-n", namespace, "scale", "statefulset/db", &scale])?;
    until_ready(cluster, namespace, PODS)?;
    belongs(cluster, namespace, 0, 1)?;
    for pod in 1..PODS {
        belongs(cluster, namespace, pod, 2)?;
    }
    let after = claims(cluster, namespace)?;
    ensure!(before == after, "the claims were {before:?}, are {after:?}");
    Ok(())
}

fn until_ready(cluster: &Cluster, namespace: &str, pods: usize) -> Result<()> {
    let is = |set: &Value| set["status"]["readyReplicas"] == json!(pods);
    cluster.until(namespace, "statefulset", "db", "ready", is)?;
    Ok(())
}

/// The pod's data is its own, of so many starts.
fn belongs(cluster: &Cluster, namespace: &str, pod: usize, starts: usize) -> Result<()> {
    let name = format!("db-{pod}");
    let script =
        format!("test \"$(cat /data/owner)\" = {name} && test $(wc -l </data/starts) = {starts}");
    cluster.until_sh(namespace, &name, &script)
}

/// Names, uids and volumes of the set's claims.
fn claims(cluster: &Cluster, namespace: &str) -> Result<Vec<String>> {
    let claims = cluster.read(&["-n", namespace, "get", "pvc"])?;
    let claims = claims["items"].as_array().cloned().unwrap_or_default();
    let told = claims.iter().map(|claim| {
        let (meta, volume) = (&claim["metadata"], &claim["spec"]["volumeName"]);
        format!("{} {} {volume}", meta["name"], meta["uid"])
    });
    let told: Vec<String> = told.collect();
    ensure!(told.len() == PODS, "one claim for each pod: {told:?}");
    Ok(told)
}
