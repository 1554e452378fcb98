//! What becomes of a volume whose claim is gone (D1 to D6).

use bitts_api::{Name, ReclaimPolicy, Source, Volume, names};

use crate::options::{Difference, Options};
use crate::reason::Notice;

/// What reclaiming comes to. Nothing here deletes or wipes data: that is for whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reclaim {
    /// The operator decides: it stays Released (Retain).
    Keep,
    /// Whoever made it deletes it (D4, D10): it stays Released until then.
    LeaveToMaker,
    /// It becomes Failed.
    Fail(Failure),
    /// It is to be wiped and offered again (D8).
    Recycle,
    /// Its object goes, and the directory stays where it is: only where bitts is told to do as
    /// kube-controller-manager, which deletes the directory too, on whatever host it runs (D5).
    DropObject,
}

/// Why a volume cannot be reclaimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing deletes volumes of this type (D6).
    NoDeleter(Name),
    /// NFS volumes can be recycled, not deleted.
    NotDeletable(Name),
    /// Its maker, named by annotation, is not known here (D4).
    NoProvisioner(Box<str>),
    /// Its maker, named by annotation, makes volumes of another type.
    OtherDeleter(Name),
    /// A hostPath volume that is not below /tmp (D5).
    OutsideTmp(Box<str>),
    /// Nothing recycles volumes of this type, or recycling is off.
    NoRecycler,
    /// No node that can reach the volume has an agent that recycles.
    NoAgent,
    /// Another volume's data would be wiped with it.
    Overlaps(Name),
    /// The agent could not wipe it.
    RecycleFailed(Box<str>),
    /// The policy is none that is known.
    UnknownPolicy,
}

impl Failure {
    /// What the status and the event say.
    #[must_use]
    pub fn notice(&self) -> Notice {
        let (reason, message) = match self {
            Self::NoDeleter(volume) => (
                names::reason::VOLUME_FAILED_DELETE,
                format!(
                    "error getting deleter volume plugin for volume \"{volume}\": no volume plugin matched"
                ),
            ),
            Self::NotDeletable(volume) => (
                names::reason::VOLUME_FAILED_DELETE,
                format!(
                    "error getting deleter volume plugin for volume \"{volume}\": \
                     no deletable volume plugin matched"
                ),
            ),
            Self::NoProvisioner(name) if **name == *NFS => (
                names::reason::VOLUME_FAILED_DELETE,
                "no deletable volume plugin matched".into(),
            ),
            Self::NoProvisioner(name) => (
                names::reason::VOLUME_FAILED_DELETE,
                format!("no volume plugin matched name: {name}"),
            ),
            Self::OtherDeleter(volume) => (
                names::reason::VOLUME_FAILED_DELETE,
                format!(
                    "failed to create deleter for volume \"{volume}\": \
                     spec.PersistentVolumeSource.HostPath is nil"
                ),
            ),
            Self::OutsideTmp(path) => (
                names::reason::VOLUME_FAILED_DELETE,
                format!("host_path deleter only supports /tmp/.+ but received provided {path}"),
            ),
            Self::NoRecycler => (
                names::reason::VOLUME_FAILED_RECYCLE,
                "No recycler plugin found for the volume!".into(),
            ),
            Self::NoAgent => (
                names::reason::VOLUME_FAILED_RECYCLE,
                "no node agent offers recycling on a node that can reach the volume: start one \
                 there, or clear spec.claimRef once the data may be given away"
                    .into(),
            ),
            Self::Overlaps(other) => (
                names::reason::VOLUME_FAILED_RECYCLE,
                format!(
                    "wiping this volume would wipe data of volume \"{other}\", whose source overlaps: \
                     nothing was touched"
                ),
            ),
            Self::RecycleFailed(why) => (
                names::reason::VOLUME_FAILED_RECYCLE,
                format!("Recycle failed: {why}"),
            ),
            Self::UnknownPolicy => (
                names::reason::VOLUME_UNKNOWN_RECLAIM_POLICY,
                "Volume has unrecognized PersistentVolumeReclaimPolicy".into(),
            ),
        };
        Notice::warning(reason, message)
    }
}

