//! VolumeAttachment: a volume on its way to a node, or there.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::wire::or_default;
use crate::{Meta, Name, NodeName};

/// A VolumeAttachment: what the attach controller asks of a driver, and what came of it (A23 to A27).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Wire")]
pub struct Attachment {
    /// Name and finalizers.
    pub meta: Meta,
    /// The driver that attaches.
    pub driver: Box<str>,
    /// Where to.
    pub node: NodeName,
    /// Which volume; `None` for one that a pod names without a PersistentVolume.
    pub volume: Option<Name>,
    /// Whether it is attached.
    pub is_attached: bool,
    /// What the node has to know to use it.
    pub context: BTreeMap<Box<str>, Box<str>>,
    /// Why the last try to attach failed.
    pub attach_error: Option<AttachError>,
    /// Why the last try to detach failed.
    pub detach_error: Option<AttachError>,
}

/// Why a driver did not do what it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachError {
    /// What it said.
    #[serde(deserialize_with = "or_default")]
    pub message: Box<str>,
    /// The gRPC code, where it is known.
    #[serde(rename = "errorCode")]
    pub code: Option<i32>,
    /// When that was written, as the API has it.
    pub time: Option<Box<str>>,
}

#[derive(Deserialize)]
struct Wire {
    metadata: Meta,
    #[serde(default, deserialize_with = "or_default")]
    spec: Spec,
    #[serde(default, deserialize_with = "or_default")]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default, deserialize_with = "or_default")]
    attacher: Box<str>,
    #[serde(default, deserialize_with = "or_default")]
    node_name: Box<str>,
    #[serde(default, deserialize_with = "or_default")]
    source: Source,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    persistent_volume_name: Option<Name>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default, deserialize_with = "or_default")]
    attached: bool,
    #[serde(default, deserialize_with = "or_default")]
    attachment_metadata: BTreeMap<Box<str>, Box<str>>,
    attach_error: Option<AttachError>,
    detach_error: Option<AttachError>,
}

impl From<Wire> for Attachment {
    fn from(
        Wire {
            metadata: meta,
            spec,
            status,
        }: Wire,
    ) -> Self {
        Self {
            meta,
            driver: spec.attacher,
            node: (&*spec.node_name).into(),
            volume: spec.source.persistent_volume_name,
            is_attached: status.attached,
            context: status.attachment_metadata,
            attach_error: status.attach_error,
            detach_error: status.detach_error,
        }
    }
}
