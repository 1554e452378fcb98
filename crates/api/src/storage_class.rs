//! StorageClass: the template that volumes are made from.

use serde::Deserialize;

use crate::Meta;
use crate::names;
use crate::wire::or_default;

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
