//! PersistentVolume: what an operator supplies.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::names;
use crate::{
    AccessModes, Claim, ClassName, Meta, Name, Namespace, NodeSelector, Quantity, Uid, VolumeMode,
};

/// A PersistentVolume.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Wire")]
pub struct Volume {
    /// Name, labels, annotations, versions.
    pub meta: Meta,
    /// How much it holds; `None` when absent or unreadable (the API server admits neither).
    pub capacity: Option<Quantity>,
    /// How it may be used.
    pub access_modes: AccessModes,
    /// A file system or a raw block device.
    pub volume_mode: VolumeMode,
    /// The class after the legacy annotation was taken into account (N4); `None` for no class.
    pub class: Option<ClassName>,
    /// The VolumeAttributesClass; `None` when nil or empty (B13.5).
    pub attributes_class: Option<ClassName>,
    /// What happens when the claim is gone.
    pub reclaim_policy: ReclaimPolicy,
    /// Whom the volume is reserved for or bound to.
    pub claim_ref: Option<ClaimRef>,
    /// Where the data is.
    pub source: Source,
    /// On which nodes it can be used; `None` for all.
    pub node_affinity: Option<NodeSelector>,
    /// Options for the mount, in the order given.
    pub mount_options: Box<[Box<str>]>,
    /// Where in its life it is.
    pub phase: VolumePhase,
    /// Why the phase is what it is; empty when there is nothing to say.
    pub message: Box<str>,
}

impl Volume {
    /// Whether the claimRef names this very claim: same place, and no uid or the claim's own (B15).
    #[must_use]
    pub fn is_for(&self, claim: &Claim) -> bool {
        self.claim_ref.as_ref().is_some_and(|r| {
            r.name == claim.meta.name
                && Some(&r.namespace) == claim.meta.namespace.as_ref()
                && r.uid.as_ref().is_none_or(|uid| *uid == claim.meta.uid)
        })
    }
}

/// The claim that a volume is reserved for (no uid) or bound to (uid).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRef {
    /// The claim's namespace.
    pub namespace: Namespace,
    /// The claim's name.
    pub name: Name,
    /// Which claim of that name; `None` while an operator only reserved the volume.
    pub uid: Option<Uid>,
}

impl fmt::Display for ClaimRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What happens to a volume whose claim is gone (D1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReclaimPolicy {
    /// The volume stays as it is for the operator to decide.
    Retain,
    /// The data and the volume are deleted.
    Delete,
    /// The data is wiped and the volume offered again.
    Recycle,
    /// A value that this version does not know.
    Other(Box<str>),
}

impl ReclaimPolicy {
    /// The value as the API writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Retain => "Retain",
            Self::Delete => "Delete",
            Self::Recycle => "Recycle",
            Self::Other(text) => text,
        }
    }
}

impl From<&str> for ReclaimPolicy {
    /// An empty value is the API's default, Retain (V1).
    fn from(text: &str) -> Self {
        match text {
            "" | "Retain" => Self::Retain,
            "Delete" => Self::Delete,
            "Recycle" => Self::Recycle,
            other => Self::Other(other.into()),
        }
    }
}

/// A volume's phase (N6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Box<str>")]
pub enum VolumePhase {
    /// New: nobody looked at it yet. Also what an empty or unknown phase reads as.
    #[default]
    Pending,
    /// Free to be bound.
    Available,
    /// Bound to a claim.
    Bound,
    /// Its claim is gone, its data may still be there.
    Released,
    /// Reclaiming it failed.
    Failed,
}

impl From<Box<str>> for VolumePhase {
    fn from(text: Box<str>) -> Self {
        match &*text {
            "Available" => Self::Available,
            "Bound" => Self::Bound,
            "Released" => Self::Released,
            "Failed" => Self::Failed,
            _ => Self::Pending,
        }
    }
}

impl VolumePhase {
    /// The value as the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Available => "Available",
            Self::Bound => "Bound",
            Self::Released => "Released",
            Self::Failed => "Failed",
        }
    }
}

/// Where a volume's data is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A directory or block device of one node.
    Local {
        /// The path on the node.
        path: Box<str>,
        /// The file system of a block device; `None` lets the agent choose.
        fs_type: Option<Box<str>>,
    },
    /// A path on whichever node the pod runs.
    HostPath {
        /// The path on the node.
        path: Box<str>,
        /// What must be there, e.g. `Directory`; empty for no check.
        kind: Box<str>,
    },
    /// An NFS export.
    Nfs {
        /// Host name or address.
        server: Box<str>,
        /// The exported path.
        path: Box<str>,
        /// Never mounted writable.
        read_only: bool,
    },
    /// A volume of a CSI driver.
    Csi {
        /// The driver's name.
        driver: Box<str>,
        /// The driver's name for the volume.
        handle: Box<str>,
    },
    /// A type that no role knows, by its field name in the API (e.g. `rbd`).
    Other(Box<str>),
}

impl Source {
    /// The type's field name in the API, e.g. `local`.
    #[must_use]
    pub fn type_name(&self) -> &str {
        match self {
            Self::Local { .. } => "local",
            Self::HostPath { .. } => "hostPath",
            Self::Nfs { .. } => "nfs",
            Self::Csi { .. } => "csi",
            Self::Other(name) => name,
        }
    }
}

