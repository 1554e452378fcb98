//! Claims, volumes and the objects around them, as bitts reads them.
//!
//! Every role watches the same few kinds. This crate holds them as small structs with only the
//! fields that some role uses, the arithmetic they need (quantities, access modes, selectors), the
//! names that users know, and the shape of a role: a [`machine::Machine`] that turns inputs into
//! effects. There is no I/O here, no clock and no async.
//!
//! ```
//! use bitts_api::{Claim, Volume};
//!
//! let volume: Volume = serde_json::from_value(serde_json::json!({
//!     "metadata": {"name": "cqh", "uid": "v-1", "resourceVersion": "7"},
//!     "spec": {"capacity": {"storage": "100Mi"}, "accessModes": ["ReadWriteMany"],
//!              "storageClassName": "local-storage", "local": {"path": "/data/pv"}},
//!     "status": {"phase": "Available"},
//! }))?;
//! let claim: Claim = serde_json::from_value(serde_json::json!({
//!     "metadata": {"name": "cqh", "namespace": "default", "uid": "c-1", "resourceVersion": "8"},
//!     "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "local-storage",
//!              "resources": {"requests": {"storage": "100Mi"}}},
//! }))?;
//! assert!(volume.capacity >= claim.request);
//! assert!(volume.access_modes.contains_all(claim.access_modes));
//! assert_eq!(volume.class, claim.class);
//! # Ok::<(), serde_json::Error>(())
//! ```

mod attachment;
mod attributes_class;
mod claim;
mod csi;
pub mod grant;
pub mod labels;
pub mod machine;
mod measure;
mod meta;
pub mod modes;
pub mod names;
mod node;
pub mod node_selector;
mod object;
mod pod;
pub mod quantity;
mod recent;
mod requirement;
mod stock;
mod storage_class;
mod uid;
mod volume;
mod wire;

pub use attachment::{AttachError, Attachment};
pub use attributes_class::AttributesClass;
pub use claim::{Claim, ClaimPhase, DataSource, Resize, StatusAttributes, Unused};
pub use csi::{CsiDriver, CsiNode, DriverOnNode, DriverWants, GroupPolicy, StorageCapacity};
pub use labels::{LabelSelector, Labels};
pub use meta::{
    Annotations, ClassName, DiskName, Meta, Name, Namespace, NodeName, ResourceVersion,
};
pub use modes::{AccessMode, AccessModes, VolumeMode};
pub use node::Node;
pub use node_selector::NodeSelector;
pub use object::{Kind, Object, ObjectKey};
pub use pod::{ClaimTemplate, FsGroup, Pod, PodPhase, PodVolume, PodVolumeSource};
pub use quantity::Quantity;
pub use recent::Recent;
pub use requirement::Requirement;
pub use stock::StockController;
pub use storage_class::{BindingMode, StorageClass};
pub use uid::Uid;
pub use volume::{
    ClaimRef, CsiVolume, IscsiTarget, ReclaimPolicy, SecretRef, Source, Volume, VolumePhase,
};
