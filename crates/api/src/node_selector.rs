//! Node selectors. (stub: being written)
use crate::Labels;
use serde::Deserialize;
/// stub
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct NodeSelector {}
impl NodeSelector {
    /// Whether a node of this name and these labels is selected.
    pub fn matches(&self, _node: &str, _labels: &Labels) -> bool {
        true
    }
}
