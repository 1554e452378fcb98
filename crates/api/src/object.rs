//! The kinds that roles watch, and one type that holds any of them.

use std::fmt;
use std::sync::Arc;

use crate::NodeName;
use crate::{
    Attachment, AttributesClass, Claim, ClassName, CsiDriver, CsiNode, Meta, Name, Namespace, Node,
    Pod, ResourceVersion, StorageCapacity, StorageClass, Uid, Volume,
};

/// A kind of object that a role can watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1` PersistentVolume.
    Volume,
    /// `v1` PersistentVolumeClaim.
    Claim,
    /// `storage.k8s.io/v1` StorageClass.
    StorageClass,
    /// `storage.k8s.io/v1` VolumeAttributesClass; API servers before 1.34 have none.
    AttributesClass,
    /// `v1` Node.
    Node,
    /// `v1` Pod.
    Pod,
    /// `storage.k8s.io/v1` VolumeAttachment.
    Attachment,
    /// `storage.k8s.io/v1` CSIDriver.
    CsiDriver,
    /// `storage.k8s.io/v1` CSINode.
    CsiNode,
    /// `storage.k8s.io/v1` CSIStorageCapacity.
    StorageCapacity,
}

impl Kind {
    /// The kind's name in the API, e.g. `PersistentVolume`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Volume => "PersistentVolume",
            Self::Claim => "PersistentVolumeClaim",
            Self::StorageClass => "StorageClass",
            Self::AttributesClass => "VolumeAttributesClass",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::Attachment => "VolumeAttachment",
            Self::CsiDriver => "CSIDriver",
            Self::CsiNode => "CSINode",
            Self::StorageCapacity => "CSIStorageCapacity",
        }
    }

    /// The resource's name in paths, e.g. `persistentvolumes`.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Volume => "persistentvolumes",
            Self::Claim => "persistentvolumeclaims",
            Self::StorageClass => "storageclasses",
            Self::AttributesClass => "volumeattributesclasses",
            Self::Node => "nodes",
            Self::Pod => "pods",
            Self::Attachment => "volumeattachments",
            Self::CsiDriver => "csidrivers",
            Self::CsiNode => "csinodes",
            Self::StorageCapacity => "csistoragecapacities",
        }
    }

    /// The API group; empty for the core group.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::StorageClass
            | Self::AttributesClass
            | Self::Attachment
            | Self::CsiDriver
            | Self::CsiNode
            | Self::StorageCapacity => "storage.k8s.io",
            Self::Volume | Self::Claim | Self::Node | Self::Pod => "",
        }
    }

    /// The version within the group.
    #[must_use]
    pub const fn version(self) -> &'static str {
        "v1"
    }

    /// Whether objects of this kind live in a namespace.
    #[must_use]
    pub const fn namespaced(self) -> bool {
        matches!(self, Self::Claim | Self::Pod | Self::StorageCapacity)
    }

    /// Reads one object of this kind as the API writes it.
    ///
    /// # Errors
    /// When the text is not JSON or lacks what the API always sends (a name, for one).
    pub fn read(self, json: &[u8]) -> Result<Object, serde_json::Error> {
        Ok(match self {
            Self::Volume => Object::Volume(serde_json::from_slice(json)?),
            Self::Claim => Object::Claim(serde_json::from_slice(json)?),
            Self::StorageClass => Object::StorageClass(serde_json::from_slice(json)?),
            Self::AttributesClass => Object::AttributesClass(serde_json::from_slice(json)?),
            Self::Node => Object::Node(serde_json::from_slice(json)?),
            Self::Pod => Object::Pod(serde_json::from_slice(json)?),
            Self::Attachment => Object::Attachment(serde_json::from_slice(json)?),
            Self::CsiDriver => Object::CsiDriver(serde_json::from_slice(json)?),
            Self::CsiNode => Object::CsiNode(serde_json::from_slice(json)?),
            Self::StorageCapacity => Object::StorageCapacity(serde_json::from_slice(json)?),
        })
    }
}

/// Any object that a role watches. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A PersistentVolume.
    Volume(Arc<Volume>),
    /// A PersistentVolumeClaim.
    Claim(Arc<Claim>),
    /// A StorageClass.
    StorageClass(Arc<StorageClass>),
    /// A VolumeAttributesClass.
    AttributesClass(Arc<AttributesClass>),
    /// A Node.
    Node(Arc<Node>),
    /// A Pod.
    Pod(Arc<Pod>),
    /// A VolumeAttachment.
    Attachment(Arc<Attachment>),
    /// A CSIDriver.
    CsiDriver(Arc<CsiDriver>),
    /// A CSINode.
    CsiNode(Arc<CsiNode>),
    /// A CSIStorageCapacity.
    StorageCapacity(Arc<StorageCapacity>),
}

