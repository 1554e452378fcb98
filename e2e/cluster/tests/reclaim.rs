//! What becomes of the data when its claim goes: deleted, kept, or moved to the trash.

use anyhow::{Context as _, Result};

use crate::class::{Class, Ground, Place, claim, volume_of};
use crate::kubectl::{Cluster, Namespace};

pub(crate) fn on_nodes(cluster: &Cluster) -> Result<()> {
    each_way(cluster, Ground::Nodes, "reclaim-nodes")
}

pub(crate) fn on_nfs(cluster: &Cluster) -> Result<()> {
    each_way(cluster, Ground::Share, "reclaim-nfs")
}

fn each_way(cluster: &Cluster, ground: Ground, test: &str) -> Result<()> {
    let namespace = Namespace::new(cluster, test)?;
    let namespace = namespace.name.as_str();
    let class = |name: &str, reclaim: &str, on_delete: &str| {
        let name = format!("{test}-{name}");
        Class::with(cluster, &name, ground, reclaim, &[("onDelete", on_delete)])
    };

    let deletes = class("delete", "Delete", "delete")?;
    let (volume, place) = written(cluster, namespace, "deleted", &deletes.name)?;
    cluster.delete(namespace, "pvc", "deleted")?;
    cluster.until_gone("", "pv", &volume)?;
    place.sh(cluster, "test ! -e $DATA")?;

    let trashes = class("trash", "Delete", "trash")?;
    let (volume, place) = written(cluster, namespace, "trashed", &trashes.name)?;
    cluster.delete(namespace, "pvc", "trashed")?;
    cluster.until_gone("", "pv", &volume)?;
    let in_trash = format!("test -n \"$(find $TOP/.bitts/trash -name {volume}.log)\"");
    place.sh(cluster, &format!("test ! -e $DATA; {in_trash}"))?;

    // Kept by the volume's policy: the volume stays, too, until somebody deletes it.
    let retains = class("retain", "Retain", "delete")?;
    let (volume, place) = written(cluster, namespace, "retained", &retains.name)?;
    cluster.delete(namespace, "pvc", "retained")?;
    cluster.until_phase("", "pv", &volume, "Released")?;
    let kept = format!("test -s $DATA/{volume}.log");
    place.sh(cluster, &kept)?;
    cluster.delete("", "pv", &volume)?;
    place.sh(cluster, &kept)
}

/// A claim's volume with a file in it, which a pod wrote that is gone again.
fn written(cluster: &Cluster, namespace: &str, name: &str, class: &str) -> Result<(String, Place)> {
    cluster.apply(namespace, &claim(name, class))?;
    let pod = cluster.pod(name, &format!("date >/{name}/log"), &[name]);
    cluster.apply(namespace, &pod)?;
    cluster.until_phase(namespace, "pod", name, "Succeeded")?;
    cluster.delete(namespace, "pod", name)?;
    let volume = volume_of(cluster, namespace, name)?;
    let place = Place::of(cluster, &volume).context("where its data lies")?;
    // Named as nothing else is.
    place.sh(cluster, &format!("mv $DATA/log $DATA/{volume}.log"))?;
    Ok((volume, place))
}
