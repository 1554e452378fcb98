//! What keeps a volume and a claim apart, in words and numbers.

use std::collections::BTreeMap;
use std::fmt;

use bitts_api::{Claim, ClassName, Volume, VolumePhase};

use crate::reason::Misfit;

/// The first reason that rules a volume out: a [`Misfit`], told apart further by what the volume
/// is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// It is another claim's, or reserved for one.
    Taken,
    /// Its claim is gone, and its data may still be there.
    Released,
    /// It could not be reclaimed.
    Failed,
    /// Deletion was asked for.
    Deleting,
    /// A file system was asked for and this is a device, or the other way round.
    VolumeMode,
    /// It lacks an access mode.
    AccessModes,
    /// Another VolumeAttributesClass.
    AttributesClass,
    /// It names no capacity that can be read.
    NoCapacity,
    /// It holds less than is asked for.
    TooSmall,
    /// Nobody's, and its phase is not Available (yet).
    NotAvailable,
    /// Another storage class.
    Class,
    /// The claim's selector does not match its labels.
    Selector,
    /// It would do, but no node satisfies its node affinity.
    NoNode,
    /// It would do, and the claim waits for its first consumer.
    Consumer,
    /// It would do; another one was chosen.
    NotChosen,
}

impl Obstacle {
    /// A name for scripts, which stays the same.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Released => "released",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
            Self::VolumeMode => "volume-mode",
            Self::AccessModes => "access-modes",
            Self::AttributesClass => "attributes-class",
            Self::NoCapacity => "no-capacity",
            Self::TooSmall => "too-small",
            Self::NotAvailable => "not-available",
            Self::Class => "class",
            Self::Selector => "selector",
            Self::NoNode => "no-node",
            Self::Consumer => "waits-for-consumer",
            Self::NotChosen => "not-chosen",
        }
    }

    /// The binder's reason for this volume.
    pub(super) fn of(misfit: Misfit, volume: &Volume) -> Self {
        match misfit {
            Misfit::Taken => match volume.phase {
                VolumePhase::Released => Self::Released,
                VolumePhase::Failed => Self::Failed,
                VolumePhase::Pending | VolumePhase::Available | VolumePhase::Bound => Self::Taken,
            },
            Misfit::Deleting => Self::Deleting,
            Misfit::VolumeMode => Self::VolumeMode,
            Misfit::AccessModes => Self::AccessModes,
            Misfit::AttributesClass => Self::AttributesClass,
            Misfit::NoCapacity => Self::NoCapacity,
            Misfit::TooSmall => Self::TooSmall,
            Misfit::Delayed => Self::Consumer,
            Misfit::NotAvailable => Self::NotAvailable,
            Misfit::Class => Self::Class,
            Misfit::Selector => Self::Selector,
            Misfit::NotChosen => Self::NotChosen,
        }
    }

    /// What a claim has to know of the volume, e.g. `holds 1Gi, 2Gi too little`.
    pub(super) fn detail(self, volume: &Volume, claim: &Claim) -> String {
        match self {
            Self::Taken | Self::Released | Self::Failed => self.owner(volume, claim),
            Self::Deleting => "is being deleted".into(),
            Self::VolumeMode => format!(
                "is {}, {} is asked for",
                volume.volume_mode.as_str(),
                claim.volume_mode.as_str()
            ),
            Self::AccessModes => lacking_modes(volume, claim),
            Self::AttributesClass => format!(
                "has {}, {} is asked for",
                named(volume.attributes_class.as_ref(), "attributes class"),
                named(claim.attributes_class.as_ref(), "attributes class")
            ),
            Self::NoCapacity => "says no capacity that can be read".into(),
            Self::TooSmall => too_small(volume, claim),
            Self::NotAvailable => format!(
                "has the phase {}: no binder has offered it yet",
                volume.phase.as_str()
            ),
            Self::Class => format!("has {}", named(volume.class.as_ref(), "class")),
            Self::Selector => {
                let unmet = claim.selector.iter();
                let unmet = unmet.flat_map(|s| s.unmet(&volume.meta.labels));
                let terms: Vec<_> = unmet.map(ToString::to_string).collect();
                format!("does not satisfy {}", terms.join(" and "))
            }
            Self::NoNode => match &volume.node_affinity {
                Some(affinity) => format!("no node satisfies {affinity}"),
                None => String::new(),
            },
            Self::Consumer => "can be had once a pod needs it".into(),
            Self::NotChosen => "would do".into(),
        }
    }

    fn owner(self, volume: &Volume, claim: &Claim) -> String {
        let Some(owner) = &volume.claim_ref else {
            return String::new();
        };
        let same_place = owner.name == claim.meta.name
            && Some(&owner.namespace) == claim.meta.namespace.as_ref();
        let whom = if same_place {
            "an earlier claim of this name".into()
        } else {
            format!("claim {owner}")
        };
        match self {
            Self::Taken if owner.uid.is_none() => format!("is reserved for {whom}"),
            Self::Taken => format!("belongs to {whom}"),
            _ => format!("holds data of {whom}"),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Taken => "taken",
            Self::Released => "released, with data",
            Self::Failed => "failed, with data",
            Self::Deleting => "being deleted",
            Self::VolumeMode => "of another volume mode",
            Self::AccessModes => "without an access mode that is asked for",
            Self::AttributesClass => "of another attributes class",
            Self::NoCapacity => "without a capacity",
            Self::TooSmall => "too small",
            Self::NotAvailable => "not offered yet",
            Self::Class => "of another class",
            Self::Selector => "not selected",
            Self::NoNode => "on no node that exists",
            Self::Consumer => "fitting, for the first pod",
            Self::NotChosen => "fitting",
        })
    }
}

