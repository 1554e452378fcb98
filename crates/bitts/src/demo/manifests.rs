//! The manifests of the story: the ones in `examples/seed`, and the node they ask for.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// The node of the demo; its label is what the volume's node affinity asks for.
pub(crate) const NODE: &str = "demo-node";

pub(crate) fn node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": NODE, "labels": {
            "cqh": "chenqionghe", "kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux",
        }},
    })
}

pub(crate) fn volume() -> Result<Value> {
    parse(
        "volume.yaml",
        include_str!("../../../../examples/seed/volume.yaml"),
    )
}

pub(crate) fn claim() -> Result<Value> {
    parse(
        "claim.yaml",
        include_str!("../../../../examples/seed/claim.yaml"),
    )
}

pub(crate) fn pod() -> Result<Value> {
    parse(
        "pod.yaml",
        include_str!("../../../../examples/seed/pod.yaml"),
    )
}

fn parse(name: &str, text: &str) -> Result<Value> {
    serde_yaml_ng::from_str(text).with_context(|| format!("examples/seed/{name} is not YAML"))
}
