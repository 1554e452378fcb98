use std::collections::BTreeSet;
use std::time::Duration;

use crate::options::LOCAL;

/// What can be set about looking after the volumes of nodes that are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostOptions {
    /// The names of the provisioners of the nodes.
    pub names: BTreeSet<Box<str>>,
    /// For how long a node must have been deleted before it counts as gone: some come back under their name.
    pub grace: Duration,
}

impl Default for LostOptions {
    fn default() -> Self {
        Self {
            names: [LOCAL.into()].into(),
            grace: Duration::from_secs(600),
        }
    }
}
