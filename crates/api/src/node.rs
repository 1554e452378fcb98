//! Node: where pods run.

use serde::Deserialize;

use crate::{Meta, NodeSelector};

/// A Node, as far as volumes care: its name and labels.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Node {
    /// Name and labels.
    #[serde(rename = "metadata")]
    pub meta: Meta,
}

impl Node {
    /// Whether this node satisfies a volume's node affinity; no affinity fits every node.
    #[must_use]
    pub fn fits(&self, affinity: Option<&NodeSelector>) -> bool {
        affinity.is_none_or(|a| a.matches(self.meta.name.as_str(), &self.meta.labels))
    }
}
