//! What can be set about the provisioner.

use std::collections::{BTreeMap, BTreeSet};

use bitts_api::{Claim, Kind, Namespace, NodeName, StorageClass, Volume, names};

use crate::class::{ClassError, Template};
use crate::legacy;
use crate::site::{Share, Site};

/// What can be set about a provisioner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where volumes are made.
    pub ground: Ground,
    /// The names that classes know it by.
    pub names: BTreeSet<Box<str>>,
    /// The names of other provisioners whose classes it serves too, in their own words; on shares, each with the
    /// one that it made all its volumes on.
    pub legacy: BTreeMap<Box<str>, Option<Share>>,
    /// In which namespace the scheduler is told of a node's room, if it is.
    pub capacity: Option<Namespace>,
}

/// Where a provisioner makes volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ground {
    /// On the disks of this node, for the claims whose pods run there.
    Node(NodeName),
    /// On the shares that classes name, for all claims.
    Shares,
}

/// The name that classes know the provisioner of nodes' disks by.
pub const LOCAL: &str = "local.bitts.dev";
/// The name that classes know the provisioner of NFS shares by.
pub const NFS: &str = "nfs.bitts.dev";

impl Options {
    /// The provisioner of a node under its usual name.
    #[must_use]
    pub fn new(node: NodeName) -> Self {
        Self {
            ground: Ground::Node(node),
            names: [LOCAL.into()].into(),
            legacy: BTreeMap::new(),
            capacity: None,
        }
    }

    /// The provisioner of NFS shares under its usual name.
    #[must_use]
    pub fn of_shares() -> Self {
        Self {
            ground: Ground::Shares,
            names: [NFS.into()].into(),
            legacy: BTreeMap::new(),
            capacity: None,
        }
    }

    /// Whether a class or annotation means this provisioner.
    #[must_use]
    pub fn serves(&self, provisioner: Option<&str>) -> bool {
        provisioner.is_some_and(|name| self.names.contains(name) || self.legacy.contains_key(name))
    }

    /// Reads a class of ours, or of one whose classes are served too.
    pub(crate) fn template(&self, class: &StorageClass) -> Result<Template, ClassError> {
        match self.legacy.get(&class.provisioner) {
            None => Template::read(class, &self.ground),
            Some(share) => Template::read(&legacy::as_ours(class, share.as_ref()), &self.ground),
        }
    }

    /// Whether a claim was placed where this makes volumes.
    pub(crate) fn has(&self, claim: &Claim) -> bool {
        match &self.ground {
            Ground::Node(node) => {
                claim.meta.annotations.get(names::SELECTED_NODE) == Some(node.as_str())
            }
            Ground::Shares => true,
        }
    }

    /// Whether a volume is one that this made.
    pub(crate) fn made(&self, volume: &Volume) -> bool {
        let annotations = &volume.meta.annotations;
        let made_on = annotations.get(names::PROVISIONED_ON);
        match &self.ground {
            Ground::Node(node) => made_on == Some(node.as_str()),
            Ground::Shares => {
                made_on.is_some() && self.serves(annotations.get(names::PROVISIONED_BY))
            }
        }
    }

    /// Where a volume that this made lies, unless it was changed since.
    pub(crate) fn site_of(&self, volume: &Volume) -> Option<Site> {
        match &self.ground {
            Ground::Node(_) => Some(Site::Disks),
            Ground::Shares => Share::of_volume(volume).map(Site::Share),
        }
    }

    pub(crate) fn watches(&self, kind: Kind) -> bool {
        kind != Kind::Node || matches!(self.ground, Ground::Node(_))
    }
}
