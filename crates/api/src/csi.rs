//! CSIDriver, CSINode and CSIStorageCapacity: what a driver wants, on which nodes it is, and how much
//! room it has there.

use serde::Deserialize;

use crate::wire::or_default;
use crate::{Meta, Quantity};

/// A CSIDriver: what the driver of that name asks of those who call it. Where there is none, what
/// [`DriverWants::default`] says holds.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "DriverWire")]
pub struct CsiDriver {
    /// Its name is the driver's.
    pub meta: Meta,
    /// The rest.
    pub wants: DriverWants,
}

/// What a driver asks of those who call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverWants {
    /// Whether its volumes are attached to a node before they are used there (A1).
    pub attach: bool,
    /// Whether it is told which pod a volume is for (M20).
    pub pod_info: bool,
    /// Whose files are given to a pod's group (M37).
    pub group_policy: GroupPolicy,
    /// Whether volumes with a claim are its business at all, or only those that pods name (M20).
    pub persistent: bool,
    /// Whether it tells by CSIStorageCapacity objects what it can still make (S7).
    pub storage_capacity: bool,
}

/// Whose files are given to a pod's group (M37).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupPolicy {
    /// Those of volumes for one node, with a file system that is named.
    #[default]
    OneNodeWithFsType,
    /// Those of all volumes.
    File,
    /// Nobody's.
    None,
}

impl Default for DriverWants {
    /// A driver that has no CSIDriver object.
    fn default() -> Self {
        Self {
            attach: true,
            pod_info: false,
            group_policy: GroupPolicy::default(),
            persistent: true,
            storage_capacity: false,
        }
    }
}

#[derive(Deserialize)]
struct DriverWire {
    metadata: Meta,
    #[serde(default, deserialize_with = "or_default")]
    spec: DriverSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DriverSpec {
    attach_required: Option<bool>,
    #[serde(default, deserialize_with = "or_default")]
    pod_info_on_mount: bool,
    #[serde(default, deserialize_with = "or_default")]
    fs_group_policy: Box<str>,
    #[serde(default, deserialize_with = "or_default")]
    volume_lifecycle_modes: Vec<Box<str>>,
    #[serde(default, deserialize_with = "or_default")]
    storage_capacity: bool,
}

impl From<DriverWire> for CsiDriver {
    fn from(wire: DriverWire) -> Self {
        let spec = wire.spec;
        let modes = &spec.volume_lifecycle_modes;
        Self {
            meta: wire.metadata,
            wants: DriverWants {
                attach: spec.attach_required.unwrap_or(true),
                pod_info: spec.pod_info_on_mount,
                group_policy: match &*spec.fs_group_policy {
                    "File" => GroupPolicy::File,
                    "None" => GroupPolicy::None,
                    _ => GroupPolicy::OneNodeWithFsType,
                },
                persistent: modes.is_empty() || modes.iter().any(|mode| **mode == *"Persistent"),
                storage_capacity: spec.storage_capacity,
            },
        }
    }
}

/// A CSINode: the drivers that are on the node of that name.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "NodeWire")]
pub struct CsiNode {
    /// Its name is the node's.
    pub meta: Meta,
    /// The drivers.
    pub drivers: Box<[DriverOnNode]>,
}

/// A driver on a node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriverOnNode {
    /// Its name.
    pub name: Box<str>,
    /// What it calls the node.
    #[serde(default, rename = "nodeID", deserialize_with = "or_default")]
    pub node_id: Box<str>,
}

#[derive(Deserialize)]
struct NodeWire {
    metadata: Meta,
    #[serde(default, deserialize_with = "or_default")]
    spec: NodeSpec,
}

#[derive(Default, Deserialize)]
struct NodeSpec {
    #[serde(default, deserialize_with = "or_default")]
    drivers: Box<[DriverOnNode]>,
}

impl From<NodeWire> for CsiNode {
    fn from(wire: NodeWire) -> Self {
        Self {
            meta: wire.metadata,
            drivers: wire.spec.drivers,
        }
    }
}

/// A CSIStorageCapacity: how large a volume of a class may be that is made on some nodes (S7).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageCapacity {
    /// Its name says nothing.
    #[serde(rename = "metadata")]
    pub meta: Meta,
    /// The class.
    #[serde(default, deserialize_with = "or_default")]
    pub storage_class_name: Box<str>,
    /// How much there is; `None` where that is not known.
    pub capacity: Option<Quantity>,
}
