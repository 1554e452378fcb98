//! PersistentVolume: what an operator supplies.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::names;
use crate::wire::{Storage, or_default};
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

impl ClaimRef {
    /// What it takes to denote a claim and is not there: then no claim is meant.
    #[must_use]
    pub fn lacks(&self) -> Option<&'static str> {
        match (self.namespace.as_str(), self.name.as_str()) {
            ("", "") => Some("neither namespace nor name"),
            ("", _) => Some("no namespace"),
            (_, "") => Some("no name"),
            _ => None,
        }
    }
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
    Csi(Box<CsiVolume>),
    /// A persistent disk of Google's cloud.
    GcePersistentDisk {
        /// The disk's name there.
        disk: Box<str>,
        /// Which part of it; 0 for all of it.
        partition: u32,
        /// Its file system; `None` lets the agent choose.
        fs_type: Option<Box<str>>,
        /// Never mounted writable.
        read_only: bool,
    },
    /// A disk of an iSCSI target.
    Iscsi {
        /// Whose disk it is.
        target: Box<IscsiTarget>,
        /// Which disk of it.
        lun: u32,
        /// Its file system; `None` lets the agent choose.
        fs_type: Option<Box<str>>,
        /// Never mounted writable.
        read_only: bool,
    },
    /// A type that no role knows, by its field name in the API (e.g. `rbd`).
    Other(Box<str>),
}

/// A volume of a CSI driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CsiVolume {
    /// The driver's name.
    pub driver: Box<str>,
    /// The driver's name for the volume.
    pub handle: Box<str>,
    /// The file system; `None` lets the driver choose.
    pub fs_type: Option<Box<str>>,
    /// Never mounted writable.
    pub read_only: bool,
    /// What the driver noted when it made the volume, and wants to be told again.
    pub attributes: BTreeMap<Box<str>, Box<str>>,
    /// The secret that the driver needs to stage it.
    pub stage_secret: Option<SecretRef>,
    /// The secret that the driver needs to publish it.
    pub publish_secret: Option<SecretRef>,
    /// The secret that the driver needs to attach and detach it.
    pub attach_secret: Option<SecretRef>,
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct SecretRef {
    /// Its namespace.
    #[serde(default, deserialize_with = "or_default")]
    pub namespace: Box<str>,
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: Box<str>,
}

/// An iSCSI target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IscsiTarget {
    /// Its address and port.
    pub portal: Box<str>,
    /// Its qualified name.
    pub iqn: Box<str>,
}

/// What people call it: a path, an export, a disk.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { path, .. } | Self::HostPath { path, .. } => f.write_str(path),
            Self::Nfs { server, path, .. } => write!(f, "{server}:{path}"),
            Self::Csi(volume) => write!(f, "{} of {}", volume.handle, volume.driver),
            Self::GcePersistentDisk { disk, .. } => write!(f, "disk {disk}"),
            Self::Iscsi { target, lun, .. } => {
                write!(f, "disk {lun} of {} at {}", target.iqn, target.portal)
            }
            Self::Other(name) => write!(f, "a volume of type {name}"),
        }
    }
}

impl Source {
    /// The type's field name in the API, e.g. `local`.
    #[must_use]
    pub fn type_name(&self) -> &str {
        match self {
            Self::Local { .. } => "local",
            Self::HostPath { .. } => "hostPath",
            Self::Nfs { .. } => "nfs",
            Self::Csi(_) => "csi",
            Self::GcePersistentDisk { .. } => "gcePersistentDisk",
            Self::Iscsi { .. } => "iscsi",
            Self::Other(name) => name,
        }
    }

    /// The file system that its device shall have.
    #[must_use]
    pub fn fs_type(&self) -> Option<&str> {
        match self {
            Self::Local { fs_type, .. }
            | Self::GcePersistentDisk { fs_type, .. }
            | Self::Iscsi { fs_type, .. } => fs_type.as_deref(),
            Self::Csi(volume) => volume.fs_type.as_deref(),
            Self::Nfs { .. } | Self::HostPath { .. } | Self::Other(_) => None,
        }
    }

    /// Whether it says itself that it is never written.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Nfs { read_only, .. }
            | Self::GcePersistentDisk { read_only, .. }
            | Self::Iscsi { read_only, .. } => *read_only,
            Self::Csi(volume) => volume.read_only,
            Self::Local { .. } | Self::HostPath { .. } | Self::Other(_) => false,
        }
    }
}

