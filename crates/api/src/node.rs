//! Node: where pods run.

use serde::Deserialize;

use crate::wire::or_default;
use crate::{Meta, NodeSelector};

/// A Node, as far as volumes care: its name and labels, and what it says of disks.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Wire")]
pub struct Node {
    /// Name and labels.
    pub meta: Meta,
    /// The disks that must stay attached, by the names that are made of plugin and disk (M15).
    pub volumes_in_use: Box<[Box<str>]>,
}

#[derive(Deserialize)]
struct Wire {
    metadata: Meta,
    #[serde(default, deserialize_with = "or_default")]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default, deserialize_with = "or_default")]
    volumes_in_use: Box<[Box<str>]>,
}

impl From<Wire> for Node {
    fn from(wire: Wire) -> Self {
        Self {
            meta: wire.metadata,
            volumes_in_use: wire.status.volumes_in_use,
        }
    }
}

impl Node {
    /// Whether this node satisfies a volume's node affinity; no affinity fits every node.
    #[must_use]
    pub fn fits(&self, affinity: Option<&NodeSelector>) -> bool {
        affinity.is_none_or(|a| a.matches(self.meta.name.as_str(), &self.meta.labels))
    }
}