pub(super) fn named(class: Option<&ClassName>, what: &str) -> String {
    match class {
        Some(name) => format!("{what} {name}"),
        None => format!("no {what}"),
    }
}

fn lacking_modes(volume: &Volume, claim: &Claim) -> String {
    let has = volume.access_modes;
    let lacks: Vec<_> = claim
        .access_modes
        .iter()
        .filter(|mode| !has.contains(*mode))
        .map(|mode| mode.short())
        .collect();
    if lacks.is_empty() {
        format!("has {has}, and the claim asks for a mode that is unknown here")
    } else {
        format!("has {has}, lacks {}", lacks.join(","))
    }
}

fn too_small(volume: &Volume, claim: &Claim) -> String {
    match (volume.capacity, claim.request) {
        (Some(has), Some(asked)) => match asked.checked_sub(has) {
            Some(missing) => format!("holds {has}, {missing} too little"),
            None => format!("holds {has}, {asked} is asked for"),
        },
        (Some(has), None) => {
            format!(
                "holds {has}, and what the claim asks for cannot be read or is beyond all limits"
            )
        }
        _ => String::new(),
    }
}

/// Volumes (or claims) that are ruled out by the same reason first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The reason.
    pub reason: Obstacle,
    /// How many there are.
    pub count: usize,
    /// For how many of them it is the only reason.
    pub only_reason: usize,
    /// Their names by what is to be said of them, each in order.
    by_detail: BTreeMap<String, Vec<String>>,
}

impl Group {
    /// All names, in order.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut all: Vec<_> = self.by_detail.values().flatten().map(|n| &**n).collect();
        all.sort_unstable();
        all
    }

    /// What is to be said of which, those that are most first.
    #[must_use]
    pub fn details(&self) -> Vec<(&str, &[String])> {
        let mut all: Vec<_> = self.by_detail.iter().map(|(d, n)| (&**d, &**n)).collect();
        all.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
        all
    }
}

/// Groups in the making.
#[derive(Default)]
pub(super) struct Groups(BTreeMap<Obstacle, Group>);

impl Groups {
    pub(super) fn add(&mut self, reason: Obstacle, only: bool, detail: String, name: String) {
        let group = self.0.entry(reason).or_insert_with(|| Group {
            reason,
            count: 0,
            only_reason: 0,
            by_detail: BTreeMap::new(),
        });
        group.count += 1;
        group.only_reason += usize::from(only);
        group.by_detail.entry(detail).or_default().push(name);
    }

    pub(super) fn finish(self) -> Vec<Group> {
        self.0.into_values().collect()
    }
}