/// A volume as the API writes it.
#[derive(Deserialize)]
struct Wire {
    metadata: Meta,
    #[serde(default, deserialize_with = "or_default")]
    spec: Spec,
    #[serde(default, deserialize_with = "or_default")]
    status: Status,
}

/// The spec. Read by hand: the source's type is the name of whichever field is left over and not
/// `null`, and a type that bitts knows goes first.
#[derive(Default)]
struct Spec {
    capacity: Storage,
    access_modes: AccessModes,
    volume_mode: VolumeMode,
    class: Option<Box<str>>,
    attributes_class: Option<Box<str>>,
    reclaim_policy: Box<str>,
    claim_ref: Option<WireClaimRef>,
    affinity: WireAffinity,
    mount_options: Box<[Box<str>]>,
    source: Option<Source>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Field {
    Capacity,
    AccessModes,
    VolumeMode,
    StorageClassName,
    VolumeAttributesClassName,
    PersistentVolumeReclaimPolicy,
    ClaimRef,
    NodeAffinity,
    MountOptions,
    Local,
    HostPath,
    Nfs,
    Csi,
    GcePersistentDisk,
    Iscsi,
    Other(Box<str>),
}

impl<'de> Deserialize<'de> for Spec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SpecVisitor)
    }
}

struct SpecVisitor;

impl<'de> Visitor<'de> for SpecVisitor {
    type Value = Spec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the spec of a PersistentVolume")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Spec, A::Error> {
        let mut spec = Spec::default();
        while let Some(field) = map.next_key()? {
            match field {
                Field::Capacity => spec.capacity = value(&mut map)?,
                Field::AccessModes => spec.access_modes = value(&mut map)?,
                Field::VolumeMode => spec.volume_mode = value(&mut map)?,
                Field::StorageClassName => spec.class = map.next_value()?,
                Field::VolumeAttributesClassName => spec.attributes_class = map.next_value()?,
                Field::PersistentVolumeReclaimPolicy => spec.reclaim_policy = value(&mut map)?,
                Field::ClaimRef => spec.claim_ref = map.next_value()?,
                Field::NodeAffinity => spec.affinity = value(&mut map)?,
                Field::MountOptions => spec.mount_options = value(&mut map)?,
                Field::Local => spec.offer(map.next_value::<Option<WireLocal>>()?),
                Field::HostPath => spec.offer(map.next_value::<Option<WireHostPath>>()?),
                Field::Nfs => spec.offer(map.next_value::<Option<WireNfs>>()?),
                Field::Csi => spec.offer(map.next_value::<Option<WireCsi>>()?),
                Field::GcePersistentDisk => spec.offer(map.next_value::<Option<WireDisk>>()?),
                Field::Iscsi => spec.offer(map.next_value::<Option<WireIscsi>>()?),
                Field::Other(name) => {
                    let there = map.next_value::<Option<IgnoredAny>>()?;
                    if spec.source.is_none() && there.is_some() {
                        spec.source = Some(Source::Other(name));
                    }
                }
            }
        }
        Ok(spec)
    }
}

/// A field's value, where `null` is the same as no field.
fn value<'de, A: MapAccess<'de>, T: Default + Deserialize<'de>>(
    map: &mut A,
) -> Result<T, A::Error> {
    Ok(map.next_value::<Option<T>>()?.unwrap_or_default())
}

impl Spec {
    /// A type that bitts knows goes before one that may be no source at all.
    fn offer(&mut self, source: Option<impl Into<Source>>) {
        if let Some(source) = source {
            self.source = Some(source.into());
        }
    }
}

#[derive(Deserialize)]
struct WireClaimRef {
    #[serde(default, deserialize_with = "or_default")]
    namespace: Box<str>,
    #[serde(default, deserialize_with = "or_default")]
    name: Box<str>,
    #[serde(default, deserialize_with = "or_default")]
    uid: Box<str>,
}

