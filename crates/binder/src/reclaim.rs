//! What becomes of a volume whose claim is gone (D1 to D6).

use bitts_api::{Name, ReclaimPolicy, Source, Volume, names};

use crate::reason::Notice;

/// What reclaiming comes to. Nothing here deletes or wipes data: that is for whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reclaim {
    /// It stays Released: the operator decides (Retain), or the provisioner that made it deletes
    /// it (D4, D10).
    Leave,
    /// It becomes Failed.
    Fail(Failure),
}

/// Why a volume cannot be reclaimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing here deletes volumes of this type (D6).
    NoDeleter(Name),
    /// Its maker, named by annotation, is not known here (D4).
    NoProvisioner(Box<str>),
    /// Recycling is off.
    NoRecycler,
    /// The policy is none that is known.
    UnknownPolicy,
}

impl Failure {
    /// What the status and the event say.
    #[must_use]
    pub fn notice(&self) -> Notice {
        match self {
            Self::NoDeleter(volume) => Notice::warning(
                "VolumeFailedDelete",
                format!(
                    "error getting deleter volume plugin for volume \"{volume}\": no volume plugin matched"
                ),
            ),
            Self::NoProvisioner(name) => Notice::warning(
                "VolumeFailedDelete",
                format!("no volume plugin matched name: {name}"),
            ),
            Self::NoRecycler => Notice::warning(
                "VolumeFailedRecycle",
                "No recycler plugin found for the volume!",
            ),
            Self::UnknownPolicy => Notice::warning(
                "VolumeUnknownReclaimPolicy",
                "Volume has unrecognized PersistentVolumeReclaimPolicy",
            ),
        }
    }
}

/// What is done to a Released volume. The policy counts as it is now (D13).
#[must_use]
pub fn reclaim(volume: &Volume) -> Reclaim {
    if volume.meta.annotations.has(names::MIGRATED_TO) {
        return Reclaim::Leave;
    }
    match &volume.reclaim_policy {
        ReclaimPolicy::Retain => Reclaim::Leave,
        ReclaimPolicy::Recycle => Reclaim::Fail(Failure::NoRecycler),
        ReclaimPolicy::Other(_) => Reclaim::Fail(Failure::UnknownPolicy),
        ReclaimPolicy::Delete => delete(volume),
    }
}

/// Who deletes the volume (D4): an external provisioner, or nobody.
fn delete(volume: &Volume) -> Reclaim {
    match volume.meta.annotations.get(names::PROVISIONED_BY) {
        Some(name) if !name.is_empty() => {
            if name.starts_with(IN_TREE) {
                Reclaim::Fail(Failure::NoProvisioner(name.into()))
            } else {
                Reclaim::Leave
            }
        }
        _ if matches!(volume.source, Source::Csi { .. }) => Reclaim::Leave,
        _ => Reclaim::Fail(Failure::NoDeleter(volume.meta.name.clone())),
    }
}

/// How the names of Kubernetes' own provisioners begin: none of them is built in here.
pub(crate) const IN_TREE: &str = "kubernetes.io/";
