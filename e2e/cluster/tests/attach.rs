//! The attacher beside real kubelets. No driver is here: what its half would say, the test says.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::class::{claim, volume_of};
use crate::kubectl::{Cluster, Namespace, undo};
use crate::restart::BY_HAND;

const DRIVER: &str = "disk.e2e.bitts.dev";
const VOLUME: &str = "e2e-attach";
const ATTACHMENT: &str = "volumeattachment";

/// A disk goes to the node of its pod, is listed there while it is used, and goes to the next node only when
/// the first let go of it.
pub(crate) fn and_detached(cluster: &Cluster) -> Result<()> {
    let driver = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
        "metadata": {"name": DRIVER}, "spec": {"attachRequired": true, "podInfoOnMount": false}});
    cluster.apply("default", &driver)?;
    let done = moves(cluster);
    undo(cluster, &["delete", "csidriver", DRIVER]);
    done
}

fn moves(cluster: &Cluster) -> Result<()> {
    let namespace = Namespace::new(cluster, "attach")?;
    let namespace = namespace.name.as_str();
    cluster.delete("", "pv", VOLUME)?;
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": VOLUME},
        "spec": {"capacity": {"storage": "10Mi"}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": BY_HAND, "persistentVolumeReclaimPolicy": "Retain",
            "csi": {"driver": DRIVER, "volumeHandle": "disk-1"}}});
    cluster.apply(namespace, &volume)?;
    let mut disk = claim("disk", BY_HAND);
    disk["spec"]["volumeName"] = json!(VOLUME);
    cluster.apply(namespace, &disk)?;
    volume_of(cluster, namespace, "disk")?;

    let workers = cluster.workers()?;
    let user = |node: &str| {
        let mut pod = cluster.pod(&format!("on-{node}"), "sleep 3600", &["disk"]);
        pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        pod
    };
    let (first, second) = (&workers[0], &workers[1]);
    cluster.apply(namespace, &user(first))?;
    attaches(cluster, first)?;

    // The next one waits, and is told why.
    cluster.apply(namespace, &user(second))?;
    let waits = format!("on-{second}");
    cluster.until(namespace, "pod", &waits, "told to wait", |_| {
        let of = format!("involvedObject.name={waits},reason=FailedAttachVolume");
        let events = cluster.read(&["-n", namespace, "get", "events", "--field-selector", &of]);
        events.is_ok_and(|events| events["items"][0].is_object())
    })?;
    ensure!(
        attachment(cluster, second)?.is_none(),
        "one disk is attached to two nodes"
    );

    cluster.delete(namespace, "pod", &format!("on-{first}"))?;
    detached(cluster, first)?;
    attaches(cluster, second)?;
    cluster.delete(namespace, "pod", &waits)?;
    detached(cluster, second)?;
    cluster.delete(namespace, "pvc", "disk")?;
    cluster.until_phase("", "pv", VOLUME, "Released")?;
    cluster.delete("", "pv", VOLUME)
}

/// It is asked for there; once the driver is said to have done it, the node lists it, and its kubelet uses it.
fn attaches(cluster: &Cluster, node: &str) -> Result<()> {
    let asked = |_: &Value| attachment(cluster, node).is_ok_and(|name| name.is_some());
    cluster.until("", "node", node, "asked to attach", asked)?;
    let before = cluster.get("", "node", node)?;
    ensure!(
        !lists(&before, "volumesAttached"),
        "listed before it is there"
    );
    let name = attachment(cluster, node)?.unwrap_or_default();
    let done = json!({"status": {"attached": true}}).to_string();
    let patch = ["patch", ATTACHMENT, &name, "--subresource=status"];
    cluster.kubectl(&[&patch[..], &["--type=merge", "-p", &done]].concat())?;
    let both = |node: &Value| lists(node, "volumesAttached") && lists(node, "volumesInUse");
    cluster.until("", "node", node, "with the disk", both)?;
    Ok(())
}

fn detached(cluster: &Cluster, node: &str) -> Result<()> {
    let neither = |node: &Value| !lists(node, "volumesAttached") && !lists(node, "volumesInUse");
    cluster.until("", "node", node, "without the disk", |node| neither(node))?;
    let gone = |_: &Value| attachment(cluster, node).is_ok_and(|name| name.is_none());
    cluster.until("", "node", node, "let go", gone)?;
    Ok(())
}

/// The name of the attachment of the disk to a node.
fn attachment(cluster: &Cluster, node: &str) -> Result<Option<String>> {
    let all = cluster.read(&["get", ATTACHMENT])?;
    let mut all = all["items"].as_array().into_iter().flatten();
    let found = all.find(|object| {
        let spec = &object["spec"];
        spec["nodeName"] == node && spec["source"]["persistentVolumeName"] == VOLUME
    });
    let name = found.and_then(|object| object["metadata"]["name"].as_str());
    Ok(name.map(str::to_owned))
}

fn lists(node: &Value, member: &str) -> bool {
    let all = node["status"][member].as_array().into_iter().flatten();
    let mut names = all.map(|entry| entry.get("name").unwrap_or(entry));
    names.any(|name| *name == format!("kubernetes.io/csi/{DRIVER}^disk-1"))
}
