//! VolumeAttributesClass: what a driver can change of a volume that is in use.

use serde::Deserialize;

use crate::Meta;

/// A VolumeAttributesClass, as far as its protection reads it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct AttributesClass {
    /// Name and finalizers.
    #[serde(rename = "metadata")]
    pub meta: Meta,
}