#[derive(Default, Deserialize)]
struct WireAffinity {
    required: Option<NodeSelector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireLocal {
    #[serde(default, deserialize_with = "or_default")]
    path: Box<str>,
    fs_type: Option<Box<str>>,
}

#[derive(Deserialize)]
struct WireHostPath {
    #[serde(default, deserialize_with = "or_default")]
    path: Box<str>,
    #[serde(default, rename = "type", deserialize_with = "or_default")]
    kind: Box<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireNfs {
    #[serde(default, deserialize_with = "or_default")]
    server: Box<str>,
    #[serde(default, deserialize_with = "or_default")]
    path: Box<str>,
    #[serde(default, deserialize_with = "or_default")]
    read_only: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireCsi {
    #[serde(default, deserialize_with = "or_default")]
    driver: Box<str>,
    #[serde(default, deserialize_with = "or_default")]
    volume_handle: Box<str>,
    fs_type: Option<Box<str>>,
    #[serde(default, deserialize_with = "or_default")]
    read_only: bool,
    #[serde(default, deserialize_with = "or_default")]
    volume_attributes: BTreeMap<Box<str>, Box<str>>,
    node_stage_secret_ref: Option<SecretRef>,
    node_publish_secret_ref: Option<SecretRef>,
    controller_publish_secret_ref: Option<SecretRef>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDisk {
    #[serde(default, deserialize_with = "or_default")]
    pd_name: Box<str>,
    #[serde(default, deserialize_with = "or_default")]
    partition: i64,
    fs_type: Option<Box<str>>,
    #[serde(default, deserialize_with = "or_default")]
    read_only: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireIscsi {
    #[serde(default, deserialize_with = "or_default")]
    target_portal: Box<str>,
    #[serde(default, deserialize_with = "or_default")]
    iqn: Box<str>,
    #[serde(default, deserialize_with = "or_default")]
    lun: i64,
    fs_type: Option<Box<str>>,
    #[serde(default, deserialize_with = "or_default")]
    read_only: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default, deserialize_with = "or_default")]
    phase: VolumePhase,
    #[serde(default, deserialize_with = "or_default")]
    message: Box<str>,
}

impl From<WireLocal> for Source {
    fn from(wire: WireLocal) -> Self {
        Self::Local {
            path: wire.path,
            fs_type: wire.fs_type.filter(|t| !t.is_empty()),
        }
    }
}

impl From<WireHostPath> for Source {
    fn from(wire: WireHostPath) -> Self {
        Self::HostPath {
            path: wire.path,
            kind: wire.kind,
        }
    }
}

impl From<WireNfs> for Source {
    fn from(wire: WireNfs) -> Self {
        Self::Nfs {
            server: wire.server,
            path: wire.path,
            read_only: wire.read_only,
        }
    }
}

impl From<WireDisk> for Source {
    fn from(wire: WireDisk) -> Self {
        Self::GcePersistentDisk {
            disk: wire.pd_name,
            partition: wire.partition.try_into().unwrap_or_default(),
            fs_type: wire.fs_type.filter(|t| !t.is_empty()),
            read_only: wire.read_only,
        }
    }
}

impl From<WireIscsi> for Source {
    fn from(wire: WireIscsi) -> Self {
        Self::Iscsi {
            target: Box::new(IscsiTarget {
                portal: wire.target_portal,
                iqn: wire.iqn,
            }),
            lun: wire.lun.try_into().unwrap_or_default(),
            fs_type: wire.fs_type.filter(|t| !t.is_empty()),
            read_only: wire.read_only,
        }
    }
}

impl From<WireCsi> for Source {
    fn from(wire: WireCsi) -> Self {
        Self::Csi(Box::new(CsiVolume {
            driver: wire.driver,
            handle: wire.volume_handle,
            fs_type: wire.fs_type.filter(|t| !t.is_empty()),
            read_only: wire.read_only,
            attributes: wire.volume_attributes,
            stage_secret: wire.node_stage_secret_ref,
            publish_secret: wire.node_publish_secret_ref,
            attach_secret: wire.controller_publish_secret_ref,
        }))
    }
}

impl From<Wire> for Volume {
    fn from(
        Wire {
            metadata: meta,
            spec,
            status,
        }: Wire,
    ) -> Self {
        Self {
            class: class(&meta, spec.class.as_deref()),
            attributes_class: non_empty(spec.attributes_class.as_deref()),
            capacity: spec.capacity.storage,
            access_modes: spec.access_modes,
            volume_mode: spec.volume_mode,
            reclaim_policy: (&*spec.reclaim_policy).into(),
            claim_ref: spec.claim_ref.map(|r| ClaimRef {
                namespace: (&*r.namespace).into(),
                name: (&*r.name).into(),
                uid: (!r.uid.is_empty()).then(|| (&*r.uid).into()),
            }),
            source: spec.source.unwrap_or_else(|| Source::Other("".into())),
            node_affinity: spec.affinity.required,
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