/// A volume as the API writes it.
#[derive(Deserialize)]
struct Wire {
    metadata: Meta,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    capacity: WireStorage,
    #[serde(default)]
    access_modes: AccessModes,
    #[serde(default)]
    volume_mode: VolumeMode,
    storage_class_name: Option<Box<str>>,
    volume_attributes_class_name: Option<Box<str>>,
    persistent_volume_reclaim_policy: Option<Box<str>>,
    claim_ref: Option<WireClaimRef>,
    node_affinity: Option<WireAffinity>,
    #[serde(default)]
    mount_options: Box<[Box<str>]>,
    local: Option<WireLocal>,
    host_path: Option<WireHostPath>,
    nfs: Option<WireNfs>,
    csi: Option<WireCsi>,
    #[serde(flatten)]
    other: OtherSource,
}

/// `{"storage": "100Mi"}`; an unreadable quantity reads as none, so that one bad object cannot
/// stall a watch.
#[derive(Default, Deserialize)]
pub(crate) struct WireStorage {
    #[serde(default, deserialize_with = "readable")]
    pub(crate) storage: Option<Quantity>,
}

fn readable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Quantity>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Loose {
        Quantity(Quantity),
        Unreadable(serde::de::IgnoredAny),
    }
    Ok(match Loose::deserialize(deserializer)? {
        Loose::Quantity(quantity) => Some(quantity),
        Loose::Unreadable(_) => None,
    })
}

#[derive(Deserialize)]
struct WireClaimRef {
    #[serde(default)]
    namespace: Box<str>,
    #[serde(default)]
    name: Box<str>,
    #[serde(default)]
    uid: Box<str>,
}

#[derive(Deserialize)]
struct WireAffinity {
    required: Option<NodeSelector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireLocal {
    path: Box<str>,
    fs_type: Option<Box<str>>,
}

#[derive(Deserialize)]
struct WireHostPath {
    path: Box<str>,
    #[serde(default, rename = "type")]
    kind: Box<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireNfs {
    server: Box<str>,
    path: Box<str>,
    #[serde(default)]
    read_only: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireCsi {
    driver: Box<str>,
    #[serde(default)]
    volume_handle: Box<str>,
}

/// The first field of the spec that no other field took: the source's type.
#[derive(Default)]
pub(crate) struct OtherSource(pub(crate) Option<Box<str>>);

impl<'de> Deserialize<'de> for OtherSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First;
        impl<'de> serde::de::Visitor<'de> for First {
            type Value = OtherSource;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a volume source")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<OtherSource, A::Error> {
                let mut first = None;
                while let Some(key) = map.next_key::<Box<str>>()? {
                    map.next_value::<serde::de::IgnoredAny>()?;
                    first.get_or_insert(key);
                }
                Ok(OtherSource(first))
            }
        }
        deserializer.deserialize_map(First)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    phase: VolumePhase,
    #[serde(default)]
    message: Box<str>,
}

impl From<Wire> for Volume {
    fn from(
        Wire {
            metadata: meta,
            spec,
            status,
        }: Wire,
    ) -> Self {
        let source = if let Some(local) = spec.local {
            Source::Local {
                path: local.path,
                fs_type: local.fs_type,
            }
        } else if let Some(host) = spec.host_path {
            Source::HostPath {
                path: host.path,
                kind: host.kind,
            }
        } else if let Some(nfs) = spec.nfs {
            Source::Nfs {
                server: nfs.server,
                path: nfs.path,
                read_only: nfs.read_only,
            }
        } else if let Some(csi) = spec.csi {
            Source::Csi {
                driver: csi.driver,
                handle: csi.volume_handle,
            }
        } else {
            Source::Other(spec.other.0.unwrap_or_default())
        };
        Self {
            class: class(&meta, spec.storage_class_name.as_deref()),
            attributes_class: non_empty(spec.volume_attributes_class_name.as_deref()),
            capacity: spec.capacity.storage,
            access_modes: spec.access_modes,
            volume_mode: spec.volume_mode,
            reclaim_policy: spec
                .persistent_volume_reclaim_policy
                .as_deref()
                .unwrap_or("")
                .into(),
            claim_ref: spec.claim_ref.map(|r| ClaimRef {
                namespace: (&*r.namespace).into(),
                name: (&*r.name).into(),
                uid: (!r.uid.is_empty()).then(|| (&*r.uid).into()),
            }),
            source,
            node_affinity: spec.node_affinity.and_then(|a| a.required),
            mount_options: spec.mount_options,
            phase: status.phase,
            message: status.message,
            meta,
        }
    }
}

/// The class that counts: the legacy annotation wins over the field (N4), and an empty one is none.
pub(crate) fn class(meta: &Meta, field: Option<&str>) -> Option<ClassName> {
    non_empty(meta.annotations.get(names::BETA_STORAGE_CLASS).or(field))
}

pub(crate) fn non_empty(class: Option<&str>) -> Option<ClassName> {
    class.filter(|name| !name.is_empty()).map(ClassName::from)
}
