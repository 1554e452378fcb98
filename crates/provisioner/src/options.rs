//! What can be set about the provisioner.

use std::collections::BTreeSet;

use bitts_api::NodeName;

/// What can be set about the provisioner of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The node on whose disks volumes are made.
    pub node: NodeName,
    /// The names that classes know it by.
    pub names: BTreeSet<Box<str>>,
}

/// The name that classes know the provisioner of nodes' disks by.
pub const LOCAL: &str = "local.bitts.dev";

impl Options {
    /// The provisioner of a node under its usual name.
    #[must_use]
    pub fn new(node: NodeName) -> Self {
        Self {
            node,
            names: [LOCAL.into()].into(),
        }
    }

    /// Whether a class or annotation means this provisioner.
    #[must_use]
    pub fn serves(&self, provisioner: Option<&str>) -> bool {
        provisioner.is_some_and(|name| self.names.contains(name))
    }
}
