//! PersistentVolumeClaim: what a developer asks for.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::names;
use crate::volume::{class, non_empty};
use crate::wire::{Storage, or_default};
use crate::{AccessModes, ClassName, LabelSelector, Meta, Name, Namespace, Quantity, VolumeMode};

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Wire")]
pub struct Claim {
    /// Name, annotations, versions.
    pub meta: Meta,
    /// How much is asked for; `None` when absent or unreadable (the API server admits neither).
    pub request: Option<Quantity>,
    /// How it will be used.
    pub access_modes: AccessModes,
    /// A file system or a raw block device.
    pub volume_mode: VolumeMode,
    /// The class after the legacy annotation was taken into account (N4); `None` for no class.
    pub class: Option<ClassName>,
    /// Whether a class was named at all: `""` names "no class" and is never given the default one
    /// (B10.1), while a claim that says nothing is.
    pub class_is_set: bool,
    /// The VolumeAttributesClass; `None` when nil or empty.
    pub attributes_class: Option<ClassName>,
    /// Which volumes may be taken; `None` for any. Apart, since most claims have none.
    pub selector: Option<Box<LabelSelector>>,
    /// What the volume is to begin with, if not empty; apart, since most claims name nothing.
    pub data_source: Option<Box<DataSource>>,
    /// The volume that was chosen, by the user or by the binder.
    pub volume_name: Option<Name>,
    /// Where in its life it is.
    pub phase: ClaimPhase,
    /// What the status says it got.
    pub status_capacity: Option<Quantity>,
    /// What the status says about access.
    pub status_access_modes: AccessModes,
    /// What the status says about attributes classes; apart, since most claims have none.
    pub status_attributes: Option<Box<StatusAttributes>>,
    /// What the status says about a change of its size; apart, since most claims have none.
    pub resize: Option<Box<Resize>>,
    /// What the condition `Unused` says (X5).
    pub unused: Unused,
    /// Since when it says so.
    pub unused_since: Option<Timestamp>,
    /// All other conditions, as they are; a list in a merge patch replaces the whole list.
    pub other_conditions: Box<[Value]>,
}

/// What a claim's volume is to begin with: a snapshot, another claim's data, a populator's.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataSource {
    /// The API group of its kind; empty for those of the core.
    #[serde(default, rename = "apiGroup", deserialize_with = "or_default")]
    pub group: Box<str>,
    /// Its kind.
    pub kind: Box<str>,
    /// Its name.
    pub name: Name,
    /// Its namespace, where that is not the claim's.
    #[serde(default)]
    pub namespace: Option<Namespace>,
}

/// What a claim's status says about VolumeAttributesClasses.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusAttributes {
    /// The one in force.
    pub current: Option<ClassName>,
    /// The one that its driver is changing it to; by now another one may be wanted.
    pub target: Option<ClassName>,
}

/// What a claim's status says about a change of its size (R4).
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// How far it is, one of N7, e.g. `ControllerResizeInProgress`; empty when it is over.
    pub state: Box<str>,
    /// The largest size that was ever asked of who keeps the volume (R6).
    pub allocated: Option<Quantity>,
}

/// What a claim's condition `Unused` says (X5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unused {
    /// There is none, or it says neither.
    #[default]
    Unknown,
    /// No pod refers to the claim.
    True,
    /// A pod refers to the claim.
    False,
}

impl Unused {
    /// The condition that says so, without a time; `None` where there is none.
    #[must_use]
    pub fn condition(self) -> Option<Value> {
        let (status, reason, message) = match self {
            Self::Unknown => return None,
            Self::False => (
                "False",
                "PodUsingPVC",
                "A pod is currently referencing this PVC",
            ),
            Self::True => {
                let message = "No pods are currently referencing this PVC";
                ("True", "NoPodsUsingPVC", message)
            }
        };
        Some(json!({"type": names::UNUSED, "status": status, "reason": reason, "message": message}))
    }
}

impl Claim {
    /// Whether binding was completed once (B8): then a missing volume is a loss, not a wait.
    #[must_use]
    pub fn bind_completed(&self) -> bool {
        self.meta.annotations.has(names::BIND_COMPLETED)
    }

    /// Whether its binding was never completed, so that no pod can have used a volume through it.
    /// The phase speaks against that even where somebody removed the annotation.
    #[must_use]
    pub fn never_bound(&self) -> bool {
        !self.bind_completed() && self.phase == ClaimPhase::Pending
    }

    /// The condition `Unused` (X5), as the API has it. A list in a merge patch replaces the whole list.
    #[must_use]
    pub fn unused_condition(&self) -> Option<Value> {
        let mut condition = self.unused.condition()?;
        if let Some(since) = self.unused_since {
            condition["lastTransitionTime"] = json!(since);
        }
        Some(condition)
    }