impl Object {
    /// The kind of the object inside.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Volume(_) => Kind::Volume,
            Self::Claim(_) => Kind::Claim,
            Self::StorageClass(_) => Kind::StorageClass,
            Self::AttributesClass(_) => Kind::AttributesClass,
            Self::Node(_) => Kind::Node,
            Self::Pod(_) => Kind::Pod,
            Self::Attachment(_) => Kind::Attachment,
            Self::CsiDriver(_) => Kind::CsiDriver,
            Self::CsiNode(_) => Kind::CsiNode,
            Self::StorageCapacity(_) => Kind::StorageCapacity,
        }
    }

    /// The metadata of the object inside.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Volume(o) => &o.meta,
            Self::Claim(o) => &o.meta,
            Self::StorageClass(o) => &o.meta,
            Self::AttributesClass(o) => &o.meta,
            Self::Node(o) => &o.meta,
            Self::Pod(o) => &o.meta,
            Self::Attachment(o) => &o.meta,
            Self::CsiDriver(o) => &o.meta,
            Self::CsiNode(o) => &o.meta,
            Self::StorageCapacity(o) => &o.meta,
        }
    }

    /// Where the object lives.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        let meta = self.meta();
        ObjectKey {
            kind: self.kind(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
        }
    }

    /// What tells this object from a later one at the same place.
    #[must_use]
    pub fn uid(&self) -> &Uid {
        &self.meta().uid
    }

    /// The version that was read.
    #[must_use]
    pub fn resource_version(&self) -> ResourceVersion {
        self.meta().resource_version
    }
}

macro_rules! from {
    ($($kind:ident),*) => {$(
        impl From<$kind> for Object {
            fn from(object: $kind) -> Self {
                Self::$kind(Arc::new(object))
            }
        }
    )*};
}
from!(
    Volume,
    Claim,
    StorageClass,
    AttributesClass,
    Node,
    Pod,
    Attachment,
    CsiDriver,
    CsiNode,
    StorageCapacity
);

/// The place of an object: kind, namespace and name. Says nothing about which object is there:
/// that takes the uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The kind.
    pub kind: Kind,
    /// The namespace, for kinds that have one.
    pub namespace: Option<Namespace>,
    /// The name.
    pub name: Name,
}

impl ObjectKey {
    /// The key of a volume.
    #[must_use]
    pub fn volume(name: impl Into<Name>) -> Self {
        Self {
            kind: Kind::Volume,
            namespace: None,
            name: name.into(),
        }
    }

    /// The key of a claim.
    #[must_use]
    pub fn claim(namespace: impl Into<Namespace>, name: impl Into<Name>) -> Self {
        Self {
            kind: Kind::Claim,
            namespace: Some(namespace.into()),
            name: name.into(),
        }
    }

    /// The key of a StorageClass.
    #[must_use]
    pub fn storage_class(name: &ClassName) -> Self {
        Self {
            kind: Kind::StorageClass,
            namespace: None,
            name: name.as_str().into(),
        }
    }

    /// The key of a VolumeAttributesClass.
    #[must_use]
    pub fn attributes_class(name: &ClassName) -> Self {
        Self {
            kind: Kind::AttributesClass,
            namespace: None,
            name: name.as_str().into(),
        }
    }

    /// The key of a VolumeAttachment.
    #[must_use]
    pub fn attachment(name: impl Into<Name>) -> Self {
        Self {
            kind: Kind::Attachment,
            namespace: None,
            name: name.into(),
        }
    }

    /// The key of a node.
    #[must_use]
    pub fn node(name: &NodeName) -> Self {
        Self {
            kind: Kind::Node,
            namespace: None,
            name: name.as_str().into(),
        }
    }

    /// The key of a CSIDriver.
    #[must_use]
    pub fn csi_driver(name: impl Into<Name>) -> Self {
        Self {
            kind: Kind::CsiDriver,
            namespace: None,
            name: name.into(),
        }
    }

    /// The key of a pod.
    #[must_use]
    pub fn pod(namespace: impl Into<Namespace>, name: impl Into<Name>) -> Self {
        Self {
            kind: Kind::Pod,
            namespace: Some(namespace.into()),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    /// `default/cqh` for a claim or pod, `cqh` for a volume, class or node.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        self.name.fmt(f)
    }
}