impl Failure {
    /// Whether the message of a Failed volume is one of these, here or in the original, whose
    /// texts these are.
    pub(crate) fn was_told(message: &str) -> bool {
        [
            "error getting deleter volume plugin for volume ",
            "no deletable volume plugin matched",
            "no volume plugin matched name: ",
            "failed to create deleter for volume ",
            "host_path deleter only supports ",
            "No recycler plugin found for the volume!",
            "no node agent offers recycling ",
            "wiping this volume would wipe ",
            "Recycle failed: ",
            "Volume has unrecognized PersistentVolumeReclaimPolicy",
        ]
        .iter()
        .any(|text| message.starts_with(text))
    }
}

/// What is done to a Released volume. The policy counts as it is now (D13).
#[must_use]
pub fn reclaim(volume: &Volume, options: &Options) -> Reclaim {
    let migrated = volume.meta.annotations.get(names::MIGRATED_TO);
    if migrated.is_some_and(|driver| !driver.is_empty()) {
        return Reclaim::LeaveToMaker;
    }
    match &volume.reclaim_policy {
        ReclaimPolicy::Retain => Reclaim::Keep,
        ReclaimPolicy::Recycle => Reclaim::Recycle,
        ReclaimPolicy::Other(_) => Reclaim::Fail(Failure::UnknownPolicy),
        ReclaimPolicy::Delete => delete(volume, !options.differs(Difference::KeepHostPath)),
    }
}

/// Who deletes the volume (D4): an external provisioner, or nobody. `host_path`: as the original's
/// deleter of such volumes would have it.
fn delete(volume: &Volume, host_path: bool) -> Reclaim {
    let name = || volume.meta.name.clone();
    let annotations = &volume.meta.annotations;
    match (annotations.get(names::PROVISIONED_BY), &volume.source) {
        (Some(HOST_PATH), Source::HostPath { path, .. }) if host_path => below_tmp(path),
        (Some(HOST_PATH), _) if host_path => Reclaim::Fail(Failure::OtherDeleter(name())),
        (Some(maker), _) if maker.starts_with(IN_TREE) => {
            Reclaim::Fail(Failure::NoProvisioner(maker.into()))
        }
        (Some(maker), _) if !maker.is_empty() => Reclaim::LeaveToMaker,
        _ if annotations.has(names::MIGRATED_TO) => Reclaim::LeaveToMaker,
        (_, Source::Csi(_)) => Reclaim::LeaveToMaker,
        (_, Source::HostPath { path, .. }) if host_path => below_tmp(path),
        (_, Source::Nfs { .. }) => Reclaim::Fail(Failure::NotDeletable(name())),
        _ => Reclaim::Fail(Failure::NoDeleter(name())),
    }
}

fn below_tmp(path: &str) -> Reclaim {
    if path
        .split_once("/tmp/")
        .is_some_and(|(_, rest)| !rest.is_empty())
    {
        Reclaim::DropObject
    } else {
        Reclaim::Fail(Failure::OutsideTmp(path.into()))
    }
}

/// How the names of Kubernetes' own provisioners begin: none of them is built in here.
pub(crate) const IN_TREE: &str = "kubernetes.io/";
/// The only one of them that Kubernetes still has, switched off unless asked for.
pub(crate) const HOST_PATH: &str = "kubernetes.io/host-path";
/// A plugin that neither makes nor deletes volumes.
pub(crate) const NFS: &str = "kubernetes.io/nfs";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_is_known_by_its_message() {
        let name = || Name::from("v");
        for failure in [
            Failure::NoDeleter(name()),
            Failure::NotDeletable(name()),
            Failure::NoProvisioner(NFS.into()),
            Failure::NoProvisioner("kubernetes.io/aws-ebs".into()),
            Failure::OtherDeleter(name()),
            Failure::OutsideTmp("/data".into()),
            Failure::NoRecycler,
            Failure::NoAgent,
            Failure::Overlaps(name()),
            Failure::RecycleFailed("no".into()),
            Failure::UnknownPolicy,
        ] {
            let message = failure.notice().message;
            assert!(Failure::was_told(&message), "{message}");
        }
        assert!(!Failure::was_told("") && !Failure::was_told("disk is attached"));
    }
}
