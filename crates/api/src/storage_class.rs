//! StorageClass: the template that volumes are made from.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::wire::or_default;
use crate::{Meta, NodeSelector, ReclaimPolicy, names};

/// A StorageClass, as far as binding and provisioning read it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct StorageClass {
    /// Name and annotations.
    #[serde(rename = "metadata")]
    pub meta: Meta,
    /// Who makes volumes of this class.
    pub provisioner: Box<str>,
    /// When claims of this class are bound.
    #[serde(default, rename = "volumeBindingMode", deserialize_with = "or_default")]
    pub binding_mode: BindingMode,
    /// What the provisioner is told.
    #[serde(default, deserialize_with = "or_default")]
    pub parameters: BTreeMap<Box<str>, Box<str>>,
    /// What happens to its volumes when their claims are gone; Delete where it says nothing.
    #[serde(
        default = "deleted",
        rename = "reclaimPolicy",
        deserialize_with = "policy"
    )]
    pub reclaim_policy: ReclaimPolicy,
    /// Options for the mounts of its volumes.
    #[serde(default, rename = "mountOptions", deserialize_with = "or_default")]
    pub mount_options: Box<[Box<str>]>,
    /// On which nodes its volumes may be made; `None` for all.
    #[serde(default, rename = "allowedTopologies", deserialize_with = "topologies")]
    pub allowed_topologies: Option<NodeSelector>,
}

fn deleted() -> ReclaimPolicy {
    ReclaimPolicy::Delete
}

fn policy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ReclaimPolicy, D::Error> {
    let text: Box<str> = or_default(deserializer)?;
    Ok(match &*text {
        "" => ReclaimPolicy::Delete,
        text => text.into(),
    })
}

/// Terms of labels that must have one of some values; an empty list says nothing.
fn topologies<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<NodeSelector>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Term {
        #[serde(default, deserialize_with = "or_default")]
        match_label_expressions: Vec<Expression>,
    }
    #[derive(Deserialize)]
    struct Expression {
        key: Box<str>,
        #[serde(default, deserialize_with = "or_default")]
        values: Vec<Box<str>>,
    }
    let terms: Vec<Term> = or_default(deserializer)?;
    let terms = terms.into_iter().map(|term| {
        let all = term.match_label_expressions.into_iter();
        all.map(|e| (e.key, e.values)).collect::<Vec<_>>()
    });
    let terms: Vec<_> = terms.collect();
    Ok((!terms.is_empty()).then(|| NodeSelector::of_labels(terms)))
}

impl StorageClass {
    /// Whether an annotation makes this a default class (N4).
    #[must_use]
    pub fn is_default(&self) -> bool {
        [names::DEFAULT_CLASS, names::BETA_DEFAULT_CLASS]
            .iter()
            .any(|name| self.meta.annotations.get(name) == Some("true"))
    }
}

/// When a claim is bound (B9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum BindingMode {
    /// As soon as a volume fits; the API's default.
    #[default]
    Immediate,
    /// Once a pod that uses the claim was scheduled.
    WaitForFirstConsumer,
}
