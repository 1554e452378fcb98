//! Which volumes a pod asks for on its node (A9).

use bitts_api::machine::Cache;
use bitts_api::{
    AccessMode, AccessModes, Claim, ClaimPhase, ClassName, CsiDriver, Name, Node, Pod,
    PodVolumeSource, Source, Volume,
};

use crate::csi_volume::of_driver;
use crate::pair::{Pair, UniqueName};

/// A volume that a pod asks for on its node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ask {
    pub(crate) pair: Pair,
    /// The PersistentVolume by which it asks.
    pub(crate) volume: Name,
    /// Whether the volume may be on one node only (A19).
    pub(crate) single: bool,
    pub(crate) class: Option<ClassName>,
}

/// What has to be looked at.
pub(crate) struct World<'a> {
    pub(crate) claims: &'a Cache<Claim>,
    pub(crate) volumes: &'a Cache<Volume>,
    pub(crate) nodes: &'a Cache<Node>,
    pub(crate) drivers: &'a Cache<CsiDriver>,
}

impl World<'_> {
    /// What a pod asks for: nothing once it ended, and nothing on nodes that attach by themselves.
    pub(crate) fn asks(&self, pod: &Pod) -> Vec<Ask> {
        let Some(node) = pod.node.as_ref().filter(|_| !pod.is_terminated()) else {
            return Vec::new();
        };
        // Where the node is gone the pod is about to go too; until then it says what it wants.
        let object = self.nodes.get(&(None, node.as_str().into()));
        let managed = object.is_none_or(|node| node.is_attached_to());
        if !managed {
            return Vec::new();
        }
        let agents = object.is_some_and(|node| node.is_mounted_by_agent());
        let volumes = pod.volumes.iter().filter_map(|volume| {
            let volume = self.bound(pod, &volume.source)?;
            // Cloud disks are attached there directly (`cloud`), never both ways.
            if agents && matches!(volume.source, Source::GcePersistentDisk { .. }) {
                return None;
            }
            let name = UniqueName::of(volume)?;
            let (driver, _) = name.csi()?;
            let driver = self.drivers.get(&(None, driver.into()));
            driver.is_none_or(|d| d.wants.attach).then(|| Ask {
                single: of_driver(volume).is_some_and(|v| is_single(v.modes)),
                class: volume.class.clone(),
                volume: volume.meta.name.clone(),
                pair: Pair {
                    volume: name,
                    node: node.clone(),
                },
            })
        });
        volumes.collect()
    }

    /// The volume behind a pod's claim, where both sides say so.
    pub(crate) fn bound(&self, pod: &Pod, source: &PodVolumeSource) -> Option<&Volume> {
        let PodVolumeSource::Claim {
            name, ephemeral, ..
        } = source
        else {
            return None;
        };
        let claim = self
            .claims
            .get(&(pod.meta.namespace.clone(), name.clone()))?;
        let foreign = *ephemeral && claim.meta.controller.as_ref() != Some(&pod.meta.uid);
        if foreign || claim.phase != ClaimPhase::Bound {
            return None;
        }
        let volume = self.volumes.get(&(None, claim.volume_name.clone()?))?;
        let owner = volume.claim_ref.as_ref()?.uid.as_ref();
        (owner == Some(&claim.meta.uid)).then_some(&**volume)
    }
}

/// A19: it may be on one node only when it has modes and none is for many nodes.
pub(crate) fn is_single(modes: AccessModes) -> bool {
    let many = [AccessMode::ReadWriteMany, AccessMode::ReadOnlyMany];
    !modes.is_empty() && !many.into_iter().any(|mode| modes.contains(mode))
}
