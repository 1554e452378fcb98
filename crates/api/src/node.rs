//! Node: where pods run.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::wire::or_default;
use crate::{DiskName, Meta, NodeSelector, names};

/// A Node, as far as volumes care: its name and labels, and what it says of disks.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Wire")]
pub struct Node {
    /// Name and labels.
    pub meta: Meta,
    /// The disks that must stay attached, by the names that are made of plugin and disk (M15).
    pub volumes_in_use: Box<[DiskName]>,
    /// The disks that the attach controller says are attached, by the same names (A35).
    pub volumes_attached: Box<[DiskName]>,
    /// The paths of those of them that have one there.
    pub device_paths: BTreeMap<DiskName, Box<str>>,
    /// Whether its kubelet says that it is well: condition `Ready` is `True`.
    pub is_ready: bool,
    /// Whether an operator says that nothing runs there any more (A13.5).
    pub is_out_of_service: bool,
    /// What its cloud calls the machine, as `gce://project/zone/instance`.
    pub provider_id: Option<Box<str>>,
}

#[derive(Deserialize)]
struct Wire {
    metadata: Meta,
    #[serde(default, deserialize_with = "or_default")]
    spec: Spec,
    #[serde(default, deserialize_with = "or_default")]
    status: Status,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(default, deserialize_with = "or_default")]
    taints: Vec<Taint>,
    #[serde(rename = "providerID")]
    provider_id: Option<Box<str>>,
}

#[derive(Deserialize)]
struct Taint {
    #[serde(default, deserialize_with = "or_default")]
    key: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default, deserialize_with = "or_default")]
    volumes_in_use: Box<[DiskName]>,
    #[serde(default, deserialize_with = "or_default")]
    volumes_attached: Vec<Attached>,
    #[serde(default, deserialize_with = "or_default")]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attached {
    name: DiskName,
    #[serde(default, deserialize_with = "or_default")]
    device_path: Box<str>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(default, rename = "type", deserialize_with = "or_default")]
    kind: Box<str>,
    #[serde(default, deserialize_with = "or_default")]
    status: Box<str>,
}

impl From<Wire> for Node {
    fn from(wire: Wire) -> Self {
        let Status {
            volumes_in_use,
            volumes_attached: attached,
            conditions,
        } = wire.status;
        let with_path = attached.iter().filter(|one| !one.device_path.is_empty());
        let path = |one: &Attached| (one.name.clone(), one.device_path.clone());
        let ready = |c: &Condition| *c.kind == *"Ready" && *c.status == *"True";
        let mut taints = wire.spec.taints.iter();
        Self {
            meta: wire.metadata,
            volumes_in_use,
            device_paths: with_path.map(path).collect(),
            volumes_attached: attached.into_iter().map(|one| one.name).collect(),
            is_ready: conditions.iter().any(ready),
            is_out_of_service: taints.any(|taint| *taint.key == *names::OUT_OF_SERVICE),
            provider_id: wire.spec.provider_id.filter(|id| !id.is_empty()),
        }
    }
}

impl Node {
    /// Whether the attach controller attaches disks to it (A2): then its word is waited for.
    #[must_use]
    pub fn is_attached_to(&self) -> bool {
        self.meta.annotations.get(names::CONTROLLED_ATTACH) == Some("true")
    }

    /// Whether its agent, and no kubelet, mounts the volumes of its pods: then cloud disks are attached to
    /// it directly.
    #[must_use]
    pub fn is_mounted_by_agent(&self) -> bool {
        self.meta.annotations.get(names::MOUNTED_BY) == Some(names::BITTS_AGENT)
    }

    /// Whether it says neither that this volume is attached nor that it is in use: then its kubelet
    /// begins no use of it before it is attached anew (A35).
    #[must_use]
    pub fn released(&self, volume: &str) -> bool {
        !self.lists(volume) && self.volumes_in_use.iter().all(|name| *name != *volume)
    }

    /// Whether its status says that this volume is attached (A35).
    #[must_use]
    pub fn lists(&self, volume: &str) -> bool {
        self.volumes_attached.iter().any(|name| *name == *volume)
    }

    /// Whether this node satisfies a volume's node affinity; no affinity fits every node.
    #[must_use]
    pub fn fits(&self, affinity: Option<&NodeSelector>) -> bool {
        affinity.is_none_or(|a| a.matches(self.meta.name.as_str(), &self.meta.labels))
    }
}
