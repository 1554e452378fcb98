//! Labels and label selectors. (stub: being written)
use serde::Deserialize;
/// stub
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Labels(std::collections::BTreeMap<Box<str>, Box<str>>);
/// stub
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct LabelSelector {}
impl LabelSelector {
    /// Whether it matches.
    pub fn matches(&self, _labels: &Labels) -> bool {
        true
    }
}