    /// The attributes classes that it names: the one that is wanted, the one in force, and the one
    /// that its driver is changing it to.
    pub fn attributes_classes(&self) -> impl Iterator<Item = &ClassName> {
        self.attributes_class
            .iter()
            .chain(self.status_attributes.iter().flat_map(|status| {
                let StatusAttributes { current, target } = &**status;
                current.iter().chain(target)
            }))
    }
}

/// A claim's phase (N6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Box<str>")]
pub enum ClaimPhase {
    /// Not bound. Also what an empty or unknown phase reads as.
    #[default]
    Pending,
    /// Bound to a volume.
    Bound,
    /// Was bound, and its volume is gone or belongs to another claim.
    Lost,
}

impl From<Box<str>> for ClaimPhase {
    fn from(text: Box<str>) -> Self {
        match &*text {
            "Bound" => Self::Bound,
            "Lost" => Self::Lost,
            _ => Self::Pending,
        }
    }
}

impl ClaimPhase {
    /// The value as the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Bound => "Bound",
            Self::Lost => "Lost",
        }
    }
}

/// A claim as the API writes it.
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
    resources: Resources,
    #[serde(default, deserialize_with = "or_default")]
    access_modes: AccessModes,
    #[serde(default, deserialize_with = "or_default")]
    volume_mode: VolumeMode,
    storage_class_name: Option<Box<str>>,
    volume_attributes_class_name: Option<Box<str>>,
    selector: Option<Box<LabelSelector>>,
    volume_name: Option<Box<str>>,
    data_source: Option<Box<DataSource>>,
    data_source_ref: Option<Box<DataSource>>,
}

#[derive(Default, Deserialize)]
struct Resources {
    #[serde(default, deserialize_with = "or_default")]
    requests: Storage,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default, deserialize_with = "or_default")]
    phase: ClaimPhase,
    #[serde(default, deserialize_with = "or_default")]
    capacity: Storage,
    #[serde(default, deserialize_with = "or_default")]
    access_modes: AccessModes,
    current_volume_attributes_class_name: Option<Box<str>>,
    #[serde(default, deserialize_with = "or_default")]
    modify_volume_status: ModifyVolumeStatus,
    #[serde(default, deserialize_with = "or_default")]
    allocated_resources: Storage,
    #[serde(default, deserialize_with = "or_default")]
    allocated_resource_statuses: States,
    #[serde(default, deserialize_with = "or_default")]
    conditions: Vec<Value>,
}

#[derive(Default, Deserialize)]
struct States {
    #[serde(default, deserialize_with = "or_default")]
    storage: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModifyVolumeStatus {
    target_volume_attributes_class_name: Option<Box<str>>,
}

impl From<Wire> for Claim {
    fn from(
        Wire {
            metadata: meta,
            spec,
            status,
        }: Wire,
    ) -> Self {
        let (unused_conditions, other_conditions): (Vec<_>, Vec<_>) =
            (status.conditions.into_iter())
                .partition(|condition| condition["type"] == names::UNUSED);
        let unused = match unused_conditions.first().and_then(|c| c["status"].as_str()) {
            Some("True") => Unused::True,
            Some("False") => Unused::False,
            _ => Unused::Unknown,
        };
        let since = unused_conditions.first();
        let since = since.and_then(|c| c["lastTransitionTime"].as_str()?.parse().ok());
        let state = status.allocated_resource_statuses.storage;
        let allocated = status.allocated_resources.storage;
        let current = non_empty(status.current_volume_attributes_class_name.as_deref());
        let modify = status.modify_volume_status;
        let target = non_empty(modify.target_volume_attributes_class_name.as_deref());
        Self {
            resize: (!state.is_empty() || allocated.is_some())
                .then(|| Box::new(Resize { state, allocated })),
            unused,
            unused_since: since,
            other_conditions: other_conditions.into(),
            class: class(&meta, spec.storage_class_name.as_deref()),
            class_is_set: spec.storage_class_name.is_some()
                || meta.annotations.has(names::BETA_STORAGE_CLASS),
            attributes_class: non_empty(spec.volume_attributes_class_name.as_deref()),
            request: spec.resources.requests.storage,
            access_modes: spec.access_modes,
            volume_mode: spec.volume_mode,
            selector: spec.selector,
            // The API mirrors one in the other (V6); the second says more.
            data_source: spec.data_source_ref.or(spec.data_source),
            volume_name: spec
                .volume_name
                .filter(|n| !n.is_empty())
                .map(|n| (&*n).into()),
            phase: status.phase,
            status_capacity: status.capacity.storage,
            status_access_modes: status.access_modes,
            status_attributes: (current.is_some() || target.is_some())
                .then(|| Box::new(StatusAttributes { current, target })),
            meta,
        }
    }
}
