//! Objects that stay while something uses them, and go with it.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::class::{Class, Ground, claim, nothing_left, volume_of};
use crate::kubectl::{Cluster, Namespace};

/// A pod's own volume comes with the pod and goes with it.
pub(crate) fn ephemeral(cluster: &Cluster) -> Result<()> {
    let class = Class::new(cluster, "ephemeral", Ground::Nodes)?;
    let namespace = Namespace::new(cluster, "ephemeral")?;
    let namespace = namespace.name.as_str();
    let mut pod = cluster.pod("own", "date >/data/log; sleep 3600", &[]);
    let spec = claim("", &class.name)["spec"].clone();
    pod["spec"]["volumes"] =
        json!([{"name": "data", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    cluster.apply(namespace, &pod)?;
    cluster.until_phase(namespace, "pod", "own", "Running")?;
    cluster.until_sh(namespace, "own", "test -s /data/log")?;
    let volume = volume_of(cluster, namespace, "own-data")?;
    let claim = cluster.get(namespace, "pvc", "own-data")?;
    let owner = &claim["metadata"]["ownerReferences"][0];
    ensure!(owner["kind"] == "Pod" && owner["name"] == "own", "{owner}");
    cluster.delete(namespace, "pod", "own")?;
    cluster.until_gone(namespace, "pvc", "own-data")?;
    cluster.until_gone("", "pv", &volume)?;
    nothing_left(cluster, Ground::Nodes, namespace)
}

/// A class of attributes that a claim names outlives its deletion until the claim is gone.
pub(crate) fn attributes_class(cluster: &Cluster) -> Result<()> {
    let namespace = Namespace::new(cluster, "attributes")?;
    let namespace = namespace.name.as_str();
    let (kind, name) = ("volumeattributesclass", "e2e-attributes");
    cluster.delete("", kind, name)?;
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass",
        "metadata": {"name": name}, "driverName": "none.example", "parameters": {"a": "b"}});
    cluster.apply("default", &class)?;
    let protected = |class: &Value| {
        let finalizers = class["metadata"]["finalizers"].as_array();
        finalizers.is_some_and(|all| !all.is_empty())
    };
    cluster.until("", kind, name, "protected", protected)?;
    let mut user = claim("user", "none");
    user["spec"]["volumeAttributesClassName"] = json!(name);
    cluster.apply(namespace, &user)?;
    cluster.kubectl(&["delete", kind, name, "--wait=false"])?;
    let class = cluster.get("", kind, name)?;
    let going = class["metadata"]["deletionTimestamp"].as_str();
    going.context("the class waits for its claim")?;
    cluster.delete(namespace, "pvc", "user")?;
    cluster.until_gone("", kind, name)
}

/// A claim for which no node has room: the scheduler knows, and chooses none for its pod. Where a node was
/// chosen nevertheless, the claim is told and not held to that node.
pub(crate) fn no_room(cluster: &Cluster) -> Result<()> {
    let class = Class::new(cluster, "room", Ground::Nodes)?;
    let namespace = Namespace::new(cluster, "room")?;
    let namespace = namespace.name.as_str();
    let mut huge = claim("huge", &class.name);
    huge["spec"]["resources"]["requests"]["storage"] = json!("4Pi");
    cluster.apply(namespace, &huge)?;
    cluster.apply(namespace, &cluster.pod("user", "true", &["huge"]))?;
    cluster.until(
        namespace,
        "pod",
        "user",
        "told that no node has room",
        |pod| {
            let conditions = pod["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            conditions.any(|condition| {
                let message = condition["message"].as_str().unwrap_or_default();
                message.contains("did not have enough free storage")
            })
        },
    )?;
    cluster.delete(namespace, "pod", "user")?;
    let chosen = "volume.kubernetes.io/selected-node";
    let node = cluster.workers()?.into_iter().next().context("a worker")?;
    let choice = format!("{chosen}={node}");
    cluster.kubectl(&["-n", namespace, "annotate", "pvc", "huge", &choice])?;
    cluster.until(namespace, "pvc", "huge", "told and given back", |claim| {
        claim["metadata"]["annotations"][chosen].is_null() && told(cluster, namespace)
    })?;
    cluster.delete(namespace, "pvc", "huge")
}

/// A claim whose class names a share that is not there is told so, and bound soon after somebody made it.
pub(crate) fn share_to_come(cluster: &Cluster) -> Result<()> {
    cluster.on_share("rmdir /share/to-come 2>/dev/null || true")?;
    let share = [("share", "/export/to-come")];
    let class = Class::with(cluster, "to-come", Ground::Share, "Delete", &share)?;
    let namespace = Namespace::new(cluster, "to-come")?;
    let namespace = namespace.name.as_str();
    cluster.apply(namespace, &claim("early", &class.name))?;
    cluster.until(namespace, "pvc", "early", "told", |_| {
        told(cluster, namespace)
    })?;
    cluster.on_share("mkdir /share/to-come")?;
    let volume = volume_of(cluster, namespace, "early")?;
    cluster.delete(namespace, "pvc", "early")?;
    cluster.until_gone("", "pv", &volume)
}

/// Whether a claim of the namespace was told why it has no volume.
fn told(cluster: &Cluster, namespace: &str) -> bool {
    let reason = "--field-selector=reason=ProvisioningFailed";
    let events = cluster.read(&["-n", namespace, "get", "events", reason]);
    events.is_ok_and(|events| {
        let events = events["items"].as_array();
        events.is_some_and(|events| !events.is_empty())
    })
}
