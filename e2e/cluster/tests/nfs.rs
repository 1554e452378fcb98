//! Volumes on an NFS server, made by hand: examples/nfs with the server that is there.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::kubectl::{Cluster, Namespace, example};

/// Two pods on two nodes write to one volume, and a third finds what both wrote after they ended.
pub(crate) fn by_hand(cluster: &Cluster) -> Result<()> {
    let namespace = Namespace::new(cluster, "nfs")?;
    let namespace = namespace.name.as_str();
    cluster.delete(namespace, "pv", "shared")?;
    let mut volume = example("nfs/volume.yaml")?;
    volume["spec"]["nfs"] = json!({"server": cluster.nfs_server, "path": "/export"});
    cluster.apply(namespace, &volume)?;
    cluster.until_phase("", "pv", "shared", "Available")?;
    cluster.apply(namespace, &example("nfs/claim.yaml")?)?;
    cluster.until_phase(namespace, "pvc", "shared", "Bound")?;

    let write = "rm -rf /shared/$HOSTNAME; date >/shared/$HOSTNAME; sleep 3600";
    let nodes = cluster.workers()?;
    ensure!(nodes.len() > 1, "two nodes take pods: {nodes:?}");
    for (node, name) in nodes.iter().zip(["one", "two"]) {
        let mut pod = cluster.pod(name, write, &["shared"]);
        pod["spec"]["nodeName"] = json!(node);
        cluster.apply(namespace, &pod)?;
    }
    for name in ["one", "two"] {
        cluster.until_phase(namespace, "pod", name, "Running")?;
        let wrote = format!("until test -s /shared/{name}; do sleep .1; done");
        cluster.sh(namespace, name, &wrote)?;
        let mounts = cluster.sh(namespace, name, "grep ' /shared ' /proc/mounts")?;
        let from = format!("{}:/export ", cluster.nfs_server);
        ensure!(
            mounts.starts_with(&from),
            "/shared is not on the server: {mounts}"
        );
    }
    for name in ["one", "two"] {
        cluster.delete(namespace, "pod", name)?;
    }

    let read = "test -s /shared/one && test -s /shared/two && rm /shared/one /shared/two";
    cluster.apply(namespace, &cluster.pod("three", read, &["shared"]))?;
    cluster.until_phase(namespace, "pod", "three", "Succeeded")?;
    cluster.delete(namespace, "pod", "three")?;

    cluster.delete(namespace, "pvc", "shared")?;
    cluster.until_phase("", "pv", "shared", "Released")?;
    cluster.delete(namespace, "pv", "shared")
}
