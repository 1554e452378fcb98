//! The example that bitts began with, as it stands in examples/seed: volume, claim and pod, what
//! kubectl prints of them, what the pod writes, and the way back.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::kubectl::{Cluster, example};

const NAMESPACE: &str = "default";

pub(crate) fn word_for_word(cluster: &Cluster) -> Result<()> {
    clear(cluster)?;
    let node = cluster.workers()?.swap_remove(0);
    cluster.kubectl(&["label", "node", &node, "cqh=chenqionghe", "--overwrite"])?;
    cluster.on_node(&node, "rm -rf /node/data/pv; mkdir -p /node/data/pv")?;
    let result = life(cluster, &node);
    if result.is_ok() {
        clear(cluster)?;
    }
    result
}

fn life(cluster: &Cluster, node: &str) -> Result<()> {
    cluster.apply(NAMESPACE, &example("seed/volume.yaml")?)?;
    cluster.until_phase("", "pv", "cqh", "Available")?;
    cluster.apply(NAMESPACE, &example("seed/claim.yaml")?)?;
    cluster.until_phase(NAMESPACE, "pvc", "cqh", "Bound")?;
    cluster.until_phase("", "pv", "cqh", "Bound")?;

    // The rows of the example; the columns are those that kubectl had then.
    expect(
        &cluster.table(NAMESPACE, "pv", "cqh")?,
        &json!({"NAME": "cqh", "CAPACITY": "100Mi", "ACCESS MODES": "RWX",
            "RECLAIM POLICY": "Delete", "STATUS": "Bound", "CLAIM": "default/cqh",
            "STORAGECLASS": "local-storage", "REASON": ""}),
    )?;
    expect(
        &cluster.table(NAMESPACE, "pvc", "cqh")?,
        &json!({"NAME": "cqh", "STATUS": "Bound", "VOLUME": "cqh", "CAPACITY": "100Mi",
            "ACCESS MODES": "RWX", "STORAGECLASS": "local-storage"}),
    )?;

    let mut pod = example("seed/pod.yaml")?;
    // The image is at hand, not pulled.
    pod["spec"]["containers"][0]["image"] = json!(cluster.pod_image);
    cluster.apply(NAMESPACE, &pod)?;
    let pod = cluster.until_phase(NAMESPACE, "pod", "cqh", "Running")?;
    ensure!(
        pod["spec"]["nodeName"] == node,
        "the pod runs where its volume is not"
    );
    cluster.sh(
        NAMESPACE,
        "cqh",
        "until test -s /data/log; do sleep .1; done",
    )?;
    cluster.on_node(node, "test -s /node/data/pv/log")?;

    cluster.delete(NAMESPACE, "pod", "cqh")?;
    cluster.delete(NAMESPACE, "pvc", "cqh")?;
    // Nobody can delete a hand-made directory: the volume says so, and the data stays.
    let volume = cluster.until_phase("", "pv", "cqh", "Failed")?;
    let message = volume["status"]["message"].as_str().unwrap_or_default();
    ensure!(!message.is_empty(), "a volume that failed says why");
    cluster.on_node(node, "test -s /node/data/pv/log")
}

fn expect(rows: &[Value], expected: &Value) -> Result<()> {
    ensure!(rows.len() == 1, "one row is expected: {rows:?}");
    for (column, cell) in expected.as_object().into_iter().flatten() {
        ensure!(
            rows[0][column] == *cell,
            "{column} should be {cell}: {}",
            rows[0]
        );
    }
    Ok(())
}

fn clear(cluster: &Cluster) -> Result<()> {
    cluster.delete(NAMESPACE, "pod", "cqh")?;
    cluster.delete(NAMESPACE, "pvc", "cqh")?;
    cluster.delete(NAMESPACE, "pv", "cqh")
}
