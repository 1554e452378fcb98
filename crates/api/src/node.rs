//! Node: where pods run.

use serde::Deserialize;

use crate::wire::or_default;
use crate::{Meta, NodeSelector, names};

/// A Node, as far as volumes care: its name and labels, and what it says of disks.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Wire")]
pub struct Node {
    /// Name and labels.
    pub meta: Meta,
    /// The disks that must stay attached, by the names that are made of plugin and disk (M15).
    pub volumes_in_use: Box<[Box<str>]>,
    /// The disks that the attach controller says are attached, by the same names (A35).
    pub volumes_attached: Box<[Box<str>]>,
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
    #[serde(default, deserialize_with = "or_default")]
    volumes_attached: Vec<Attached>,
}

#[derive(Deserialize)]
struct Attached {
    #[serde(default, deserialize_with = "or_default")]
    name: Box<str>,
}

impl From<Wire> for Node {
    fn from(wire: Wire) -> Self {
        let attached = wire.status.volumes_attached.into_iter();
        Self {
            meta: wire.metadata,
            volumes_in_use: wire.status.volumes_in_use,
            volumes_attached: attached.map(|one| one.name).collect(),
        }
    }
}

impl Node {
    /// Whether the attach controller attaches disks to it (A2): then its word is waited for.
    #[must_use]
    pub fn is_attached_to(&self) -> bool {
        self.meta.annotations.get(names::CONTROLLED_ATTACH) == Some("true")
    }

    /// Whether this node satisfies a volume's node affinity; no affinity fits every node.
    #[must_use]
    pub fn fits(&self, affinity: Option<&NodeSelector>) -> bool {
        affinity.is_none_or(|a| a.matches(self.meta.name.as_str(), &self.meta.labels))
    }
}
